"""SynPAIN from folders and zips: the same tree from any layout, and nothing taken on trust."""

import io
import os
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.dataset import archives
from helpers.dataset.archives import bring, survey
from helpers.dataset.dataset_files import place, unsafe
from helpers.dataset.fetch import fetch
from helpers.errors import StudyError

PAIN = "1100000010_Pain_man_Young.jpg"
CALM = "1000000020_NoPain_Man_Young.JPG"
OTHER = "1010100030_NoPain_woman_Young.png"
CONTENT = {name: os.urandom(3000) for name in (PAIN, CALM, OTHER)}


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    """Write a zip of (name or ZipInfo, content) pairs; names are taken as they are."""
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there already
        for name, content in members:
            archive.writestr(name, content)
    return path


def entry(name, **attributes):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def patch(path, name, offset, form, value):
    """Overwrite a field of a member's entry in the zip's directory."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    struct.pack_into(form, content, start + offset, value)
    path.write_bytes(content)


FLAGS, METHOD, CRC, SIZE, HEADER = (8, "<H"), (10, "<H"), (16, "<L"), (24, "<L"), (42, "<L")


def unpack(sources, root):
    """Survey and bring; return the files below `root` and the reasons by name in the source."""
    members, skipped = survey(sources)
    skipped += bring(members, root)
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return files, {entry.path.partition("/")[2]: entry.reason for entry in skipped}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (f"SynPain/Images/{PAIN}", f"Images/{PAIN}"),
        (f"dataverse_files/SynPain/Videos/a/{PAIN}", f"Videos/a/{PAIN}"),
        (f"images/{PAIN}", f"images/{PAIN}"),
        (f"SynPain/{PAIN}", PAIN),
        (f"./some/where/{PAIN}", f"some/where/{PAIN}"),
        (PAIN, PAIN),
        ("SynPain/SynPain_folds.txt", "SynPain_folds.txt"),
        ("x/Images/synpain.TXT", "SynPain.txt"),
        ("SynPain/Videos/1100000010_Pain_man_Young.mp4", None),
        ("__MACOSX/Images/._" + PAIN, None),
        ("__MACOSX/Images/" + PAIN, None),
        ("README.txt", None),
    ],
)
def test_a_file_goes_to_the_same_place_whatever_lies_around_it(name, target):
    assert place(name) == target


@pytest.mark.parametrize(
    "name",
    [
        *("/a.jpg", "C:/a.jpg", "c:a.jpg", "../a.jpg", "a/../../b.jpg", "a/..", "a\\b.jpg"),
        *("..\\a.jpg", "a\0b.jpg", "a\nb.jpg", "a\x1b[2J.jpg", "\udcff.jpg"),
        *("x" * 201 + "/a.jpg", "a/" * 600),
    ],
)
def test_names_that_lead_elsewhere_are_unsafe(name):
    assert unsafe(name) is not None


@pytest.mark.parametrize("name", ["a.jpg", "a b/ü.jpg", "a..b/c.jpg", "日本/x.jpg", "a/C:.jpg"])
def test_odd_but_harmless_names_are_safe(name):
    assert unsafe(name) is None


def test_two_zips_become_one_tree(tmp_path):
    first = write_zip(tmp_path / "one.zip", [(f"SynPain/Images/{PAIN}", CONTENT[PAIN])])
    videos = [(f"Videos/{CALM}", CONTENT[CALM]), ("Videos/clip.mp4", b"v"), ("Videos/", b"")]
    second = write_zip(tmp_path / "two.zip", [*videos, ("SynPain_folds.txt", b"folds")])
    files, reasons = unpack([first, second], tmp_path / "root")
    assert files == {
        f"Images/{PAIN}": CONTENT[PAIN],
        f"Videos/{CALM}": CONTENT[CALM],
        "SynPain_folds.txt": b"folds",
    }
    assert reasons == {"Videos/clip.mp4": "not_needed"}


def test_a_folder_gives_the_same_tree_even_one_made_of_links(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "snapshot"
    store.mkdir()
    (folder / "SynPain/Images").mkdir(parents=True)
    for name, content in CONTENT.items():
        (store / name).write_bytes(content)
        (folder / "SynPain/Images" / name).symlink_to(store / name)
    (folder / "SynPain/loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(store / "no")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "inner.zip").write_bytes(b"PK")
    files, reasons = unpack([folder], tmp_path / "root")
    assert files == {f"Images/{name}": content for name, content in CONTENT.items()}
    assert not any(path.is_symlink() for path in (tmp_path / "root").rglob("*"))
    special = {"gone.jpg": "special_file", "pipe.jpg": "special_file"}
    assert reasons == special | {"inner.zip": "nested_archive"}


HOSTILE = {
    "unsafe_name": [
        (f"{lead}{name}", b"evil")
        for lead, name in zip(
            ["../", "/", "C:/", "Images/../../", "..\\", "\\\\host\\share\\", "a@", "\x1b[2J"],
            [f"10000000{i}0_NoPain_man_Young.jpg" for i in range(10, 18)],
            strict=True,
        )
    ],
    "special_file": [
        (entry(f"Images/{kind:x}.jpg", external_attr=(kind | 0o777) << 16), b"/etc/passwd")
        for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
    ]
    + [(entry("Images/reparse.jpg", create_system=0, external_attr=0x400), b"/etc/passwd")],
    "bomb": [("Images/bomb.jpg", bytes(11 * 2**20))],
    "nested_archive": [("inner.zip", b"PK"), ("Images/inner.tar.gz", b"x")],
    "system_file": [("__MACOSX/Images/._" + PAIN, b"x")],
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_hostile_member_is_left_out_by_name_and_the_rest_comes(tmp_path, reason):
    path = write_zip(tmp_path / "a.zip", [*HOSTILE[reason], (f"Images/{PAIN}", CONTENT[PAIN])])
    path.write_bytes(path.read_bytes().replace(b"a@1", b"a\x001"))  # zipfile writes no zero byte
    before = {p for p in tmp_path.rglob("*")}
    root = tmp_path / "deep" / "root"
    files, reasons = unpack([path], root)
    assert files == {f"Images/{PAIN}": CONTENT[PAIN]}
    assert set(reasons.values()) == {reason}
    assert len(reasons) == len(HOSTILE[reason])
    new = {p for p in tmp_path.rglob("*")} - before
    assert all(p == root.parent or p.is_relative_to(root) for p in new)


@pytest.mark.parametrize(
    ("reason", "field", "value"),
    [
        ("encrypted", FLAGS, 1),
        ("unsupported_compression", METHOD, 99),
        ("unsupported_compression", METHOD, zipfile.ZIP_LZMA),
        ("damaged", METHOD, zipfile.ZIP_STORED),
        ("damaged", CRC, 12345),
        ("damaged", SIZE, 3001),
        ("larger_than_declared", SIZE, 2999),
        ("larger_than_declared", SIZE, 0),
        ("bomb", SIZE, 2**28 + 1),
    ],
)
def test_a_member_that_is_not_what_the_directory_says(tmp_path, reason, field, value):
    members = [(f"Images/{name}", content) for name, content in CONTENT.items()]
    path = write_zip(tmp_path / "a.zip", members)
    patch(path, CALM, *field, value)
    files, reasons = unpack([path], tmp_path / "root")
    assert reasons == {f"Images/{CALM}": reason}
    assert files == {f"Images/{name}": CONTENT[name] for name in (PAIN, OTHER)}


def test_what_a_member_holds_beyond_its_declared_size_is_not_unpacked(tmp_path, monkeypatch):
    """A bomb that declares 1,000 bytes and holds 50 MB: reading stops after one step."""
    members = [(f"Images/{PAIN}", bytes(50_000_000)), (f"Images/{CALM}", CONTENT[CALM])]
    path = write_zip(tmp_path / "a.zip", members)
    patch(path, PAIN, *SIZE, 1000)
    steps, read = [], zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *a: steps.append(read(*a)) or steps[-1])
    files, reasons = unpack([path], tmp_path / "root")
    assert reasons == {f"Images/{PAIN}": "larger_than_declared"}
    assert set(files) == {f"Images/{CALM}"}
    assert sum(map(len, steps)) < 2**19


def test_a_flipped_bit_is_found(tmp_path):
    path = write_zip(tmp_path / "a.zip", [(f"Images/{PAIN}", CONTENT[PAIN])], zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(CONTENT[PAIN]) + 1500] ^= 1
    path.write_bytes(content)
    assert unpack([path], tmp_path / "root") == ({}, {f"Images/{PAIN}": "damaged"})


def test_of_two_files_for_one_place_the_first_counts(tmp_path):
    names = [f"Images/{PAIN}", f"Images/{PAIN}", f"x/SynPain/Images/{PAIN}"]
    names += [f"Images/{PAIN.upper()}", f"Images/{PAIN}/{CALM}", "Images"]
    names += ["Images/Zo\u00eb.jpg", "Images/Zoe\u0308.jpg", "Images.jpg/a.jpg", "images.JPG"]
    contents = [bytes([number]) for number in range(len(names))]
    first = write_zip(tmp_path / "a.zip", list(zip(names, contents, strict=True)))
    second = write_zip(tmp_path / "b.zip", [(f"Images/{PAIN}", b"second")])
    members, skipped = survey([first, second])
    skipped += bring(members, tmp_path / "root")
    kept = {m.wanted.path: (tmp_path / "root" / m.wanted.path).read_bytes() for m in members}
    assert kept == {names[0]: b"\0", names[6]: b"\6", names[8]: b"\x08"}
    assert [entry.reason for entry in skipped].count("duplicate_name") == 7 - 1 + 1
    assert len(members) + len(skipped) == len(names) + 1


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """As in Fifield's bomb of 2019: many entries of the directory, one block of data."""
    members = [(f"Images/{name}", CONTENT[name]) for name in (PAIN, CALM)]
    path = write_zip(tmp_path / "a.zip", members)
    patch(path, CALM, *HEADER, 0)
    with pytest.raises(StudyError, match=r"'a.zip' is refused: .* zip bomb"):
        survey([path])


