"""How long one face takes each architecture, on one core of this machine and nothing else on it.

python benchmarks/latency.py [--image-size 112] [--rounds 200]

An architecture is measured once, not a run: its weights change nothing. The networks take turns, so
that what else the machine does falls on all of them alike, and the range says how much that is.
Writes results/latency.csv beside this file: arm, image_size, median, 5th and 95th percentile in ms
of a forward pass in float32, the processor. Chapter 5 shows it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from helpers import models
from helpers.files import write_csv
from helpers.runs import processor

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image-size", type=int, default=112, help="pixels")
parser.add_argument("--rounds", type=int, default=200)
given = parser.parse_args()
torch.set_num_threads(1)
build = {"resnet50": models.build_teacher, "swin": models.build_teacher}
build |= {"deit_tiny": models.build_student, "deit_small": models.build_student}
networks = {name: make(name, "scratch", given.image_size)[0].eval() for name, make in build.items()}
image, times = torch.zeros(1, 3, given.image_size, given.image_size), {name: [] for name in build}
with torch.inference_mode():
    for _ in tqdm(range(given.rounds + 3), "Taking turns", unit="round"):
        for name, model in networks.items():
            begin = time.perf_counter()
            models.head_logits(model, image)
            times[name].append(1000 * (time.perf_counter() - begin))
ends = {name: np.percentile(found[3:], [50, 5, 95]) for name, found in times.items()}  # warmed up
table = pd.DataFrame(ends, ["median_ms", "low_ms", "high_ms"]).T.rename_axis("arm").reset_index()
table["image_size"], table["processor"] = given.image_size, processor()
write_csv(Path(__file__).parent / "results/latency.csv", table)
print(table.round(1).to_string(index=False))
print(
    (table["median_ms"] / table["median_ms"].iloc[2]).round(2).rename("times DeiT-Ti").to_string()
)
