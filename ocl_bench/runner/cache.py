"""The stages and evaluations that runs share: what is there, how large it is, what uses it, and what can go."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from filelock import FileLock, Timeout

from ocl_bench.errors import OclBenchError
from ocl_bench.runner.identity import SHORT
from ocl_bench.runner.manifest import EvaluationRecord, StageRecord, read_manifest
from ocl_bench.runner.part import FOLDER as PARTS
from ocl_bench.runner.store import STAGE_FILE, is_weights

T = TypeVar("T", StageRecord, EvaluationRecord)
Kind = Literal["stage", "unfinished", "evaluation"]
KEY = re.compile(f"[0-9a-f]{{{SHORT}}}")
PLACES: dict[Kind, str] = {
    "stage": "stages/[!.]*",
    "unfinished": "stages/.*.work",
    "evaluation": "evaluations/[!.]*",
}


@dataclass(frozen=True)
class Cached:
    """One thing in the store.

    Attributes:
        kind: a finished stage, epoch checkpoints of one that is not, or an evaluation.
        path: its folder.
        size: bytes of its files; `weights`: those of them that are weights.
        used_by: run folders that show it.
        what: such as "attributes x1" where a run tells, else empty.
    """

    kind: Kind
    path: Path
    size: int
    weights: int
    used_by: tuple[Path, ...]
    what: str


def cached(root: Path) -> list[Cached]:
    """All that lies in the store of an output folder. Raises OclBenchError if there is no such folder."""
    if not root.is_dir():
        raise OclBenchError(f"--output_path {root}: there is no such folder.")
    users: dict[str, list[Path]] = defaultdict(list)
    names: dict[str, str] = {}
    for run, key, name in _used(root):
        users[key].append(run)
        names[key] = name
    found = []
    for kind, pattern in PLACES.items():
        for path in sorted(root.glob(pattern)):
            key = path.name.removeprefix(".").removesuffix(".work")
            if path.is_dir() and KEY.fullmatch(key):  # a model's folder may have the store's name
                files = (file for file in path.rglob("*") if file.is_file())
                sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
                weights = sum(size for name, size in sizes.items() if is_weights(name))
                used = tuple(dict.fromkeys(users[key]))
                found.append(Cached(kind, path, sum(sizes.values()), weights, used, names.get(key, "")))
    return found


def _used(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Run folder, short key and name of every stage and evaluation that runs show, finished or not."""
    for manifest in sorted(root.glob("*/*/*/manifest.json")):
        run = manifest.parent
        try:
            task = read_manifest(run).config.task.task
        except OclBenchError:
            continue  # of another version
        for path in run.glob(f"*/*/{STAGE_FILE}"):
            record = _read(StageRecord, path)
            if record is not None:
                yield run, record.key[:SHORT], f"{task} {path.parent.name}"
        for path in run.glob("*/*/*.json"):
            if path.name == STAGE_FILE or not path.with_suffix(".jsonl").is_file():
                continue
            evaluation = _read(EvaluationRecord, path)
            if evaluation is not None:
                yield run, evaluation.key[:SHORT], f"{task} {path.parent.name} {path.stem}"


def prune(root: Path, weights: bool) -> list[Cached]:
    """Remove what no run shows, and half-finished stages that no process is at; returns what was removed.

    Args:
        root: the output folder.
        weights: remove all weights too, those in run folders included; answers and results stay.

    Raises:
        OclBenchError: while a sweep is under way there, or has not ended well: no run shows its stages yet.
    """
    if (root / PARTS).is_dir():
        raise OclBenchError(
            f"{root}: a sweep is under way there, or has not ended well, and no run shows its stages yet; finish it, "
            f"or remove {root / PARTS} to give them up."
        )
    removed = []
    for one in cached(root):
        key = one.path.name.removeprefix(".").removesuffix(".work")
        if one.kind != "evaluation" and _is_locked(root / "stages" / f".{key}.lock"):
            continue
        if not one.used_by:
            shutil.rmtree(one.path, ignore_errors=True)
            removed.append(one)
        elif weights and one.weights:
            for folder in (one.path, *(path.parent for path in _shown(root, key))):
                for file in folder.iterdir():
                    if is_weights(file.name):
                        file.unlink()
            removed.append(one)
    return removed


def _shown(root: Path, key: str) -> Iterator[Path]:
    """stage.json of every place in a run folder that shows a stage."""
    for path in root.glob(f"*/*/*/*/*/{STAGE_FILE}"):
        record = _read(StageRecord, path)
        if record is not None and record.key[:SHORT] == key:
            yield path


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _read(contract: type[T], path: Path) -> T | None:
    try:
        return contract.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
