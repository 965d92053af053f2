"""The evaluator that draws learning curves: its rows are points."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Wanted
from ocl_bench.evaluate.questions import asked_after, within_memory
from ocl_bench.evaluate.sampling import curve_sample
from ocl_bench.tasks.records import Record, dataset_sha256

if TYPE_CHECKING:
    from ocl_bench.evaluate.ask import Questions


POINTS = 20  # per stage: enough to see the shape, and well under a tenth of the run's time


@lru_cache(maxsize=64)
def curve_epochs(epochs: int) -> frozenset[int]:
    """The epochs, of a stage of so many, after which a learning curve has a point; the last is one of them."""
    return frozenset({*range(-(-epochs // POINTS), epochs + 1, -(-epochs // POINTS)), epochs})


class CurvePoint(Contract):
    """One point of a learning curve: a subset after an epoch, on a fixed sample of its questions."""

    stage: str = Field(description="the finetuning stage")
    epoch: int = Field(ge=1, description="epochs of the stage that are over")
    loss: float = Field(description="mean training loss of the epoch, in nats per labelled token")
    subset: str = Field(description="the questions' subset")
    set: str = Field("qa", description="what was asked: the source's questions (qa), or an evaluation set")
    em_forced: float = Field(ge=0, le=1, description="mean em_forced")
    logprob: float = Field(le=0, description="mean log-probability of the answers")
    choice: float | None = Field(
        None, ge=0, le=1, exclude_if=lambda choice: choice is None, description="mean choice, of questions with options"
    )
    n: int = Field(ge=1, description="questions asked")


class CurveEvaluator:
    """Scores a fixed sample of the questions by teacher forcing in some epochs.

    Args:
        wanted: what the run asks.
    """

    name = "curve"
    row = CurvePoint
    summary = ""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._records: dict[str, list[Record]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._questions: dict[str, Questions] = {}

    @classmethod
    def of(cls, wanted: Wanted) -> "CurveEvaluator | None":
        """Nothing if no curves are recorded."""
        return cls(wanted) if wanted.curves else None

    def records(self, stage: str) -> list[Record]:
        """What is asked in a stage: a sample of all questions, so that another limit is no reason to train again."""
        if stage not in self._records:
            wanted = self.wanted
            asked = asked_after(wanted.task, stage, wanted.records, None, wanted.seed)
            numbers = curve_sample(asked, wanted.task.evaluate.curve_questions)
            self._records[stage] = [asked[number] for number in numbers]
        return self._records[stage]

    def asks(self, moment: Moment) -> bool:
        """In some epochs."""
        return moment.when == "epoch" and moment.epoch in curve_epochs(moment.epochs)

    def settings(self, moment: Moment) -> dict[str, Any]:
        """The questions, and what they are answered in."""
        if moment.stage not in self._settings:
            questions = dataset_sha256(self.records(moment.stage))
            self._settings[moment.stage] = {"questions": questions, "precision": self.wanted.precision}
        return self._settings[moment.stage]

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """The points of an epoch."""
        from ocl_bench.evaluate.ask import curve_points, encode_questions
        from ocl_bench.evaluate.torch_engine import TorchEngine

        if moment.stage not in self._questions:
            self._questions[moment.stage] = encode_questions(self.records(moment.stage), loaded.encoder)
        questions = self._questions[moment.stage]
        engine = TorchEngine(loaded.model, loaded.encoder, bf16=loaded.autocast)
        where = {"stage": moment.stage, "epoch": moment.epoch, "loss": moment.loss}
        return Found(within_memory(engine, lambda: curve_points(engine, questions, **where)))
