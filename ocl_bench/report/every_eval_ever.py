"""A run's results in the schema of Every Eval Ever (EvalEval Coalition), version 0.3.0: one JSON file of aggregates."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ocl_bench.errors import OclBenchError
from ocl_bench.files import write_atomic
from ocl_bench.report.hub_results import dataset_name, hub_name
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.metrics import METRICS, Metric
from ocl_bench.score.result import Gap, Results, Value
from ocl_bench.text import Line

SCHEMA_VERSION = "0.3.0"
METHODS = {
    "seeds": "Student's t over seeds of training, with their skewness removed (Hall 1992)",
    "entities": "percentile bootstrap over entities",
}


def write(folder: Path, output_path: Path, by: str, relationship: str, name: str | None, dataset: str | None) -> Path:
    """Write the file where the datastore keeps it, `data/<benchmark>/<org>/<model>/<uuid>.json`; returns it.

    Args:
        folder: a finished run or a submission.
        output_path: what stands for the datastore's root.
        by: who evaluated the model.
        relationship: of who did to who made it: first_party, third_party, collaborative or other.
        name: org/model; the model's own if it is from the hub.
        dataset: the task's data on the hub, if it is there.

    Raises:
        OclBenchError: if the folder is neither, or the model has no name.
    """
    try:
        TypeAdapter(Line).validate_python(by)
    except ValidationError as error:
        raise OclBenchError(f"--by: {error.errors()[0]['msg']}.") from None
    if dataset is not None:
        dataset_name(dataset)
    results, manifest = read_results(folder), read_manifest(folder)
    model, now = hub_name(manifest, name), time.time()
    benchmark = f"ocl-bench-{results.task}"
    rows: list[dict[str, Any]] = []
    for subset, values in results.metrics.items():
        for metric, value in values.items():
            rows.append(_result(benchmark, subset, METRICS[metric], value, results, manifest, dataset))
    for gap, gaps in results.gaps.items():
        for metric, difference in gaps.items():
            rows.append(_result(benchmark, gap, METRICS[metric], difference, results, manifest, dataset))
    record = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{benchmark}/{model}/{now}",
        "evaluation_timestamp": manifest.started,
        "retrieved_timestamp": str(now),
        "source_metadata": {
            "source_name": "ocl-bench",
            "source_type": "evaluation_run",
            "source_organization_name": by,
            "evaluator_relationship": relationship,
        },
        "eval_library": {"name": "ocl-bench", "version": manifest.versions["ocl-bench"]},
        "model_info": _model(model, manifest),
        "evaluation_results": rows,
    }
    path = output_path / "data" / benchmark / model / f"{uuid.uuid4()}.json"
    write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def _model(model: str, manifest: Manifest) -> dict[str, Any]:
    spec = manifest.config.model
    revision = {} if manifest.model_revision is None else {"revision": manifest.model_revision}
    return {
        "name": model,
        "id": model,
        "inference_engine": {"name": manifest.engine.name, "version": manifest.engine.version},
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "open_weights" if spec.source == "hub" else "unknown",
            "parameters": str(manifest.parameters),
            "weights": "random" if spec.source == "scratch" else "pretrained",
            "finetuned_with": f"recipe {manifest.config.recipe.recipe}",
            **revision,
        },
    }


def _result(
    benchmark: str,
    what: str,
    metric: Metric,
    value: Value | Gap,
    results: Results,
    manifest: Manifest,
    data: str | None,
) -> dict[str, Any]:
    """One metric of one subset, or the difference of two."""
    seeds = ", ".join(map(str, results.seeds))
    details = {"interval_is_about_new": value.interval, "seeds": seeds, "questions": str(value.n)}
    low, high = metric.low, metric.high
    if isinstance(value, Gap):
        described = f"{GAPS[what][0]} - {GAPS[what][1]} in {metric.name}: {metric.description}"
        low, high = (None, None) if low is None or high is None else (low - high, high - low)
        details |= (
            {"p": str(value.p), "p_is_of": "two-sided sign-flip permutation over seeds"} if value.p is not None else {}
        )
    else:
        described = f"{metric.name} of {what} after stage {value.stage}: {metric.description}"
        details |= {"chance": str(value.chance)} if value.chance is not None else {}
    source = (
        {"source_type": "other"} if data is None else {"source_type": "hf_dataset", "hf_repo": data, "hf_split": "test"}
    )
    return {
        "evaluation_result_id": f"{what}.{metric.name}",
        "evaluation_name": benchmark,
        "evaluation_timestamp": manifest.started,
        "source_data": {
            "dataset_name": benchmark,
            **source,
            "additional_details": {"task_version": str(results.task_version), "seeds": seeds},
        },
        "metric_config": {
            "evaluation_description": described,
            "metric_id": f"ocl_bench.{what}.{metric.name}",
            "metric_name": f"{what} ({metric.name})",
            "metric_kind": "accuracy_difference" if isinstance(value, Gap) and metric.accuracy else metric.name,
            "metric_unit": "proportion" if metric.accuracy else "points",
            "lower_is_better": metric.better == "lower",
            "score_type": "continuous",
            "min_score": "-Infinity" if low is None else low,
            "max_score": "Infinity" if high is None else high,
        },
        "score_details": {
            "score": value.mean,
            "details": details,
            "uncertainty": {
                "confidence_interval": {
                    "lower": value.ci95[0],
                    "upper": value.ci95[1],
                    "confidence_level": 0.95,
                    "method": METHODS[value.interval],
                },
                "num_samples": value.seeds if value.interval == "seeds" else value.n,
            },
        },
        "generation_config": {
            "generation_args": {"temperature": 0, "max_tokens": manifest.config.task.evaluate.max_new_tokens},
            "additional_details": {
                "recipe": results.recipe,
                "finetuning_seeds": seeds,
                "differs_from_the_standard": str(manifest.config.modified).lower(),
                "questions_per_subset": str(manifest.config.limit or "all"),
            },
        },
    }
