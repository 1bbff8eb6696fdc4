"""The rendered faces of pretraining, cropped as the study's are."""

from pathlib import Path

from tqdm import tqdm

from helpers.files import project_path, read_csv, sha256, write_csv


def crop_pretraining_faces(folder: str | Path, out_dir: str | Path, device: str = "auto") -> Path:
    """Crop the rendered faces in `folder` as notebook 02 crops the study's, and return `out_dir`.

    `folder` holds `faces/` and `attributes.csv`. Crops that are there are kept.
    """
    from helpers.cropping.crops import crop_faces  # here: training needs no face detector
    from helpers.dataset.prepare import MANIFEST_COLUMNS

    folder = project_path(folder)
    faces = read_csv(folder / "attributes.csv")
    paths = "faces/" + faces["image_id"] + ".jpg"
    table = faces[["image_id", "identity", "gender", "age", "ethnicity"]].assign(
        path=paths,
        side="right",
        label="NoPain",
        expression="NoPain",
        split="train",
        width=328,
        height=368,
        sha256=[sha256(folder / path) for path in tqdm(paths, desc="Hashing", unit="face")],
    )
    write_csv(folder / "manifest.csv", table[MANIFEST_COLUMNS])
    crop_faces(folder, out_dir, crop_size=256, margin=0.2, min_face_size=80, device=device)
    return project_path(out_dir)
