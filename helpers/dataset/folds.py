"""The folds file that comes with the data: read in whatever plausible layout it has.

SynPAIN's `SynPain_folds.txt` is documented by its size alone, about 14 bytes a pair. That fits a
line like `1000020580,0` with its line break, and also lists of quoted IDs, one list a fold.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import StudyError
from helpers.files import project_path, short_path
from helpers.prose import listing

LEAST_FOLDS, MOST_FOLDS = 3, 20
# A file that names its parts in words: the order makes the last the test set, as with numbers.
_WORDS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}

_ID = re.compile(r"[^\s,;|:='\"(){}\[\]]*?(?<![0-9])([0-9]{10})(?![0-9])[^\s,;|:='\"(){}\[\]]*")
_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+")
_SEPARATOR = re.compile(r"\s*[,;\t|]\s*|\s+")
_NO_NEWS = {"id", "ids", "set", "split", "subject", "image", "identity", "part", "group"}


class _LayoutError(ValueError):
    """A folds file, or a line of it, that cannot be understood; the text says which and why."""


@dataclass(frozen=True)
class Folds:
    """The folds of a file: `of` each identity; `layout`, how it was understood; `size` in bytes."""

    of: dict[str, int]
    name: str
    layout: str
    size: int

    @property
    def numbers(self) -> list[int]:
        """The folds' numbers, ascending."""
        return sorted(set(self.of.values()))


def read_folds(path: str | Path) -> Folds:
    """Read a folds file, which gives each ID (or file name that starts with it) a fold.

    Understood are: lines of an ID and its fold in either order, parted by commas, semicolons,
    colons, spaces or tabs; columns under a heading that names one "fold" or "split"; IDs below or
    behind headings ("Fold 1", "2:", "test"); one line of IDs a fold; blocks of IDs between blank
    lines; JSON or Python lists and mappings of all these. A fold is a number, or train, validation
    and test. Lines that start with # are passed over unless they are such a heading. Raises
    `StudyError` where the file is missing, a line cannot be understood, an ID has two folds, or
    the folds are fewer than three or more than twenty.
    """
    path = project_path(path)
    name = f"The folds file {short_path(path)}"
    if not path.is_file():
        raise StudyError(f"{name} does not exist.")
    try:
        data = path.read_bytes()
        pairs, layout = _read(_decode(data))
        of: dict[str, int] = {}
        for place, identity, fold in pairs:
            if of.setdefault(identity, fold) != fold:
                raise _LayoutError(f"{place}{identity} has two different folds.")
    except OSError as error:
        raise StudyError(f"{name} cannot be read: {error.strerror}.") from error
    except _LayoutError as error:
        colon = "," if str(error).startswith("line") else ":"
        raise StudyError(f"{name}{colon} {error}") from error
    n_folds = len(set(of.values()))
    if not LEAST_FOLDS <= n_folds <= MOST_FOLDS:
        raise StudyError(
            f"{name} holds {n_folds} different folds; {LEAST_FOLDS} to {MOST_FOLDS} are needed."
        )
    return Folds(of, short_path(path), layout, len(data))


def describe(folds: Folds) -> str:
    """Return a sentence on how the file was understood: its layout, IDs and sizes of folds."""
    values = list(folds.of.values())
    sizes = listing([f"{values.count(n):,} in fold {n}" for n in folds.numbers])
    return (
        f"The folds file `{folds.name}` ({folds.size:,} bytes, {folds.size / len(values):.1f} an "
        f"ID) was read as {folds.layout}: {len(values):,} IDs in {len(folds.numbers)} folds, "
        f"{sizes}."
    )


