"""A stand-in for the Hugging Face hub on this machine: the part of its HTTP API by which repositories are made and filled."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "0123456789" * 3
"""The only one that the stand-in accepts."""


@dataclass
class Repository:
    """A repository with its branches."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})
    commits: list[str] = field(default_factory=list)
    """Message of every commit, on any branch."""


class Hub(ThreadingHTTPServer):
    """Repositories by kind and name (`models/me/x`), and what may go wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.heard: list[str] = []
        self.hold: threading.Event | None = None
        """While it is set to an event, large files wait for it."""
        self.uploading = threading.Event()
        """Set when a large file arrives."""
        self.fail_commits = 0
        """Status that commits end with, if not 0."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Requests(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.server.heard.append(format % args)

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_PUT(self) -> None:
        body = self._body()
        self.server.uploading.set()
        if self.server.hold is not None:
            self.server.hold.wait(30)
        self.server.large[self.path.rpartition("/")[2]] = body
        self._send(200, {})

    def do_POST(self) -> None:
        self._answer("POST", self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, verb: str, body: bytes) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(
                401,
                {"error": "Invalid username or password."},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"warnings": [], "errors": []})
        elif path == "/lfs/verify":
            self._send(200, {})
        elif found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(
            r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(\w[\w-]*)/(.+)|/revision/.+)?", path
        ):
            repository = self.server.repositories.get(found[1])
            if repository is None:
                self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            else:
                self._of_repository(found[1], repository, found[2], found[3], body)
        else:
            self._send(404, {"error": f"the stand-in does not know {verb} {path}"})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        key = f"{wanted.get('type') or 'model'}s/{name}"
        if wanted["organization"] == "others":
            message = "You don't have the rights to create a model under the namespace others"
            self._send(403, {"error": message}, {"X-Error-Message": message})
        elif key in self.server.repositories:
            self._send(
                409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}
            )
        else:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.server.repositories[key] = Repository(private)
            self._send(200, {"url": f"{self.server.url}/{name}", "name": name, "id": "1"})

    def _of_repository(
        self, key: str, repository: Repository, topic: str | None, branch: str | None, body: bytes
    ) -> None:
        if topic is None:
            self._send(
                200,
                {
                    "id": key.partition("/")[2],
                    "sha": "0" * 40,
                    "private": repository.private,
                    "tags": [],
                    "siblings": [],
                },
            )
            return
        assert branch is not None
        if topic == "branch":
            if branch in repository.branches:
                self._send(409, {"error": "Reference already exists"})
            else:
                repository.branches[branch] = dict(repository.branches["main"])
                self._send(200, {})
            return
        files = repository.branches.get(branch)
        if files is None:
            self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        elif topic == "tree":
            self._send(
                200,
                [{"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40} for path in files],
            )
        elif topic == "preupload":
            self._send(200, {"files": [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".parquet")) else "regular",
                 "shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]})  # fmt: skip
        elif self.server.fail_commits:
            self._send(self.server.fail_commits, {"error": "the hub is down for maintenance"})
        else:
            self._commit(key, repository, branch, body)

    def _batch(self, wanted: dict[str, Any]) -> None:
        self._send(200, {"transfer": "basic", "objects": [
            {"oid": each["oid"], "size": each["size"], "authenticated": True, "actions": {
                "upload": {"href": f"{self.server.url}/lfs/{each['oid']}", "header": {}},
                "verify": {"href": f"{self.server.url}/lfs/verify", "header": {}},
            }}
            for each in wanted["objects"]
        ]})  # fmt: skip

    def _commit(self, key: str, repository: Repository, branch: str, body: bytes) -> None:
        files, message = dict(repository.branches[branch]), ""
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content = self.server.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            else:
                assert operation["key"] == "deletedFile", operation
                del files[value["path"]]
        repository.branches[branch] = files
        repository.commits.append(message)
        url = f"{self.server.url}/{key.removeprefix('models/')}/commit/{'a' * 40}"
        self._send(200, {"success": True, "commitOid": "a" * 40, "commitUrl": url})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        with suppress(OSError):  # who asked may be gone
            self.end_headers()
            self.wfile.write(data)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in that listens until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=[0.02], name="hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
