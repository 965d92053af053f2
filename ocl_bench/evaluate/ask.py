"""Ask a model the questions of a dataset: records in, samples or a point of the learning curve out."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from ocl_bench.evaluate.forced import Forced
from ocl_bench.evaluate.metrics import exact_match, f1
from ocl_bench.evaluate.samples import CurvePoint, Sample, set_name
from ocl_bench.evaluate.sampling import curve_sample, subset_sample
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.files import sha256
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.tasks.records import Record

# A sum of 32-bit logarithms holds no more.
LOGPROB_DIGITS = 6


@dataclass(frozen=True)
class Questions:
    """Test records with every accepted answer encoded, once for all evaluations of a run.

    Attributes:
        records: the test records.
        encoded: for each record, its prompt with each accepted answer; the first is the one trained on.
    """

    records: list[Record]
    encoded: list[list[Encoded]]

    def subset_sample(self, per_subset: int, seed: int) -> "Questions":
        """A fixed random sample of at most `per_subset` questions of each subset and kind."""
        return self._only(subset_sample(self.records, per_subset, seed))

    def of_curve(self, per_subset: int) -> "Questions":
        """What a learning curve shows."""
        return self._only(curve_sample(self.records, per_subset))

    def _only(self, numbers: Sequence[int]) -> "Questions":
        return Questions([self.records[n] for n in numbers], [self.encoded[n] for n in numbers])


def encode_questions(records: Sequence[Record], encoder: Encoder) -> Questions:
    """Encode the test records of a dataset."""
    tests = [record for record in records if record.split == "test"]
    pairs = [(record.prompt, f" {answer}\n") for record in tests for answer in record.answers]
    encoded = iter(encoder(pairs))
    return Questions(tests, [[next(encoded) for _ in record.answers] for record in tests])


def _forced(engine: TorchEngine, questions: Questions) -> list[list[Forced]]:
    flat = iter(engine.forced([one for answers in questions.encoded for one in answers]))
    return [[next(flat) for _ in answers] for answers in questions.encoded]


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
        samples: one a question.
        prompts_sha256: of the prompts' token ids, as JSON.
        differing: answers that do not begin with the tokens that the forced pass showed greedy decoding to begin with.
    """

    samples: list[Sample]
    prompts_sha256: str
    differing: int


def ask(
    engine: TorchEngine,
    questions: Questions,
    max_new_tokens: int,
    chance: Mapping[tuple[str, str], float],
    generator: Generator | None = None,
    on_answered: Callable[[int], None] = lambda count: None,
    **where: Any,
) -> Asked:
    """Answer every question by teacher forcing and by greedy generation.

    Args:
        engine: the model to ask.
        questions: what to ask.
        max_new_tokens: length limit of a generated answer; a question's longest accepted answer raises it.
        chance: kind and group of a question → chance level.
        generator: what generates; None takes `engine`, which goes on from what teacher forcing has shown.
        on_answered: called now and then with the number of further questions that are answered.
        where: stage, seed and stage2_seed, for the samples.
    """
    prompts = [answers[0] for answers in questions.encoded]
    limits = [max(max_new_tokens, *(len(one.completion) for one in answers)) for answers in questions.encoded]
    if generator is None:
        scored, tokens = engine.answer(questions.encoded, limits, on_answered)
    else:
        scored = _forced(engine, questions)
        tokens = generator.generate(prompts, limits, [_longest_begin(forced) for forced in scored], on_answered)
    samples = [
        make_sample(record, chance, any(one.greedy for one in forced), forced[0].logprob, text, **where)
        for record, forced, text in zip(
            questions.records, scored, map(engine.encoder.decode_answer, tokens), strict=True
        )
    ]
    return Asked(
        samples,
        prompts_sha256=sha256(json.dumps([one.prompt for one in prompts])),
        differing=sum(
            tuple(ids[: len(known)]) != known for ids, known in zip(tokens, map(_longest_begin, scored), strict=True)
        ),
    )


def _longest_begin(forced: Sequence[Forced]) -> tuple[int, ...]:
    return max((one.begins for one in forced), key=len)


def make_sample(
    record: Record,
    chance: Mapping[tuple[str, str], float],
    forced: bool,
    logprob: float,
    generated: str,
    **where: Any,
) -> Sample:
    """One answered question, scored.

    Args:
        record: the question.
        chance: kind and group of a question → chance level.
        forced: whether an accepted answer and its end is what greedy decoding would produce.
        logprob: natural log-probability of the first answer and its end.
        generated: the greedy answer.
        where: stage, seed and stage2_seed.
    """
    return Sample(
        id=record.id,
        subset=record.subset,
        kind=record.kind,
        group=record.group,
        entity=record.entity,
        chance=chance[record.kind, record.group],
        em_forced=float(forced),
        logprob=round(logprob, LOGPROB_DIGITS) + 0.0,  # no -0.0
        generated=generated,
        em=exact_match(generated, record.answers),
        f1=f1(generated, record.answers),
        **where,
    )


def curve_points(engine: TorchEngine, questions: Questions, **where: Any) -> list[CurvePoint]:
    """Each subset's mean `em_forced` and `logprob`: one forward pass, no generation. `where`: stage, epoch and loss."""
    by_subset: dict[tuple[str, str], list[list[Forced]]] = defaultdict(list)
    for record, forced in zip(questions.records, _forced(engine, questions), strict=True):
        by_subset[record.subset, set_name(record.kind, record.group)].append(forced)
    return [
        CurvePoint(
            subset=subset,
            set=name,
            em_forced=fmean(any(one.greedy for one in forced) for forced in rows),
            logprob=fmean(forced[0].logprob for forced in rows),
            n=len(rows),
            **where,
        )
        for (subset, name), rows in by_subset.items()
    ]
