"""The gaps, and how samples become them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from ocl_bench.evaluate.samples import Sample
from ocl_bench.score.result import Gap, Metric
from ocl_bench.score.statistics import Estimate, over_entities, over_seeds, sign_flip_p
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.subsets import ASKED

METRICS = ("em_forced", "em", "f1", "logprob")
BOUNDED = ("em_forced", "em", "f1")

# gap → (subset, subset): the first minus the second, paired within a seed.
GAPS = {
    "ocl_gap": ("d1_cons_qa", "d2_incons_qa"),
    "ocl_gain": ("d1_cons_qa", "qa_only"),
    "meta_ocl_gap": ("d1_cons", "d2_cons"),
    "fresh_tag_gap": ("d3_cons", "d2_cons"),
    "internalisation": ("d1_cons", "unseen"),
    # How much of an answer depends on which variable is asked about: 0 for a model that answers alike for all.
    "d1_binding_gap": ("d1_cons", "d1_swapped"),
    "d2_binding_gap": ("d2_cons", "d2_swapped"),
}


def final_stages(task: Task) -> dict[str, str]:
    """Subset → the stage at whose end it is scored: the last that trains on it, or the last of all."""
    last = {"test": task.stages[-1].name}
    for stage in task.stages:
        for selector in stage.train:
            last[selector.split("/")[0]] = stage.name
    # Every subset has an entry, whether or not the task uses it; what no stage trains on is scored at the end.
    return {name: last.get(subset.split, last["test"]) for name, subset in ASKED.items()}


class Scores:
    """Samples of the scored stage, averaged per seed and subset, for one metric."""

    def __init__(self, samples: Iterable[Sample], stages: dict[str, str], metric: str) -> None:
        self.metric = metric
        self.questions: dict[str, set[str]] = defaultdict(set)
        self.chance: dict[str, float] = {}
        # subset → seed → stage-2 seed → entity → values
        values: dict[str, dict[int, dict[int, dict[str, list[float]]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        )
        chances: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            if stages.get(sample.subset) != sample.stage:
                continue
            values[sample.subset][sample.seed][sample.stage2_seed][sample.entity].append(getattr(sample, metric))
            self.questions[sample.subset].add(f"{sample.seed}/{sample.stage2_seed}/{sample.id}")
            chances[sample.subset].append(sample.chance)
        self.values = values
        self.chance = {subset: fmean(levels) for subset, levels in chances.items()}

    @property
    def subsets(self) -> list[str]:
        """Subsets that have samples, in the order of the design."""
        return [name for name in ASKED if name in self.values]

    def seeds(self, *subsets: str) -> list[int]:
        """Seeds that have samples of all the given subsets."""
        return sorted(set.intersection(*(set(self.values[name]) for name in subsets)))

    def per_seed(self, subset: str) -> dict[int, float]:
        """Seed → mean over its stage-2 seeds of the mean over questions."""
        return {
            seed: fmean(
                fmean(value for entity in entities.values() for value in entity) for entities in by_stage2.values()
            )
            for seed, by_stage2 in self.values[subset].items()
        }

    def per_entity(self, subset: str, seed: int) -> dict[str, float]:
        """Entity → mean over questions and stage-2 seeds, for one seed."""
        merged: dict[str, list[float]] = defaultdict(list)
        for entities in self.values[subset][seed].values():
            for entity, values in entities.items():
                merged[entity].extend(values)
        return {entity: fmean(values) for entity, values in merged.items()}


def score_metrics(samples: Sequence[Sample], task: Task) -> dict[str, dict[str, Metric]]:
    """Subset → metric → mean over seeds with its interval."""
    stages = final_stages(task)
    table: dict[str, dict[str, Metric]] = defaultdict(dict)
    for name in METRICS:
        scores = Scores(samples, stages, name)
        for subset in scores.subsets:
            per_seed = scores.per_seed(subset)
            estimate = _estimate(scores, (subset,), list(per_seed.values()))
            low, high = estimate.ci95
            # No accuracy is outside 0 to 1, and no log-probability above 0.
            low, high = (max(0.0, low), min(1.0, high)) if name in BOUNDED else (low, min(0.0, high))
            table[subset][name] = Metric(
                mean=estimate.mean,
                ci95=(low, high),
                interval=estimate.interval,
                n=len(scores.questions[subset]),
                chance=scores.chance[subset] if name in BOUNDED else None,
                seeds=len(per_seed),
                stage=stages[subset],
                per_seed={str(seed): value for seed, value in sorted(per_seed.items())},
            )
    return dict(table)


def score_gaps(samples: Sequence[Sample], task: Task) -> dict[str, dict[str, Gap]]:
    """Gap → metric → mean difference over seeds with its interval and p, for every gap whose two subsets exist."""
    stages = final_stages(task)
    table: dict[str, dict[str, Gap]] = defaultdict(dict)
    for metric in METRICS:
        scores = Scores(samples, stages, metric)
        for name, pair in GAPS.items():
            if not set(pair) <= set(scores.subsets):
                continue
            upper, lower = (scores.per_seed(subset) for subset in pair)
            differences = {seed: upper[seed] - lower[seed] for seed in scores.seeds(*pair)}
            estimate = _estimate(scores, pair, list(differences.values()))
            table[name][metric] = Gap(
                mean=estimate.mean,
                ci95=estimate.ci95,
                interval=estimate.interval,
                p=sign_flip_p(list(differences.values())),
                n=sum(len(scores.questions[subset]) for subset in pair),
                seeds=len(differences),
                per_seed={str(seed): value for seed, value in differences.items()},
            )
    return dict(table)


def _estimate(scores: Scores, subsets: tuple[str, ...], per_seed: list[float]) -> Estimate:
    if len(per_seed) >= 2:
        return over_seeds(per_seed)
    (seed,) = scores.seeds(*subsets)
    groups = [scores.per_entity(subset, seed) for subset in subsets]
    estimate = over_entities(lambda means: means[0] - means[1] if len(means) == 2 else means[0], groups)
    return Estimate(per_seed[0], estimate.ci95, estimate.interval)