def test_a_member_beyond_any_pictures_size_is_a_bomb_even_if_it_packs_badly(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", [(PAIN, CONTENT[PAIN]), (CALM, CONTENT[CALM] + b"x")])
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 3000)
    assert unpack([path], tmp_path / "root") == ({PAIN: CONTENT[PAIN]}, {CALM: "bomb"})


def test_a_zip_of_too_many_members_is_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(4)])
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    with pytest.raises(StudyError, match="lists 4 members"):
        survey([path])


@pytest.mark.parametrize("keep", [0, 10, -1, -30])
def test_a_zip_that_is_not_whole_is_one_sentence(tmp_path, keep):
    path = write_zip(tmp_path / "a.zip", [(f"Images/{PAIN}", CONTENT[PAIN])])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StudyError, match=r"^'a\.zip' is no whole zip file \(.*\): download it"):
        survey([path])


PARTS = st.sampled_from(
    [
        *("..", ".", "", "C:", "\\", "\n", "~", "Images", "SynPain", "..\\..", "CON", "%2e%2e"),
        *("x" * 300, "ü", "\u202e", PAIN, CALM, OTHER, "a.jpg", "SynPain.txt", "b.zip"),
    ]
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(bool)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.lists(NAMES, max_size=12))
def test_no_name_leaves_the_folder_or_goes_missing(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("zip")
    path = write_zip(folder / "a.zip", [(name, name.encode()) for name in names])
    root = folder / "below" / "root"
    members, skipped = survey([path])
    assert not bring(members, root)
    found = {p for p in folder.rglob("*") if not p.is_dir()} - {path}
    assert {p.relative_to(root).as_posix() for p in found} == {m.wanted.path for m in members}
    files = [name for name in names if not zipfile.ZipInfo(name).is_dir() or unsafe(name)]
    assert len(members) + len(skipped) == len(files)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
def test_a_zip_with_any_bytes_changed_gives_right_files_or_a_reason(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("zip")
    contents = {f"Images/{name}": content[:60] for name, content in CONTENT.items()}
    buffer = io.BytesIO()
    write_zip(buffer, contents.items())
    content = bytearray(buffer.getvalue())
    for position, value in changes:
        content[position % len(content)] = value
    (folder / "a.zip").write_bytes(content)
    try:
        members, _ = survey([folder / "a.zip"])
    except StudyError:
        return
    left_out = bring(members, folder / "root")
    files = [path for path in (folder / "root").rglob("*") if path.is_file()]
    assert len(files) == len(members) - len(left_out)
    # a changed name or a changed CRC may stand, bytes that are not of the zip may not
    assert {path.read_bytes() for path in files} <= {*contents.values()}


def test_what_is_there_and_right_is_kept(tmp_path):
    members = [(f"Images/{name}", content) for name, content in CONTENT.items()]
    path = write_zip(tmp_path / "a.zip", members)
    root = tmp_path / "root"
    unpack([path], root)
    (root / "Images" / PAIN).write_bytes(CONTENT[PAIN][::-1])
    (root / "Images" / OTHER).write_bytes(CONTENT[OTHER][:100])
    for name in CONTENT:
        (root / "Images" / name).chmod(0o600)  # a file that is written anew has 644
    files, _ = unpack([path], root)
    assert files == dict(members)
    assert {p.name for p in root.rglob("*") if p.stat().st_mode & 0o777 == 0o600} == {CALM}


def test_of_a_folder_only_what_changed_is_copied_again(tmp_path):
    folder, root = tmp_path / "mine", tmp_path / "root"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    unpack([folder], root)
    for path in root.iterdir():
        path.chmod(0o600)
    os.utime(folder / PAIN, ns=(0, 0))
    files, _ = unpack([folder], root)
    assert files == CONTENT
    kept = {p.name for p in root.iterdir() if p.stat().st_mode & 0o777 == 0o600}
    assert kept == {CALM, OTHER}


class TestFetch:
    """The whole way, from the user's files to the finished folder."""

    def zips(self, folder):
        images = [(f"Images/{PAIN}", CONTENT[PAIN]), (f"Images/{CALM}", CONTENT[CALM])]
        return [
            write_zip(folder / "images.zip", [*images, ("../" + OTHER, b"evil")]),
            write_zip(folder / "videos.zip", [(f"Videos/{OTHER}", CONTENT[OTHER])]),
        ]

    def test_zips_become_the_folder_and_its_record(self, tmp_path, capsys):
        out = tmp_path / "raw" / "SynPain"
        zips = self.zips(tmp_path)
        record = fetch(out, zips)
        names = [f"Images/{CALM}", f"Images/{PAIN}", f"Videos/{OTHER}"]
        files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert files == {*names, "fetched.json", "fetched.sha256"}
        assert [path.name for path in out.parent.iterdir()] == ["SynPain"]
        assert (record["files"], record["pairs"], record["bytes"]) == (3, 3, 9000)
        assert record["source"] == ["images.zip", "videos.zip"]
        assert [entry["path"] for entry in record["skipped"]] == [f"images.zip/../{OTHER}"]
        printed = capsys.readouterr().out
        assert "1 unsafe_name" in printed
        assert OTHER in printed
        assert "SynPAIN has 5,355 pairs: this is not all of it" in printed
        assert fetch(out, zips) == record

    def test_a_break_keeps_what_was_unpacked(self, tmp_path, monkeypatch):
        out, zips = tmp_path / "raw" / "SynPain", self.zips(tmp_path)
        unpack_one = archives._unpack

        def stop(member, *rest):
            if OTHER in member.name:
                raise KeyboardInterrupt
            unpack_one(member, *rest)

        monkeypatch.setattr(archives, "_unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(out, zips)
        assert not out.exists()
        unpacked = []
        monkeypatch.setattr(
            archives, "_unpack", lambda m, *r: unpacked.append(m) or unpack_one(m, *r)
        )
        fetch(out, zips)
        assert [member.wanted.path for member in unpacked] == [f"Videos/{OTHER}"]

    def test_a_source_without_a_pair_is_refused_with_a_hint(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("inner.zip", b"PK"), ("logo.jpg", b"x")])
        with pytest.raises(
            StudyError, match=r"'a.zip' holds no pair .*1 nested_archive.*by itself"
        ):
            fetch(tmp_path / "raw" / "SynPain", [path])
        write_zip(path, [(PAIN, CONTENT[PAIN])])
        patch(path, PAIN, *CRC, 1)
        with pytest.raises(StudyError, match=r"holds no pair .*1 damaged"):
            fetch(tmp_path / "raw" / "SynPain", [path])
        assert not (tmp_path / "raw" / "SynPain").exists()

    def test_a_source_must_lie_apart(self, tmp_path):
        for source in (tmp_path, tmp_path / "raw", tmp_path / "raw" / "SynPain" / "in"):
            with pytest.raises(StudyError, match="must not lie one within the other"):
                fetch(tmp_path / "raw" / "SynPain", [source])

    def test_a_full_disk_is_one_sentence_and_loses_nothing(self, tmp_path, monkeypatch):
        def full(path, *_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(archives, "_unpack", full)
        with pytest.raises(StudyError, match=r"No space left on device.*is kept"):
            fetch(tmp_path / "raw" / "SynPain", self.zips(tmp_path))

    def test_a_revision_belongs_to_the_hub(self, tmp_path):
        with pytest.raises(StudyError, match="REVISION"):
            fetch(tmp_path / "raw" / "SynPain", self.zips(tmp_path), revision="v1")
        assert Path(tmp_path / "images.zip").exists()
