"""A local server that speaks the Hub's HTTP interface as huggingface_hub uses it.

It keeps repositories in memory, wants the right token for writing, and can be told to fail: to
answer 503, to cut the line before or after it did what was asked, or in the middle of a body.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_NobodyShouldEverFindThisInAFile"


@dataclass
class Fault:
    """A fault of the line or the server, for the next ``times`` requests that fit."""

    method: str
    path: str
    kind: str  # "503", "html 503", "cut", "cut after", "half"
    times: int = 1


@dataclass
class Repository:
    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path in self.requests)

    def next_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault.kind
        return None

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is part of the play."""


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _oid(content: bytes) -> str:
    """The id that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format, *args) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path, _, _ = self.path.partition("?")
        body = self._body()
        kind = self.server.next_fault(method, path)
        if kind == "cut":
            self.close_connection = True
            self.connection.close()
            return
        if kind in ("503", "html 503"):
            text = b"<html>busy</html>" if kind == "html 503" else b'{"error": "busy"}'
            self._send(
                503, text, {"Content-Type": "text/html" if "html" in kind else "application/json"}
            )
            return
        if kind == "cut after":
            self._send = lambda *_, **__: None  # type: ignore[method-assign]
        self._half = kind == "half"
        for pattern, route in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method in route[0]:
                getattr(self, route[1])(body, *match.groups())
                break
        else:
            self._json({"error": f"no route for {method} {path}"}, 404)
        if kind == "cut after":
            del self._send
            self.close_connection = True
            self.connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if getattr(self, "_half", False):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body)

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **named}
        )

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._json({"error": "Invalid credentials"}, 401)
        return False

    def _repository(self, name: str) -> Repository | None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        return repository

    def create(self, body: bytes) -> None:
        if not self._may_write():
            return
        value = json.loads(body)
        name = f"{value.get('organization') or 'user'}/{value['name']}"
        url = {"url": f"{self.server.url}/{name}", "id": name}
        if name in self.server.repositories:
            self._json({"error": "You already created this model repo", **url}, 409)
            return
        private = bool(value.get("private")) or value.get("visibility") == "private"
        self.server.repositories[name] = Repository(private)
        self._json(url)

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        good = content.startswith("---\n") and "\n---\n" in content[4:]
        errors = [] if good else [{"message": "no metadata"}]
        self._json({"errors": errors, "warnings": []}, 200 if good else 400)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        files = []
        for entry in json.loads(body)["files"]:
            there = repository.files.get(entry["path"])
            large = _is_large(entry["path"])
            oid = None
            if there is not None:
                oid = hashlib.sha256(there).hexdigest() if large else _oid(there)
            mode = "lfs" if large else "regular"
            files.append(
                {"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self._json({"files": files})

    def lfs_batch(self, body: bytes, name: str) -> None:
        if self._repository(name) is None or not self._may_write():
            return
        objects = []
        for entry in json.loads(body)["objects"]:
            answer = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.server.blobs:
                href = f"{self.server.url}/lfs/{entry['oid']}"
                answer["actions"] = {"upload": {"href": href}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._json({"error": "the content is not what its id says"}, 400)
            return
        self.server.blobs[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        files = dict(repository.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        repository.commits.append(files)
        url = f"{self.server.url}/{name}/commit/{repository.sha}"
        self._json({"commitUrl": url, "commitOid": repository.sha, "success": True})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        repository = self._repository(name)
        if repository is not None:
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            self._json({"id": name, "sha": repository.sha, "siblings": siblings})

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        content = repository.files.get(path)
        headers = {"X-Repo-Commit": repository.sha}
        if content is None:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", **headers)
            return
        etag = hashlib.sha256(content).hexdigest() if _is_large(path) else _oid(content)
        headers |= {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is None:
            self._send(200, content, headers)
            return
        first, last = int(start[1]), len(content) - 1
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first:], headers)


_NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"/api/repos/create", (("POST",), "create")),
    (r"/api/validate-yaml", (("POST",), "validate")),
    (rf"/api/models/{_NAME}/preupload/([^/]+)", (("POST",), "preupload")),
    (rf"/api/models/{_NAME}/commit/([^/]+)", (("POST",), "commit")),
    (rf"/api/models/{_NAME}", (("GET", "HEAD"), "info")),
    (rf"/api/models/{_NAME}/revision/([^/]+)", (("GET", "HEAD"), "info")),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", (("POST",), "lfs_batch")),
    (r"/lfs/([0-9a-f]{64})", (("PUT",), "lfs_put")),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", (("GET", "HEAD"), "resolve")),
]
