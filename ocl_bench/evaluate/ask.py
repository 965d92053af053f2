"""Ask a model the questions of a dataset: records in, answers or a point of the learning curve out."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from ocl_bench.collection import without_collection
from ocl_bench.evaluate.answers import Answer, make_answer
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.evaluate.forced import Forced
from ocl_bench.evaluate.options import choose
from ocl_bench.evaluate.sampling import curve_sample, subset_sample
from ocl_bench.evaluate.torch_engine import Scored, TorchEngine
from ocl_bench.files import sha256
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.group import in_order, in_turn, total
from ocl_bench.tasks.records import Record, answer_text


@dataclass(frozen=True)
class Questions:
    """Test records with every accepted answer encoded, once for all evaluations of a run.

    Attributes:
        records: the test records.
        encoded: for each record, its prompt with each accepted answer; the first is the one trained on.
        options: for each record, its prompt with each option; empty where it has none.
    """

    records: list[Record]
    encoded: list[list[Encoded]]
    options: list[list[Encoded]]

    def subset_sample(self, per_subset: int, seed: int) -> "Questions":
        """A fixed random sample of at most `per_subset` questions of each subset and kind."""
        return self._only(subset_sample(self.records, per_subset, seed))

    def of_curve(self, per_subset: int) -> "Questions":
        """What a learning curve shows."""
        return self._only(curve_sample(self.records, per_subset))

    def in_turn(self) -> "Questions":
        """What this process asks of them."""
        return self._only(in_turn(range(len(self.records))))

    def _only(self, numbers: Sequence[int]) -> "Questions":
        return Questions(
            [self.records[n] for n in numbers], [self.encoded[n] for n in numbers], [self.options[n] for n in numbers]
        )


@without_collection()
def encode_questions(records: Sequence[Record], encoder: Encoder) -> Questions:
    """Encode the test records of a dataset."""
    tests = [record for record in records if record.split == "test"]
    texts = [(record.given, (*record.answers, *record.options)) for record in tests]
    encoded = iter(encoder([(given, answer_text(text)) for given, own in texts for text in own]))
    answers, options = [], []
    for record in tests:
        answers.append([next(encoded) for _ in record.answers])
        options.append([next(encoded) for _ in record.options])
    return Questions(tests, answers, options)


def choices(questions: Questions, scored: Sequence[Scored]) -> list[int | None]:
    """Number of each question's most likely option; None where it has none."""
    return [
        choose(one.options, record.options.index(record.answers[0])) if one.options else None
        for record, one in zip(questions.records, scored, strict=True)
    ]


class Generator(Protocol):
    """What generates greedy answers: the torch engine, or vLLM."""

    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]],
        on_answered: Callable[[int], None],
    ) -> list[list[int]]:
        """Token ids of each answer, up to and with the first that ends it; see `TorchEngine.generate`."""
        ...


@dataclass(frozen=True)
class Asked:
    """What asking found.

    Attributes:
        answers: one a question.
        prompts_sha256: of the prompts' token ids, as JSON.
        differing: answers that do not begin with the tokens that the forced pass showed greedy decoding to begin with.
    """

    answers: list[Answer]
    prompts_sha256: str
    differing: int


def ask(
    engine: TorchEngine,
    questions: Questions,
    max_new_tokens: int,
    generator: Generator | None = None,
    on_answered: Callable[[int], None] = lambda count: None,
) -> Asked:
    """Answer every question by teacher forcing and by greedy generation.

    Processes of a group that all have the model take the questions in turn, unless something else generates.

    Args:
        engine: the model to ask.
        questions: what to ask.
        max_new_tokens: length limit of a generated answer; a question's longest accepted answer raises it.
        generator: what generates; None takes `engine`, which goes on from what teacher forcing has shown.
        on_answered: called now and then with the number of further questions that are answered.

    Raises:
        RunFailed: if the model's log-probabilities are none that a working model gives.
    """
    of_all = [answers[0] for answers in questions.encoded]
    if generator is None:
        questions = questions.in_turn()
    prompts = [answers[0] for answers in questions.encoded]
    limits = [max(max_new_tokens, *(len(one.completion) for one in answers)) for answers in questions.encoded]
    if generator is None:
        scored, tokens = engine.answer(questions.encoded, limits, questions.options, on_answered)
    else:
        scored = engine.score(questions.encoded, questions.options)
        tokens = generator.generate(prompts, limits, [one.begins for one in scored], on_answered)
    text_of = {ids: engine.encoder.decode_answer(ids) for ids in set(map(tuple, tokens))}  # many say the same
    answers = [
        make_answer(record.id, any(answer.greedy for answer in one.forced), one.forced[0].logprob, text, choice)
        for record, one, text, choice in zip(
            questions.records,
            scored,
            (text_of[tuple(ids)] for ids in tokens),
            choices(questions, scored),
            strict=True,
        )
    ]
    differing = sum(
        tuple(ids[: len(known)]) != known
        for ids, known in zip(tokens, (_shown(one.forced) for one in scored), strict=True)
    )
    if generator is None:
        answers, differing = in_order(answers), total(differing)
    return Asked(answers, prompts_sha256=sha256(json.dumps([_asked(one) for one in of_all])), differing=differing)


def _asked(one: Encoded) -> Any:
    return one.media[0].model_dump() if one.media else one.prompt


def _shown(forced: Sequence[Forced]) -> tuple[int, ...]:
    return max((one.begins for one in forced), key=len)


def curve_points(engine: TorchEngine, questions: Questions, **where: Any) -> list[CurvePoint]:
    """Each subset's means, by teacher forcing, without generation. `where`: stage, epoch and loss."""
    by_subset: dict[tuple[str, str], list[list[Forced]]] = defaultdict(list)
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    scored = engine.score(questions.encoded, questions.options)
    for record, one, choice in zip(questions.records, scored, choices(questions, scored), strict=True):
        by_subset[record.subset, record.set].append(one.forced)
        if choice is not None:
            right[record.subset, record.set].append(record.options[choice] == record.answers[0])
    return [
        CurvePoint(
            subset=subset,
            set=name,
            em_forced=fmean(any(one.greedy for one in forced) for forced in rows),
            logprob=fmean(forced[0].logprob for forced in rows),
            choice=fmean(right[subset, name]) if right[subset, name] else None,
            n=len(rows),
            **where,
        )
        for (subset, name), rows in by_subset.items()
    ]
