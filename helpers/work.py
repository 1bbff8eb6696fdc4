"""Long work: side by side, with a progress bar, and resumable after a kill."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from helpers.files import write_text


def side_by_side(
    function: Callable,
    items: Sequence,
    description: str,
    unit: str,
    *,
    sizes: Sequence[int] | None = None,
    done: int = 0,
) -> Iterator:
    """Yield `function(item)` for each item, in order, computed by up to four threads.

    The bar counts `sizes`, the units in each item (one by default), after `done` units that were
    finished earlier; its estimate rests on this run alone.

    Threads suffice where Pillow decodes and encodes: it lets go of Python's lock. An error in
    `function` ends the run at its item; what was not begun by then is not begun.
    """
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        results = pool.map(function, items)
        sizes = sizes or [1] * len(items)
        total = done + sum(sizes)
        with tqdm(total=total, initial=done, desc=description, unit=unit, mininterval=2) as bar:
            for size, result in zip(sizes, results, strict=True):
                bar.update(size)
                yield result
    finally:
        pool.shutdown(cancel_futures=True)


def peak_memory() -> float:
    """Return the most memory that this process has held so far, in MiB; NaN where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Journal:
    """Finished items by key, one JSON line each, under the settings that they were made with.

    An entry counts only while the settings are the same. A line that a kill cut off is dropped.
    """

    def __init__(self, path: Path, settings: dict) -> None:
        """Open the journal `path`; entries made under other `settings` are forgotten."""
        self.path = path
        self.settings = settings
        self._lock = threading.Lock()
        self.entries: dict[str, dict] = {}
        lines = path.read_bytes().splitlines() if path.is_file() else []
        rows = [row for row in map(_parse, lines) if row is not None]
        if rows and rows[0] == {"settings": settings}:
            self.entries = {row["key"]: row["entry"] for row in rows[1:] if "entry" in row}
        self._write()

    def get(self, key: str) -> dict | None:
        """Return the entry of `key`, None where there is none."""
        return self.entries.get(key)

    def add(self, key: str, entry: dict) -> None:
        """Note that `key` is finished; threads may do so at once."""
        self.add_all({key: entry})

    def add_all(self, entries: dict[str, dict]) -> None:
        """Note entries by key. Lines are appended: the time does not grow with the journal."""
        text = "".join(_line({"key": key, "entry": entry}) for key, entry in entries.items())
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            self.entries |= entries

    def keep(self, keys: Sequence[str]) -> None:
        """Forget all entries but those of `keys`, and write the journal in their order."""
        self.entries = {key: self.entries[key] for key in keys}
        self._write()

    def _write(self) -> None:
        rows = [{"key": key, "entry": entry} for key, entry in self.entries.items()]
        write_text(self.path, "".join(map(_line, [{"settings": self.settings}, *rows])))


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def _parse(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
