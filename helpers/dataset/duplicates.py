"""The same picture under two names: found by a perceptual hash of each half.

The hash is three known ones side by side, 256 bits each: pHash (the signs of the lowest cosine
frequencies against their median: Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010) and dHash along rows and along columns (each cell brighter than the one before).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

HASH_BITS = 768
DUPLICATE_COLUMNS = ["identity", "side", "other_identity", "other_side", "bits"]

# Measured by benchmarks/near_duplicates.py: a half at JPEG quality 20, at a quarter of its size,
# blurred or with 1 % cut off stays below (at most 71 bits); halves of different people begin at 151
# bits in the stand-in (2 million comparisons), at 180 in nine real pairs.
MOST_BITS = 88
_FLAT = 2.0  # grey levels; a picture that varies less has no pattern to compare
_ROWS = 256  # of the comparison at a time, which bounds its memory


@dataclass(frozen=True)
class NearDuplicates:
    """Halves of different people that show the same picture.

    `table`, one row a pair of halves (`DUPLICATE_COLUMNS`; `bits` of 768 in which the hashes
    differ); `nearest`, the least number of bits between any other two halves of different people,
    None where there are none; `groups`, for each identity the smallest identity that is tied to it
    through such halves, itself where it is alone.
    """

    table: pd.DataFrame
    nearest: int | None
    groups: dict[str, str]


def picture_hash(pixels: np.ndarray) -> str | None:
    """Return the hash of a picture (height, width, 3), uint8, as 192 hexadecimal digits.

    None where the picture is of one shade, so that its bits would be noise.
    """
    grey = Image.fromarray(pixels).convert("L")

    def small(width: int, height: int) -> np.ndarray:
        return np.asarray(grey.resize((width, height), Image.Resampling.BOX), dtype=np.float32)

    if small(16, 16).std() < _FLAT:
        return None
    frequencies = dctn(small(64, 64), norm="ortho")[:16, :16]
    bits = [
        frequencies > np.median(frequencies),
        np.diff(small(17, 16), axis=1) > 0,
        np.diff(small(16, 17), axis=0) > 0,
    ]
    return np.packbits(np.concatenate([part.ravel() for part in bits])).tobytes().hex()


def find_near_duplicates(hashes: Mapping[tuple[str, str], str | None]) -> NearDuplicates:
    """Compare all halves of different people; `hashes` by (identity, side), see `picture_hash`."""
    keys = [key for key, value in hashes.items() if value is not None]
    identities = sorted({identity for identity, _ in hashes})
    codes = b"".join(bytes.fromhex(hashes[key]) for key in keys)
    words = np.frombuffer(codes, np.uint64).reshape(len(keys), HASH_BITS // 64)
    person = pd.factorize(pd.Series([identity for identity, _ in keys], dtype=object))[0]
    rows, nearest = [], HASH_BITS + 1
    for start in range(0, len(keys), _ROWS):
        block = slice(start, start + _ROWS)
        bits = np.zeros((len(words[block]), len(keys) - start), dtype=np.int16)
        for column in range(words.shape[1]):
            bits += np.bitwise_count(words[block, None, column] ^ words[None, start:, column])
        bits[person[block, None] == person[None, start:]] = HASH_BITS + 1
        nearest = min(nearest, int(bits[bits > MOST_BITS].min(initial=HASH_BITS + 1)))
        near = [(start + a, start + b) for a, b in np.argwhere(bits <= MOST_BITS) if a < b]
        rows += [(*keys[a], *keys[b], int(bits[a - start, b - start])) for a, b in near]
    table = pd.DataFrame(rows, columns=DUPLICATE_COLUMNS)
    groups = tie(identities, table[["identity", "other_identity"]].itertuples(index=False))
    return NearDuplicates(table, nearest if nearest <= HASH_BITS else None, groups)


def tie(identities: Iterable[str], ties: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each identity the smallest one that it is tied to, directly or through others."""
    above = {identity: identity for identity in identities}

    def top(identity: str) -> str:
        while above[identity] != identity:
            above[identity] = above[above[identity]]
            identity = above[identity]
        return identity

    for a, b in ties:
        low, high = sorted((top(a), top(b)))
        above[high] = low
    return {identity: top(identity) for identity in above}
