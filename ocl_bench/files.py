"""Files that are whole or absent: atomic writes, JSON lines, content hashes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError

json_text = json.encoder.encode_basestring  # a text as `to_json_lines` writes it
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": "))


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to a temporary file beside `path`, then rename it, so that no reader sees half a file."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name with nothing behind it
        Path(name).chmod(0o644)  # temporary files are private, results are not
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, which must not exist, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True) as name:
        inside = Path(name) / path.name
        inside.mkdir()
        yield inside
        for made in (*inside.rglob("*"), inside):
            if not made.is_symlink():  # what it points to is another's, and is found from its place only
                _sync(made)
        inside.replace(path)
        _sync(path.parent)


@contextmanager
def files_atomic(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files go into `folder` when the block ends without an error, all or none.

    Files that are there already are replaced, others stay.

    Raises:
        OclBenchError: if they cannot be written, as on a full disk.
    """
    absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new.", ignore_cleanup_errors=True) as name:
            yield Path(name)
            made = [path for path in Path(name).rglob("*") if path.is_file()]
            for path in made:
                _sync(path)
            for path in made:
                place = folder / path.relative_to(name)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
            _sync(folder)
    except OSError as error:
        raise OclBenchError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or choose another with --output_path."
        ) from None
    finally:
        for path in absent:  # those that were made for nothing
            with suppress(OSError):
                path.rmdir()


def _sync(path: Path) -> None:
    """Have the system write out a file or a folder, so that it outlives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some file systems know no such thing of folders
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def to_json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One compact JSON object a line, keys in the order given, UTF-8: the same bytes for the same rows."""
    return "".join(f"{_JSON.encode(row)}\n" for row in rows)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; a line that is not a JSON object is an error that names the line."""
    import jsonlines

    try:
        with path.open("rb") as file, jsonlines.Reader(file) as reader:
            yield from reader.iter(type=dict)
    except OSError as error:
        raise OclBenchError(f"{path}: cannot be read ({error.strerror}).") from None
    except jsonlines.InvalidLineError as error:
        raise OclBenchError(f"{path} line {error.lineno}: not a JSON object.") from None


def sha256(content: bytes | str) -> str:
    """Hex SHA-256 of `content` (text as UTF-8)."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_writable(folder: Path, option: str = "--output_path") -> None:
    """Prove that files can be written below `folder`, and leave nothing there.

    Raises:
        OclBenchError: if not, with the option that names another.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise OclBenchError(
            f"cannot write to the output folder {folder} ({error.strerror}); choose another with {option}."
        ) from None
