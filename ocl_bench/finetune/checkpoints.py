"""Checkpoints at the end of epochs, from which a stage that was interrupted goes on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file, write_atomic

SEAL = "progress.json"


class Progress(Contract):
    """progress.json: how far a stage has come. Written last, it makes a checkpoint complete."""

    epoch: int = Field(0, description="epochs trained")
    micro_batch_size: int = Field(description="datapoints per forward pass")
    out_of_memory: int = Field(0, description="how often memory ran out and the micro-batch was made smaller")
    learning_rates: tuple[float, ...] = Field((), description="learning rate of the first step, and the highest so far")
    real_tokens: int = Field(0, description="tokens of all datapoints given so far, without padding")
    seconds: float = Field(0.0, description="wall time so far")
    curve_seconds: float = Field(0.0, description="part of it spent in the caller's hands at the end of epochs")
    rows: tuple[dict[str, Any], ...] = Field((), description="what the caller has measured at the end of epochs")
    files: dict[str, str] = Field({}, description="file of the checkpoint → sha256")


class EpochCheckpoints:
    """The checkpoints of one stage, of which the newest complete one is kept.

    Args:
        folder: where they are; belongs to this stage's training alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Where the Trainer writes its checkpoint after so many optimizer steps."""
        return self.folder / f"checkpoint-{step}"

    def newest(self) -> tuple[Path, Progress] | None:
        """The newest complete checkpoint, every other one being removed; None if there is none."""
        found = [(path, progress) for path in self._all() if (progress := _complete(path))]
        best = max(found, key=lambda one: one[1].epoch, default=None)
        self._remove_all_but(best[0] if best else None)
        return best

    def seal(self, path: Path, progress: Progress) -> None:
        """Make the checkpoint whose files are in `path` complete, on the disk too, and remove the one before it."""
        files = sorted(path.iterdir())
        sealed = progress.model_copy(update={"files": {file.name: sha256_of_file(file) for file in files}})
        write_atomic(path / SEAL, sealed.model_dump_json(indent=2) + "\n")
        for one in (*files, path / SEAL, path, self.folder):
            _sync(one)
        self._remove_all_but(path)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"))

    def _remove_all_but(self, kept: Path | None) -> None:
        for path in self._all():
            if path != kept:
                shutil.rmtree(path)


def _complete(path: Path) -> Progress | None:
    """What the seal of a checkpoint says; None if there is none, or a file is not as it was sealed."""
    try:
        progress = Progress.parse(json.loads((path / SEAL).read_text(encoding="utf-8")), str(path))
        whole = all(sha256_of_file(path / name) == digest for name, digest in progress.files.items())
    except (OSError, ValueError, OclBenchError):
        return None
    return progress if whole else None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
