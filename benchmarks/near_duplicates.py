"""Measure the perceptual hash that finds the same picture under two names.

python benchmarks/near_duplicates.py FOLDER [--every 20]

FOLDER holds prepared faces (manifest.csv). Printed are the smallest distances between halves of
different people, how many of a larger set would fall below the threshold if the tail went on as it
does, and the distances between halves and changed copies of them.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

from helpers.dataset.duplicates import HASH_BITS, MOST_BITS, picture_hash
from helpers.dataset.pictures import read_rgb
from helpers.files import read_csv


def _saved(quality: int) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        return Image.open(data).convert("RGB")

    return save


def _scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def _cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.crop(
        (round(share * image.width), round(share * image.height), image.width, image.height)
    )


COPIES = {
    "JPEG, quality 75": _saved(75),
    "JPEG, quality 40": _saved(40),
    "JPEG, quality 20": _saved(20),
    "half the size": _scaled(0.5),
    "a quarter of the size": _scaled(0.25),
    "twice the size": _scaled(2),
    "blurred (0.6 % of the width)": lambda i: i.filter(ImageFilter.GaussianBlur(0.006 * i.width)),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20 % less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "0.5 % cut off two edges": _cropped(0.005),
    "1 % cut off two edges": _cropped(0.01),
    "2 % cut off two edges": _cropped(0.02),
}


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="prepared faces")
    parser.add_argument("--every", type=int, default=20, help="of which face copies are made")
    options = parser.parse_args()
    faces = read_csv(options.folder / "manifest.csv")
    pictures = [read_rgb((options.folder / path).absolute()) for path in faces["path"]]
    codes = [picture_hash(pixels) for pixels in pictures]
    words = np.frombuffer(b"".join(map(bytes.fromhex, codes)), np.uint64)
    _print_strangers(words.reshape(len(codes), -1), faces["identity"].to_numpy())
    rows = []
    for name, change in COPIES.items():
        bits = []
        for pixels, code in zip(pictures[:: options.every], codes[:: options.every], strict=True):
            copy = picture_hash(np.asarray(change(Image.fromarray(pixels))))
            bits.append((int(code, 16) ^ int(copy, 16)).bit_count())
        found = f"{np.mean(np.array(bits) <= MOST_BITS):.0%}"
        rows.append((name, int(np.median(bits)), max(bits), found))
    print(f"\n{len(bits)} halves and copies of them:")
    print(
        pd.DataFrame(rows, columns=["copy", "median bits", "most", "found"]).to_string(index=False)
    )


def _print_strangers(words: np.ndarray, people: np.ndarray) -> None:
    counts = np.zeros(HASH_BITS + 1, dtype=int)
    for n in range(len(words) - 1):
        bits = np.bitwise_count(words[n] ^ words[n + 1 :]).sum(axis=1)
        counts += np.bincount(bits[people[n + 1 :] != people[n]], minlength=HASH_BITS + 1)
    total, below = counts.sum(), counts.cumsum()
    print(
        f"{total:,} pairs of halves of different people; threshold {MOST_BITS} of {HASH_BITS} bits"
    )
    print(f"found by mistake: {below[MOST_BITS]}; smallest distance: {np.flatnonzero(counts)[0]}")
    ranks = [rank for rank in (1, 3, 10, 30, 100, 300) if rank < total / 10]
    bits = [int(np.searchsorted(below, rank)) for rank in ranks]
    print("distance at rank:", dict(zip(ranks, bits, strict=True)))
    if total > 100_000:  # else the ranks are no tail
        slope, start = np.polyfit(bits, np.log(ranks), 1)
        expected = np.exp(start + slope * MOST_BITS) * (2 * 5355) ** 2 / 2 / total
        print(f"by the line through these, among 5,355 pairs expected by mistake: {expected:.3f}")


if __name__ == "__main__":
    main()
