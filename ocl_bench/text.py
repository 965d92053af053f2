"""Kinds of text that files hold, each with its alphabet and its length, so that none can be taken for anything else.

What is read is refused if it does not fit; what a machine tells of itself is made to fit by `fitted`.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_LINE = 200
MAX_PROSE = 2000
MAX_HUB_NAME = 96  # of organisation, slash and model

# What Markdown makes tables, links, images and code of, and HTML tags.
MARKUP = frozenset("<>|`[]")
MAX_MARKS = 4  # combining ones in a row: no word needs more, and heaps of them cover the lines beside
# They count as printing, and yet nothing is seen: fillers, joiners and selectors (Unicode's Default_Ignorable).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Names that are devices on Windows, whatever follows a dot.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:\..*)?", re.IGNORECASE | re.DOTALL)


def shows(char: str) -> bool:
    """Whether a character is seen where it stands: no control, bidi, zero-width, private or unassigned one."""
    return char.isprintable() and not _UNSEEN.match(char)


def spelled_out(text: str, keep: str = "") -> str:
    """The text with every character that does not show spelled out, such as \\x1b; those of `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or shows(char) else ascii(char)[1:-1] for char in text)


def fitted(text: str) -> str:
    """The text as a `Line`: whatever does not fit becomes a question mark, or is cut."""
    shown = "".join(char if shows(char) and char not in MARKUP else "?" for char in text)
    marks = groupby(shown, key=_is_mark)
    thin = "".join("".join(list(run)[: MAX_MARKS if is_mark else None]) for is_mark, run in marks)
    return thin.strip()[:MAX_LINE].strip() or "?"


def _is_mark(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char) in ("Mn", "Me")


def _shown(text: str) -> str:
    if any(char in MARKUP or not (char == "\n" or shows(char)) for char in text):
        raise ValueError("holds <, >, |, `, [, ] or a character that does not print; write plain text")
    if any(is_mark and len(list(run)) > MAX_MARKS for is_mark, run in groupby(text, key=_is_mark)):
        raise ValueError(f"holds more than {MAX_MARKS} combining marks in a row; write plain text")
    if text != text.strip():
        raise ValueError("begins or ends with a space; leave it out")
    return text


def _one_line(text: str) -> str:
    if "\n" in text:
        raise ValueError("has more than one line; write one")
    return text


def _real_date(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is no date and time that there is") from None
    return text


def _portable(name: str) -> str:
    if ".." in name or _DEVICES.fullmatch(name):
        raise ValueError("is a name that some system or git refuses; use another")
    return name


def _relative(path: str) -> str:
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("is no relative path of a file")
    return path


def spelled_otherwise(name: str, others: Iterable[str]) -> str | None:
    """The first of other names that differs from this one in nothing but upper and lower case."""
    folded = name.casefold()
    return next((other for other in others if other != name and other.casefold() == folded), None)


# Patterns of pydantic's: there `$` is the end, and a newline before it does not pass.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$")]  # the longer ones of newer repositories
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}$")]
Timestamp = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00$"),
    AfterValidator(_real_date),
]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,255}$")]
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$"), AfterValidator(_portable)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,127}$")]
Words = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*(?: [A-Za-z0-9][A-Za-z0-9_.:+-]*)*$", max_length=128)
]
Device = Annotated[str, Field(pattern=r"^[a-z]{1,16}(?::[0-9]{1,3})?$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}$")]
HubName = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
CellName = Annotated[str, Field(pattern=r"^seed-[0-9]{1,10}(?:-stage2-[0-9]{1,10})?$")]
ModelName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$"), AfterValidator(_portable)
]
Prose = Annotated[str, Field(max_length=MAX_PROSE), AfterValidator(_shown)]
Line = Annotated[str, Field(min_length=1, max_length=MAX_LINE), AfterValidator(_shown), AfterValidator(_one_line)]
FileName = Annotated[Line, AfterValidator(_relative)]
