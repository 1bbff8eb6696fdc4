"""SynPAIN by the real huggingface_hub from a small hub on this machine, from folders and zips."""

import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.fetch import fetch
from helpers.files import ROOT, StudyError

PAIN, CALM = "Images/1100000010_Pain_man_Young.jpg", "Videos/1000000020_NoPain_Man_Young.JPG"
NEEDED = {PAIN: os.urandom(3000), CALM: os.urandom(3000), "SynPain_folds.txt": b"folds"}
COMMIT, OID = "a" * 40, "b" * 40
API, RESOLVE = "/api/datasets/TaatiTeam/SynPAIN", f"/datasets/TaatiTeam/SynPAIN/resolve/{COMMIT}/"


class Hub(BaseHTTPRequestHandler):
    """Says what `snapshot_download` asks: a revision's commit, the tree, and the files."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.partition("?")[0].removeprefix(RESOLVE)
        data = {"README.md": b"no"} | {f"SynPain/{name}": data for name, data in NEEDED.items()}
        rows = [{"type": "file", "path": n, "size": len(d), "oid": OID} for n, d in data.items()]
        data[f"{API}/revision/main"] = json.dumps({"id": "x/y", "sha": COMMIT}).encode()
        data[f"{API}/tree/{COMMIT}"] = json.dumps(rows).encode()
        there = name in data and name not in self.server.closed
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(data[name]) if there else 0))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", OID)
        self.end_headers()
        if self.command == "GET" and there:
            self.server.sent.append(name)
            self.wfile.write(data[name])

    do_HEAD = do_GET


def command(server, out):
    home = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": f"{out}.home"}
    line = [sys.executable, "-m", "helpers.fetch", "--out", str(out), "--revision", "main", "--"]
    environment = os.environ | home | {"NO_PROXY": "127.0.0.1"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def contents(folder):
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "fetched.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_dataset_comes_from_the_hub_whole_or_not_at_all(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.closed, server.sent = {f"SynPain/{PAIN}"}, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    out = tmp_path / "raw" / "SynPain"
    failed = command(server, out)
    assert failed.returncode == 1
    assert "\nThe hub did not give TaatiTeam/SynPAIN at 'main'" in f"\n{failed.stderr}"
    kept = set(server.sent)
    server.closed = {f"{API}/revision/main"}  # half a folder is there, and no hub
    assert "try again later, what came is kept; or name folders" in command(server, out).stderr
    assert not out.exists()
    server.closed, server.sent[:] = (), ()
    made = command(server, out)
    assert made.stdout == "2 pictures; SynPAIN has 5,355 pairs.\n", made.stderr
    assert contents(out) == NEEDED
    assert json.loads((out / "fetched.json").read_text())["commit"] == COMMIT
    assert {f"SynPain/{name}" for name in NEEDED} - kept == {
        name for name in server.sent if name.startswith("SynPain")
    }
    server.shutdown()
    with pytest.raises(StudyError, match="is there already"):
        fetch(out)


def test_folders_and_zips_are_brought_and_nothing_leaves_the_folder(tmp_path):
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "a.jpg").write_bytes(b"a")
    (tmp_path / "mine" / ".hidden.jpg").write_bytes(b"b")
    path, out = tmp_path / "images.zip", tmp_path / "raw" / "SynPain"
    with zipfile.ZipFile(path, "w") as archive:
        for name in [*NEEDED, "../../../evil.jpg", "/evil.jpg", "program.exe"]:
            archive.writestr(name, NEEDED.get(name, b"evil"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(NEEDED[CALM], NEEDED[CALM][::-1]))
    with pytest.raises(
        StudyError, match=r"images\.zip is neither a folder nor a whole zip file: Bad CRC"
    ):
        fetch(out, [path, tmp_path / "mine"])
    assert not out.exists()
    path.write_bytes(whole)
    assert fetch(out, [path, tmp_path / "mine"])["source"] == ["images.zip", "mine"]
    expected = {f"1_images/{name}": data for name, data in NEEDED.items()}
    assert contents(out) == expected | {"1_images/evil.jpg": b"evil", "2_mine/deep/a.jpg": b"a"}
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "mine", "images.zip"}
    with pytest.raises(StudyError, match=r"no\.zip is neither"):
        fetch(tmp_path / "other", [tmp_path / "no.zip"])
