"""SynPAIN from the hub (the real huggingface_hub, a local server), and the finished folder."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import hf_xet
import pytest
from hub_server import Hub
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock

from helpers.dataset import fetch as fetching
from helpers.dataset.dataset_files import Wanted, digests, disk_need
from helpers.dataset.fetch import fetch
from helpers.errors import StudyError
from helpers.files import ROOT

OLD, NEW = "a" * 40, "b" * 40
RNG = random.Random(0)
PAIRS = [
    "SynPain/Images/1000000010_NoPain_man_Young.jpg",
    "SynPain/Images/1011100020_NoPain_woman_Old.jpg",
    "SynPain/Images/1101200031_Pain_Man_Old.JPG",
    "SynPain/Images/1110300040_Pain_woman_Young.jpg",
    "SynPain/Videos/1100400050_Pain_man_Young.png",
]
TEXTS = ["SynPain/SynPain.txt", "SynPain/SynPain_folds.txt"]
UNNEEDED = ["README.md", "SynPain/Videos/1100400050_Pain_man_Young.mp4", "SynPain/notes.txt"]
FILES = {name: RNG.randbytes(2000 + 10 * i) for i, name in enumerate(PAIRS + TEXTS + UNNEEDED)}
NEEDED = {name: FILES[name] for name in PAIRS + TEXTS}
BIG = "SynPain/Images/1100000060_Pain_man_Young.jpg"


@pytest.fixture(autouse=True)
def own_settings(monkeypatch, tmp_path):
    """Whatever this machine has set for the hub, the tests see the library's defaults."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub():
    with Hub({OLD: dict(FILES)}, {"main": OLD}, plain={*TEXTS, "README.md"}) as hub:
        yield hub


@pytest.fixture
def out(tmp_path):
    return tmp_path / "raw" / "SynPain"


def contents(folder):
    """The bytes of every file below a folder, but for the fetch's own two."""
    own = {folder / fetching.RECORD, folder / fetching.SUMS}
    files = [path for path in folder.rglob("*") if path.is_file() and path not in own]
    return {"SynPain/" + path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def downloaded(hub):
    return sorted(r.path for r in hub.log if r.method == "GET" and r.sent)


def test_the_needed_files_arrive_as_they_are_and_no_other_is_asked_for(hub, out):
    record = fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert hub.names() == set(NEEDED)
    assert downloaded(hub) == sorted(NEEDED)
    assert [path.name for path in out.parent.iterdir()] == ["SynPain"]
    assert (record["files"], record["pairs"]) == (7, 5)
    assert record["bytes"] == sum(map(len, NEEDED.values()))
    assert (record["source"], record["commit"]) == ("TaatiTeam/SynPAIN", OLD)
    assert {entry["path"] for entry in record["skipped"]} == set(UNNEEDED)
    assert json.loads((out / "fetched.json").read_text()) == record
    for line in (out / "fetched.sha256").read_text().splitlines():
        digest, path = line.split("  ")
        assert hashlib.sha256(FILES[f"SynPain/{path}"]).hexdigest() == digest


def test_a_second_call_does_nothing(hub, out, capsys):
    fetch(out, endpoint=hub.endpoint)
    before, asked = {p: p.stat().st_mtime_ns for p in out.rglob("*")}, len(hub.log)
    record = fetch(out, endpoint=hub.endpoint)
    assert record["files"] == 7
    assert "Nothing to do." in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    assert len(hub.log) == asked
    assert fetch(out, revision=OLD, endpoint=hub.endpoint) == record
    with pytest.raises(StudyError, match=f"holds TaatiTeam/SynPAIN at commit {OLD}"):
        fetch(out, revision=NEW, endpoint=hub.endpoint)


def test_a_line_that_breaks_within_a_file_is_taken_up_where_it_broke(hub, out):
    """huggingface_hub writes in steps of 10 MiB: what lies before the last is not sent again."""
    hub.commits[OLD][BIG] = RNG.randbytes(11_500_000)
    hub.cuts = {BIG: [11_000_000], PAIRS[0]: [700]}
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED | {BIG: hub.commits[OLD][BIG]}
    step = 10 * 2**20
    asked = [(r.range, r.status, r.sent) for r in hub.downloads(BIG)]
    assert asked == [(None, 200, 11_000_000), (f"bytes={step}-", 206, 11_500_000 - step)]
    assert downloaded(hub).count(PAIRS[0]) == 2
    assert all(downloaded(hub).count(name) == 1 for name in NEEDED if name != PAIRS[0])


def test_a_fetch_that_failed_looks_unfinished_and_the_next_goes_on(hub, out):
    hub.replies[PAIRS[4]] = [(403, {})]
    with pytest.raises(
        StudyError, match=r"^The hub .*403.* \(what was fetched is kept\).*FROM=.*\.$"
    ):
        fetch(out, endpoint=hub.endpoint)
    assert not out.exists()
    kept = set(downloaded(hub))
    assert kept
    hub.log.clear()
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert set(downloaded(hub)) == set(NEEDED) - kept
    assert hub.names() == set(NEEDED) - kept


def command(hub, out, home, *more):
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home)}
    environment["NO_PROXY"] = "127.0.0.1"
    line = [sys.executable, "-m", "helpers.dataset.fetch", "--out", str(out), *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=ROOT, env=environment, text=True, **pipes)


