"""Metrics as text for whoever scrapes them, from a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOPBACK = "127.0.0.1"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def exposed(port: int, path: str, look: Callable[[], str | None]) -> Iterator[None]:
    """Serve at a path on loopback what a function returns for each request; None is a 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = look() if self.path == path else None
            body = (text or "").encode()
            self.send_response(503 if text is None else 200)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
