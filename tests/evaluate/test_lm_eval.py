"""The bridge to lm-eval, both ways: its own command line and models, offline, on checkpoints of the suite."""

import contextlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from conftest import Heard, call

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.ability import AbilityScore
from ocl_bench.evaluate.answers import Answer, read_answers
from ocl_bench.files import read_json_lines
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import EpochDone
from ocl_bench.score.ability import score_changes
from ocl_bench.score.metrics import METRICS, group_values
from ocl_bench.score.samples import Sample, samples_of
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.records import read_dataset

BIN = Path(sys.executable).parent
SMALL = ["source_args.num_entities=80", "evaluate.sets=[attribution]", "evaluate.options=10"]
SCRATCH = [*SMALL, "recipe.epochs=[6,6]"]
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def samples(run: Path, seed: int, stage: str) -> dict[str, Sample]:
    config = read_manifest(run).config
    records = {record.id: record for record in read_dataset(run / f"seed-{seed}" / "data.jsonl")}
    answers = read_answers(run / f"seed-{seed}" / stage / "answers.jsonl")
    values, chance = group_values(records.values()), chance_levels(config.task)
    found = samples_of(answers, records, chance, values, stage=stage, seed=seed, stage2_seed=0)
    return {one.record.id: one for one in found}


def values(name: str, samples: list[Sample]) -> list[float]:
    return [METRICS[name].of(one.answer, one.record) for one in samples]


