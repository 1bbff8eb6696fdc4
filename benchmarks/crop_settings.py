"""What the detector's settings cost and keep: smallest face, scale of the input, batch.

    python benchmarks/crop_settings.py [--real FOLDER]

Measures `FaceDetector` on full-size halves: bundled pairs, enlarged (`standin`); the same, shrunk
onto a canvas, so that a face has about 100 pixels (`small`); real pairs where a folder of them is
given (`real`). A face is kept where its box overlaps with that of `facenet_pytorch.MTCNN.detect`
with default settings, intersection over union 0.8 or more. Times are of one core. Prints the table
and writes results/benchmarks/crop_settings.csv, which notebook 02 shows.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from crop_halves import SAME, library_face, overlap, prepare_real, prepare_standin
from facenet_pytorch import MTCNN
from PIL import Image
from tqdm import tqdm

from helpers.cropping.align import Face
from helpers.cropping.detector import FaceDetector
from helpers.devices import pick_device
from helpers.files import project_path, write_csv
from helpers.prose import markdown_table

SIZES = (20, 40, 80, 112, 160)
SCALES = (1, 2, 4)  # one over
BATCHES = (1, 8, 32)
_SHRUNK = 1 / 3


def main() -> None:
    """Read the command line, measure all settings, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=24, help="bundled pairs, enlarged")
    parser.add_argument("--real", type=Path, help="a folder of real pairs")
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", default="results/benchmarks/crop_settings.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = {"standin": _read(work / "standin", prepare_standin(work, options.pairs))}
        sources["small"] = [_shrink(picture) for picture in sources["standin"]]
        if options.real is not None:
            sources["real"] = _read(work / "real", prepare_real(work, options.real))
    rows = []
    for source, pictures in sources.items():
        rows += measure(source, pictures, options.device)
    table = pd.DataFrame(rows)
    write_csv(project_path(options.out), table)
    print(markdown_table(table.round(3).astype(str)))


def measure(source: str, pictures: list[np.ndarray], device: str) -> list[dict]:
    """Return a row a setting; the first is the library's own, face by face."""
    mtcnn = MTCNN(keep_all=True, device=pick_device(device))
    images = [Image.fromarray(picture) for picture in pictures]
    library_face(mtcnn, images[0])
    expected, seconds = _timed(lambda: [library_face(mtcnn, image) for image in images], device)
    rows = [_row(source, "MTCNN.detect", 20, 1, 1, expected, expected, seconds)]
    # A face of the smallest size keeps as many pixels as the library's default asks of it.
    settings = [(size, k) for size in SIZES for k in SCALES if size / k >= 20]
    for size, k in tqdm(settings, desc=source, unit="setting", mininterval=2):
        detector = FaceDetector(size / k, device)
        detector(_reduced(pictures[:1], k))
        for batch in BATCHES:

            def search(detector=detector, k=k, batch=batch) -> list[Face | None]:
                groups = [pictures[i : i + batch] for i in range(0, len(pictures), batch)]
                return [face for group in groups for face in detector(_reduced(group, k))]

            faces, seconds = _timed(search, device)
            faces = [_enlarged(face, k) for face in faces]
            rows.append(_row(source, "FaceDetector", size, 1 / k, batch, faces, expected, seconds))
    return rows


def _timed(work: Callable, device: str) -> tuple[list, float]:
    """Return the result and the seconds: of the processor, or by the clock where a GPU works."""
    clock = time.process_time if pick_device(device).type == "cpu" else time.perf_counter
    begin = clock()
    result = work()
    return result, clock() - begin


def _row(source, method, size, scale, batch, faces, expected, seconds) -> dict:
    there = [(a, b) for a, b in zip(faces, expected, strict=True) if b is not None]
    overlaps = np.array([overlap(a, b) for a, b in there])
    return {
        "source": source,
        "method": method,
        "min_face_size": size,
        "scale": scale,
        "batch": batch,
        "pictures": len(faces),
        "ms": 1e3 * seconds / len(faces),
        "found": sum(face is not None for face in faces),
        "expected": len(there),
        "kept": int((overlaps >= SAME).sum()),
        "iou_min": overlaps.min() if len(overlaps) else np.nan,
        "iou_median": np.median(overlaps) if len(overlaps) else np.nan,
    }


def _read(folder: Path, manifest: pd.DataFrame) -> list[np.ndarray]:
    """Return the faces of a prepared folder, cut to the size that all of them have."""
    width, height = manifest["width"].min(), manifest["height"].min()
    pictures = (Image.open(folder / path).convert("RGB") for path in manifest["path"])
    return [np.asarray(picture)[:height, :width] for picture in pictures]


def _shrink(picture: np.ndarray) -> np.ndarray:
    """Return the picture shrunk into the middle of a canvas of its own size and mean colour."""
    small = Image.fromarray(picture).reduce(round(1 / _SHRUNK))
    canvas = Image.new("RGB", picture.shape[1::-1], tuple(picture.mean((0, 1)).astype(int)))
    canvas.paste(small, ((canvas.width - small.width) // 2, (canvas.height - small.height) // 2))
    return np.asarray(canvas)


def _reduced(pictures: list[np.ndarray], k: int) -> list[np.ndarray]:
    if k == 1:
        return pictures
    return [np.asarray(Image.fromarray(picture).reduce(k)) for picture in pictures]


def _enlarged(face: Face | None, k: int) -> Face | None:
    return face and Face(face.box * k, face.landmarks * k, face.probability)


if __name__ == "__main__":
    main()
