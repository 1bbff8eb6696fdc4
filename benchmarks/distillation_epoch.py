"""How long one epoch of hard distillation takes, ours against what a reader would write or pick.

A DeiT-Ti learns from a ResNet-50, on the same crops and in batches of the same size, by each of
the variants in `distillation_variants.py`. Each measurement is a process of its own with all
cores; repetitions are interleaved, so that what else the machine does falls on all variants alike,
and ratios are taken within a repetition.

    python benchmarks/distillation_epoch.py --settings 224x32 112x16 64x16

A call that was broken off is taken up where it was; a complete one is measured anew. Settings that
are not named keep their figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from distillation_variants import VARIANTS, Setting, make_teacher, take_crops
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.figures import COLOURS, bars, save_fig, use_style
from helpers.files import project_path, read_csv, write_csv, write_json

LABELS = {
    "reference": "PIL + torchvision, float32",
    "timm": "timm's task and loader",
    "timm_channels_last": "the same, channels last",
    "live": "ours, live teacher",
    "replayed": "ours, replayed labels",
    "live_ready": "ours, live, batches ready",
    "replayed_ready": "ours, replayed, batches ready",
}
KEY = ["device", "threads", "image_size", "batch_size", "images"]
_NAME = "distillation_epoch"
_MEMORY_SECONDS = 0.5


def tree_memory(process: int) -> float:
    """Return the MB of memory of `process` and all its descendants; NaN where /proc is missing.

    The proportional set size: a page that a loader's workers share counts once.
    """
    total, waiting, known = 0.0, [process], False
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
            for children in folder.glob("task/*/children"):
                waiting += children.read_text().split()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        known = True
    return total if known else float("nan")


def run_variant(variant: str, setting: Setting, folder: Path, cores: list[int]) -> dict:
    """Measure `variant` in a process of its own on `cores`, with its peak `memory_mb`.

    Raises `StudyError` with the process's last words where it fails.
    """
    write_json(folder / "setting.json", asdict(setting))
    script = str(Path(__file__).with_name("distillation_variants.py"))
    files = [str(folder / name) for name in ("setting.json", "result.json")]
    environment = os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    with open(folder / "log.txt", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, script, variant, *files],
            env=environment, cwd=project_path("."), stdout=log, stderr=log,
        )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        peak, done = [float("nan")], threading.Event()

        def watch() -> None:
            while not done.wait(_MEMORY_SECONDS):
                peak[0] = np.fmax(peak[0], tree_memory(process.pid))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            process.wait()
        finally:
            process.kill()
            done.set()
            watcher.join()
        if process.returncode:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no word"])[-1]
            raise StudyError(f"The variant {variant} ended with {process.returncode}: {last}")
    return json.loads((folder / "result.json").read_text()) | {"memory_mb": peak[0]}


def measure_setting(
    setting: Setting, images: int, repeats: int, variants: list[str], runs_file: Path
) -> None:
    """Measure all `variants` in turn, `repeats` times, and add each measurement to `runs_file`.

    `images`: how many training crops at most; what does not fill a batch is left out.
    """
    everything = read_csv(runs_file) if runs_file.is_file() else pd.DataFrame()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = take_crops(setting.crops_dir, folder / "crops", images)
        count = min(images, there) // setting.batch_size * setting.batch_size
        if count == 0:
            raise StudyError(
                f"The {there} training crops in {setting.crops_dir} do not fill a batch of "
                f"{setting.batch_size}."
            )
        take_crops(setting.crops_dir, folder / "crops", count)
        setting = replace(
            setting, crops_dir=str(folder / "crops"), teacher_dir=setting.teacher_dir or name
        )
        key = {"device": setting.device, "threads": setting.threads, "images": count}
        key |= {"image_size": setting.image_size, "batch_size": setting.batch_size}
        mine = pd.Series(True, index=everything.index)
        for column, value in key.items():
            mine &= everything[column] == value if len(everything) else True
        rows = everything[mine].to_dict("records")
        others = everything[~mine]
        wanted = {(repeat, variant) for repeat in range(repeats) for variant in variants}
        done = {(row["repeat"], row["variant"]): row for row in rows}
        if wanted <= set(done):
            done = {}
        if setting.teacher_dir == name:
            setting = replace(setting, teacher_dir=str(folder / "teacher"))
            make_teacher(setting)
        what = f"{setting.image_size} px, batch {setting.batch_size}"
        with tqdm(total=len(wanted), initial=len(wanted & set(done)), desc=what) as bar:
            for repeat in range(repeats):
                shift = repeat % len(variants)
                for variant in variants[shift:] + variants[:shift]:
                    if (repeat, variant) in done:
                        continue
                    known = [row for row in done.values() if row["variant"] == variant]
                    chosen = known[0]["precision"] if known else None
                    result = run_variant(
                        variant,
                        replace(setting, precision=chosen),
                        folder,
                        cores[-setting.threads :],
                    )
                    rate = count / result["seconds"]
                    row = key | {"variant": variant, "repeat": repeat} | result
                    done[repeat, variant] = row | {"images_per_second": rate}
                    table = pd.concat([others, pd.DataFrame(list(done.values()))])
                    write_csv(runs_file, table)
                    bar.update()


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a setting and variant: median, least and most of speed and of each ratio.

    `ratio_to_<variant>` is speed over that variant's speed in the same repetition;
    `share_of_ready` the speed of ours over that with the batches ready on the device.
    """
    rows = []
    for key, group in runs.groupby(KEY, sort=False):
        speed = group.pivot(index="repeat", columns="variant", values="images_per_second")
        for variant in [name for name in VARIANTS if name in speed]:
            mine = group[group["variant"] == variant]
            row = dict(zip(KEY, key, strict=True)) | {"variant": variant, "repeats": len(mine)}
            row["precision"] = mine["precision"].iloc[0]
            measured = {"images_per_second": speed[variant]}
            for other in ("reference", "timm", "timm_channels_last"):
                if other in speed:
                    measured[f"ratio_to_{other}"] = speed[variant] / speed[other]
            if f"{variant}_ready" in speed:
                measured["share_of_ready"] = speed[variant] / speed[f"{variant}_ready"]
            for name, values in measured.items():
                row[name] = values.median()
                row[f"{name}_least"], row[f"{name}_most"] = values.min(), values.max()
            for name in ("memory_mb", "gpu_memory_mb", "teacher_precision"):
                if name in mine:
                    values = mine[name]
                    row[name] = values.iloc[0] if values.dtype.kind not in "fi" else values.max()
            rows.append(row)
    return pd.DataFrame(rows)


