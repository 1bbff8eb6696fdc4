"""Notebook 02's throughput against calling `MTCNN.detect` face by face, on halves of full size.

    python benchmarks/crop_throughput.py [--real FOLDER]

The baseline is `facenet_pytorch.MTCNN()` as it comes, one picture after the other, already decoded,
with torch's own choice of threads: detection alone. Against it stands all of notebook 02's work in
a process of its own: reading, finding, cropping, writing, manifest. Both take turns. Prints times
by the clock (`ms`) and of the processor (`cpu_ms`, which other programs disturb less), ratios,
overlap of the boxes and memory, and writes results/benchmarks/crop_throughput.csv.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from crop_halves import SAME, library_face, overlap, prepare_real, prepare_standin, repeat
from facenet_pytorch import MTCNN
from PIL import Image

from helpers.cropping import crops
from helpers.devices import pick_device
from helpers.files import project_path, read_csv, write_csv
from helpers.prose import markdown_table
from helpers.work import peak_memory


def main() -> None:
    """Read the command line, measure each source of halves, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=150, help="bundled pairs, enlarged")
    parser.add_argument("--real", type=Path, help="a folder of real pairs")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; the median counts")
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", default="results/benchmarks/crop_throughput.csv")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        prepare_standin(Path(work), options.pairs)
        sources = ["standin"]
        if options.real is not None:
            prepare_real(Path(work), options.real)
            sources.append("real")
            repeat(Path(work) / "real", 100)
        for source in sources:
            rows.append(measure(Path(work), source, options.rounds, options.device))
    table = pd.DataFrame(rows)
    write_csv(project_path(options.out), table)
    print(f"{os.cpu_count()} cores; the baseline had {torch.get_num_threads()} torch threads.")
    print(markdown_table(_readable(table)))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table on its side, with as many digits as mean something."""
    digits = table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    return digits.set_index("source").T.reset_index(names="")


def measure(work: Path, source: str, rounds: int, device: str) -> dict:
    """Return one row of the table: the halves in `work/source` by both ways, in turns."""
    table = read_csv(work / source / "manifest.csv")
    pictures = [Image.open(work / source / path).convert("RGB") for path in table["path"]]
    mtcnn = MTCNN(keep_all=True, device=pick_device(device))
    library_face(mtcnn, pictures[0])
    spawn = multiprocessing.get_context("spawn")
    baseline, ours = [], []
    for _ in range(rounds):
        begin, cpu = time.perf_counter(), time.process_time()
        expected = [library_face(mtcnn, picture) for picture in pictures]
        baseline.append((time.perf_counter() - begin, time.process_time() - cpu))
        shutil.rmtree(work / "crops", ignore_errors=True)
        with spawn.Pool(1) as pool:
            ours.append(pool.apply(crop, (work / source, work / "crops", device)))
    *quick, empty, full = np.median(ours, axis=0)
    quick, slow = np.array(quick) / len(table), np.median(baseline, axis=0) / len(table)
    found = crops.read_detections(work / "crops").set_index("image_id")["face"]
    overlaps = [
        overlap(found[i], face) for i, face in zip(table["image_id"], expected, strict=True)
    ]
    return {
        "source": source,
        "faces": len(table),
        "pixels": f"{table['width'].median():.0f}x{table['height'].median():.0f}",
        "baseline_ms": 1e3 * slow[0],
        "crop_faces_ms": 1e3 * quick[0],
        "ratio": slow[0] / quick[0],
        "baseline_cpu_ms": 1e3 * slow[1],
        "crop_faces_cpu_ms": 1e3 * quick[1],
        "cpu_ratio": slow[1] / quick[1],
        "found_baseline": sum(face is not None for face in expected),
        "found": sum(face is not None for face in found),
        "same": int((np.array(overlaps) >= SAME).sum()),
        "iou_min": min(overlaps),
        "iou_median": float(np.median(overlaps)),
        "mib_at_rest": empty,
        "mib_peak": full,
    }


def crop(prepared: Path, out: Path, device: str) -> tuple[float, float, float, float]:
    """Crop as the configs do; return seconds, processor seconds, MiB held before and at most."""
    empty, begin, cpu = _held(), time.perf_counter(), time.process_time()
    crops.crop_faces(prepared, out, 256, 0.2, 80, device)
    return time.perf_counter() - begin, time.process_time() - cpu, empty, _held()


def _held() -> float:
    """Return the most memory held so far, in MiB; on Linux without what the parent process held."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_memory()
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