def test_a_kill_in_the_middle_of_a_file_costs_that_file_alone(hub, out, tmp_path):
    hub.holds[PAIRS[2]] = threading.Event()
    process = command(hub, out, tmp_path / "home")
    while len(downloaded(hub)) < len(NEEDED) and process.poll() is None:
        time.sleep(0.02)
    partial = out.with_name(".SynPain.partial") / "SynPain"
    while len(contents(partial)) < len(NEEDED) - 1 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.holds.pop(PAIRS[2]).set()
    assert not out.exists()
    hub.log.clear()
    process = command(hub, out, tmp_path / "home", "--revision", OLD)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert "still to bring: 1 file, 2.0 kB" in printed
    assert contents(out) == NEEDED
    # a git blob that the kill met before its note was written comes again: it has no SHA-256
    assert {PAIRS[2]} <= set(downloaded(hub)) <= {PAIRS[2], *TEXTS}


def test_a_pinned_revision_is_the_one_that_comes(hub, out):
    hub.commits[NEW] = {name: content[::-1] for name, content in FILES.items()}
    hub.branches["main"] = NEW
    record = fetch(out, revision=OLD, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert (record["revision"], record["commit"]) == (OLD, OLD)


def test_an_unknown_revision_is_one_sentence(hub, out):
    with pytest.raises(StudyError, match=r"^[^.]* has no revision 'v9'[^.]*\.$"):
        fetch(out, revision="v9", endpoint=hub.endpoint)
    assert not any(out.parent.iterdir())
    with pytest.raises(StudyError, match="REVISION"):
        fetch(out, revision="", endpoint=hub.endpoint)


def test_a_newer_commit_changes_what_changed_in_an_unfinished_fetch(hub, out):
    hub.replies[PAIRS[4]] = [(403, {})]
    with pytest.raises(StudyError):
        fetch(out, endpoint=hub.endpoint)
    newer = dict(FILES) | {PAIRS[0]: b"another picture"}
    del newer[PAIRS[1]]
    hub.commits[NEW], hub.branches["main"] = newer, NEW
    record = fetch(out, endpoint=hub.endpoint)
    assert record["commit"] == NEW
    assert contents(out) == {name: newer[name] for name in NEEDED if name != PAIRS[1]}


def test_files_that_were_deleted_come_again_and_only_they(hub, out):
    fetch(out, endpoint=hub.endpoint)
    (out / PAIRS[0].removeprefix("SynPain/")).unlink()
    hub.log.clear()
    (out / "mine.txt").write_text("a note")
    with pytest.raises(StudyError, match=r"1 others .* \('mine.txt'\)"):
        fetch(out, endpoint=hub.endpoint)
    assert (out / "mine.txt").exists()
    (out / "mine.txt").unlink()
    hub.replies[PAIRS[0]] = [(403, {})]
    with pytest.raises(StudyError):
        fetch(out, endpoint=hub.endpoint)
    assert not out.exists()
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert set(downloaded(hub)) == {PAIRS[0], *TEXTS}  # git blobs have no SHA-256 to know them by


def test_bytes_that_are_not_the_hubs_are_found_and_fetched_again(hub, out):
    right = hub.commits[OLD]
    hub.served = {PAIRS[1]: right[PAIRS[1]][::-1], TEXTS[0]: right[TEXTS[0]][::-1]}
    with pytest.raises(StudyError, match=r"^2 of 7 files .*Images/1011100020.*call again"):
        fetch(out, endpoint=hub.endpoint)
    assert not out.exists()
    hub.served, hub.log = {}, []
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert set(downloaded(hub)) == {PAIRS[1], TEXTS[0]}


def test_a_rate_limit_is_waited_for(hub, out):
    hub.replies = {name: [(429, {"RateLimit": '"resolvers";r=0;t=0'})] for name in PAIRS[:2]}
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED


def test_files_in_xet_storage_come_by_hf_xet(hub, out, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    hub.xet_store = tmp_path / "xet"
    hub.xet_store.mkdir()
    session = hf_xet.XetSession()
    with session.new_upload_commit(endpoint=f"local://{hub.xet_store}") as commit:
        uploads = {name: commit.start_upload_bytes(FILES[name], sha256=hf_xet.COMPUTE_SHA256)
                   for name in PAIRS}  # fmt: skip
    hub.xet = {name: upload.result().xet_info.hash for name, upload in uploads.items()}
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert set(downloaded(hub)) == set(TEXTS)


def test_a_hostile_name_on_the_hub_is_left_out(hub, out):
    evil = "SynPain/Images/../../../1000000010_NoPain_man_Young.jpg"
    hub.commits[OLD][evil] = b"evil"
    record = fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED
    assert [e["reason"] for e in record["skipped"] if e["path"] == evil] == ["unsafe_name"]
    assert evil not in hub.names()


class TestWithoutAHub:
    """Each way of having no hub is one sentence with the ways out."""

    @pytest.fixture(autouse=True)
    def no_waiting(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)

    def check(self, out, endpoint, match):
        with pytest.raises(StudyError, match=match) as caught:
            fetch(out, endpoint=endpoint)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    def test_nobody_listens(self, out):
        with Hub({}, {}) as hub:
            endpoint = hub.endpoint
        self.check(out, endpoint, f"{endpoint} could not be used .*FROM=")

    def test_a_login_page_answers(self, out, hub, monkeypatch):
        page = "http://127.0.0.1:1/"
        monkeypatch.setattr(fetching.hub.HfApi, "dataset_info", lambda *_, **__: json.loads("<a>"))
        self.check(out, page, "could not be used .*FROM=")

    def test_offline_mode(self, out, hub, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        self.check(out, hub.endpoint, "could not be used .*offline.*FROM=")

    def test_another_server(self, out, hub):
        self.check(out, f"{hub.endpoint}/elsewhere", "has no dataset .*FROM=")

    def test_terms_to_accept(self, out, hub):
        hub.gated = True
        self.check(out, hub.endpoint, "asks for a login")

    def test_the_line_is_lost_for_good(self, out, hub, monkeypatch):
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        hub.cuts = {PAIRS[0]: [0] * 50}
        self.check(out, hub.endpoint, "could not be used .*what was fetched is kept")


def test_the_disk_is_asked_first(hub, out, monkeypatch, capsys):
    need = disk_need([len(content) for content in NEEDED.values()])
    usage = SimpleNamespace(free=need - 1)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StudyError, match=r"^SynPAIN needs .* free.*OUT="):
        fetch(out, endpoint=hub.endpoint)
    assert not hub.names()
    assert "Needed on the disk: 57.3 kB; free: 57.3 kB." in capsys.readouterr().out
    usage.free = need
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED


def test_a_file_takes_whole_blocks_and_one_for_its_entry():
    assert disk_need([]) == 0
    assert disk_need([0, 1, 4096, 4097]) == 4096 * (1 + 2 + 2 + 3)


def test_a_dataset_without_a_pair_is_refused(hub, out):
    hub.commits[OLD] = {name: FILES[name] for name in TEXTS + UNNEEDED}
    with pytest.raises(StudyError, match=r"no pair .*3 not_needed"):
        fetch(out, endpoint=hub.endpoint)
    assert not out.exists()


def test_two_fetches_do_not_work_on_one_folder(hub, out):
    partial = out.with_name(".SynPain.partial")
    partial.mkdir(parents=True)
    with WeakFileLock(partial / "lock"), pytest.raises(StudyError, match="Another fetch"):
        fetch(out, endpoint=hub.endpoint)
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED


def test_a_folder_that_the_fetch_did_not_make_is_left_alone(hub, out):
    out.mkdir(parents=True)
    (out / "x.jpg").write_bytes(b"mine")
    with pytest.raises(StudyError, match="not from a finished fetch"):
        fetch(out, endpoint=hub.endpoint)
    assert contents(out) == {"SynPain/x.jpg": b"mine"}
    (out / "x.jpg").unlink()
    fetch(out, endpoint=hub.endpoint)
    assert contents(out) == NEEDED


def test_an_error_is_one_sentence_on_the_command_line(tmp_path, capsys):
    missing = str(tmp_path / "no.zip")
    assert fetching.main([missing, "--out", str(tmp_path / "SynPain")]) == 1
    assert capsys.readouterr().err == f"'{missing}' is neither a folder nor a file.\n"


def test_a_disk_that_cannot_be_written_is_one_sentence(tmp_path, hub, capsys):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1100000010_Pain_man_Young.jpg").write_bytes(b"x")
    assert fetching.main(["--out", str(tmp_path / "file" / "SynPain"), str(tmp_path / "a")]) == 1
    assert capsys.readouterr().err.startswith("The fetch stopped ([Errno 20] Not a directory")


def test_a_link_to_another_disk_is_followed(hub, out, tmp_path):
    """The unfinished folder then gathers on that disk, not beside the link."""
    disk = tmp_path / "disk" / "SynPain"
    disk.mkdir(parents=True)
    out.parent.mkdir()
    out.symlink_to(disk)
    hub.replies[PAIRS[4]] = [(403, {})]
    with pytest.raises(StudyError):
        fetch(out, endpoint=hub.endpoint)
    assert [path.name for path in out.parent.iterdir()] == ["SynPain"]
    assert (tmp_path / "disk" / ".SynPain.partial").is_dir()
    fetch(out, endpoint=hub.endpoint)
    assert out.is_symlink()
    assert contents(disk) == NEEDED


def test_digests_are_those_of_other_tools(tmp_path):
    """Values of `git hash-object`, `sha256sum` and the CRC-32 catalogue's check value."""
    path = Path(tmp_path / "f")
    path.write_bytes(b"hello\n")
    found = digests(path)
    assert found.values["git-sha1"] == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert found.values["sha256"].startswith("5891b5b522d5df086d0ff0b110fbd9d2")
    path.write_bytes(b"123456789")
    assert digests(path).values["crc32"] == "cbf43926"
    assert digests(path).agree(Wanted("f", 9, "crc32", "cbf43926"))
    assert not digests(path).agree(Wanted("f", 8, "crc32", "cbf43926"))
    assert not digests(path).agree(Wanted("f", 9, "crc32", "cbf43927"))