_Found = tuple[str, str, int]  # where ("line 3: "), identity, fold


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _read(text: str) -> tuple[list[_Found], str]:
    """Return what the text says, and its layout in words. Raises `_LayoutError`."""
    if text.lstrip()[:1] in ("[", "{"):
        for parse, language in ((json.loads, "JSON"), (ast.literal_eval, "Python")):
            try:
                content = parse(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            found = [("", *item) for item in _from_content(content)]
            return found, f"{language} {'mapping' if isinstance(content, dict) else 'list'}"
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    table = _columns([(n, line) for n, line in lines if line and not line.startswith("#")])
    if table is not None:
        return table, "columns under a heading"
    return _from_lines(lines)


def _identity(value: object) -> str | None:
    match = _ID.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    return match[1] if match else None


def _fold(value: object) -> int | None:
    """Return the fold that a value names ("3", "fold_3", "test"), None where it names none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    names = _fold_names(str(value))
    return names[0] if len(names) == 1 else None


def _fold_names(text: str) -> list[int]:
    """Return the folds that a piece of text names; raises `_LayoutError` for any other word."""
    tokens = [token.lower() for token in _TOKEN.findall(text)]
    numbers = [token for token in tokens if token.isdigit()]
    words = [_WORDS[token] for token in tokens if token in _WORDS]
    other = [t for t in tokens if not t.isdigit() and t not in _WORDS and t not in _NO_NEWS]
    if any(token not in ("fold", "folds", "k") for token in other):
        raise _LayoutError(text)
    if any(len(number) > 3 for number in numbers):
        raise _LayoutError(text)
    return [int(number) for number in numbers] or words


def _from_content(content: object) -> Iterator[tuple[str, int]]:
    """Yield identities and folds out of parsed JSON or Python lists and mappings."""
    if isinstance(content, dict) and len(content) == 1:
        yield from _from_content(next(iter(content.values())))
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _from_item(key, value)
    elif isinstance(content, list | tuple):
        rows = [_row(item) for item in content]
        if rows and None not in rows:
            yield from rows
            return
        for number, item in enumerate(content):
            if not isinstance(item, dict | list | tuple):
                raise _LayoutError(f"'{str(item)[:60]}' stands in no fold.")
            yield from _from_item(number, item)
    else:
        raise _LayoutError("there are no lists or mappings of IDs in it.")


def _row(item: object) -> tuple[str, int] | None:
    """Return what one ID and its fold in a list say; a mapping names the fold by its key."""
    if isinstance(item, dict):
        named = [v for key, v in item.items() if re.search("fold|split", str(key), re.IGNORECASE)]
        values = [i for v in item.values() if (i := _identity(v))][:1] + named
    else:
        values = list(item) if isinstance(item, list | tuple) else []
    if len(values) != 2:
        return None
    for identity, fold in (values, reversed(values)):
        if _identity(identity) is not None and _safe_fold(fold) is not None:
            return _identity(identity), _safe_fold(fold)
    return None


def _from_item(key: object, value: object) -> Iterator[tuple[str, int]]:
    """Yield what a fold and its list of IDs say, or an ID and its fold."""
    if isinstance(value, dict):  # a fold that lists its own train and test people
        part = next((v for name, v in value.items() if _WORDS.get(str(name).lower()) == 2), None)
        value = part if part is not None else list(value)
    if isinstance(value, list | tuple):
        identities, fold = [_identity(item) for item in value], _safe_fold(key)
        if fold is None or None in identities:
            raise _LayoutError(f"'{str(key)[:40]}' is not a fold with a list of IDs.")
        yield from ((identity, fold) for identity in identities)
        return
    row = _row([key, value])
    if row is None:
        raise _LayoutError(f"'{str(key)[:40]}: {str(value)[:40]}' is not an ID and its fold.")
    yield row


def _safe_fold(value: object) -> int | None:
    try:
        return _fold(value)
    except _LayoutError:
        return None


def _columns(lines: list[tuple[int, str]]) -> list[_Found] | None:
    """Return the rows of a table whose heading names a column of folds, None where it is none."""
    if not lines or _ID.search(lines[0][1]):
        return None
    heading = [name.strip("'\"").lower() for name in _SEPARATOR.split(lines[0][1])]
    places = [n for n, name in enumerate(heading) if name in ("fold", "folds", "split", "fold_id")]
    rows = [[cell.strip("'\"") for cell in _SEPARATOR.split(line)] for _, line in lines[1:]]
    if len(places) != 1 or len(heading) < 2 or any(len(row) != len(heading) for row in rows):
        return None
    found = []
    for (number, _), row in zip(lines[1:], rows, strict=True):
        identity = next((i for cell in row if (i := _identity(cell))), None)
        fold = _safe_fold(row[places[0]])
        if identity is None or fold is None:
            return None
        found.append((f"line {number}: ", identity, fold))
    return found


def _from_lines(lines: list[tuple[int, str]]) -> tuple[list[_Found], str]:
    found: list[_Found] = []
    bare: list[tuple[int, int, list[str]]] = []  # lines of IDs alone: number, block, IDs
    heading, headings, block, began = None, 0, 0, False
    for number, line in lines:
        identities = _ID.findall(line)
        rest = _ID.sub("\x00", line)
        if not line:
            block += bool(bare)
            continue
        try:
            names = _fold_names(rest.replace("\x00", " "))
        except _LayoutError:
            names = None
        if not identities:
            is_heading = names is not None and len(names) == 1
            comment = line.startswith("#")
            if is_heading and (not comment or "fold" in line.lower()):
                heading, headings = names[0], headings + 1
            elif not comment and names != [] and (began or re.search("[0-9]{10}", line)):
                raise _no_fold(number, line)
            began |= is_heading
            continue
        began = True
        if names is None or len(names) > 1:
            raise _no_fold(number, line)
        if names:
            leads = re.search("[A-Za-z0-9]", rest[: rest.index("\x00")]) is not None
            if len(identities) > 1 and not leads:
                raise _no_fold(number, line)
            if leads and (len(identities) > 1 or "fold" in rest.lower()):
                heading, headings = names[0], headings + 1
            found += [(f"line {number}: ", identity, names[0]) for identity in identities]
        elif heading is not None:
            found += [(f"line {number}: ", identity, heading) for identity in identities]
        else:
            bare.append((number, block, identities))
    if bare and found:
        raise _no_fold(bare[0][0], lines[bare[0][0] - 1][1])
    if bare:
        return _from_bare(bare, lines)
    return found, "lists of IDs under headings" if headings else "lines of an ID and its fold"


def _from_bare(bare: list, lines: list[tuple[int, str]]) -> tuple[list[_Found], str]:
    """Return the folds of lines of IDs alone: a line each, or a block of lines each."""
    if all(len(identities) > 1 for _, _, identities in bare):
        layout, folds = "one line of IDs a fold", range(len(bare))
    elif len({block for _, block, _ in bare}) > 1:
        layout, folds = "blocks of IDs between blank lines", [block for _, block, _ in bare]
    else:
        raise _no_fold(bare[0][0], lines[bare[0][0] - 1][1])
    numbers = {fold: n for n, fold in enumerate(dict.fromkeys(folds))}
    found = [
        (f"line {number}: ", identity, numbers[fold])
        for (number, _, identities), fold in zip(bare, folds, strict=True)
        for identity in identities
    ]
    return found, layout


def _no_fold(number: int, line: str) -> _LayoutError:
    return _LayoutError(f"line {number}: '{line[:60]}' is not an ID and its fold.")
