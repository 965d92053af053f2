"""Gaps and metrics are those of hand-computed cases."""

from typing import Any

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import Answer
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.report.tables import reading_notes
from ocl_bench.score.gaps import GAPS, final_stages
from ocl_bench.score.result import Results
from ocl_bench.score.samples import Sample
from ocl_bench.score.score import score, score_samples
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, answer_text
from ocl_bench.tasks.schema import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("attributes")


def sample(subset: str, seed: int, hit: float, *, stage: str = "x2", number: int = 0, stage2_seed: int = 0) -> Sample:
    record = Record(
        id=f"{subset}/qa/{number}",
        subset=subset,
        split="test",
        kind="qa",
        prompt="Q",
        completion=answer_text("red"),
        answers=("red",),
        entity=f"e{number}",
        variable="v",
        group="colour",
    )
    answer = Answer(id=record.id, em_forced=int(hit), logprob=-1.0 + hit, generated="red" if hit else "blue")
    return Sample(record, answer, stage, seed, stage2_seed, chance=0.1)  # fmt: skip


def scored(samples: list[Sample], task: Task, **options: Any) -> Results:
    defaults = {
        "model": "m",
        "model_revision": None,
        "recipe": "tiny",
        "engine": EngineRecord(name="torch", version="2", dtype="float32"),
        "engine_check": None,
        "unlearned": (),
        "seeds": {one.seed for one in samples},
        "stage2_seeds": {one.stage2_seed for one in samples},
        "limit": None,
        "modified": False,
    }
    return score(score_samples(samples, task), task, **(defaults | options))


def test_gap_is_the_mean_over_seeds_of_differences_within_a_seed(task: Task) -> None:
    hits = {("d1_cons", 0): [1, 1], ("d2_cons", 0): [1, 0], ("d1_cons", 1): [1, 0], ("d2_cons", 1): [0, 0]}
    samples = [
        sample(subset, seed, hit, number=number)
        for (subset, seed), row in hits.items()
        for number, hit in enumerate(row)
    ]
    gap = scored(samples, task).gaps["meta_ocl_gap"]["em"]
    assert gap.per_seed == {"0": 0.5, "1": 0.5}
    assert (gap.mean, gap.n, gap.seeds, gap.p) == (0.5, 8, 2, 0.5)
    assert gap.ci95 == pytest.approx((0.5, 0.5))


def test_a_subset_is_scored_after_the_last_stage_that_trains_on_it(task: Task) -> None:
    samples = [sample("d1_cons_qa", 0, 1.0, stage="x1"), sample("d1_cons_qa", 0, 0.0, stage="x2")]
    samples += [sample("d1_cons", 0, 0.0, stage="x1"), sample("d1_cons", 0, 1.0, stage="x2")]
    metrics = scored(samples, task).metrics
    assert metrics["d1_cons_qa"]["em"].mean == 1.0
    assert metrics["d1_cons"]["em"].mean == 1.0
    assert final_stages(task)["unseen"] == "x2"


def test_stage_2_seeds_are_averaged_within_their_stage_1_seed(task: Task) -> None:
    # Seed 0 has two stage-2 seeds (means 0 and 1), seed 1 has one (mean 0): the mean is .25, not 1/3.
    samples = [sample("d1_cons", 0, 0.0), sample("d1_cons", 0, 1.0, stage2_seed=1), sample("d1_cons", 1, 0.0)]
    metric = scored(samples, task).metrics["d1_cons"]["em"]
    assert (metric.mean, metric.seeds, metric.n) == (0.25, 2, 3)


@pytest.mark.parametrize("right, told", [((0, 0, 0), True), ((10, 10, 10), False), ((1, 3, 20), False)])
def test_a_model_that_does_worse_than_a_guess_is_pointed_out(
    right: tuple[int, int, int], told: bool, task: Task
) -> None:
    """Each seed asks 100 questions about entities that nothing was said of; 10 are right by chance."""
    samples = [
        sample("unseen", seed, float(number < count), number=number)
        for seed, count in enumerate(right)
        for number in range(100)
    ]
    notes = [note for note in reading_notes(scored(samples, task)) if "below chance" in note]
    assert bool(notes) == told
    if told:
        assert "em of unseen, .000 [.000, .000], is below chance, .100: after x2" in notes[0]


def test_every_gap_of_the_design_is_reported_on_every_metric(task: Task) -> None:
    samples = [
        sample(subset, seed, float(number % 2), number=number, stage=stage)
        for subset, stage in final_stages(task).items()
        if subset in task.design.fractions
        for seed in (0, 1)
        for number in range(4)
    ]
    gaps = scored(samples, task).gaps
    assert set(gaps) == {name for name in GAPS if "binding" not in name}  # those need swapped variables
    assert all(set(metrics) == {"em", "em_forced", "f1", "logprob"} for metrics in gaps.values())


def test_subsets_that_have_one_seed_in_common_give_a_gap_over_its_entities(task: Task) -> None:
    """That seed is none that was read last: its samples are asked for again."""
    hits = {("d1_cons", 0): [1, 0], ("d1_cons", 1): [0, 0], ("d2_cons", 0): [0, 0], ("d2_cons", 2): [1, 1]}
    samples = [
        sample(subset, seed, hit, number=number)
        for (subset, seed), row in hits.items()
        for number, hit in enumerate(row)
    ]
    gap = scored(samples, task).gaps["meta_ocl_gap"]["em"]
    assert (gap.mean, gap.ci95, gap.interval, gap.seeds) == (0.5, (0.0, 1.0), "entities", 1)


def test_a_gap_without_one_of_its_subsets_is_left_out(task: Task) -> None:
    assert set(scored([sample("d1_cons", 0, 1.0)], task).gaps) == set()


@pytest.mark.parametrize(
    ("options", "submittable", "note"),
    [
        ({}, True, "one seed"),
        ({"limit": 5}, False, "limited to 5"),
        ({"modified": True}, False, "differ from the suite's own"),
    ],
)
def test_limits_and_overrides_are_told_and_cannot_be_submitted(
    options: dict[str, Any], submittable: bool, note: str, task: Task
) -> None:
    results = scored([sample("d1_cons", 0, 1.0)], task, **options)
    assert results.submittable is submittable
    assert note in " ".join(results.notes)


def test_disagreement_counts_answers_that_only_one_way_finds_right(task: Task) -> None:
    right = sample("d1_cons", 0, 1.0)
    samples = [right._replace(answer=right.answer.model_copy(update={"em_forced": hit})) for hit in (0, 1)]
    assert scored(samples, task).disagreement.differing == 1


def test_no_samples_is_an_error(task: Task) -> None:
    with pytest.raises(OclBenchError, match="no samples"):
        scored([], task)


def test_alpha_fills_subsets_that_are_scored_after_stage_x1() -> None:
    stages = final_stages(load_task("attributes", ["design.alpha=0.9"]))
    assert stages["d1_incons_qa"] == stages["d2_cons_qa"] == "x1"
