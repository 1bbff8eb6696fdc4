"""What could give a label away without showing pain: side, brightness, seam, format, background.

Each is turned into numbers here and handed to a probe (`helpers.cropping.probes`).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.cropping.probes import probe
from helpers.cropping.small_net import small_net_learner
from helpers.dataset.naming import CELL
from helpers.files import existing_folder, project_path, read_csv
from helpers.metrics import is_pain
from helpers.work import side_by_side

_DEMOGRAPHICS = [name for name in CELL if name != "expression"]
# The upper corners of a half, as shares of height and width: wall only, above the shoulders and
# beside the head.
_CORNER = (0.32, 0.15)
_EDGE = 3  # columns at the seam's side, of a picture of `_HALF_SIZE`
_HALF_SIZE, _CROP_SIZE = (80, 92), (64, 64)  # width and height in pixels
_THUMBNAIL = (20, 23)  # width and height in pixels
_NET_SIZE = (48, 54)
_NET_EPOCHS = 8


def read_pictures(folder: Path, paths: pd.Series, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures `paths` below `folder`, brought to `size` (width, height).

    The result is (N, height, width, 3) uint8.
    """

    def read(path: str) -> np.ndarray:
        with Image.open(folder / path) as image:
            image.draft("RGB", size)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))

    return np.stack(list(side_by_side(read, list(paths), "Reading pictures", "picture")))


def background(images: np.ndarray) -> np.ndarray:
    """Return the upper corners of (N, H, W, 3) pictures side by side, (N, h, 2 w, 3)."""
    height, width = (round(s * n) for s, n in zip(_CORNER, images.shape[1:3], strict=True))
    top = images[:, :height]
    return np.concatenate([top[:, :, :width], top[:, :, -width:]], axis=2)


