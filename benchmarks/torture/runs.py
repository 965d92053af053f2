"""Real runs of tiny models in folders of their own: started, watched, ended, and compared with one that nothing hit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

HOOKS = Path(__file__).parent / "hooks"
ROOT = Path(__file__).parents[2]
EPOCHS = (8, 6)
STAGES = 6  # of two seeds: x1 of each, and x2 of each with two stage-2 seeds
RUN = (
    "run", "--tasks", "attributes", "--limit", "10", "--set", "source_args.num_entities=60",
    "--set", f"recipe.epochs={list(EPOCHS)}", "--checkpoint_seconds", "0",
)  # fmt: skip
SEEDS = ("--seeds", "2", "--stage2_seeds", "2")
# Of a run: numbers depend in their last digits on how many threads train a stage.
CORES = sorted(os.sched_getaffinity(0))[:2]
PATIENCE = 300  # seconds that no start of such a run takes
LAST_BREATH = 60  # seconds in which the processes of a killed run have to be gone; imports are not interrupted
COMPARED = ("answers.jsonl", "curve.jsonl", "data.jsonl", "model.safetensors", "results.json")


class Skipped(Exception):
    """The fault cannot be injected on this machine; the text says why."""


@dataclass(frozen=True)
class Ended:
    """How a start of a run ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float


@dataclass
class Lost:
    """What faults have cost.

    Attributes:
        faults: how many were injected.
        starts: starts of the command until it was complete, the first included.
        epochs_again: epochs that were trained to their end more than once.
        told: numbers that only this fault has.
    """

    faults: int = 1
    starts: int = 2
    epochs_again: int = 0
    told: dict[str, float] = field(default_factory=dict)


