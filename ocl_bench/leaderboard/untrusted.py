"""Read files that nobody vouches for: within limits, strictly, as plain data. Nothing in them is run."""

import gzip
import itertools
import json
import math
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocl_bench.text import spelled_out

# What the largest tasks need, a few times over: an honest submission of `attributes` has 14 files, 6 MB unpacked, and
# 1500 values in its largest JSON file; one of `cvdb` ten times the bytes.
MAX_FILE_BYTES = 8 * 2**20
MAX_UNPACKED_BYTES = 24 * 2**20
MAX_TOTAL_BYTES = 96 * 2**20  # of a whole submission, unpacked; an archive that is refused counts as if it were full
MAX_JSON_BYTES = 2**20
MAX_VALUES = 50_000  # of a JSON value: each may become a problem, and costs a microsecond in each check
MAX_FILES = 100  # four, and two of each training
MAX_ENTRIES = 1000  # names looked at, folders among them
MAX_DEPTH = 16
MAX_TEXT = 10_000
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


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
    files: list[str] = []
    problems: list[Problem] = []
    waiting, seen = [""], 0
    while waiting:
        base = waiting.pop()
        names, whole = _names(folder / base, MAX_ENTRIES - seen)
        seen += len(names)
        for name in names:
            relative, shown = f"{base}{name}", printable(f"{base}{name}")
            try:
                mode = (folder / relative).lstat().st_mode
            except OSError as error:
                problems.append(Problem(shown, "", f"cannot be read ({error.strerror})"))
                continue
            if not NAME.fullmatch(name):
                problems.append(Problem(shown, "", "has a name that no file of a submission has"))
            elif stat.S_ISLNK(mode):
                problems.append(Problem(shown, "", "is a link; submit the file itself"))
            elif stat.S_ISREG(mode):
                files.append(relative)
            elif not stat.S_ISDIR(mode):
                problems.append(Problem(shown, "", "is neither a file nor a folder"))
            elif relative.count("/") >= MAX_DEPTH:
                problems.append(Problem(shown, "", f"lies more than {MAX_DEPTH} folders deep"))
            else:
                waiting.append(f"{relative}/")
        if not whole or len(files) > MAX_FILES:
            what = f"{MAX_FILES} files" if whole else f"{MAX_ENTRIES} files and folders, or some that cannot be listed"
            return sorted(files)[:MAX_FILES], [*problems, Problem("", "", f"has more than {what}")]
    return sorted(files), problems


def _names(folder: Path, most: int) -> tuple[list[str], bool]:
    """At most so many names in a folder, and whether these are all."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, most + 1)]
    except OSError:
        return [], False
    return sorted(names[:most]), len(names) <= most


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """A file's content, read from one open file. Raises Unreadable if it is no plain file, or too large."""
    try:
        # Without waiting for a writer, should it be a pipe by now.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("is not a plain file")
            if found.st_size > most:
                raise Unreadable(f"has {found.st_size} bytes; at most {most} are taken")
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(most + 1)  # it may grow meanwhile
        finally:
            os.close(handle)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise Unreadable(f"grows while it is read; at most {most} bytes are taken")
    return content


def unpack(content: bytes, most: int = MAX_UNPACKED_BYTES) -> bytes:
    """Decompress gzip. Raises Unreadable if it is none, or unpacks to more than the limit."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        data = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise Unreadable(f"is not gzip ({error})") from None
    if len(data) > most:
        raise Unreadable(f"unpacks to more than {most} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Unreadable("is cut off, or holds more than one gzip member")
    return data


def pack(content: bytes) -> bytes:
    """Compress with gzip: the same bytes for the same content."""
    return gzip.compress(content, 9, mtime=0)


def parse_json(text: bytes) -> Any:
    """One JSON value of bounded depth and size, without repeated keys, NaN or infinity. Raises Unreadable."""
    if len(text) > MAX_JSON_BYTES:
        raise Unreadable(f"has {len(text)} bytes; at most {MAX_JSON_BYTES} of JSON are taken")
    if text.count(b",") > MAX_VALUES:  # what has none is deep, or small
        raise Unreadable(f"holds more than {MAX_VALUES} values")
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


def parse_json_lines(text: bytes, most: int = MAX_VALUES) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and their JSON objects. Raises Unreadable, naming the line, or for more lines than `most`."""
    if text.count(b"\n") > most:
        raise Unreadable(f"has more than {most} lines")
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line:
            yield number, parse_json_line(number, line)


def parse_json_line(number: int, line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises Unreadable, naming the line."""
    try:
        value = parse_json(line)
    except Unreadable as error:
        raise Unreadable(f"line {number} {error}") from None
    if not isinstance(value, dict):
        raise Unreadable(f"line {number} is not a JSON object")
    return value


def printable(text: str) -> str:
    """The text with whatever does not print spelled out, and cut if it is long."""
    shown = spelled_out(text[:121])
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def loggable(text: str, most: int = 1000) -> str:
    """The text as a line of a log: printable, not too long, and nothing that GitHub's runner takes for a command."""
    shown = spelled_out(text[: most + 1])
    shown = shown if len(text) <= most else f"{shown[: most - 3]}..."
    return shown.replace("::", r":\x3a").replace("##[", r"#\x23[")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Unreadable(f"has the key '{printable(twice)}' twice")
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
