"""A loopback server with as much of W&B's protocol as the real client needs; it keeps everything that it receives."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
import wandb

from launch.wandb import client as wandb_client
from launch.wandb import sync as wandb_sync
from stn.tracking.log import WandbSink
from tests.support.wandb_files import Files
from tests.support.wandb_kept import Kept


class _Quiet(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: a client that was killed leaves its connection open."""


class WandbServer:
    """``runs`` and ``views`` (reports) by id, ``files`` that were put, ``requests`` as (operation, run id).

    ``refuse`` may give a request another status than 200. A project is there once it is in ``projects`` or has a run.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Kept] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.projects = {"stn"}
        self.requests: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], int | None] = lambda operation, name: None
        self.after: Callable[[str], int] = lambda name: 200  # the status that answers a request that was stored
        self.lock = threading.Lock()
        self.http = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.files = Files(self.url)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "WandbServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def environment(self, folder: object) -> dict[str, str]:
        """Return the client's environment: this server, a key, and a home directory of its own."""
        places = {name: str(folder) for name in ("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR")}
        return places | {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "k" * 40, "NETRC": f"{folder}/none"}

    def answer(self, path: str, body: dict[str, Any], content: bytes = b"") -> tuple[int, dict[str, Any]]:
        query, variables = body.get("query", ""), body.get("variables") or {}
        named = re.search(r"(?:query|mutation) (\w+)", query)
        operation = named[1] if named else path.rsplit("/", 1)[-1]
        with self.lock:
            name = variables.get("name") or (path.split("/")[4] if path.startswith("/files/") else "")
            self.requests.append((operation, name))
            refused = self.refuse(operation, name)
            if refused:
                return refused, {"error": "refused"}
            if operation == "file_stream":
                self.runs[name].stream(body)
                return self.after(name), {}
            if path.startswith("/storage/"):
                self.files.contents[path.removeprefix("/storage/")] = content
                return 200, {}
            return 200, {"data": self.graphql(operation, name, variables)}

    def graphql(self, operation: str, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "RunResumeStatus":
            kept, entity = self.runs.get(name), {"id": "e", "name": variables.get("entity") or "me"}
            bucket = kept.resume_status(name) if kept else None
            return {"model": {"id": "p", "name": variables["project"], "entity": entity, "bucket": bucket}}
        if operation == "UpsertBucket":
            inserted = name not in self.runs
            kept = self.runs.setdefault(name, Kept())
            kept.upsert(variables)
            return {"upsertBucket": {"bucket": kept.bucket(name), "inserted": inserted}}
        if operation == "Runs":  # of the public API; only the filter that we use is understood
            ids = json.loads(variables["filters"])["name"]["$in"]
            nodes = [{"node": kept.facts(i), "cursor": i} for i, kept in self.runs.items() if i in ids]
            if not self.runs:
                return {"project": None}
            runs = {"edges": nodes, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": runs}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if (answer := self.files.answer(operation, variables)) is not None:
            return answer
        return self.reports(operation, variables)

    def reports(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = variables.get("projectName") or variables.get("project")
        there = project in self.projects | {kept.fields.get("project") for kept in self.runs.values()}
        if operation == "ProjectInternalId":
            return {"project": {"id": "p", "internalId": f"internal-{project}"} if there else None}
        if operation == "ProjectViews":
            own = [{"node": view, "cursor": i} for i, view in self.views.items() if view["projectName"] == project]
            views = {"edges": own, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"allViews": views} if there else None}
        if operation == "upsertView":
            known = variables["id"] or f"Vmlldzo{len(self.views)}=="
            inserted = known not in self.views
            self.views[known] = variables | {"id": known, "user": None, "createdAt": None, "updatedAt": None}
            return {"upsertView": {"view": self.views[known], "inserted": inserted}}
        return {}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            as_json = "json" in self.headers.get("Content-Type", "")
            of_storage = self.path.startswith("/storage/")
            body = json.loads(content) if as_json and content and not of_storage else {}
            status, answer = server.answer(self.path, body, content)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            kept = server.files.contents.get(unquote(self.path.removeprefix("/storage/")))
            if kept is None:
                return self.do_POST()
            self.send_response(200)
            self.send_header("Content-Length", str(len(kept)))
            self.end_headers()
            self.wfile.write(kept)

        do_PUT = do_POST

        def log_message(self, format: str, *_: object) -> None:
            pass

    return Handler


def serve_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Yield a server, and point the W&B client in this process at it, with short timeouts."""
    home = folder / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(WandbSink, "unreachable", False)
    monkeypatch.setattr(wandb_sync, "PATIENCE_S", 0.0)
    monkeypatch.setattr(wandb_client, "TIMEOUT_S", 3)
    monkeypatch.setitem(wandb_client.UPLOAD, "init_timeout", 3)
    monkeypatch.setitem(wandb_client.UPLOAD, "finish_timeout", 3)
    monkeypatch.setenv("WANDB_SILENT", "true")
    with WandbServer() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # it reads the environment once
        yield server
        wandb.teardown()
    children = [child.name() for child in psutil.Process().children(recursive=True)]
    assert not [name for name in children if "wandb" in name]
