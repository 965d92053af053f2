"""Download one large file: with progress, resumed where it was cut, checked before it counts."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file

if TYPE_CHECKING:
    import httpx2

Progress = Callable[[int, int | None], None]

ATTEMPTS = 5
WAIT_SECONDS = 1.0  # doubles with every attempt that brings nothing new
TIMEOUT = 30.0  # seconds, of connecting, and between two pieces


def download(url: str, target: Path, *, sha256: str | None, size: int | None, progress: Progress) -> None:
    """Download `url` to `target`, which exists afterwards only if every check has passed.

    What has come of an interrupted download waits in `target` + `.part`, and the next call goes on there if the server
    still has the same file (by its ETag or date).

    Args:
        sha256: hex digest that the file must have; None if it is not known.
        size: bytes that the file must have; None if that is not known. The server's own length is checked in any case.
        progress: called with the bytes that are there and the bytes that there will be, if known.

    Raises:
        OclBenchError: if the server cannot be reached, refuses, or gives something else; or if the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _until_whole(url, part, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OclBenchError(
                f"{part}: the disk is full; make room and call the command again, it goes on where it was."
            ) from None
        raise OclBenchError(f"{part}: cannot be written ({error.strerror}).") from None
    _check(url, part, sha256, size)
    part.replace(target)
    _validator_path(part).unlink(missing_ok=True)


def _until_whole(url: str, part: Path, progress: Progress) -> None:
    """Ask again, from where the last answer ended, until everything is there."""
    import httpx2

    failed = 0
    with httpx2.Client(follow_redirects=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as client:
        while True:
            before = _size(part)
            try:
                _one_request(client, url, part, progress)
                return
            except (httpx2.TransportError, _TryAgainError) as error:
                failed = 1 if _size(part) > before else failed + 1
                offline = isinstance(error, httpx2.ConnectError) and not _size(part)
                if failed >= ATTEMPTS or offline:
                    reason = str(error) or type(error).__name__
                    raise OclBenchError(f"{url} cannot be reached ({reason}).") from None
                time.sleep(WAIT_SECONDS * 2 ** (failed - 1))


class _TryAgainError(Exception):
    """The server's trouble, which may pass."""


def _one_request(client: "httpx2.Client", url: str, part: Path, progress: Progress) -> None:
    have = _size(part)
    validator = _validator_path(part).read_text() if have and _validator_path(part).is_file() else None
    if have and validator is None:  # nothing would tell whether the rest belongs to the same file
        part.unlink()
        have = 0
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # nothing is left to send, or the file has changed: start again
            part.unlink()
            raise _TryAgainError("the server has no such range")
        if response.status_code >= 500:
            raise _TryAgainError(f"status {response.status_code}")
        if response.status_code not in (200, 206):
            raise OclBenchError(f"{url}: the server answers with status {response.status_code}.")
        start = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _keep_validator(part, response.headers)
        with part.open("ab" if start else "wb") as file:
            done = start
            for block in response.iter_raw():
                file.write(block)
                done += len(block)
                progress(done, total)
    if total is not None and done != total:
        raise _TryAgainError(f"{done} of {total} bytes came")


def _keep_validator(part: Path, headers: "httpx2.Headers") -> None:
    etag = headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    validator = strong or headers.get("Last-Modified")
    if validator:
        _validator_path(part).write_text(validator)
    else:
        _validator_path(part).unlink(missing_ok=True)


def _validator_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check(url: str, part: Path, sha256: str | None, size: int | None) -> None:
    """Refuse, and remove, a file of another size or content than expected."""
    found_size = _size(part)
    found = sha256_of_file(part) if sha256 is not None else None
    wrong = []
    if size is not None and found_size != size:
        wrong.append(f"{found_size} bytes instead of {size}")
    if found != sha256:
        wrong.append(f"sha256 {found} instead of {sha256}")
    if wrong:
        part.unlink()
        _validator_path(part).unlink(missing_ok=True)
        raise OclBenchError(f"{url} gave {' and '.join(wrong)}; the file was removed. It has changed, or was damaged.")
