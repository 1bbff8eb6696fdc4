"""Make a folder of pairs of SynPAIN's size out of others, to measure notebooks 01 and 02 on.

python benchmarks/make_big.py OUT 5355

Each source pair is used over and over, every time another cut-out of its halves, mirrored or not,
enlarged to 1312 × 736 pixels with a seam of its own and fresh grain, so that bytes, sizes of files
and hashes are those of different pictures. Four of five are PNG bytes under a .jpg name, the
others JPEG, as in SynPAIN. IDs keep the digits that say who is shown and get new serial numbers.
What is there already is kept: a call that was broken off is taken up.
"""

import argparse
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.dataset.naming import AGES, EXPRESSIONS, GENDERS, NamingError, PairName, parse_name
from helpers.dataset.pictures import read_rgb
from helpers.dataset.seams import find_seam, split_at
from helpers.files import replacing
from helpers.work import side_by_side

WIDTH, HEIGHT = 1312, 736
# The cut-outs: shares of a half's width and height at its left and upper edge, and of its size.
WINDOWS = ((0, 0, 1), (0.05, 0.02, 0.86), (0.12, 0.06, 0.8), (0.01, 0.08, 0.9), (0.17, 0, 0.82))
_GRAIN = np.random.default_rng(0).integers(-2, 3, (HEIGHT + 64, WIDTH + 64, 3), dtype=np.int16)


def main() -> None:
    """Read the command line and make the pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pairs")
    parser.add_argument("pairs", type=int, help="how many")
    parser.add_argument(
        "--sources", type=Path, nargs="+", default=[Path("data/standin/pairs")],
        help="folders of pairs to make them from",
    )  # fmt: skip
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources = list(_sources(options.sources))
    tasks = [(n, *sources[n % len(sources)], n // len(sources)) for n in range(options.pairs)]
    made = sum(
        side_by_side(lambda task: make_pair(options.out, *task), tasks, "Making pairs", "pair")
    )
    print(f"{made:,} pairs made, {len(tasks) - made:,} were there.")


def _sources(folders: list[Path]) -> Iterator[tuple[Path, PairName]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            try:
                yield path, parse_name(path.name)
            except NamingError:
                continue


def make_pair(out: Path, number: int, source: Path, pair: PairName, turn: int) -> bool:
    """Write the pair `number`, the source's cut-out `turn`; return False where it was there."""
    flags = [EXPRESSIONS.index(pair.expression), GENDERS.index(pair.gender), AGES.index(pair.age)]
    identity = f"1{''.join(map(str, flags))}{pair.identity[4]}{number:05d}"
    path = out / f"{identity}_{pair.expression}_{pair.gender.lower()}_{pair.age}.jpg"
    if path.is_file():
        return False
    rng = np.random.default_rng(int(hashlib.sha256(identity.encode()).hexdigest()[:12], 16))
    pixels = read_rgb(source)
    x, y, size = WINDOWS[turn // 2 % len(WINDOWS)]
    seam = int(rng.choice([0, 3, 6, 8], p=[0.2, 0.2, 0.3, 0.3]))
    left = int(rng.integers(651, 655))
    widths = (left, WIDTH - left - seam)
    halves = []
    for half, width in zip(split_at(pixels, find_seam(pixels)), widths, strict=True):
        image = Image.fromarray(half)
        w, h = image.size
        box = (x * w, y * h, min(x + size, 1) * w, min(y + size, 1) * h)
        image = image.resize((width, HEIGHT), Image.Resampling.BILINEAR, box=box)
        halves.append(np.asarray(ImageOps.mirror(image) if turn % 2 else image))
    white = np.full((HEIGHT, seam, 3), 254, np.uint8)
    picture = _with_grain(np.concatenate([halves[0], white, halves[1]], axis=1), left, seam, rng)
    image, data = Image.fromarray(picture), io.BytesIO()
    if number % 5:
        image.save(data, "PNG", compress_level=1)
    else:
        image.save(data, "JPEG", quality=92)
    with replacing(path) as temporary:
        temporary.write_bytes(data.getvalue())
    return True


def _with_grain(pixels: np.ndarray, left: int, seam: int, rng: np.random.Generator) -> np.ndarray:
    """Add grain of up to two levels and an exposure of the pair's own, but not on the seam."""
    y, x = rng.integers(0, 64, 2)
    grain = _GRAIN[y : y + HEIGHT, x : x + WIDTH] + np.int16(rng.integers(-8, 9))
    grain[:, left : left + seam] = 0
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
