"""What a run is at, second by second: collected from its messages, and kept in live.json for whoever asks elsewhere."""

import contextlib
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import write_atomic
from ocl_bench.processes import Message
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.runner.messages import (
    Answered,
    EpochDone,
    Note,
    OfStage,
    StageDone,
    Stepped,
    Waiting,
)
from ocl_bench.runner.part import FOLDER as PARTS

LIVE, MANIFEST = "live.json", "manifest.json"
PLACES = ("*/*/*", f"{PARTS}/*")  # in an output folder: of runs, and of parts of them
WRITTEN_SECONDS = 2.0  # between two writes
SILENT_SECONDS = 60.0  # after which a run that has not said anything may be gone


class Running(Contract):
    """A stage that is under way."""

    stage: str = Field(description="which, as messages call it")
    doing: Literal["training", "answering", "waiting"] = Field(description="what is done")
    device: str = Field("", description="where; empty before its first step")
    step: int = Field(0, description="optimizer steps taken, or questions answered")
    steps: int = Field(0, description="of how many; 0 if not known yet")
    loss: float | None = Field(
        None, description="training loss of the last step, or the mean of an epoch that just ended"
    )
    tokens_per_second: float = Field(0.0, description="without padding, learning curves aside")
    memory: int = Field(0, description="bytes in use")
    seconds_left: float | None = Field(None, description="until its last step, at the pace so far")


class LiveState(Contract):
    """live.json: what a run is at. It is there while the run is."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    host: str = Field(description="the machine")
    updated: str = Field(description="UTC time")
    done: int = Field(description="stages done")
    of: int = Field(description="stages in all")
    running: tuple[Running, ...] = Field((), description="stages under way")


class Live:
    """Takes a run's messages, and knows what is under way.

    Args:
        of: stages in all.
        done: stages that were there.
    """

    def __init__(self, of: int, done: int = 0) -> None:
        self.of, self.done = of, done
        self.running: dict[str, Running] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # when a stage told of its first step, and which
        self._written = 0.0

    def take(self, message: Message) -> None:
        """Take one message."""
        if isinstance(message, Note) and message.ended is not None:
            self._end(message.ended.name)
        if not isinstance(message, OfStage):
            return
        name = message.where.name
        now = self.running.get(name, Running(stage=name, doing="training"))
        match message:
            case StageDone():
                self._end(name)
                return
            case Stepped():
                found = {
                    "doing": "training",
                    "step": message.step,
                    "steps": message.steps,
                    "tokens_per_second": message.tokens_per_second,
                    "memory": message.memory,
                    "device": message.device,
                    "loss": message.loss,
                    "seconds_left": self._left(name, message.step, message.steps),
                }
            case EpochDone():
                found = {"loss": message.loss}
            case Answered():
                # One evaluator after the other tells of its own questions.
                goes_on = now.doing == "answering" and now.steps == message.of and now.step < message.of
                before = now.step if goes_on else 0
                found = {"doing": "answering", "step": before + message.questions, "steps": message.of}
                found["seconds_left"] = None
            case Waiting():
                found = {"doing": "waiting"}
            case _:
                return
        self.running[name] = now.model_copy(update=found)

    def _end(self, name: str) -> None:
        self.running.pop(name, None)
        self._begun.pop(name, None)

    def _left(self, name: str, step: int, steps: int) -> float | None:
        """Seconds until a stage's last step, at the rate since its first message."""
        now = time.monotonic()
        begun, first = self._begun.setdefault(name, (now, step))
        return None if step == first else (now - begun) / (step - first) * (steps - step)

    def write(self, folder: Path, at_once: bool = False) -> None:
        """Keep the state in a run folder, unless that was done just now."""
        if not at_once and time.monotonic() - self._written < WRITTEN_SECONDS:
            return
        self._written = time.monotonic()
        state = LiveState(
            host=platform.node(),
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
            done=self.done,
            of=self.of,
            running=tuple(self.running.values()),
        )
        with contextlib.suppress(OSError):  # whoever looks on misses something, and nothing else is lost
            write_atomic(folder / LIVE, state.model_dump_json(indent=1) + "\n")

    @staticmethod
    def remove(folder: Path) -> None:
        """The run has ended."""
        with contextlib.suppress(OSError):
            (folder / LIVE).unlink(missing_ok=True)


@dataclass(frozen=True)
class Seen:
    """A run folder, as it is now.

    Attributes:
        folder: the run folder.
        manifest: of the run.
        state: what it is at; None if nothing is under way.
    """

    folder: Path
    manifest: Manifest
    state: LiveState | None

    @property
    def status(self) -> str:
        """The manifest's, or `silent since …` of a run that says nothing any more."""
        if self.manifest.status != "running" or self.state is None:
            return self.manifest.status
        updated = datetime.fromisoformat(self.state.updated)
        silent = (datetime.now(UTC) - updated).total_seconds() > SILENT_SECONDS
        return f"silent since {updated:%H:%M:%S} UTC" if silent else "running"


def seen(output_path: Path, underway: bool = False) -> Iterator[Seen]:
    """Runs in an output folder, and parts of those that other machines do, by name. What cannot be read is left out.

    Args:
        output_path: the folder.
        underway: leave out those that tell nothing of themselves now, without reading their manifests.
    """
    name = LIVE if underway else MANIFEST
    for path in sorted(found for place in PLACES for found in output_path.glob(f"{place}/{name}")):
        try:
            manifest = read_manifest(path.parent)
            live = path.parent / LIVE
            text = live.read_text(encoding="utf-8") if live.is_file() else None
            state = None if text is None else LiveState.model_validate_json(text)
        except (OclBenchError, OSError, ValueError):
            continue
        yield Seen(path.parent, manifest, state)
