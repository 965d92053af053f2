"""The preview: serves the built site to a browser on this machine, and nothing else to nobody else."""

import http.server
import io
import re
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

# Another name that a web page has made to lead here would let that page read the answers.
HOSTS = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def serve(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the site on loopback; the caller runs and closes it."""
    return _Server(("127.0.0.1", port), partial(_Files, directory=str(folder)))


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""


class _Files(http.server.SimpleHTTPRequestHandler):
    """GET and HEAD of the folder's own files."""

    def log_message(self, format: str, *args: Any) -> None:
        """Requests of a preview are no news."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer with a file; 421 to another's name, 404 for whatever is no file of the site."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not HOSTS.fullmatch(hosts[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        try:
            file = _file(Path(self.directory), self.path)
            content = None if file is None else file.read_bytes()
        except (OSError, ValueError):  # no such file, or no path at all
            file = content = None
        if file is None or content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        return io.BytesIO(content)


def _file(folder: Path, address: str) -> Path | None:
    """The site's file that an address asks for, if it lies in the folder without any link."""
    path = unquote(address.partition("?")[0].partition("#")[0], errors="strict")
    if not path.startswith("/") or "\\" in path:
        return None
    root = folder.resolve()
    file = root / (path.lstrip("/") or "index.html")
    return file if file.resolve() == file and file.is_relative_to(root) and file.is_file() else None
