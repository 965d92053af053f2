"""Read every file of a submission into a `Checked`, which the checks fill with problems."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ocl_bench.contract import Contract
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.files import sha256
from ocl_bench.leaderboard.submission import CONFIG, MANIFEST, RESULTS, SUBMISSION, Submission
from ocl_bench.leaderboard.untrusted import (
    MAX_TOTAL_BYTES,
    MAX_UNPACKED_BYTES,
    Problem,
    Unreadable,
    list_files,
    parse_json,
    printable,
    read_bytes,
    unpack,
)
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.result import Results
from ocl_bench.score.samples import Sample

SHOWN = 5  # problems of one kind and file; the others are counted

T = TypeVar("T", bound=Contract)
Floats = NDArray[np.float32]
Hashes = NDArray[np.uint32]


@dataclass
class Checked:
    """A submission that was read, and what is wrong with it.

    Attributes:
        folder: where it lies.
        problems: what is wrong; the rest is only there as far as it could be read.
        ranked: results of what ranks rest on: in the standard division the standard seeds alone.
        curves: cell → its learning curve.
        samples: every sample, with all that is derived, while it is checked; afterwards a few, as examples.
        fingerprint: cell's name and stage → of every answer, in the order of the questions' ids, the log-probability
            (float32) and a hash of the generated text (uint32).
        begun_with: seed of the initial weights → the words that its tokens are, until these weights are checked.
    """

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    submission: Submission | None = None
    manifest: Manifest | None = None
    results: Results | None = None
    ranked: Results | None = None
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[Cell, list[CurvePoint]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    fingerprint: dict[tuple[str, str], tuple[Floats, Hashes]] = field(default_factory=dict)
    begun_with: dict[int, list[str]] = field(default_factory=dict)

    def add(self, file: str, where: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(file, where, message))


def read_all(checked: Checked) -> dict[str, bytes]:
    """Every file's bytes, unpacked; and the parsed submission, manifest, results and configuration.

    Nothing of a submission whose files are too large together.
    """
    names, problems = list_files(checked.folder)
    checked.problems += problems
    contents: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    total = 0
    for name in names:
        try:
            raw = read_bytes(checked.folder / name)
            total += len(raw)
            digests[name] = sha256(raw)
            packed = name.endswith(".gz")
            total += MAX_UNPACKED_BYTES if packed else 0  # until it is known how much it is
            contents[name] = unpack(raw) if packed else raw
            total -= MAX_UNPACKED_BYTES - len(contents[name]) if packed else 0
        except Unreadable as error:
            checked.add(name, "", str(error))
        if total > MAX_TOTAL_BYTES:
            checked.add("", "", f"its files unpack to more than {MAX_TOTAL_BYTES} bytes in all")
            return {}
    checked.submission = _parse(checked, Submission, SUBMISSION, contents)
    checked.manifest = _parse(checked, Manifest, MANIFEST, contents)
    checked.results = _parse(checked, Results, RESULTS, contents)
    config = _json(checked, CONFIG, contents)
    if isinstance(config, dict):
        checked.config = config
    if checked.submission is not None:
        listed = checked.submission.files
        for name in sorted({*listed, *digests} - {SUBMISSION}):
            if name not in digests:
                checked.add(SUBMISSION, f"files.{printable(name)}", "there is no such file")
            elif name not in listed:
                checked.add(name, "", "is not listed in submission.json")
            elif listed[name] != digests[name]:
                checked.add(name, "", "its sha256 is not the one in submission.json")
    return contents


def _json(checked: Checked, name: str, contents: Mapping[str, bytes]) -> Any:
    if name not in contents:
        if not any(problem.file == name for problem in checked.problems):
            checked.add(name, "", "is missing")
        return None
    try:
        value = parse_json(contents[name])
    except Unreadable as error:
        checked.add(name, "", str(error))
        return None
    if not isinstance(value, dict):
        checked.add(name, "", "is not a JSON object")
        return None
    return value


def _parse(checked: Checked, contract: type[T], name: str, contents: Mapping[str, bytes]) -> T | None:
    value = _json(checked, name, contents)
    if value is None:
        return None
    odd = (where for where, text in _texts(value) if not _is_plain(text))
    message = "holds <, > or a character that does not print"
    checked.problems += few(name, (Problem(name, where, message) for where in odd))
    try:
        return contract.model_validate_json(contents[name], strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        checked.problems += few(
            name, (Problem(name, printable(".".join(map(str, one["loc"]))), printable(one["msg"])) for one in found)
        )
        return None


def _is_plain(text: str) -> bool:
    return "<" not in text and ">" not in text and text.replace("\n", "").isprintable()


def _texts(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted key and text of every string but those of the task, whose wording is free, and of what was passed."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        where, item = waiting.pop()
        if where in (".config.task", ".passed"):
            continue
        if isinstance(item, str):
            yield printable(where.removeprefix(".")), item
        elif isinstance(item, dict):
            waiting += [(f"{where}.{key}", inner) for key, inner in item.items()]
            waiting += [(f"{where} (a key)", key) for key in item]
        elif isinstance(item, list):
            waiting += [(f"{where}.{number}", inner) for number, inner in enumerate(item)]


def few(name: str, problems: Iterable[Problem]) -> list[Problem]:
    """The first problems of a kind in a file, and how many more there are."""
    left = iter(problems)
    shown = list(itertools.islice(left, SHOWN))
    more = sum(1 for _ in left)
    return [*shown, Problem(name, "", f"and {more} more of this kind")] if more else shown