class Place:
    """An output folder, and what happened to runs in it.

    Args:
        folder: a new one is made in it; log and markers lie beside it.
        output: the output folder, if it is to lie elsewhere.
    """

    def __init__(self, folder: Path, output: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.output = output or folder / "out"
        self.log = folder / "log.jsonl"

    def start(
        self,
        *options: str,
        seeds: Sequence[str] = SEEDS,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> "Started":
        """Start the command in this folder; `before` is a program that starts it."""
        command = [*before, sys.executable, "-m", "ocl_bench.cli", *RUN, *seeds, *options]
        return Started(self, [*command, "--output_path", str(self.output)], environment or {})

    def run(self, *options: str, **how: Any) -> Ended:
        """Start the command and wait until it has ended."""
        return self.start(*options, **how).wait()

    def logged(self) -> list[dict[str, Any]]:
        """What the hooks have written."""
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def epochs(self) -> Counter[tuple[str, int]]:
        """(stage, epoch) → how often it was trained to its end."""
        return Counter((line["where"], line["epoch"]) for line in self.logged() if "epoch" in line)

    def epochs_again(self) -> int:
        """Epochs that were trained to their end more than once."""
        return sum(count - 1 for count in self.epochs().values())

    def strikes(self) -> int:
        """How often a hook has killed."""
        return len(list(self.folder.glob("marker-*")))

    def finish(self, most: int = 3) -> int:
        """Type the same command again until it is complete; returns how often it took."""
        for start in range(1, most + 1):
            ended = self.run()
            if ended.code == 0:
                return start
        raise AssertionError(f"not complete after {most} more starts: {ended.stderr}")

    def run_folders(self) -> list[Path]:
        """The run folders in the output folder."""
        return sorted(path.parent for path in self.output.glob("*/*/*/manifest.json"))


class Started:
    """A run's process, and all that it starts."""

    def __init__(self, place: Place, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.place, self.name = place, f"{place.folder}:{time.monotonic_ns()}"
        self._out, self._err = (place.folder / f"{time.monotonic_ns()}.{end}" for end in ("out", "err"))
        paths = [str(HOOKS), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        known = {name: value for name, value in os.environ.items() if not name.startswith(("TORTURE_", "PYTEST_"))}
        self._began = time.perf_counter()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_prepare,
                env={
                    **known,
                    "PYTHONPATH": os.pathsep.join(path for path in paths if path),
                    "HF_HUB_OFFLINE": "1",
                    "TORTURE_LOG": str(place.log),
                    "TORTURE_NAME": self.name,
                    **environment,
                },
            )

    def stderr(self) -> str:
        """What it has said so far."""
        return self._err.read_text(errors="replace")

    def wait(self) -> Ended:
        """Wait until it has ended, and everything that it started."""
        code = self.process.wait(PATIENCE)
        seconds = time.perf_counter() - self._began
        self.gone()
        return Ended(code, self._out.read_text(errors="replace"), self.stderr(), seconds)

    def processes(self) -> list[psutil.Process]:
        """All living processes of this run: they have its name in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                ended = process.status() == psutil.STATUS_ZOMBIE
                if not ended and process.environ().get("TORTURE_NAME") == self.name:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def gone(self) -> float:
        """Seconds until no process of the run lives."""
        began = time.perf_counter()
        while left := self.processes():
            assert time.perf_counter() - began < LAST_BREATH, f"still running: {left}"
            time.sleep(0.05)
        return time.perf_counter() - began

    def until(self, what: Callable[[], bool], why: str) -> bool:
        """Wait for something while the process runs; False if it has ended before."""
        began = time.perf_counter()
        while not what():
            if self.process.poll() is not None:
                return False
            assert time.perf_counter() - began < PATIENCE, f"waited in vain for {why}: {self.stderr()}"
            time.sleep(0.01)
        return True

    def until_epochs(self, count: int) -> bool:
        """Wait until so many epochs are trained."""
        return self.until(lambda: sum(self.place.epochs().values()) >= count, f"{count} epochs")


def fingerprint(folder: Path) -> dict[str, str]:
    """Everything in a run folder that has to be equal to the last byte, and the weights that stages say they left."""
    found = {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.name in COMPARED
    }
    for path in sorted(folder.rglob("stage.json")):
        found[f"{path.relative_to(folder)} weights_after"] = json.loads(path.read_text())["weights_after"]
    return found


class Bench:
    """Where runs are tortured.

    Args:
        folder: holds everything; removed by whoever made it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.places = folder, 0

    def place(self, output: Path | None = None) -> Place:
        """A new one."""
        self.places += 1
        return Place(self.folder / f"{self.places:03d}", output)

    @cached_property
    def reference(self) -> Place:
        """A run that nothing interrupts, with every call logged that a fault may strike at."""
        place = Place(self.folder / "reference")
        place.run(environment={"TORTURE_COUNT": "1"})
        return place

    @cached_property
    def seconds(self) -> float:
        """Seconds of a run that nothing interrupts and that logs no calls, after the reference has warmed the disk."""
        assert self.reference
        return self.place().run().seconds

    @cached_property
    def expected(self) -> dict[str, str]:
        """The reference's fingerprint."""
        (folder,) = self.reference.run_folders()
        found = fingerprint(folder)
        assert len(found) > STAGES, f"the reference is not complete: {found}"
        return found

    def copy_of_reference(self) -> Place:
        """The finished reference in a new place, its hard links kept."""
        place = self.place()
        subprocess.run(["cp", "-a", str(self.reference.output), str(place.output)], check=True)
        return place

    def calls(self, role: str, call: str) -> int:
        """How often a process of the reference, the busiest in that role, made a call."""
        lines = [line for line in self.reference.logged() if (line.get("role"), line.get("call")) == (role, call)]
        return max((line["number"] for line in lines), default=0)

    def holds_all(self, folder: Path) -> bool:
        """Whether a run folder is equal to the reference."""
        return fingerprint(folder) == self.expected

    def check(self, place: Place) -> None:
        """A finished run is equal to the reference, whole, and nothing half-written lies about."""
        (folder,) = place.run_folders()
        found = fingerprint(folder)
        differing = sorted(
            name for name in found.keys() | self.expected.keys() if found.get(name) != self.expected.get(name)
        )
        assert not differing, f"differ from the reference: {differing}"
        check_whole(place)


def check_whole(place: Place) -> None:
    """Every stage and run folder holds what its records say, and nothing half-written lies about."""
    for record in sorted(place.output.rglob("stage.json")):
        for name, (size, digest) in json.loads(record.read_text())["files"].items():
            path = record.parent / name
            data = path.read_bytes() if path.is_file() else b""
            assert (len(data), sha256(data).hexdigest()) == (size, digest), f"{path} is not what was written"
    for record in sorted(place.output.glob("evaluations/*/record.json")):
        digest = sha256(record.with_name("rows.jsonl").read_bytes()).hexdigest()
        assert digest == json.loads(record.read_text())["rows_sha256"], f"{record}: other rows were written"
    left = [path for path in place.output.rglob(".*") if not path.name.endswith(".lock")]
    assert not left, f"left half-written: {left}"
    for folder in place.run_folders():
        assert json.loads((folder / "manifest.json").read_text())["status"] == "complete", folder


def one_sentence(ended: Ended, code: int = 3) -> str:
    """The one sentence that a command said of its failure, after checking that it is one."""
    assert ended.code == code, f"exit code {ended.code}, not {code}: {ended.stderr}"
    assert "Traceback" not in ended.stderr, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("ocl-bench: ")]
    assert len(said) == 1, ended.stderr
    return said[0]


def _prepare() -> None:
    """Of a command that is started: it has its cores, and hears Ctrl-C, which what a shell starts aside ignores."""
    os.sched_setaffinity(0, CORES)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
