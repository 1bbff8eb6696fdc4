"""A notebook in a JupyterLab of its own: a copy, a free port, settings that are nobody's."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

NOTIFICATIONS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


@contextmanager
def jupyterlab(work: Path, notebook: Path) -> Iterator[str]:
    """Serve `notebook` in JupyterLab from the folder `work`, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, settings = secrets.token_hex(16), work / "settings"
    (settings / NOTIFICATIONS).parent.mkdir(parents=True)
    (settings / NOTIFICATIONS).write_text(json.dumps({"fetchNews": "false"}))
    own = {
        f"JUPYTER_{name}_DIR": str(work / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(settings)}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(work / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebook.parent}"]
    with open(work / "jupyterlab.log", "wb") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            if server.poll() is not None:
                raise SystemExit((work / "jupyterlab.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"{address}/lab/tree/{notebook.name}?token={token}"
    finally:
        server.terminate()  # it shuts its kernels down
        server.wait(60)


def copy_of(notebook: Path, work: Path, runs: str) -> Path:
    """Return a copy in `work` that reads `runs` and writes its table there, without outputs."""
    content = nbformat.read(notebook, 4)
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = f"runs_dir = {runs!r}\nresults_dir = {str(work / 'results')!r}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy = work / "notebooks" / notebook.name
    copy.parent.mkdir()
    nbformat.write(content, copy)
    return copy