def colour_statistics(images: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation and quartiles of each channel, (N, 15)."""
    pixels = images.reshape(len(images), -1, 3).astype(np.float32)
    quartiles = np.quantile(pixels, [0.25, 0.5, 0.75], axis=1)
    parts = [pixels.mean(1), pixels.std(1), *quartiles]
    return np.concatenate(parts, axis=1)


def file_sizes(folder: Path, paths: pd.Series) -> np.ndarray:
    """Return the size of each file in bytes and its logarithm, (N, 2)."""
    size = np.array([(folder / path).stat().st_size for path in paths], dtype=float)
    return np.stack([size, np.log(size)], axis=1)


def one_hot(table: pd.DataFrame) -> np.ndarray:
    """Return the combinations of a table's columns as indicators, (N, combinations)."""
    codes = table.astype(str).agg(" ".join, axis=1)
    return pd.get_dummies(codes).to_numpy(float)


def probe_pairs(
    prepared_dir: str | Path, raw_dir: str | Path, samples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Probe for the expression of a pair what should not tell it.

    The neutral half, the background and the colours of the expressive half, the file's size and
    the demographic cell, each by logistic regression, pictures by a small network as well. Nothing
    in how the pairs were made may link them to Pain or NoPain, so each AUROC should be 0.5.

    Returns one row a probe: `probe`, `learner`, `pairs`, `estimate`, `low`, `high`.
    """
    folder = existing_folder(prepared_dir, "prepared faces of notebook 01")
    faces = read_csv(folder / "manifest.csv")
    left, right = (faces[faces["side"] == side].set_index("identity") for side in ("left", "right"))
    right = right.loc[left.index]
    sources = read_csv(folder / "pairs.csv").set_index("identity").loc[left.index]
    neutral = read_pictures(folder, left["path"], _NET_SIZE)
    expressive = read_pictures(folder, right["path"], (2 * _NET_SIZE[0], 2 * _NET_SIZE[1]))
    walls = background(expressive)
    things = {
        ("neutral half", "logistic"): _thumbnails(neutral, _THUMBNAIL),
        ("neutral half", "network"): neutral,
        ("background", "logistic"): _thumbnails(walls, (4, 15)),
        ("background", "network"): walls,
        ("colour statistics", "logistic"): colour_statistics(expressive),
        ("file size", "logistic"): file_sizes(project_path(raw_dir), sources["path"]),
        ("demographic cell", "logistic"): one_hot(left[_DEMOGRAPHICS]),
    }
    pain = (left["expression"] == "Pain").to_numpy()
    cells = left[_DEMOGRAPHICS].astype(str).agg(" ".join, axis=1)
    network = small_net_learner(_NET_EPOCHS, seed)
    rows = []
    for (name, learner), features in things.items():
        by = network if learner == "network" else None
        estimate = probe(features, pain, list(left.index), cells, by, samples, seed)
        rows.append({"probe": name, "learner": learner, "pairs": len(pain), **estimate.row()})
    return pd.DataFrame(rows)


def probe_faces(
    prepared_dir: str | Path, crops_dir: str | Path, samples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Probe for the label of a face what shows no face: in its source, and in its crop.

    The source is the file of the pair (its side, format, size and seam, as notebook 01 noted them)
    and the prepared half (brightness, background); the crop is what the networks see, and its file.
    Each is asked twice: Pain against every other face, and among the expressive halves alone, where
    the side, which the labelling rule itself ties to the label, says nothing.

    Returns one row a probe: `shortcut`, `where` (source or crop), `contrast` (all or expressive),
    `faces`, `estimate`, `low`, `high` of the AUROC.
    """
    prepared_folder = existing_folder(prepared_dir, "prepared faces of notebook 01")
    crops_folder = existing_folder(crops_dir, "cropped faces of notebook 02")
    faces = read_csv(prepared_folder / "manifest.csv")
    crops = read_csv(crops_folder / "manifest.csv").set_index("image_id").loc[faces["image_id"]]
    sources = read_csv(prepared_folder / "pairs.csv").set_index("identity").loc[faces["identity"]]
    halves = read_pictures(prepared_folder, faces["path"], _HALF_SIZE)
    squares = read_pictures(crops_folder, crops["path"], _CROP_SIZE)
    edges = sources[["seam_start", "seam_end"]].div(sources["width"], axis=0)
    inner = np.where(
        (faces["side"] == "left").to_numpy()[:, None, None, None],
        halves[:, :, -_EDGE:],
        halves[:, :, :_EDGE],
    )
    things = {
        ("side", "source"): one_hot(faces[["side"]]),
        ("file format and size", "source"): np.hstack(
            [one_hot(sources[["format", "mode"]]), sources[["width", "height", "bytes"]]]
        ),
        ("file format and size", "crop"): file_sizes(crops_folder, crops["path"]),
        ("seam", "source"): np.hstack([one_hot(sources[["seam"]]), edges]),
        ("edge at the seam", "source"): inner.mean(axis=1).reshape(len(faces), -1),
        ("brightness", "source"): _brightness(halves),
        ("brightness", "crop"): _brightness(squares),
        ("background", "source"): _thumbnails(background(halves), (4, 15)),
        ("background", "crop"): _thumbnails(background(squares), (4, 8)),
    }
    pain, expressive = is_pain(faces), (faces["side"] == "right").to_numpy()
    cells = faces[_DEMOGRAPHICS].astype(str).agg(" ".join, axis=1)
    rows = []
    for contrast, mask in (("all", np.ones(len(faces), bool)), ("expressive", expressive)):
        for (shortcut, where), features in things.items():
            if (shortcut, contrast) == ("side", "expressive"):
                continue
            people = list(faces["identity"][mask])
            found = probe(features[mask], pain[mask], people, cells[mask], None, samples, seed)
            row = {"shortcut": shortcut, "where": where, "contrast": contrast}
            rows.append({**row, "faces": int(mask.sum()), **found.row()})
    return pd.DataFrame(rows)


def _brightness(images: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of each channel, (N, 6)."""
    # One by one: as floats, all pictures of a large set would not fit into memory.
    return np.stack([np.append(x.mean(axis=(0, 1)), x.std(axis=(0, 1))) for x in images])


def _thumbnails(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pictures = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(picture) for picture in pictures])
