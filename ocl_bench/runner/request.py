"""A request: what a user asks for, as one typed object.

The command line, `ocl_bench.run`, `--config` and the manifest read its fields and their one-line descriptions, so that
an option is told once.
"""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from ocl_bench.contract import Contract, explain
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.engines import check_engine_args, parse_engine_args
from ocl_bench.models.spec import ModelArgs, parse_model_args
from ocl_bench.tasks.load import as_overrides

DEFAULT_TASK = "world"
MAX_SEEDS = 1000
AUTO_BYTES = 2 * 10**9  # of weights that --keep auto keeps
Keep = Literal["auto", "all", "last", "none"]


@dataclass(frozen=True)
class Option:
    """How the command line spells a field.

    Attributes:
        names: the option's names; `--name` of the field if empty.
        read: makes the field's value of the option's text.
        metavar: what help shows for the value.
        flag: the value that the option stands for, if it takes none.
        multiple: whether it may be given several times.
        choices: the values that it may have.
        shown: the default as help shows it, where the field's own would not be understood; empty for none.
    """

    names: tuple[str, ...] = ()
    read: Callable[[str], Any] | None = None
    metavar: str | None = None
    flag: bool | None = None
    multiple: bool = False
    choices: tuple[str, ...] = ()
    shown: str | None = None


def names(text: str) -> tuple[str, ...]:
    """`a, b` → a, b."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def parse_seeds(text: str, option: str) -> tuple[int, ...]:
    """`3` → 0, 1, 2; `4,7` → 4, 7; `4,` → 4."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part and not part.removeprefix("-").isdecimal():
            raise OclBenchError(f"{option}: '{part}' is not a number; write 5 for five seeds, or 0,1,2.")
    numbers = [int(part) for part in parts if part]
    return check_seeds(numbers if "," in text else sum(numbers), option)


def check_seeds(seeds: int | str | Sequence[int], option: str) -> tuple[int, ...]:
    """Seeds as a tuple; a single number is a count, text is read as the command line's.

    Raises:
        OclBenchError: unless they are different 32-bit numbers.
    """
    if isinstance(seeds, str):
        return parse_seeds(seeds, option)
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= MAX_SEEDS:
        return tuple(range(seeds))
    chosen = () if isinstance(seeds, int) else tuple(seeds)
    sound = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in chosen)
    if not sound or not 0 < len(chosen) <= MAX_SEEDS or len(set(chosen)) < len(chosen):
        raise OclBenchError(
            f"{option} {seeds}: give 1 to {MAX_SEEDS} different seeds from 0 to 4294967295, or how many."
        )
    return chosen


def _trackers(text: str) -> tuple[str, ...]:
    return tuple(name for name in names(text) if name != "none")