@pytest.fixture(scope="module")
def finished(model_folder: Any, own_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run from random weights, and one of a pretrained model whose tokenizer puts a bos token in front."""
    common = {"output_path": tmp_path_factory.mktemp("runs"), "curves": False}
    llama = ["recipe.learning_rate=5e-3", "recipe.optim=adamw_torch", "recipe.effective_batch_size=32"]
    return {
        "scratch": ocl_bench.run(task="attributes", 
            seeds=2, overrides=SCRATCH, also_tasks=["own_colours"], include_path=[own_tasks],
            **common,
        ),
        "pretrained": ocl_bench.run(
            str(model_folder("llama")), "attributes", seeds=1,
            overrides=[*SMALL, "recipe.epochs=[40,10]", "recipe.precision=fp32", *llama], **common,
        ),
    }  # fmt: skip


def by_its_command_line(checkpoint: Path, tasks: Path) -> Any:
    """What lm-eval's own command finds, started elsewhere."""
    done = subprocess.run(
        [BIN / "lm-eval", "run", "--model", "hf", "--model_args", f"pretrained={checkpoint},dtype=float32", "--device",
         "cpu", "--tasks", "ocl_attributes", "--include_path", tasks, "--batch_size", "32", "--output_path", "out"],
        cwd=tasks.parent, env=OFFLINE, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tasks.parent / "out").rglob("results_*.json")
    return json.loads(path.read_text())


def by_its_library(checkpoint: Path, tasks: Path) -> Any:
    """What lm-eval finds in this process, started in the folder of tasks that name their data by relative paths."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(tasks):
        manager = TaskManager(include_path=".", include_defaults=False)
        args = f"pretrained={checkpoint},dtype=float32"
        options = {"model": "hf", "model_args": args, "device": "cpu", "batch_size": 32, "task_manager": manager}
        return simple_evaluate(tasks=["ocl_attributes"], bootstrap_iters=0, **options)


@pytest.mark.parametrize(
    ("which", "relative", "lm_eval"),
    [("scratch", (), by_its_command_line), ("pretrained", ("--relative",), by_its_library)],
)
def test_lm_eval_finds_the_same_exact_match_on_every_set(
    which: str, relative: tuple[str, ...], lm_eval: Any, finished: dict[str, Any], tmp_path: Path
) -> None:
    overrides = [part for text in SMALL for part in ("--set", text)]
    exported = call("export", "attributes", *overrides, "--output_path", "tasks", *relative, folder=tmp_path)
    assert "ocl_attributes_d1_cons  " in exported.stdout
    found = lm_eval(finished[which].folder / "seed-0" / "x2", tmp_path / "tasks")
    ours: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples(finished[which].folder, 0, "x2").values():
        asked = [] if sample.record.set == "qa" else sample.record.set.split("/")
        ours["_".join(["ocl_attributes", sample.record.subset, *asked])].append(sample)
    theirs = {name: scores for name, scores in found["results"].items() if "exact_match,none" in scores}
    assert theirs.keys() == ours.keys() and len(ours) > 15
    for name, own in ours.items():
        assert theirs[name]["exact_match,none"] == pytest.approx(fmean(values("em", own))), name
        # In batches of another shape, two tokens that are all but equally likely may change places in a wrong answer.
        assert theirs[name]["f1,none"] == pytest.approx(fmean(values("f1", own)), abs=1 / len(own)), name
        assert found["versions"][name] == ocl_bench.load_task("attributes").version
    chosen = {name: own for name, own in ours.items() if all(one.record.options for one in own)}
    assert {name for name in found["results"] if name.endswith("_choice")} == {f"{name}_choice" for name in chosen}
    assert len(chosen) == 7
    for name, own in chosen.items():
        assert found["results"][f"{name}_choice"]["acc,none"] == pytest.approx(fmean(values("choice", own))), name
    assert 0 < fmean(values("em", [one for own in ours.values() for one in own])) < 1


def test_exported_tasks_say_what_lm_eval_has_to_know(tmp_path: Path) -> None:
    from ocl_bench.score.lm_eval_export import export
    from ocl_bench.tasks.build import build

    task = ocl_bench.load_task("attributes", SMALL)
    counts = export(task, build(task, seed=3), tmp_path)
    text = (tmp_path / "ocl_attributes_d1_cons_attribution_name.yaml").read_text()
    loaded = yaml.safe_load(text.replace("!function", ""))
    assert loaded["tag"] == ["ocl", "ocl_attribution"] and loaded["metadata"] == {"version": task.version}
    data = Path(loaded["dataset_kwargs"]["data_files"]["test"])
    assert data.is_absolute() and sum(1 for _ in data.open()) == counts["ocl_attributes_d1_cons_attribution_name"]
    group = yaml.safe_load((tmp_path / "_ocl_attributes.yaml").read_text())
    assert set(group["task"]) == counts.keys()
    # The scoring that travels along needs nothing of the suite.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ocl_metrics as m; " + (
        "print(m.process_results({'answers': ['The red']}, [' red!']), "
        "m.process_results({'answers': ['a b', 'c']}, ['d']), 'ocl_bench' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'exact_match': 1.0, 'f1': 1.0} {'exact_match': 0.0, 'f1': 0.0} False\n"


@pytest.mark.parametrize("which", ["scratch", "pretrained"])
def test_a_checkpoint_scored_through_lm_eval_gets_the_scores_of_its_run(
    which: str, finished: dict[str, Any], tmp_path: Path
) -> None:
    run = finished[which]
    result = ocl_bench.evaluate_checkpoint(
        str(run.folder / "seed-0" / "x2"), "attributes", overrides=SMALL, device="cpu", output_path=tmp_path
    )
    theirs, ours = read_answers(result.folder / "answers.jsonl"), samples(run.folder, 0, "x2")
    assert {one.id for one in theirs} == {id for id, own in ours.items() if own.record.subset in result.metrics}
    differing = set()
    for answer in theirs:
        own = ours[answer.id]
        for metric in METRICS.values():
            tolerance = 1e-3 if metric.name == "logprob" else 0
            value, expected = metric.of(answer, own.record), metric.of(own.answer, own.record)
            same = value is None if expected is None else value == pytest.approx(expected, abs=tolerance, rel=0)
            if not same:
                differing.add((answer.id, metric.name))
    # Where two tokens are as likely to the last digit, batches of other sizes may go on with either.
    assert len(differing) <= len(theirs) // 100, differing
    assert result.results.engine.name == "lm-eval hf" and result.results.engine.dtype == "float32"
    assert result.results.recipe is None and not result.results.submittable
    assert result.gaps["meta_ocl_gap"]["em"].per_seed["0"] == run.gaps["meta_ocl_gap"]["em"].per_seed["0"]
    assert ocl_bench.load(result.folder).results == result.results
    shown = {one.record.id: (one.record, one.stage) for one in result.samples()}
    assert shown == {
        id: (own.record, "x2")
        for id, own in ours.items()
        if own.record.kind == "qa" and own.record.subset in result.metrics
    }


def test_a_checkpoint_is_not_asked_about_data_that_it_was_not_trained_on(
    finished: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = finished["scratch"].folder / "seed-0" / "x2"
    for task, options in (
        ("attributes", {"overrides": SMALL, "seed": 1}),
        ("attributes", {"overrides": SMALL, "stage2_seed": 1}),
        ("attributes", {"overrides": ["source_args.num_entities=120"]}),
        ("attributes", {"overrides": [*SMALL, 'design.question_format="Ask: {question} ="']}),
        ("world", {}),
    ):
        with pytest.raises(
            OclBenchError, match=r"was trained on other data .* of seed-0 of a run of task 'attributes'"
        ):
            ocl_bench.evaluate_checkpoint(checkpoint, task, **options, device="cpu", output_path=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_lm_eval_cannot_load_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for options, message in (
        ({"lm_eval_model": "hff"}, "--lm_eval_model hff: unknown; did you mean 'hf'"),
        ({"stage": "x3"}, "--stage x3: task 'world' has none"),
        ({}, "the folder holds no config.json"),
    ):
        with pytest.raises(OclBenchError, match=message):
            ocl_bench.evaluate_checkpoint(str(tmp_path), **options, output_path=tmp_path / "out")


def test_a_run_tells_what_finetuning_did_to_other_tasks_and_is_the_same_without_them(
    finished: dict[str, Any], own_tasks: Path, tmp_path: Path
) -> None:
    run = finished["scratch"]
    change = run.results.also["own_colours"]["acc"]
    rows = {
        seed: [
            next(read_json_lines(run.folder / f"seed-{seed}" / place / "lm_eval.jsonl")) for place in ("before", "x2")
        ]
        for seed in (0, 1)
    }
    assert [(row["when"], row["n"], row["version"]) for row in rows[0]] == [("before", 30, "3"), ("after", 30, "3")]
    differences = [own[1]["value"] - own[0]["value"] for own in rows.values()]
    assert change.difference == pytest.approx(fmean(differences)) and change.interval == "seeds"
    assert change.ci95 is not None and change.ci95[0] <= change.difference <= change.ci95[1]
    assert (change.n, change.seeds) == (60, 2)
    assert "own_colours" in run.table() and "difference [95 %]" in run.table()
    # As many seeds, so that each has as many threads.
    plain = ocl_bench.run(task="attributes", seeds=2, overrides=SCRATCH, output_path=tmp_path, curves=False)
    answers: list[list[Answer]] = [
        read_answers(folder / "seed-1" / "x2" / "answers.jsonl") for folder in (plain.folder, run.folder)
    ]
    assert answers[0] == answers[1]
    # Of a run that is finished, they are asked without any training, and find the same.
    heard = Heard()
    again = ocl_bench.run(task="attributes", 
        seeds=1, overrides=SCRATCH, also_tasks=["own_colours"], include_path=[own_tasks], output_path=tmp_path,
        curves=False, progress=heard.shown,
    )  # fmt: skip
    assert heard.notes == ["2 of 2 stages were there"] and not heard.of(EpochDone)
    found = again.results.also["own_colours"]["acc"]
    assert [found.before, found.after] == [row["value"] for row in rows[0]]


def ability(when: Any, value: float, stderr: float | None = 0.03) -> AbilityScore:
    return AbilityScore(when=when, task="t", version="1", metric="acc", value=value, stderr=stderr, n=10)


def test_pretrained_weights_are_measured_once_before_all_seeds() -> None:
    scores = {0: [ability("before", 0.5), ability("after", 0.4)], 1: [ability("after", 0.3), ability("after", 0.5)]}
    change = score_changes(scores)["t"]["acc"]
    assert (change.before, change.after, change.n, change.seeds) == (0.5, 0.4, 30, 2)
    assert change.difference == pytest.approx(-0.1)
    assert change.ci95 == pytest.approx((-0.1, -0.1))


def test_the_interval_of_a_single_seed_is_over_questions() -> None:
    change = score_changes({0: [ability("before", 0.5), ability("after", 0.4, 0.04)]})["t"]["acc"]
    assert change.interval == "questions"
    assert change.ci95 == pytest.approx((-0.1 - 1.96 * 0.05, -0.1 + 1.96 * 0.05))
    assert score_changes({0: [ability("before", 0.5), ability("after", 0.4, None)]})["t"]["acc"].ci95 is None


def test_a_task_that_lm_eval_does_not_know_is_refused_before_training(own_tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OclBenchError, match="--also_tasks: lm-eval has no task 'own_colour'; did you mean 'own_colours'"
    ):
        ocl_bench.run(task="attributes", also_tasks=["own_colour"], include_path=[own_tasks], output_path=tmp_path)
    assert not list(tmp_path.iterdir())
