"""Verify a submission by doing it again: finetune the same model, and compare the new gaps with those submitted.

What a submission says reaches the run as checked, typed values. Code that comes with a model is never run, and training
has a process of its own, without network and tokens (`ocl_bench.leaderboard.isolated`).
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.engines import require_engine
from ocl_bench.files import require_writable
from ocl_bench.leaderboard.agreement import seeds_compared
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.isolated import fetch, run_isolated
from ocl_bench.leaderboard.records import Comparison, Verification, content_of, now
from ocl_bench.leaderboard.submission import CONFIG
from ocl_bench.leaderboard.untrusted import read_bytes
from ocl_bench.leaderboard.validate import check
from ocl_bench.models.spec import ModelArgs
from ocl_bench.runner.again import same_run
from ocl_bench.runner.compute import pick_device
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import Manifest, read_manifest

Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Verified:
    """What came of doing it again.

    Attributes:
        folder: the new run's folder.
        comparisons: of every gap.
        agrees: whether all of it does.
        equal_answers: share of answers before X2 that handed weights give as submitted; None if none were handed over.
        record: what the board keeps; None if it does not agree, or too little was run again.
        command: the `ocl-bench run` that does the same; None if files of the submission are needed for it.
    """

    folder: Path
    comparisons: tuple[Comparison, ...]
    agrees: bool
    equal_answers: float | None = None
    record: Verification | None = None
    command: str | None = None


def verify(
    folder: Path,
    seeds: int | None,
    private_seed: int | None,
    output_path: Path,
    by: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Verified:
    """Run a submission again, every stage of it.

    Args:
        folder: a submission.
        seeds: how many seeds; None takes as many as were submitted.
        private_seed: the first of seeds that the submitter did not know; None takes the submitted ones.
        output_path: where run folders are made.
        by: who does it; None makes no record.
        progress: shows progress, as `ocl_bench.run` has it.
        options: device, batch_size and engine, as `ocl_bench.run` has them.

    Raises:
        OclBenchError: if the submission does not pass the checks, its weights were never published, a private seed
            is one of its seeds, or its model has another number of parameters than it says.
    """
    require_means(output_path, **options)
    checked = passed(folder)
    assert checked.manifest is not None and checked.ranked is not None
    config, start = checked.manifest.config, time.monotonic()
    count = seeds or len(config.seeds)
    if private_seed is None:
        chosen: Sequence[int] = config.seeds[:count]
    else:
        chosen = range(private_seed, private_seed + count)
        if known := sorted(set(chosen) & set(config.seeds)):
            raise OclBenchError(f"--private_seed {private_seed}: seed {known[0]} is one of those that were submitted.")
    # What lies in the output folder may be what is to be verified.
    with request_of(folder, checked, chosen, config.stage2_seeds, output_path, fresh=True, **options) as request:
        run = run_isolated(request, progress)
    check_size(folder, checked.manifest, run, chosen)
    comparisons = tuple(seeds_compared(checked.ranked, read_results(run), chosen))
    agrees = all(one.agrees for one in comparisons)
    whole = count >= len(config.seeds)
    record = None
    if by is not None and whole and agrees:
        again = read_manifest(run)
        record = Verification(
            content=content_of(checked.manifest),
            by=by,
            date=now(),
            level="re-run",
            nonce=None,
            seeds=() if private_seed is not None else tuple(chosen),
            stage2_seeds=config.stage2_seeds,
            new_seeds=tuple(chosen) if private_seed is not None else (),
            equal_answers=None,
            comparisons=comparisons,
            versions=again.versions,
            hardware=again.hardware,
            seconds=round(time.monotonic() - start, 1),
        )
    return Verified(run, comparisons, agrees, record=record, command=command_again(folder, checked.manifest))


def require_means(output_path: Path, device: str | None = None, engine: str = "auto", **others: Any) -> None:
    """Refuse what a run cannot be done with or kept in, before anything is checked, which takes longer."""
    require_writable(output_path)
    require_engine(engine)
    pick_device(device)


def passed(folder: Path) -> Checked:
    """A submission that passes the checks. Raises OclBenchError if it does not."""
    checked = check(folder)
    if checked.problems:
        first, count = checked.problems[0], len(checked.problems)
        raise OclBenchError(f"{folder} does not pass the checks ({first}; {count} in all): see leaderboard validate.")
    return checked


@contextmanager
def request_of(
    folder: Path,
    checked: Checked,
    seeds: Sequence[int],
    stage2_seeds: Sequence[int],
    output_path: Path,
    fresh: bool,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """What to ask `run_isolated` for, to run a submission again with these seeds; its files are there within.

    Raises:
        OclBenchError: if the model cannot be had again.
    """
    assert checked.manifest is not None
    config = checked.manifest.config
    model = model_of(folder, config.model.source, config.model.name)
    args = trusted_args(checked.manifest)
    if config.model.source == "hub":
        fetch(config.model.name, args.revision, weights=True)
    if args.tokenizer is not None:
        fetch(args.tokenizer, None, weights=False)
    with tempfile.TemporaryDirectory() as own:
        if config.model.source == "scratch":
            # A configuration alone: nothing that lies beside it in the submission can be loaded with it.
            alone = Path(own, "model", folder.resolve().name)
            alone.mkdir(parents=True)
            (alone / CONFIG).write_bytes(read_bytes(folder / CONFIG))
            model = model_of(alone, config.model.source, config.model.name)
        # JSON is YAML. What is of the suite and unchanged is recognised by its content.
        # A task and its recipe may have one name.
        task, recipe = Path(own, f"{config.task.task}.yaml"), Path(own, "recipes", f"{config.recipe.recipe}.yaml")
        recipe.parent.mkdir()
        task.write_text(config.task.scored.model_dump_json(), encoding="utf-8")
        recipe.write_text(config.recipe.model_dump_json(), encoding="utf-8")
        yield {
            "model": model,
            "task": str(task),
            "recipe": str(recipe),
            "seeds": list(seeds),
            "stage2_seeds": list(stage2_seeds),
            "own_x0": config.own_x0,
            "model_args": args.model_dump(mode="json"),
            "limit": config.limit,
            "curves": False,
            "fresh": fresh,
            "output_path": str(output_path),
            **options,
        }


def check_size(folder: Path, manifest: Manifest, run: Path, seeds: Sequence[int]) -> None:
    """Refuse a submission whose model has another number of parameters than it says."""
    said, has = manifest.parameters, read_manifest(run).parameters
    if has != said and seeds[0] == manifest.config.seeds[0]:  # with other seeds a vocabulary may have another size
        raise OclBenchError(f"{folder}: its manifest says {said} parameters, the model has {has} ({run}).")


def trusted_args(manifest: Manifest) -> ModelArgs:
    """How to load a submission's model again: as it was, but with no code of its own, whatever the manifest says."""
    args = manifest.config.model.args
    return ModelArgs(
        revision=manifest.model_revision or "main", dtype=args.dtype, tokenizer=args.tokenizer, trust_remote_code=False
    )


def command_again(folder: Path, manifest: Manifest) -> str | None:
    """The command that runs a submission again; None for weights, a task or a recipe that were never published."""
    source = manifest.config.model.source
    if source == "folder":
        return None
    return same_run(manifest.config, model_of(folder, source, manifest.config.model.name), manifest.model_revision)


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
