"""What an evaluator is: something asked of a model before, during or after its training, that leaves rows.

The questions of a task are one, the learning curve another, lm-eval's tasks a third. A further one is a class like
theirs and a line in EVALUATORS, or an entry point of another package; what trains, stores, shares and resumes needs to
know nothing of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ocl_bench.contract import Contract
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.models.encoding import Encoder
from ocl_bench.registry import Registry
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task


@dataclass(frozen=True)
class Moment:
    """When a model is looked at.

    Attributes:
        when: before the first stage, at the end of an epoch, or after a stage.
        stage: the stage's name; that of the first for `before`.
        last: whether the stage is the last.
        epoch, epochs, loss: of an epoch: its number from 1, how many there are, and its mean training loss.
    """

    when: Literal["before", "epoch", "after"]
    stage: str
    last: bool = False
    epoch: int = 0
    epochs: int = 0
    loss: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """What a run asks of every model.

    Attributes:
        task: the task, whose `evaluate` says how questions are asked.
        records: the cell's dataset.
        seed: the stage-1 seed, which decides the questions that a limit leaves.
        limit: questions per subset; None asks all.
        curves: whether learning curves are recorded.
        lm_eval_tasks: tasks of lm-eval.
        lm_eval_path: folders with further ones.
        tokenizer: identity of the tokenizer that the model began with.
        engine: what generates answers, torch or vllm; `engine_args`: further arguments of the latter.
        precision: what the torch engine computes in.
        loss: what of a datapoint the run trains on: its completion, or all of it.
        epoch: stage → what its epochs are drawn from: records, and how many of them an epoch has.
    """

    task: Task
    records: Sequence[Record]
    seed: int
    limit: int | None
    curves: bool
    lm_eval_tasks: tuple[str, ...]
    lm_eval_path: tuple[Path, ...]
    tokenizer: str
    engine: str
    engine_args: Mapping[str, Any]
    precision: str
    loss: str
    epoch: Callable[[str], Sequence[tuple[Sequence[Record], int]]]


@dataclass(frozen=True)
class Generated:
    """Greedy answers: token ids of each, up to and with the first that ends it; and what generated them."""

    tokens: list[list[int]]
    engine: EngineRecord


class Generator(Protocol):
    """What generates greedy answers in place of the torch engine."""

    def generate(
        self, checkpoint: Path, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], stop_ids: Sequence[int]
    ) -> Generated | None:
        """Greedy answers of a checkpoint to prompts of token ids; None if the torch engine has to give them."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A model to look at.

    Attributes:
        model: a transformers model on its device, in eval mode.
        tokenizer, encoder: its own.
        autocast: whether it computes in bfloat16 wherever that is safe.
        checkpoint: the folder that holds the same weights; None where none does.
        generator: generates answers in place of the torch engine; None where the torch engine does.
        on_answered: called now and then with the number of further questions that are answered, and of all.
    """

    model: Any
    tokenizer: Any
    encoder: Encoder
    autocast: bool
    checkpoint: Path | None = None
    generator: Generator | None = None
    on_answered: Callable[[int, int], None] = lambda count, of: None


@dataclass(frozen=True)
class Found:
    """What an evaluator leaves.

    Attributes:
        rows: its rows, each an `Evaluator.row`.
        facts: what it tells besides, for the record.
        engine: what generated the answers, if that was not the torch engine.
    """

    rows: Sequence[Contract]
    facts: Mapping[str, int | str] = field(default_factory=dict)
    engine: EngineRecord | None = None


@dataclass(frozen=True)
class Observed:
    """What an evaluator found of one model of a run, as summaries get it.

    Attributes:
        seed, stage2_seed: the model's seeds.
        stage: the stage at whose end it was looked at; empty if that was before the first.
        rows: the rows, which may be read from a file each time that they are gone through.
    """

    seed: int
    stage2_seed: int
    stage: str
    rows: Sequence[Any]


# What a summary is given: all that its evaluator found, the task, and each cell's dataset by its two seeds. What it
# returns are fields of `score.result.Results`.
Summary = Callable[[Sequence[Observed], Task, Mapping[tuple[int, int], Sequence[Record]]], dict[str, Any]]


class Evaluator(Protocol):
    """What is asked of a model, when, and what it leaves. It never changes the model or the random numbers of training.

    Attributes:
        name: of its rows' file.
        row: the type of its rows.
        summary: `module:function`, a `Summary`: what results.json shows of all its rows; empty for none.
    """

    name: str
    row: type[Contract]
    summary: str

    @classmethod
    def of(cls, wanted: Wanted) -> "Evaluator | None":
        """The evaluator for what a run asks; None if it asks nothing of this kind."""
        ...

    def asks(self, moment: Moment) -> bool:
        """Whether it looks at the model now."""
        ...

    def settings(self, moment: Moment) -> dict[str, Any]:
        """What its rows depend on besides the weights: the same settings and weights are not asked again."""
        ...

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """Look at a model."""
        ...


EVALUATORS = Registry(
    "evaluator",
    {
        "answers": "ocl_bench.evaluate.questions:QuestionsEvaluator",
        "curve": "ocl_bench.evaluate.curve:CurveEvaluator",
        "lm_eval": "ocl_bench.evaluate.ability:LmEvalEvaluator",
        "probes": "ocl_bench.evaluate.probes:ProbesEvaluator",
        "gradients": "ocl_bench.evaluate.gradients:GradientsEvaluator",
    },
    needs=("name", "row", "summary", "of", "asks", "settings", "run"),
)


def evaluators(wanted: Wanted) -> list[Evaluator]:
    """The evaluators that a run needs."""
    made = (EVALUATORS.load(name).of(wanted) for name in EVALUATORS.working())
    return [one for one in made if one is not None]
