"""Read files that nobody vouches for: within limits, strictly, as plain data. Nothing in them is run."""

import gzip
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocl_bench.text import spelled_out

MAX_FILE_BYTES = 10 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 256 * 2**20  # of a whole submission, unpacked
MAX_FILES = 2000
MAX_DEPTH = 16
MAX_TEXT = 10_000


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: path within the submission; empty for the folder itself.
        field: dotted key or line within the file; may be empty.
        message: what is wrong.
    """

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        return spelled_out(": ".join(filter(None, (self.file, self.field, self.message))))


class Unreadable(Exception):
    """A file cannot be taken; the text says why."""


def list_files(folder: Path) -> tuple[list[str], list[Problem]]:
    """Relative paths of the regular files below a folder, and what lies there besides. No link is followed."""
    files, problems = [], []
    for base, folders, names in os.walk(folder, followlinks=False):
        for name in sorted([*folders, *names]):
            path = Path(base, name)
            relative = printable(path.relative_to(folder).as_posix())
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                problems.append(Problem(relative, "", "is a link; submit the file itself"))
            elif stat.S_ISREG(mode):
                files.append(relative)
            elif not stat.S_ISDIR(mode):
                problems.append(Problem(relative, "", "is neither a file nor a folder"))
        if len(files) > MAX_FILES:
            problems.append(Problem("", "", f"has more than {MAX_FILES} files"))
            break
    return files, problems


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises Unreadable if it is no plain file, or too large."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("is not a plain file")
        if found.st_size > MAX_FILE_BYTES:
            raise Unreadable(f"has {found.st_size} bytes; at most {MAX_FILE_BYTES} are taken")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None


def unpack(content: bytes) -> bytes:
    """Decompress gzip. Raises Unreadable if it is none, or unpacks to more than the limit."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        data = unpacker.decompress(content, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        raise Unreadable(f"is not gzip ({error})") from None
    if len(data) > MAX_UNPACKED_BYTES:
        raise Unreadable(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Unreadable("is cut off, or holds more than one gzip member")
    return data


def pack(content: bytes) -> bytes:
    """Compress with gzip: the same bytes for the same content."""
    return gzip.compress(content, 9, mtime=0)


def parse_json(text: bytes) -> Any:
    """One JSON value of bounded depth and size, without repeated keys, NaN or infinity. Raises Unreadable."""
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8") from None
    except RecursionError:
        raise Unreadable(f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise Unreadable(f"is not JSON ({error})") from None
    _check(value)
    return value


def parse_json_lines(text: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and their JSON objects. Raises Unreadable, naming the line."""
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line:
            continue
        try:
            value = parse_json(line)
        except Unreadable as error:
            raise Unreadable(f"line {number} {error}") from None
        if not isinstance(value, dict):
            raise Unreadable(f"line {number} is not a JSON object")
        yield number, value


def printable(text: str) -> str:
    """The text with whatever does not print spelled out, and cut if it is long."""
    shown = spelled_out(text)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise Unreadable(f"has the key '{printable(next(n for n in names if names.count(n) > 1))}' twice")
    return made


def _refuse_constant(name: str) -> float:
    raise Unreadable(f"holds {name}, which is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unreadable(f"holds {printable(digits)}, which is no finite number")
    return value


def _small(digits: str) -> int:
    if len(digits) > 19:
        raise Unreadable(f"holds a whole number of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_small
)


def _check(value: Any) -> None:
    """Refuse what nests too deep, and text that is too long or cannot be written as UTF-8."""
    layer, depth = [value], 0
    while layer:
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, str):
                if len(item) > MAX_TEXT:
                    raise Unreadable(f"holds a text of {len(item)} characters; at most {MAX_TEXT} are taken")
                if not item.isascii() and any("\ud800" <= char <= "\udfff" for char in item):
                    raise Unreadable("holds half a character (a lone surrogate)")
            elif isinstance(item, dict):
                inner += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                inner += item
        layer, depth = inner, depth + 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"is nested more than {MAX_DEPTH} deep")
