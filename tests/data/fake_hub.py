"""A Hugging Face hub on this machine: enough of its HTTP API to upload a dataset and to download it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """State: repository → branch or tag → commit; commit → file → contents. Only `token` may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.refs: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()

    def commit(self, repository: str, branch: str, changes: dict[str, bytes], gone: set[str]) -> str:
        refs = self.refs[repository]
        kept = {path: data for path, data in self.commits[refs[branch]].items() if path not in gone}
        files = {**kept, **changes}
        sha = hashlib.sha1(repr(sorted((k, hash(v)) for k, v in files.items())).encode()).hexdigest()
        self.commits[sha], refs[branch] = files, sha
        return sha


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def log_message(self, *_: object) -> None: ...

    def reply(self, body: Any = b"", status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().strip(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:  # the base class's name
        body, parts = self.body(), unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.reply({"error": "Invalid username or password."}, 401)
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if name in self.hub.refs:
                return self.reply({"error": "You already created it", "url": f"/datasets/{name}"}, 409)
            self.hub.refs[name] = {"main": "0" * 40}
            self.hub.commits["0" * 40] = {}
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private.add(name)
            return self.reply({"url": f"{self.address}/datasets/{name}", "name": name, "id": name})
        if parts[:2] == ["api", "validate-yaml"]:
            return self.reply({"errors": [], "warnings": []})
        name, verb, rest = "/".join(parts[2:4]), parts[4], parts[5:]
        refs = self.hub.refs[name]
        if verb == "preupload":
            files = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.reply({"files": [{"path": f["path"], **mode} for f in files]})
        if verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            gone = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
            sha = self.hub.commit(name, rest[0], files, gone)
            url = f"{self.address}/datasets/{name}/commit/{sha}"
            return self.reply({"success": True, "commitOid": sha, "commitUrl": url})
        if verb in ("branch", "tag"):
            if verb == "branch":
                refs.setdefault(rest[0], refs["main"])
            else:
                refs[json.loads(body)["tag"]] = refs[rest[0]]
            return self.reply()
        return self.reply({"error": self.path}, 404)

    def do_DELETE(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        found = self.hub.refs["/".join(parts[2:4])].pop(parts[5], None)
        return self.reply() if found else self.reply({}, 404, X_Error_Code="RevisionNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[1:3])
        if name not in self.hub.refs:
            return self.reply({}, 404, X_Error_Code="RepoNotFound")
        refs = self.hub.refs[name]
        verb, rest = (parts[4], parts[5:]) if api and len(parts) > 4 else ("info", [])
        if not api:
            verb, rest = parts[3], parts[4:]
        revision = rest[0] if rest else "main"
        sha = refs.get(revision, revision if revision in self.hub.commits else "")
        if not sha:
            return self.reply({}, 404, X_Error_Code="RevisionNotFound")
        files = self.hub.commits[sha]
        if verb in ("info", "revision"):
            siblings = [{"rfilename": path} for path in files]
            return self.reply({"id": name, "sha": sha, "siblings": siblings, "private": False, "tags": []})
        if verb == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
            return self.reply(entries)
        path = "/".join(rest[1:])
        if path not in files:
            return self.reply({}, 404, X_Error_Code="EntryNotFound")
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self.reply(files[path], ETag=etag, X_Repo_Commit=sha)


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serves `hub` and yields its address."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
