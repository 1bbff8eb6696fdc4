"""A small Hugging Face hub on this machine, for the real huggingface_hub to talk to.

It speaks what fetching a dataset needs: a revision's commit, the paginated tree, `resolve` with
the hub's headers, large files behind a redirect to a second server (the hub's CDN), Range requests,
and Xet files, whose bytes hf_xet itself keeps in a folder. Lines break where a test says so.
"""

import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "TaatiTeam/SynPAIN"
PAGE = 4  # entries; the hub's pages have 1,000


@dataclass
class Request:
    """One request as the server saw it, and the bytes of content that it was answered with."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Hub:
    """The hub's content and its log.

    `commits` holds the files of each commit, `branches` names commits. A path in `plain` is kept
    as a git blob, one in `xet` by its Xet hash, the others as LFS objects. `cuts` gives, for a path
    in the repository, after how many bytes its next answers break off. `replies` gives the status
    and headers of the next answers to a path, in place of the content; `served` other bytes than
    the listing promises; `holds` an event that the second half of a file waits for.
    """

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    plain: set[str] = field(default_factory=set)
    xet: dict[str, str] = field(default_factory=dict)
    xet_store: Path | None = None
    gated: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    replies: dict[str, list[tuple[int, dict]]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    holds: dict[str, threading.Event] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)

    def __enter__(self):
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.endpoint, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def downloads(self, path: str) -> list[Request]:
        """Return the requests that were answered with content of a file of the repository."""
        return [r for r in self.log if r.method == "GET" and r.path == path]

    def names(self) -> set[str]:
        """Return the files of the repository that anything was asked of."""
        return {r.path for r in self.log if not r.path.startswith("/")}


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: Hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            url = urlsplit(self.path)
            self.request_ = Request(self.command, unquote(url.path), self.headers.get("Range"))
            hub.log.append(self.request_)
            api = f"/api/datasets/{REPOSITORY}/"
            if match := re.fullmatch(rf"{api}revision/(.+)", url.path):
                self.revision(unquote(match[1]))
            elif match := re.fullmatch(rf"{api}tree/([^/]+)", url.path):
                self.tree(match[1], parse_qs(url.query))
            elif match := re.fullmatch(rf"{api}xet-read-token/(.+)", url.path):
                self.token()
            elif match := re.fullmatch(rf"/datasets/{REPOSITORY}/resolve/([^/]+)/(.+)", url.path):
                self.resolve(match[1], unquote(match[2]))
            elif match := re.fullmatch(r"/cdn/([^/]+)/(.+)", url.path):
                self.request_.path = unquote(match[2])
                self.content(hub.commits[match[1]][self.request_.path], {})
            else:
                self.reply(404, {"X-Error-Code": "RepoNotFound"})

        def revision(self, name):
            if hub.gated:
                return self.reply(403, {"X-Error-Code": "GatedRepo"})
            commit = hub.branches.get(name, name)
            if commit not in hub.commits:
                return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
            return self.json({"id": REPOSITORY, "sha": commit, "tags": []})

        def tree(self, commit, query):
            files = sorted(hub.commits[commit].items())
            folders = {str(p) for name, _ in files for p in Path(name).parents} - {"."}
            entries = [
                {"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in folders
            ]
            entries += [self.entry(path, content) for path, content in files]
            entries.sort(key=lambda entry: entry["path"])
            start = int(query.get("cursor", ["0"])[0])
            headers = {}
            if start + PAGE < len(entries):
                following = f"{hub.endpoint}{urlsplit(self.path).path}?recursive=true"
                headers["Link"] = f'<{following}&cursor={start + PAGE}>; rel="next"'
            self.json(entries[start : start + PAGE], headers)

        def entry(self, path, content):
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if path not in hub.plain:
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
            if path in hub.xet:
                entry["xetHash"] = hub.xet[path]
            return entry

        def token(self):
            headers = {
                "X-Xet-Cas-Url": f"local://{hub.xet_store}",
                "X-Xet-Access-Token": "token",
                "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
            }
            self.reply(200, headers)

        def resolve(self, commit, path):
            self.request_.path = path
            if hub.replies.get(path):
                return self.reply(*hub.replies[path].pop(0))
            content = hub.commits[commit][path]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{git_oid(content)}"'}
            if path in hub.plain:
                return self.content(content, headers)
            oid = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            if path in hub.xet:
                token = f"{hub.endpoint}/api/datasets/{REPOSITORY}/xet-read-token/{commit}"
                headers |= {"X-Xet-Hash": hub.xet[path], "Link": f'<{token}>; rel="xet-auth"'}
            self.reply(302, headers | {"Location": f"{hub.cdn}/cdn/{commit}/{path}"})

        def content(self, content, headers):
            content = hub.served.get(self.request_.path, content)
            status, start = 200, 0
            if self.request_.range:
                start = int(re.fullmatch(r"bytes=(\d+)-", self.request_.range)[1])
                status = 206
                size = len(content)
                headers = headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
            body = content[start:]
            self.request_.status = status
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            cuts = hub.cuts.get(self.request_.path)
            if cuts:
                body = body[: cuts.pop(0)]
                self.close_connection = True
            self.request_.sent = len(body)
            if self.request_.path in hub.holds:
                self.wfile.write(body[: len(body) // 2])
                hub.holds[self.request_.path].wait()
                body = body[len(body) // 2 :]
            with suppress(ConnectionError):
                self.wfile.write(body)

        def json(self, content, headers=None):
            self.reply(200, {"Content-Type": "application/json"} | (headers or {}), content)

        def reply(self, status, headers, content=None):
            body = b"" if content is None else json.dumps(content).encode()
            self.request_.status = status
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
