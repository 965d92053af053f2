"""Finished files that are no longer what was written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torture.runs import Bench, Lost, Place

SHORT_KEY = 24


def _of_run(place: Place, name: str) -> Path:
    (folder,) = place.run_folders()
    return folder / name


def _stage(place: Place, name: str) -> Path:
    key: str = json.loads((_of_run(place, name) / "stage.json").read_text())["key"]
    return place.output / "stages" / key[:SHORT_KEY]


def truncated(path: Path) -> None:
    """Half of a file is gone."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def edited(path: Path) -> None:
    """One byte of a file is another, in place, so that every hard link shows it; in JSON, one of a checksum."""
    data = path.read_bytes()
    at = data.find(b'"dataset"')
    at = at + len(b'"dataset": "') if path.name == "stage.json" and at >= 0 else len(data) // 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"0" if data[at : at + 1] != b"0" else b"1")


def missing(path: Path) -> None:
    """A file is gone."""
    path.unlink()


def stage_file(name: str, damage: Callable[[Path], None]) -> Callable[[Bench], Lost]:
    """A file of a finished x1 is damaged, and an x2 that starts from it is not there."""

    def case(bench: Bench) -> Lost:
        place = bench.copy_of_reference()
        later, damaged = _stage(place, "seed-0/x2"), _stage(place, "seed-0/x1") / name
        shutil.rmtree(later)
        damage(damaged)
        return _mend(bench, place, damaged)

    return case


def rows_file(damage: Callable[[Path], None]) -> Callable[[Bench], Lost]:
    """The rows of a finished evaluation are damaged."""

    def case(bench: Bench) -> Lost:
        place = bench.copy_of_reference()
        key = json.loads(_of_run(place, "seed-0/x1/answers.json").read_text())["key"]
        damaged = place.output / "evaluations" / key[:SHORT_KEY] / "rows.jsonl"
        damage(damaged)
        return _mend(bench, place, damaged)

    return case


def _mend(bench: Bench, place: Place, damaged: Path) -> Lost:
    ended = place.run()
    assert ended.code == 0, ended.stderr
    assert str(damaged) in ended.stderr or str(damaged.parent) in ended.stderr, f"not named: {ended.stderr}"
    bench.check(place)
    return Lost(1, 1, 0, {"epochs trained to mend it": sum(place.epochs().values())})
