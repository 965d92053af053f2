"""Where finished stages and evaluations lie, found by their content, complete or absent.

    <output_path>/stages/<key>/         a checkpoint that from_pretrained loads, stage.json, the learning curve
                         adapter/       what was trained in place of the weights, if that was an adapter
    <output_path>/stages/.<key>.work/   epoch checkpoints of a stage in training
    <output_path>/evaluations/<key>/    rows.jsonl, record.json

A key is that of `identity.content_key`. Run folders hold links to these files, so that a run stays whole when others
share it or the store is pruned.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ocl_bench.contract import Contract
from ocl_bench.files import folder_atomic, sha256_of_file, to_json_lines
from ocl_bench.runner.identity import SHORT, content_key
from ocl_bench.runner.manifest import EvaluationRecord, StageRecord

STAGE_FILE, ROWS_FILE, RECORD_FILE = "stage.json", "rows.jsonl", "record.json"
ADAPTER = "adapter"
LOCK_POLL_SECONDS = 0.2

T = TypeVar("T", bound=Contract)


@dataclass(frozen=True)
class Store:
    """Finished stages and evaluations below an output folder.

    Attributes:
        root: the output folder.
    """

    root: Path

    def stage_path(self, key: str) -> Path:
        """Folder of a stage, whether or not it is there."""
        return self.root / "stages" / key[:SHORT]

    def work_path(self, key: str) -> Path:
        """Folder of a stage in training."""
        return self.root / "stages" / f".{key[:SHORT]}.work"

    def evaluation_path(self, key: str) -> Path:
        """Folder of an evaluation, whether or not it is there."""
        return self.root / "evaluations" / key[:SHORT]

    def stage(self, key: str) -> StageRecord | None:
        """What a finished stage did; None if it is not there, or not what its key says."""
        record = _read(StageRecord, self.stage_path(key) / STAGE_FILE)
        return record if record is not None and record.key == key == content_key(record.identity) else None

    def evaluation(self, key: str) -> EvaluationRecord | None:
        """What a finished evaluation is; None if it is not there, or not what its key says."""
        folder = self.evaluation_path(key)
        record = _read(EvaluationRecord, folder / RECORD_FILE)
        if record is None or not record.key == key == content_key(record.identity):
            return None
        try:
            return record if sha256_of_file(folder / ROWS_FILE) == record.rows_sha256 else None
        except OSError:
            return None

    def damage(self, record: StageRecord, weights: bool) -> str | None:
        """What of a stage's files is not as it was written; None if nothing is.

        Args:
            record: the stage's.
            weights: whether to read the weights too, and not only their size. Weights that were removed are no damage.
        """
        folder = self.stage_path(record.key)
        for name, (size, digest) in record.files.items():
            path = folder / name
            if not path.is_file():
                if is_weights(name):
                    continue
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} has {path.stat().st_size} bytes, {size} were written"
            if (weights or not is_weights(name)) and sha256_of_file(path) != digest:
                return f"{path} is not what was written (its sha256 differs)"
        return None

    def has_weights(self, record: StageRecord) -> bool:
        """Whether a stage's weights are still there."""
        folder = self.stage_path(record.key)
        return all((folder / name).is_file() for name in record.files if is_weights(name))

    def remove_weights(self, record: StageRecord) -> int:
        """Remove a stage's weights; what it did, and its answers, stay. Returns the bytes."""
        removed = 0
        for name, (size, _) in record.files.items():
            path = self.stage_path(record.key) / name
            if is_weights(name) and path.is_file():
                path.unlink()
                removed += size
        return removed

    def remove_stage(self, key: str) -> None:
        """Remove a stage, whatever its state."""
        shutil.rmtree(self.stage_path(key), ignore_errors=True)

    def remove_work(self, key: str) -> None:
        """Remove the epoch checkpoints of a stage in training."""
        shutil.rmtree(self.work_path(key), ignore_errors=True)

    def remove_evaluations(self, keys: Iterable[str]) -> None:
        """Remove evaluations."""
        for key in keys:
            shutil.rmtree(self.evaluation_path(key), ignore_errors=True)

    def spoiled_stage(self, key: str) -> str | None:
        """Which file says nothing of a stage whose folder is there; None if it does, or no folder is there."""
        path = self.stage_path(key) / STAGE_FILE
        return _spoiled(path) if path.parent.is_dir() and self.stage(key) is None else None

    def spoiled_evaluation(self, key: str) -> str | None:
        """Which file of an evaluation whose folder is there is not what was written; None if none, or no folder."""
        folder = self.evaluation_path(key)
        if not folder.is_dir() or self.evaluation(key) is not None:
            return None
        record = _read(EvaluationRecord, folder / RECORD_FILE)
        whole = record is not None and record.key == key == content_key(record.identity)
        return _spoiled(folder / (ROWS_FILE if whole else RECORD_FILE))

    def write_evaluation(self, record: EvaluationRecord, rows: Sequence[Contract]) -> None:
        """Write an evaluation; `record.rows_sha256` is that of `rows_text(rows)`.

        Processes at different stages may ask the same of the same model: the first that is done writes it.
        """
        path = self.evaluation_path(record.key)
        with self._locked("evaluations", record.key):
            if self.evaluation(record.key) is not None:
                return
            shutil.rmtree(path, ignore_errors=True)  # there, but not what its key says
            with folder_atomic(path) as folder:
                (folder / ROWS_FILE).write_text(rows_text(rows), encoding="utf-8")
                (folder / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def adopt(self, key: str, source: Path) -> bool:
        """Have a finished stage from a folder, if that holds one of just this key. Returns whether it does."""
        record = _read(StageRecord, source / STAGE_FILE)
        path = self.stage_path(key)
        if record is None or not record.key == key == content_key(record.identity):
            return False
        with self._locked("stages", key):
            if not path.exists():
                with folder_atomic(path) as folder:
                    for name in (*record.files, STAGE_FILE):
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(source / name, folder / name)
        return True

    def sweep(self) -> None:
        """Remove what dead processes left: what is half-written, and checkpoints of stages that are finished."""
        for kind in ("stages", "evaluations"):
            for left in (self.root / kind).glob(".*.*"):
                key = left.name.split(".")[1]
                of_finished = left != self.work_path(key) or (self.stage_path(key) / STAGE_FILE).is_file()
                if left.is_dir() and of_finished:
                    with contextlib.suppress(Timeout), self._locked(kind, key, timeout=0):
                        shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Keep a stage to this process; whatever a dead one left half-written is removed.

        The system gives up the lock of a process that has ended, however it ended.

        Args:
            key: the stage's.
            on_wait: called once if another process has it.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self._locked("stages", key, timeout=0))
            except Timeout:
                on_wait()
                held.enter_context(self._locked("stages", key))
            yield

    @contextmanager
    def _locked(self, kind: str, key: str, timeout: float = -1) -> Iterator[None]:
        path = self.root / kind / f".{key[:SHORT]}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path).acquire(timeout=timeout, poll_interval=LOCK_POLL_SECONDS):
            for left in path.parent.glob(f".{key[:SHORT]}.*"):
                if left != self.work_path(key) and left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
            yield


def is_weights(name: str) -> bool:
    """Whether a file of a checkpoint holds its weights, which may be removed while the rest stays, an adapter too."""
    return name.endswith(".safetensors") and "/" not in name


def rows_text(rows: Sequence[Contract]) -> str:
    """Rows as JSON lines."""
    return to_json_lines(row.model_dump(mode="json") for row in rows)


def list_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file of a folder and of those in it → its bytes and their sha256."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def link_file(source: Path, target: Path, place: Path) -> None:
    """Have a file in a second place without a second copy. Without hard links, small ones are copied.

    Args:
        source: the file.
        target: the second place, now.
        place: the folder in which that will be in the end.
    """
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    if is_weights(source.name):
        target.symlink_to(os.path.relpath(source, place))
    else:
        shutil.copy2(source, target)


def _spoiled(path: Path) -> str:
    return f"{path} is {'not what was written' if path.is_file() else 'missing'}"


def stage_of(checkpoint: Path) -> StageRecord | None:
    """What a run says of the training that made a checkpoint; None of a checkpoint that no run made."""
    return _read(StageRecord, checkpoint / STAGE_FILE)


def _read(contract: type[T], path: Path) -> T | None:
    try:
        return contract.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
