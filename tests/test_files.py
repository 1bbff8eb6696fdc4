"""Files are whole or absent; paths count from the project's root; errors are one sentence."""

import errno
import gzip
import hashlib
import io
import os
import subprocess
import sys

import pandas as pd
import pytest

from helpers import files
from helpers.files import ROOT, StudyError, replacing, write_csv, write_text

SLOW_WRITER = """
import sys, time
from helpers.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(tmp_path):
    write_text(tmp_path / "table.csv", "old")
    return tmp_path / "table.csv"


def write_half(path, error):
    with replacing(path) as temporary:
        assert (temporary.suffix, temporary.parent) == (path.suffix, path.parent)
        temporary.write_text("half")
        raise error


def test_a_relative_path_counts_from_the_root_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.project_path("data/x") == ROOT / "data/x"
    assert files.project_path(tmp_path) == tmp_path
    assert [files.short_path(path) for path in ("data/x", tmp_path)] == ["data/x", str(tmp_path)]


def test_killed_in_the_middle_of_a_write_leaves_the_old_file(path):
    command = [sys.executable, "-c", SLOW_WRITER, path]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert writer.stdout.readline() == b"half\n"
    writer.kill()
    writer.wait()
    assert path.read_text() == "old"
    before = path.stat().st_ino
    write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before  # another file took the name: nobody reads half of one
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    with pytest.raises(IsADirectoryError):
        write_half(path, IsADirectoryError())
    sentence = r"^The disk is full, so .*table\.csv could not be written; what was there is kept:"
    with pytest.raises(StudyError, match=sentence):
        write_half(path, FULL)

    def fsync(_):
        raise FULL

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StudyError, match=sentence), replacing(path, durable=True):
        pass
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_table_comes_back_as_it_was_and_the_same_table_is_the_same_bytes(tmp_path):
    table = pd.DataFrame({"image_id": ["0001_left"], "identity": ["0001"], "x": [1 / 3]})
    first, second, plain = (tmp_path / name for name in ("a.csv.gz", "b.csv.gz", "plain.csv"))
    for path in (first, second, plain):
        write_csv(path, table)
        pd.testing.assert_frame_equal(files.read_csv(path), table)
    assert first.read_bytes() == second.read_bytes()
    # Bytes 4 to 8 of a gzip file are its time (RFC 1952); flag 8 would announce a name.
    assert first.read_bytes()[3:8] == b"\0\0\0\0\0"
    assert gzip.decompress(first.read_bytes()) == plain.read_bytes()
    assert files.sha256(plain) == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_what_is_missing_empty_or_broken_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match=rf"^The folder {ROOT}/no/x \(pairs\) does not exist\.$"):
        files.existing_folder("no/x", "pairs")
    with pytest.raises(StudyError, match=r"\(pairs\) is empty\.$"):
        files.existing_folder(tmp_path, "pairs")
    for read, kind in ((files.read_csv, "a table"), (files.read_json, "JSON")):
        with pytest.raises(StudyError, match=r"no\.gz does not exist\.$"):
            read(tmp_path / "no.gz")
        (tmp_path / "t.gz").write_bytes(b"neither")
        with pytest.raises(StudyError, match=rf"t\.gz is not {kind}: .*\.$"):
            read(tmp_path / "t.gz")
    assert StudyError("It broke.")._render_traceback_() == ["StudyError: It broke."]


def test_a_command_ends_in_one_sentence_and_prints_what_its_terminal_lacks_as_escapes(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "cp1252", newline="")
    monkeypatch.setattr(sys, "stdout", out)
    with files.command("x", "About.") as parser:
        print("顔.jpg", parser.prog, flush=True)
    assert out.buffer.getvalue() == b"\\u9854.jpg python -m helpers.x\n"
