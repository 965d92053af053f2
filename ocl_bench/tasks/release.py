"""Released data: a task's records for the standard seeds, with checksums that anyone can verify by rebuilding."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import files_atomic, sha256, write_atomic
from ocl_bench.tasks.build import ORDER, build
from ocl_bench.tasks.load import TASK_FOLDER, load_task, task_files
from ocl_bench.tasks.records import Record, serialize
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.subsets import Split

CHECKSUMS = "checksums.json"


class Checksums(Contract):
    """checksums.json."""

    version: int = Field(description="version of the task that the data was built from")
    seeds: dict[Annotated[str, Field(pattern=r"^\d+$")], dict[Split, str]] = Field(
        description="seed → split → sha256 of its uncompressed JSON lines"
    )


def splits(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by split, in file order."""
    return {name: [one for one in records if one.split == name] for name in ORDER}


def write_splits(task: Task, seed: int, stage2_seed: int, folder: Path) -> dict[Path, int]:
    """Write x1.jsonl, x2.jsonl and test.jsonl, and x0.jsonl if there is one; returns each file's number of records.

    Raises:
        OclBenchError: if they cannot be written, and then none is.
    """
    counts = {}
    found = splits(build(task, seed, stage2_seed))
    with files_atomic(folder) as inside:
        for name, records in found.items():
            if name == "x0" and not records:
                continue
            (inside / f"{name}.jsonl").write_bytes(serialize(records).encode())
            counts[folder / f"{name}.jsonl"] = len(records)
    return counts


def release(name: str, with_data: bool = True) -> Path:
    """Write a task's released data and checksums beside its task file; returns the checksum file.

    Args:
        name: the task.
        with_data: False writes the checksums alone, for data that is too large to ship and quick to build.
    """
    return write_release(load_task(name), task_files()[name].parent, with_data)


def write_release(task: Task, folder: Path, with_data: bool = True) -> Path:
    """Write a task's records for the standard seeds, and their checksums, to a folder; returns the checksum file.

    The files are compressed; the checksums are of the uncompressed lines, so that they hold for any compressor.
    A split without records has no file.
    """
    seeds: dict[str, dict[str, str]] = {}
    for seed in task.standard_seeds:
        seeds[str(seed)] = {}
        for split, records in splits(build(task, seed)).items():
            if not records:
                continue
            text = serialize(records)
            path = folder / "data" / f"seed-{seed}" / f"{split}.jsonl.gz"
            if with_data:
                write_atomic(path, gzip.compress(text.encode(), 9, mtime=0))
            seeds[str(seed)][split] = sha256(text)
    checksums = Checksums(version=task.version, seeds=seeds)
    write_atomic(folder / CHECKSUMS, checksums.model_dump_json(indent=2) + "\n")
    return folder / CHECKSUMS


def released_stages(stage: str) -> list[Path]:
    """The folders of finished stages of a name that come with the suite's tasks.

    A run takes one instead of training the same: one whose data, recipe, model and seed have just its key. Its task may
    be another, such as one that includes the stage's.
    """
    return [path for path in sorted(TASK_FOLDER.glob(f"*/{stage}")) if path.is_dir()]


@dataclass(frozen=True)
class Check:
    """Outcome of verifying one file."""

    name: str
    agrees: bool
    detail: str


def verify(name: str, include_path: Sequence[Path] = ()) -> Iterator[Check]:
    """Rebuild every released file of a task and compare it, and the copy that lies there, with its checksum.

    Raises:
        OclBenchError: if the task has no released data, or it is of another version of the task.
    """
    task = load_task(name, include_path=include_path)
    folder = task_files(include_path)[task.task].parent if not name.endswith((".yaml", ".yml")) else Path(name).parent
    path = folder / CHECKSUMS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OclBenchError(
            f"task '{task.task}' has no released data: {path} is missing; its data is made, or fetched, where it runs."
        ) from None
    except ValueError as error:
        raise OclBenchError(f"{path}: not JSON ({error}).") from None
    released = Checksums.parse(data, str(path))
    if released.version != task.version:
        raise OclBenchError(
            f"{path} is of version {released.version}, the task is version {task.version}; release again."
        )
    for seed, checksums in released.seeds.items():
        rebuilt, cell = splits(build(task, int(seed))), f"seed-{seed}"
        for split, checksum in checksums.items():
            copy = folder / "data" / cell / f"{split}.jsonl.gz"
            digests = {"rebuilt": sha256(serialize(rebuilt[split]))}
            if copy.is_file():
                digests["released file"] = _uncompressed_sha256(copy)
            wrong = [what for what, digest in digests.items() if digest != checksum]
            yield Check(f"{cell}/{split}", not wrong, f"{' and '.join(wrong)} differ" if wrong else checksum[:16])


def _uncompressed_sha256(path: Path) -> str:
    try:
        return sha256(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error) as error:
        return f"unreadable: {error}"
