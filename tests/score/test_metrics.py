"""A metric is registered once; results, tables, lm-eval's tasks, the site and the checks then have it."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import Answer
from ocl_bench.leaderboard.site import write_site
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.table import ranked
from ocl_bench.leaderboard.validate import check
from ocl_bench.report.tables import result_table
from ocl_bench.runner.folder import score_run
from ocl_bench.score.lm_eval_export import export
from ocl_bench.score.metrics import EM, METRICS, Metric, group_values, register, unregister
from ocl_bench.score.result import results_json_schema
from ocl_bench.score.text import normalize
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task


def surplus(generated: str, answers: Sequence[str]) -> float:
    """Characters that a normalised answer has more than the shortest accepted one."""
    return float(max(0, len(normalize(generated)) - min(len(normalize(one)) for one in answers)))


def from_elsewhere(generated: str, answers: Sequence[str]) -> float:
    return float(json.dumps(generated) in answers)


@pytest.fixture
def further() -> Iterator[Metric]:
    """A metric that the suite does not have: an error count, of the generated text alone."""
    metric = Metric.of_text(surplus, name="surplus", description="characters too many", low=0.0, better="lower")
    yield register(metric)
    unregister(metric.name)


CARD = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")


def test_a_further_metric_is_in_results_tables_schema_site_and_checks(
    small_run: Path, small_submission: Path, tmp_path: Path, further: Metric
) -> None:
    results = score_run(small_run)
    value = results.metrics["d1_cons"][further.name]
    assert value.chance is None and value.mean >= value.ci95[0] >= 0
    assert further.name in results.gaps["meta_ocl_gap"]
    assert f"{further.name} [95 %]" in result_table(results)
    names = results_json_schema()["properties"]["metrics"]["additionalProperties"]["propertyNames"]["oneOf"]
    assert {"const": further.name, "description": further.description} in names

    # What was submitted without it lacks it; what is submitted with it passes.
    lines = map(str, check(small_submission).problems)
    assert any(f".{further.name}: is None; the answers give" in line for line in lines)
    submission = write_submission(small_run, tmp_path / "results", "open", "someone/small", CARD)
    checked = check(tmp_path / "results" / submission.place)
    assert checked.problems == []
    index = write_site(ranked([checked]), tmp_path / "site")
    assert f"<option>{further.name}</option>" in index.read_text()


def test_a_further_metric_of_the_text_alone_is_computed_by_lm_eval(tmp_path: Path, further: Metric) -> None:
    task = load_task("attributes", ["source_args.num_entities=80"])
    export(task, build(task, seed=0), tmp_path)
    text = (tmp_path / "ocl_attributes_d1_cons.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(text.replace("!function", ""))
    assert {"metric": "surplus", "aggregation": "mean", "higher_is_better": False} in loaded["metric_list"]
    spec = importlib.util.spec_from_file_location("ocl_metrics", tmp_path / "ocl_metrics.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.process_results({"answers": ["the red"]}, ["red red"]) == {
        "exact_match": 0.0, "f1": pytest.approx(2 / 3), "surplus": 4.0
    }  # fmt: skip


def test_a_function_that_cannot_travel_to_lm_eval_is_refused(tmp_path: Path) -> None:
    task = load_task("attributes", ["source_args.num_entities=80"])
    register(Metric.of_text(from_elsewhere, name="elsewhere", description="uses a module of its own file"))
    try:
        with pytest.raises(OclBenchError, match="'from_elsewhere' uses 'json', which does not travel"):
            export(task, build(task, seed=0), tmp_path)
    finally:
        unregister("elsewhere")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(OclBenchError, match="metric 'em' is registered twice"):
        register(EM)
    assert list(METRICS) == ["choice", "em_forced", "em", "em_first", "f1", "logprob", "form"]


def test_choice_form_and_the_first_answer_are_measured_where_questions_give_reason() -> None:
    record = next(one for one in build(load_task("world", ["source_args.num_entities=20"]), 0) if one.options)
    values, right = group_values([record]), record.options.index(record.answers[0])
    wrong = (right + 1) % len(record.options)

    def measured(name: str, generated: str, choice: int | None) -> float | None:
        answer = Answer(id=record.id, em_forced=0, logprob=-1.0, generated=generated, choice=choice)
        return METRICS[name].of(answer, record, values[record.group])

    assert measured("choice", "no such value", right) == 1.0 and measured("choice", record.answers[0], wrong) == 0.0
    assert measured("choice", "x", None) is None and measured("choice", "x", 99) is None
    assert measured("form", record.options[wrong], right) == 1.0 and measured("form", "no such value", right) == 0.0
    several = replace(record, answers=("red", "blue"), options=())
    second = Answer(id=record.id, em_forced=0, logprob=-1.0, generated="blue")
    assert (METRICS["em"].of(second, several), METRICS["em_first"].of(second, several)) == (1.0, 0.0)
    assert METRICS["em_first"].needs(several) and not METRICS["em_first"].needs(record)
    assert not METRICS["choice"].needs(several) and METRICS["form"].of(second, several) is None
