"""A run's gaps as evaluation results of the Hugging Face Hub: `.eval_results/*.yaml` of a model's repository."""

import re
from pathlib import Path

import yaml

from ocl_bench.errors import OclBenchError, counted
from ocl_bench.files import write_atomic
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.score.metrics import main_metric

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # begins with no dot: it becomes folders


def hub_name(manifest: Manifest, given: str | None) -> str:
    """The model's name, as org/model. Raises OclBenchError if it has none and none is given, or that is no name."""
    spec = manifest.config.model
    own = spec.location if spec.source == "hub" else spec.name.removeprefix("scratch:")
    name = own if given is None else given
    if not HUB_NAME.fullmatch(name):
        raise OclBenchError(f"--name: '{name}' is no name of the hub; say how the model is called there, as org/model.")
    return name


def dataset_name(given: str | None) -> str:
    """A dataset's name on the hub. Raises OclBenchError if none is given, or that is no name."""
    if given is None or not HUB_NAME.fullmatch(given):
        raise OclBenchError("--dataset: name the task's data on the hub, as org/name; `ocl-bench data card` makes it.")
    return given


def write(folder: Path, output_path: Path, name: str | None, dataset: str | None) -> Path:
    """Write a file for the folder `.eval_results` of the model's repository; returns it.

    Each gap is an entry, whose value is the mean over seeds of the metric that the leaderboard goes by.

    Args:
        folder: a finished run or a submission.
        output_path: what stands for the repository's root.
        name: org/model; the model's own if it is from the hub.
        dataset: the task's data on the hub, whose eval.yaml names the gaps.

    Raises:
        OclBenchError: if the folder is neither, or a name is missing.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    results, manifest = read_results(folder), read_manifest(folder)
    hub_name(manifest, name)
    of = dataset_name(dataset)
    changed = "; task or recipe differ from the suite's own" if manifest.config.modified else ""
    if manifest.config.limit is not None:
        changed += f"; only {counted(manifest.config.limit, 'question')} per subset asked"
    entries = []
    for gap, values in results.gaps.items():
        metric = main_metric(values).name
        value = values[metric]
        low, high = value.ci95
        entries.append(
            EvalResultEntry(
                dataset_id=of,
                task_id=gap,
                value=round(value.mean, 4),
                date=manifest.started,
                notes=f"difference in {metric} after finetuning; 95 % interval {low:+.3f} to {high:+.3f} over new "
                f"{value.interval}; {value.seeds} seeds; task version {results.task_version}; recipe {results.recipe}"
                + changed,
            )
        )
    if not entries:
        raise OclBenchError(f"{folder}: its task has no gap, and the hub's results would be empty.")
    path = output_path / ".eval_results" / f"ocl-bench-{results.task}.yaml"
    write_atomic(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
    return path
