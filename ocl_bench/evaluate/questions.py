"""The evaluator that asks a task's questions after each stage: its rows are answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from ocl_bench.errors import RunFailed
from ocl_bench.evaluate.answers import Answer
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Wanted
from ocl_bench.evaluate.sampling import subset_sample
from ocl_bench.models.encoding import Encoded
from ocl_bench.tasks.records import Record, dataset_sha256
from ocl_bench.tasks.schema import Task

if TYPE_CHECKING:  # listing, hashing and scoring need no torch
    from ocl_bench.evaluate.ask import Asked
    from ocl_bench.evaluate.torch_engine import TorchEngine


class QuestionsEvaluator:
    """Asks the test records of a dataset.

    Args:
        wanted: what the run asks.
    """

    name = "answers"
    row = Answer
    summary = "ocl_bench.score.score:summarise_answers"

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._of_stage: dict[str, tuple[list[Record], dict[str, Any]]] = {}

    @classmethod
    def of(cls, wanted: Wanted) -> "QuestionsEvaluator":
        """Every run asks them."""
        return cls(wanted)

    def asks(self, moment: Moment) -> bool:
        """After each stage."""
        return moment.when == "after"

    def _after(self, stage: str) -> tuple[list[Record], dict[str, Any]]:
        """What is asked after a stage, and the settings of that."""
        if stage not in self._of_stage:
            wanted = self.wanted
            records = asked_after(wanted.task, stage, wanted.records, wanted.limit, wanted.seed)
            questions = dataset_sha256(records)
            settings = question_settings(questions, wanted.task, wanted.precision, wanted.engine, wanted.engine_args)
            self._of_stage[stage] = records, settings
        return self._of_stage[stage]

    def settings(self, moment: Moment) -> dict[str, Any]:
        """The questions, the engine, and what it computes in."""
        return self._after(moment.stage)[1]

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """Answer every question."""
        from ocl_bench.evaluate.ask import ask, encode_questions
        from ocl_bench.evaluate.torch_engine import TorchEngine
        from ocl_bench.models.group import in_turn

        engine = TorchEngine(loaded.model, loaded.encoder, bf16=loaded.autocast)
        records, _ = self._after(moment.stage)
        questions = encode_questions(records, loaded.encoder)
        generator = _Elsewhere(loaded, engine)
        elsewhere = loaded.generator is not None
        count = Count(loaded.on_answered, len(records) if elsewhere else len(in_turn(records)))

        def attempt() -> "Asked":
            return ask(
                engine,
                questions,
                self.wanted.task.evaluate.max_new_tokens,
                generator if elsewhere else None,
                count,
            )

        asked = within_memory(engine, attempt, count.reset)
        facts: dict[str, int | str] = {"prompts_sha256": asked.prompts_sha256, "differing": asked.differing}
        return Found(asked.answers, facts, generator.engine_record)


def asked_after(task: Task, stage: str, records: Sequence[Record], limit: int | None, seed: int) -> list[Record]:
    """The questions of a dataset that are asked after a stage.

    Args:
        task, stage: the task, and the name of one of its stages.
        records: the dataset.
        limit: questions per subset; None asks all.
        seed: stage-1 seed, which decides the questions that a limit leaves.
    """
    number = [one.name for one in task.stages].index(stage)
    asks = cache(partial(task.asks, number))  # of a few subsets, of very many records
    tests = [record for record in records if record.split == "test" and asks(record.subset)]
    return tests if limit is None else [tests[n] for n in subset_sample(tests, limit, seed)]


def question_settings(
    questions: str, task: Task, precision: str, engine: str, engine_args: Mapping[str, Any]
) -> dict[str, Any]:
    """What answers depend on besides the weights; `questions` is the sha256 of what is asked, as JSON lines."""
    return {
        "questions": questions,
        "max_new_tokens": task.evaluate.max_new_tokens,
        "precision": precision,
        "engine": engine,
        "engine_args": dict(engine_args),
    }


class Count:
    """Tells how many questions are answered; if they have to be asked again, that none is."""

    def __init__(self, tell: Callable[[int, int], None], of: int) -> None:
        self.tell, self.of, self.answered = tell, of, 0

    def __call__(self, count: int) -> None:
        self.answered += count
        self.tell(count, self.of)

    def reset(self) -> None:
        """They are asked again."""
        self(-self.answered)


class Batched(Protocol):
    """What computes in batches of a size that it is told.

    Attributes:
        model: the model.
        max_tokens: tokens that a batch may hold.
    """

    model: Any
    max_tokens: int

    def remember_limit(self) -> None:
        """There was memory for as many."""


def within_memory(engine: Batched, attempt: Callable[[], Any], on_retry: Callable[[], None] = lambda: None) -> Any:
    """What `attempt` gives, with the engine's batches halved for as long as memory runs out, now and later."""
    from accelerate.utils import find_executable_batch_size

    if getattr(engine.model, "is_distributed_loading_by_transformers", False):
        return attempt()  # of a sharded model, whose other processes are in the middle of the same pass

    def sized(max_tokens: int) -> Any:
        engine.max_tokens = max_tokens
        found = attempt()
        engine.remember_limit()
        return found

    def smaller() -> int:
        if engine.max_tokens <= 1:
            raise RunFailed("memory ran out while questions were asked, one at a time; take a smaller model.")
        on_retry()
        return engine.max_tokens // 2

    return find_executable_batch_size(sized, starting_batch_size=engine.max_tokens, reduce_batch_size_fn=smaller)()


@dataclass
class _Elsewhere:
    """Generates with what the run has for it, or with the torch engine if that turns out to be nothing.

    Attributes:
        engine_record: what generated the answers, if that was not the torch engine.
    """

    loaded: Loaded
    engine: "TorchEngine"
    engine_record: EngineRecord | None = None

    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]],
        on_answered: Callable[[int], None],
    ) -> list[list[int]]:
        """Answers from the prompts alone: what teacher forcing has shown of them is left as a check of the engine."""
        loaded = self.loaded
        assert loaded.generator is not None and loaded.checkpoint is not None
        prompts = [one.prompt for one in encoded]
        found = loaded.generator.generate(loaded.checkpoint, prompts, max_new_tokens, loaded.encoder.stop_ids)
        if found is None:
            return self.engine.generate(encoded, max_new_tokens, known, on_answered)
        self.engine_record = found.engine
        return found.tokens