def _number(option: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise OclBenchError(f"--{option} {text}: give a number from 1 up.")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OclBenchError(f"--checkpoint_seconds {text}: give a number of seconds.") from None


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise OclBenchError(f"--batch_size {text}: give a number from 1 up, or auto.")
    return int(text)


def _shard(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise OclBenchError(f"--shard {text}: give a number from 1 up, or auto.")
    return int(text)


def _seeds(option: str, shown: str) -> Any:
    """Annotations of a field that holds seeds."""
    return (
        BeforeValidator(lambda value: None if value is None else check_seeds(value, option)),
        Option(read=lambda text: parse_seeds(text, f"--{option}"), metavar="N|0,1,…", shown=shown),
    )


def _devices(text: str) -> tuple[int, ...] | Literal["all"]:
    if text == "all":
        return "all"
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OclBenchError(f"--devices {text}: give numbers of cards, as 0,1,2,3, or all.")
    return tuple(map(int, parts))


def _as_text(value: Any) -> Any:
    """A path as text: what names a model, a task or a recipe may be one."""
    if not isinstance(value, (str, Path, NoneType)):
        raise ValueError(
            f"give a name or a folder (a model's is made by its save_pretrained), not {type(value).__name__}"
        )
    return str(value) if isinstance(value, Path) else value


Paths = tuple[Path, ...]
Names = tuple[str, ...]


class RunRequest(Contract):
    """What a run is asked to do."""

    model_config = ConfigDict(protected_namespaces=())

    model: Annotated[str | None, BeforeValidator(_as_text), Option(("--model", "-m"))] = Field(
        None, description="hub id, folder, or scratch:NAME; the task's if not given"
    )
    task: Annotated[str, BeforeValidator(_as_text)] = Field(DEFAULT_TASK, description="a task's name or file")
    seeds: Annotated[tuple[int, ...] | None, *_seeds("seeds", "")] = Field(
        None, description="stage-1 seeds: which, or how many; the task's if not given"
    )
    stage2_seeds: Annotated[tuple[int, ...], *_seeds("stage2_seeds", "1")] = Field(
        (0,), description="stage-2 seeds of each: which, or how many"
    )
    own_x0: Annotated[bool, Option(flag=True)] = Field(
        False, description="train an X0 of its own for each seed, where a task has one, instead of one for all"
    )
    model_args: Annotated[ModelArgs, Option(("--model_args", "-a"), parse_model_args, "KEY=VALUE,…", shown="")] = Field(
        ModelArgs(), description="how to load it: revision, dtype, tokenizer, …"
    )
    trust_remote_code: Annotated[bool, Option(flag=True)] = Field(
        False, description="run code that comes with the model"
    )
    recipe: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None, description="recipe's name or file; the task's if not given"
    )
    overrides: Annotated[
        Names, BeforeValidator(as_overrides), Option(("--set",), metavar="KEY=VALUE", multiple=True)
    ] = Field((), description="override a task key, or recipe.KEY")
    include_path: Annotated[Paths, Option(multiple=True, metavar="FOLDER")] = Field(
        (), description="folder with further task files"
    )
    device: str | None = Field(None, description="device: cpu, cuda, cuda:N or mps; the best there is if not given")
    devices: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | Literal["all"] | None,
        Option(read=_devices, metavar="0,1,…|all"),
    ] = Field(None, description="CUDA devices to train on at the same time, a seed on each; one named twice takes two")
    shard: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"] | None, Option(read=_shard, metavar="N|auto", shown="1")
    ] = Field(None, description="devices over which one model is trained; auto: as few as it fits on")
    batch_size: Annotated[int | None, Option(read=_batch_size, metavar="N|auto", shown="auto")] = Field(
        None, ge=1, description="most datapoints per forward pass; the effective batch size is the recipe's"
    )
    engine: str = Field("auto", description="what generates answers: auto, torch or vllm")
    engine_args: Annotated[
        dict[str, Any],
        BeforeValidator(check_engine_args),
        Option(read=parse_engine_args, metavar="KEY=VALUE,…", shown=""),
    ] = Field({}, description="further arguments of vLLM: dtype, tensor_parallel_size, …")
    also_tasks: Annotated[Names, Option(read=names, metavar="NAME,…", shown="")] = Field(
        (), description="tasks of lm-eval to ask before and after finetuning"
    )
    limit: Annotated[int | None, Option(read=_number("limit"), metavar="N")] = Field(
        None, ge=1, description="questions per subset; such a result cannot be submitted"
    )
    curves: Annotated[bool, Option(("--no_curves",), flag=False)] = Field(True, description="record learning curves")
    report_to: Annotated[Names, Option(read=_trackers, metavar="NAME,…", shown="")] = Field(
        (), description="the Trainer's experiment trackers: tensorboard, wandb, …"
    )
    output_path: Path = Field(Path("runs"), description="for run folders, and the stages that runs share")
    keep: Annotated[Keep, Option(choices=get_args(Keep))] = Field(
        "auto",
        description="weights to keep: all, those of last stages, none, or auto: as many as 2 GB hold",
    )
    checkpoint_seconds: Annotated[float, Option(read=_seconds, metavar="N")] = Field(
        60.0, ge=0, description="least seconds between two checkpoints within a stage, from which it can go on"
    )
    fresh: Annotated[bool, Option(flag=True)] = Field(
        False, description="train anew what is there already, instead of going on"
    )

    @classmethod
    def from_options(cls, **options: Any) -> "RunRequest":
        """A request from keyword arguments. Raises OclBenchError naming the first that is wrong, and the fix."""
        try:
            return cls(**options)
        except ValidationError as error:
            raise OclBenchError(explain(cls, error)) from None

    @property
    def passed(self) -> dict[str, Any]:
        """What was given, before any default, as JSON can hold it."""
        return self.model_dump(mode="json", exclude_unset=True)


def read(field: str, text: str) -> Any:
    """The value of a field of `RunRequest` that the text of its option stands for."""
    reader = option_of(field).read
    return text if reader is None else reader(text)


def option_of(field: str) -> Option:
    """How the command line spells a field of `RunRequest`."""
    found = [one for one in RunRequest.model_fields[field].metadata if isinstance(one, Option)]
    return found[0] if found else Option()


def command_line(request: RunRequest) -> str:
    """The `ocl-bench run` that asks for the same, quoted for a shell: what was passed, and no default."""
    words = ["ocl-bench", "run"]
    for name in RunRequest.model_fields:
        value = getattr(request, name)
        if name not in request.model_fields_set or (value is None and name != "batch_size"):
            continue
        spelled = option_of(name)
        option = (spelled.names or (f"--{name}",))[0]
        if spelled.flag is not None:
            words += [option] if value == spelled.flag else []
        elif spelled.multiple:
            words += [word for one in value for word in (option, str(one))]
        elif text := _text(name, value):
            words += [option, text]
    return shlex.join(words)


def _text(field: str, value: Any) -> str:
    """What a value's option is given; empty for nothing."""
    if field in ("seeds", "stage2_seeds"):
        if value == tuple(range(len(value))):
            return str(len(value))
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    if isinstance(value, ModelArgs):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, dict):
        return ",".join(f"{key}={one if isinstance(one, str) else json.dumps(one)}" for key, one in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "auto" if value is None else str(value)
