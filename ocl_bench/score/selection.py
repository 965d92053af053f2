"""Which samples of one or several runs are looked at."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Protocol

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.score.samples import Sample
from ocl_bench.tasks.subsets import ASKED


class SampleSource(Protocol):
    """What has samples: a run, an evaluation or a submission."""

    @property
    def where(self) -> str:
        """What it is called in errors."""

    @property
    def task(self) -> str:
        """Its task."""

    @property
    def seeds(self) -> Sequence[int]:
        """Its stage-1 seeds."""

    @property
    def stages(self) -> Sequence[str]:
        """Names of its stages."""

    @property
    def scored_at(self) -> Mapping[str, str]:
        """Subset → the stage at whose end it is scored."""

    def of_seed(self, seed: int) -> Iterable[Sample]:
        """All samples of one of its seeds. Raises OclBenchError if they cannot be read."""


def letters(count: int) -> str:
    """What runs that are looked at together are called. Raises OclBenchError for none, or more than there are."""
    if not 0 < count <= len(ascii_uppercase):
        raise OclBenchError(f"name 1 to {len(ascii_uppercase)} runs, evaluations or submissions by their folders.")
    return ascii_uppercase[:count]


Question = tuple[str, str, tuple[str, ...]]  # id, prompt and answers: other seeds have other questions of the same id


def select(
    sources: Mapping[str, SampleSource],
    *,
    subset: str | None = None,
    seed: int | None = None,
    stage: str | None = None,
    kind: str | None = None,
    question: str | None = None,
    wrong: bool = False,
    limit: int | None = None,
) -> list[Sample]:
    """Samples by seed and question, with all that was said to a question together.

    Args:
        sources: what each run is called (empty where there is one) → its samples.
        subset, seed: only of these; None takes all.
        stage: asked after it; None takes the stage at whose end the subset is scored.
        kind: only questions of this kind, such as `qa` or `recall`; None takes the source's own (`qa`), and those of
            every kind where a question is named.
        question: only of this question: an id, an entity, a variable, or a part of the prompt.
        wrong: only questions that were answered wrongly, at least once.
        limit: questions per subset and kind; None takes all.

    Raises:
        OclBenchError: if there is no such subset, seed, stage or question, or the runs were not asked the same.
    """
    if len({source.task for source in sources.values()}) > 1:
        told = ", ".join(f"{source.where} of {source.task}" for source in sources.values())
        raise OclBenchError(f"samples are shown side by side of one task: {told}.")
    seeds = _seeds(sources, seed)
    _require_known(sources, subset, stage)
    kind = kind if kind is not None or question is not None else "qa"
    found: list[Sample] = []
    taken: Counter[tuple[str, str]] = Counter()
    kinds: set[str] = set()
    for number in seeds:
        asked: dict[Question, list[Sample]] = {}
        seen: set[tuple[str, str]] = set()
        for name, source in sources.items():
            if number not in source.seeds:
                continue
            for one in source.of_seed(number):
                kinds.add(one.record.kind)
                if one.stage != (stage or source.scored_at.get(one.record.subset)):
                    continue
                if _is_of(one, subset, kind, question):
                    seen.add((one.record.subset, one.record.kind))
                    which = one.record.id, one.record.prompt, one.record.answers
                    asked.setdefault(which, []).append(one._replace(run=name))
        for own in asked.values():
            group = own[0].record.subset, own[0].record.kind
            if (limit is None or taken[group] < limit) and not (wrong and all(one.right for one in own)):
                taken[group] += 1
                found += own
        if limit is not None and question is None and seen and all(taken[group] >= limit for group in seen):
            break
    if not kinds:
        told = ", ".join(source.where for source in sources.values())
        raise OclBenchError(f"{told}: there are no answers yet; let the run go on until a stage is done.")
    if kind is not None and kind not in kinds:
        raise OclBenchError(f"--kind {kind}: no such question was asked; {did_you_mean(kind, kinds)}")
    if question is not None and not found and not wrong:
        raise OclBenchError(
            f"--question '{question}': no question has this id, entity or variable, or this text in it, among those of "
            "the subset, seed and stage; look for a part of it."
        )
    for name, source in sources.items():
        if found and not any(one.run == name for one in found):
            raise OclBenchError(f"{source.where}: it was asked none of the questions of the others; its data differ.")
    return found


def _is_of(one: Sample, subset: str | None, kind: str | None, question: str | None) -> bool:
    record = one.record
    if (subset is not None and record.subset != subset) or (kind is not None and record.kind != kind):
        return False
    if not question:  # no text is in every prompt
        return question is None
    return question in (record.id, record.entity, record.variable) or question in record.prompt


def _seeds(sources: Mapping[str, SampleSource], seed: int | None) -> list[int]:
    own = sorted({number for source in sources.values() for number in source.seeds})
    if seed is not None and seed not in own:
        raise OclBenchError(f"--seed {seed}: there are the seeds {', '.join(map(str, own))}.")
    return own if seed is None else [seed]


def _require_known(sources: Mapping[str, SampleSource], subset: str | None, stage: str | None) -> None:
    if subset is not None and subset not in ASKED:
        raise OclBenchError(f"--subset {subset}: there is none; {did_you_mean(subset, ASKED)}")
    for source in sources.values():
        if stage is not None and stage not in source.stages:
            raise OclBenchError(f"--stage {stage}: {source.where} has none; {did_you_mean(stage, source.stages)}")
