"""A folder in the layout of OmniAbnorm-CT, and a chat server that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def omniabnorm(folder: Path, count: int = 2) -> Path:
    """The layout of OmniAbnorm-CT with empty pictures."""
    content = {}
    for i in range(count):
        abnormality = {
            "id": 0,
            "group_id": 0,
            "label": "lung nodule",
            "category": "Nodule",
            "description": f"Spot {i}.",
        }
        content[str(i)] = {"image": str(i), "mask": str(i), "context": [-1, 1], "abnormality": [abnormality]}
        for kind in ("image", "mask"):
            (folder / kind / str(i)).mkdir(parents=True, exist_ok=True)
            (folder / kind / str(i) / "0.jpeg").touch()
    put(folder / "train.json", content)
    return folder


class Server:
    """A chat server: `reply(number of the request)` gives (status, text); requests are kept."""

    def __init__(self, reply: Callable[[int], tuple[int, str]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append({**body, "path": self.path})
                    outer.headers.append(dict(self.headers))
                    status, text = reply(len(outer.requests))
                content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
