"""Long work: side by side, with a progress bar, and resumable after a kill."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from helpers.files import write_text


def side_by_side(function: Callable, items: Sequence, description: str, unit: str) -> Iterator:
    """Yield `function(item)` for each item, in order, computed by up to four threads.

    Threads suffice where Pillow decodes and encodes: it lets go of Python's lock. An error in
    `function` ends the run at its item; what was not begun by then is not begun.
    """
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        results = pool.map(function, items)
        yield from tqdm(results, total=len(items), desc=description, unit=unit, mininterval=2)
    finally:
        pool.shutdown(cancel_futures=True)


class Journal:
    """Finished items by key, one JSON line each, under the settings that they were made with.

    An entry counts only while the settings are the same. A line that a kill cut off is dropped.
    """

    def __init__(self, path: Path, settings: dict) -> None:
        """Open the journal `path`; entries made under other `settings` are forgotten."""
        self.path = path
        self.settings = settings
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
        """Note that `key` is finished."""
        self.entries[key] = entry
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line({"key": key, "entry": entry}))

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
