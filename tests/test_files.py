"""Files are whole or absent; paths count from the project's root."""

import gzip
import hashlib

import pandas as pd
import pytest

from helpers.errors import StudyError
from helpers.files import (
    ROOT,
    existing_folder,
    project_path,
    read_csv,
    replacing,
    sha256,
    short_path,
    write_between,
    write_csv,
    write_json,
    write_text,
)


def test_a_relative_path_counts_from_the_root_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_path("data/x") == ROOT / "data/x"
    assert project_path(tmp_path) == tmp_path
    assert short_path("data/x") == "data/x"
    assert short_path(tmp_path) == str(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def fail_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_whole_and_keeps_its_suffix(tmp_path):
    path = tmp_path / "deep" / "picture.png"
    with replacing(path) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        temporary.write_bytes(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_id_is_text_and_not_a_number(tmp_path):
    table = pd.DataFrame({"image_id": ["1000000001_left"], "identity": ["1000000001"], "n": [3]})
    write_csv(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), table)


def test_the_same_table_compressed_is_the_same_bytes(tmp_path):
    table = pd.DataFrame({"image_id": ["é1", "2"], "x": [0.1, 1 / 3]})
    for name in ("a.csv.gz", "b.csv.gz"):
        write_csv(tmp_path / name, table)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert first == second
    # Bytes 4 to 8 of a gzip file are its time (RFC 1952); flag 8 would announce a name.
    assert first[4:8] == b"\0\0\0\0"
    assert first[3] == 0
    write_csv(tmp_path / "plain.csv", table)
    assert gzip.decompress(first) == (tmp_path / "plain.csv").read_bytes()
    assert read_csv(tmp_path / "a.csv.gz")["x"].tolist() == [0.1, 1 / 3]


def test_json_keeps_letters_beyond_ascii(tmp_path):
    write_json(tmp_path / "p.json", {"name": "Müller"})
    assert "Müller" in (tmp_path / "p.json").read_text(encoding="utf-8")


def test_a_hash_is_that_of_the_bytes(tmp_path):
    write_text(tmp_path / "t", "abc")
    assert sha256(tmp_path / "t") == hashlib.sha256(b"abc").hexdigest()


def test_a_folder_that_is_missing_or_empty_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match=r"^The folder no/x \(pairs\) does not exist\.$"):
        existing_folder("no/x", "pairs")
    with pytest.raises(StudyError, match=r"\(pairs\) is empty\.$"):
        existing_folder(tmp_path, "pairs")
    with pytest.raises(StudyError, match=r"t\.csv does not exist\.$"):
        read_csv(tmp_path / "t.csv")


def test_text_between_marks_is_replaced_and_the_rest_kept(tmp_path):
    path = tmp_path / "card.md"
    path.write_text("before\n<a>\nold\n<b>\nafter\n")
    write_between(path, "<a>", "<b>", "new")
    write_between(path, "<a>", "<b>", "newer")
    assert path.read_text() == "before\n<a>\n\nnewer\n\n<b>\nafter\n"
    with pytest.raises(StudyError, match="lacks the mark <c>"):
        write_between(path, "<a>", "<c>", "lost")
    assert "newer" in path.read_text()