def in_words(summary: pd.DataFrame) -> str:
    """Return the table as text, a block for each setting."""

    def spread(row: pd.Series, name: str) -> str:
        value = row.get(name, np.nan)
        if np.isnan(value):
            return ""
        return f"{value:.2f} [{row[f'{name}_least']:.2f}, {row[f'{name}_most']:.2f}]"

    blocks = []
    for key, group in summary.groupby(KEY, sort=False):
        about = dict(zip(KEY, key, strict=True))
        heading = ", ".join(f"{name} {value}" for name, value in about.items())
        columns = {
            "images/s": "images_per_second",
            "to reference": "ratio_to_reference",
            "to timm": "ratio_to_timm",
            "to timm, channels last": "ratio_to_timm_channels_last",
            "of ready batches": "share_of_ready",
        }
        table = pd.DataFrame(
            {
                label: [spread(row, name) for _, row in group.iterrows()]
                for label, name in columns.items()
            },
            index=[LABELS[name] for name in group["variant"]],
        )
        table.insert(0, "precision", group["precision"].to_numpy())
        table["memory, MB"] = group["memory_mb"].map("{:.0f}".format).to_numpy()
        if "gpu_memory_mb" in group and group["gpu_memory_mb"].notna().any():
            table["GPU memory, MB"] = group["gpu_memory_mb"].map("{:.0f}".format).to_numpy()
        blocks.append(f"{heading} (median [least, most])\n{table.to_string()}")
    return "\n\n".join(blocks)


def draw(summary: pd.DataFrame) -> plt.Figure:
    """Draw speed (bars: median, lines: least to most) and peak memory, a row for each setting."""
    groups = list(summary.groupby(KEY, sort=False))
    size = (10.5, 0.9 + 0.42 * len(summary))
    heights = [1 + len(group) for _, group in groups]
    fig, axes = plt.subplots(
        len(groups), 2, figsize=size, squeeze=False, width_ratios=[3, 2], height_ratios=heights
    )
    colour = {"reference": COLOURS["none"], "timm": "#A6A6A6"}
    for (key, group), (left, right) in zip(groups, axes, strict=True):
        about = dict(zip(KEY, key, strict=True))
        colours = [colour.get(name.split("_")[0], COLOURS["resnet50"]) for name in group["variant"]]
        names = [LABELS[name] for name in group["variant"]]
        speed, least, most = (
            group[f"images_per_second{end}"].to_numpy() for end in ("", "_least", "_most")
        )
        bars(left, names, speed, colours=colours, form="{:,.3g}")
        left.hlines(np.arange(len(names)) + 0.25, least, most, color=COLOURS["truth"], linewidth=1)
        bars(right, [""] * len(names), group["memory_mb"], colours=colours, form="{:,.0f}")
        left.set_title(
            f"{about['image_size']} px, batch {about['batch_size']} ({about['device']}, "
            f"threads: {about['threads']})"
        )
        left.set_xlabel("images a second")
        right.set_xlabel("peak memory, MB")
    return fig


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Measure by the command line's arguments, write tables and figure, and return the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops-dir", default="data/crops/quick")
    parser.add_argument(
        "--teacher-dir", default="",
        help="run folder of a ResNet-50 trained at this image size; without it an untrained one",
    )  # fmt: skip
    parser.add_argument("--settings", nargs="+", default=["224x32"], help="image size x batch size")
    parser.add_argument("--images", type=int, default=256, help="training crops an epoch, at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--results-dir", default="results/benchmarks")
    parser.add_argument("--figures-dir", default="figures/benchmarks")
    given = parser.parse_args(arguments)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results = project_path(given.results_dir)
    runs_file = results / f"{_NAME}_runs.csv"
    for text in given.settings:
        image_size, batch_size = (int(part) for part in text.split("x"))
        setting = Setting(
            given.crops_dir, given.teacher_dir, device, image_size, batch_size,
            given.threads or available,
        )  # fmt: skip
        measure_setting(setting, given.images, given.repeats, given.variants, runs_file)
    summary = summarise(read_csv(runs_file))
    write_csv(results / f"{_NAME}.csv", summary)
    use_style()
    figure = draw(summary)
    save_fig(figure, given.figures_dir, _NAME)
    plt.close(figure)
    print(in_words(summary))
    return summary


if __name__ == "__main__":
    try:
        main()
    except StudyError as error:
        sys.exit(str(error))
