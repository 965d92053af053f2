"""Verify a submission by doing it again: finetune the same model, and compare the new gaps with those submitted.

What a submission says reaches the run as checked, typed values. Code that comes with a model is never run, and training
has a process of its own, without network and tokens (`ocl_bench.leaderboard.isolated`).
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable
from ocl_bench.leaderboard.isolated import fetch, run_isolated
from ocl_bench.leaderboard.submission import CONFIG
from ocl_bench.leaderboard.untrusted import read_bytes
from ocl_bench.leaderboard.validate import check
from ocl_bench.models.spec import ModelArgs
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.score.result import Results
from ocl_bench.score.statistics import CONFIDENCE

COMPARED = ("em_forced", "em", "logprob")
ROUNDING = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One gap in one metric, submitted and measured again.

    Attributes:
        gap, metric: which one.
        submitted, again: means over the submitted and over the new seeds.
        difference: of the two, new minus submitted: over the seeds that both have, where these are the same.
        ci95: interval of the difference; None where a single seed gives none.
        agrees: whether the interval holds 0; for a single seed, whether it is inside the submitted one.
    """

    gap: str
    metric: str
    submitted: float
    again: float
    difference: float
    ci95: tuple[float, float] | None
    agrees: bool


def verify(
    folder: Path,
    seeds: int | None,
    private_seed: int | None,
    output_path: Path,
    progress: Callable[[str, int], Any] | None = None,
    **options: Any,
) -> tuple[Path, list[Comparison]]:
    """Run a submission again.

    Args:
        folder: a submission.
        seeds: how many seeds; None takes as many as were submitted.
        private_seed: the first of seeds that the submitter did not know; None takes the submitted ones.
        output_path: where run folders are made.
        progress: shows progress, as `ocl_bench.run` has it.
        options: device, batch_size and engine, as `ocl_bench.run` has them.

    Returns:
        The new run's folder and the comparisons.

    Raises:
        OclBenchError: if the submission does not pass the checks, its weights were never published, a private seed
            is one of its seeds, or its model has another number of parameters than it says.
    """
    checked = check(folder)
    if checked.problems:
        first, count = checked.problems[0], len(checked.problems)
        raise OclBenchError(f"{folder} does not pass the checks ({first}; {count} in all): see leaderboard validate.")
    assert checked.manifest is not None and checked.results is not None
    config = checked.manifest.config
    count = seeds or len(config.seeds)
    if private_seed is None:
        chosen: Sequence[int] = config.seeds[:count]
    else:
        chosen = range(private_seed, private_seed + count)
        if known := sorted(set(chosen) & set(config.seeds)):
            raise OclBenchError(f"--private_seed {private_seed}: seed {known[0]} is one of those that were submitted.")
    model = model_of(folder, config.model.source, config.model.name)
    args = trusted_args(checked.manifest)
    if config.model.source == "hub":
        fetch(config.model.name, args.revision, weights=True)
    if args.tokenizer is not None:
        fetch(args.tokenizer, None, weights=False)
    require_writable(output_path)
    with tempfile.TemporaryDirectory() as own:
        if config.model.source == "scratch":
            # A configuration alone: nothing that lies beside it in the submission can be loaded with it.
            alone = Path(own, "model", folder.resolve().name)
            alone.mkdir(parents=True)
            (alone / CONFIG).write_bytes(read_bytes(folder / CONFIG))
            model = model_of(alone, config.model.source, config.model.name)
        # JSON is YAML. What is of the suite and unchanged is recognised by its content.
        task, recipe = Path(own, f"{config.task.task}.yaml"), Path(own, f"{config.recipe.recipe}.yaml")
        task.write_text(config.task.model_dump_json(), encoding="utf-8")
        recipe.write_text(config.recipe.model_dump_json(), encoding="utf-8")
        request = {
            "model": model,
            "task": str(task),
            "recipe": str(recipe),
            "seeds": list(chosen),
            "stage2_seeds": list(config.stage2_seeds),
            "model_args": args.model_dump(mode="json"),
            "limit": config.limit,
            "curves": False,
            "fresh": True,  # what lies in the output folder may be what is to be verified
            "output_path": str(output_path),
            **options,
        }
        run = run_isolated(request, progress)
    said, has = checked.manifest.parameters, read_manifest(run).parameters
    if has != said and chosen[0] == config.seeds[0]:  # with other seeds a vocabulary may have another size
        raise OclBenchError(f"{folder}: its manifest says {said} parameters, the model has {has} ({run}).")
    return run, compare(checked.results, read_results(run))


def trusted_args(manifest: Manifest) -> ModelArgs:
    """How to load a submission's model again: as it was, but with no code of its own, whatever the manifest says."""
    args = manifest.config.model.args
    return ModelArgs(
        revision=manifest.model_revision or "main", dtype=args.dtype, tokenizer=args.tokenizer, trust_remote_code=False
    )


def model_of(folder: Path, source: str, name: str) -> str:
    """What to pass as `--model` to run a submission again.

    Raises:
        OclBenchError: for weights that were never published.
    """
    if source == "hub":
        return name
    if source == "scratch":
        return f"scratch:{(folder / CONFIG).parent}"
    raise OclBenchError(f"{folder}: the model came from a folder of the submitter's, so that nobody can run it again.")


def compare(submitted: Results, again: Results) -> list[Comparison]:
    """Compare the gaps of two results, metric by metric."""
    found = []
    for gap, metrics in submitted.gaps.items():
        for metric in COMPARED:
            if metric in metrics and metric in again.gaps.get(gap, {}):
                old, new = metrics[metric], again.gaps[gap][metric]
                found.append(_compare(gap, metric, old.per_seed, new.per_seed, old.ci95))
    return found


def _compare(
    gap: str, metric: str, old: Mapping[str, float], new: Mapping[str, float], interval: tuple[float, float]
) -> Comparison:
    from scipy import stats

    submitted, again = fmean(old.values()), fmean(new.values())
    shared = sorted(set(old) & set(new))
    difference = fmean(new[seed] - old[seed] for seed in shared) if shared else again - submitted
    if len(shared) == 1 or min(len(old), len(new)) < 2:
        return Comparison(gap, metric, submitted, again, difference, None, interval[0] <= again <= interval[1])
    if shared:
        test = stats.ttest_rel([new[seed] for seed in shared], [old[seed] for seed in shared])
    else:
        test = stats.ttest_ind(list(new.values()), list(old.values()), equal_var=False)
    low, high = (float(end) for end in test.confidence_interval(CONFIDENCE))
    if math.isnan(low):  # no spread at all: the same digits again
        low = high = difference
    return Comparison(gap, metric, submitted, again, difference, (low, high), low <= ROUNDING and high >= -ROUNDING)
