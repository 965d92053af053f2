"""A study is data: its points are real runs, finished points are kept, and the figure shows intervals."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import call

from ocl_bench.errors import OclBenchError
from ocl_bench.runner.plan import choose
from ocl_bench.runner.request import RunRequest
from ocl_bench.study.figure import draw
from ocl_bench.study.run import read_study_results, run_study
from ocl_bench.study.schema import load_study, study_files
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import TASK_FOLDER, load_task

SMALL = ["--seeds", "2", "--set", "source_args.num_entities=60", "--set", "recipe.epochs=[1, 1]"]
OWN = """
study: own
description: two correlations
paper: nothing
axis: correlation
scratch: {task: attributes, set: ['evaluate.sets=[attribution]']}
pretrained: {task: attributes}
points:
  - {label: low, set: ['design.alpha=0.5']}
  - {label: high, set: ['design.alpha=0.8'], scratch: {model: 'scratch:tiny-16'}}
figure: gaps
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: Any) -> tuple[Path, str]:
    """A study of two points that was run once."""
    folder: Path = tmp_path_factory.mktemp("study")
    (folder / "studies").mkdir()
    (folder / "studies" / "own.yaml").write_text(OWN)
    return folder, run(folder)[0]


def run(folder: Path, *more: str) -> tuple[str, str]:
    """What a study prints and says."""
    paths = ["--include_path", folder, "--output_path", folder / "out", "--runs_path", folder / "runs"]
    done = call("study", "own", *SMALL, *paths, *more, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_study_gives_a_table_a_figure_and_results_of_every_point(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    results = read_study_results(folder / "out" / "own.json")
    assert [point.run.label for point in results.points] == ["low", "high"]
    assert [point.results.model for point in results.points] == ["scratch:tiny", "scratch:tiny-16"]
    assert all(point.seeds == (0, 1) for point in results.points)
    assert "attribution/name" in results.points[0].results.sets
    assert (folder / "out" / "own.png").read_bytes().startswith(b"\x89PNG")
    assert "meta_ocl_gap [95 %]" in printed
    assert str(folder / "out" / "own.png") in printed


def test_the_figure_shows_the_metric_that_the_table_shows(finished: tuple[Path, str], tmp_path: Path) -> None:
    def drawn(changed: str | None) -> bytes:
        data = json.loads((finished[0] / "out" / "own.json").read_text())
        for point in data["points"]:
            for gap in point["results"]["gaps"].values():
                if changed:
                    gap[changed] |= {"mean": 0.6, "ci95": [0.5, 0.7]}
        (tmp_path / "own.json").write_text(json.dumps(data))
        draw(read_study_results(tmp_path / "own.json"), tmp_path / "own.png")
        return (tmp_path / "own.png").read_bytes()

    assert drawn("em_forced") == drawn(None) != drawn("choice")


def test_finished_points_are_kept_and_only_others_are_run_whose_stages_may_be_there(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    path = folder / "out" / "own.json"
    whole = path.read_text()
    data = json.loads(whole)
    del data["points"][0]
    path.write_text(json.dumps(data))
    said = run(folder)[1]
    assert said.strip() == "4 of 4 stages were there", "of the first point; the second is not even looked for"
    assert json.loads(path.read_text()) == json.loads(whole)


@pytest.mark.parametrize(
    "other",
    [["--model", "scratch:tiny-16"], ["--seeds", "3"], ["--task", "reversal"], ["--set", "design.alpha=0.9"]],
    ids=lambda other: other[0],
)
def test_results_of_something_else_are_not_overwritten(finished: tuple[Path, str], other: list[str]) -> None:
    folder, _ = finished
    before = (folder / "out" / "own.json").read_text()
    paths = ["--include_path", str(folder), "--output_path", str(folder / "out")]
    done = call("study", "own", *paths, *SMALL, *other, folder=folder)
    assert done.returncode == 2
    assert "holds points of scratch:tiny that are not of this call" in done.stderr
    assert (folder / "out" / "own.json").read_text() == before


def test_another_task_than_the_studys_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "own.yaml").write_text(OWN)
    run(tmp_path, "--task", "sources_attributes")
    points = read_study_results(tmp_path / "out" / "own.json").points
    assert [point.results.task for point in points] == ["sources_attributes"] * 2


@pytest.mark.parametrize("name", sorted(study_files()))
def test_every_point_of_every_study_is_a_run_that_can_be_planned(name: str) -> None:
    study = load_study(name)
    for pretrained in [kind for kind, there in ((False, study.scratch), (True, study.pretrained)) if there]:
        for point in study.runs(pretrained):
            model = point.model or ("EleutherAI/pythia-1b-deduped" if pretrained else "scratch:tiny")
            choice = choose(RunRequest.from_options(model=model, task=point.task, overrides=point.set))
            assert choice.task.task == point.task


def test_the_studies_of_the_paper_are_there_and_those_of_adapters_and_of_two_other_papers() -> None:
    families = {"gpt_neo", "llama_2", "t5"}
    assert set(study_files()) == families | {
        "two_stage", "in_context", "correlation", "word_order", "model_size", "batch_size", "single_stage",
        "three_stage", "data_amount", "pairs", "digit_pairs", "digit_correlation", "lora", "negated", "six_stages",
        "mechanism", "mechanism_attributes",
    }  # fmt: skip
    assert {name for name in study_files() if load_study(name).scratch is None} == families


@pytest.mark.parametrize(
    ("model", "recipe", "adapter"),
    [
        ("scratch:world", "lora_world", "[null, {ADAPTER, embeddings: true}, {ADAPTER, embeddings: true}]"),
        ("EleutherAI/pythia-1b-deduped", "lora", "{ADAPTER}"),
    ],
)
def test_points_of_the_study_of_adapters_are_their_recipe_with_other_ranks(
    model: str, recipe: str, adapter: str
) -> None:
    *points, full = load_study("lora").runs(pretrained=recipe == "lora")
    assert full.set == () and [point.label for point in points] == ["1", "4", "16", "64"]
    for point in points:
        own = adapter.replace("ADAPTER", f"rank: {point.label}, alpha: 32")
        ways = ({"overrides": point.set}, {"recipe": recipe, "overrides": (f"recipe.adapter={own}",)})
        found = [choose(RunRequest.from_options(model=model, task=point.task, **way)).recipe for way in ways]
        stages = [[one.of_stage(number) for number in range(len(one.epochs))] for one in found]
        assert stages[0] == stages[1]


def test_pythia_models_are_the_deduplicated_ones_of_the_paper() -> None:
    for file in TASK_FOLDER.rglob("*.yaml"):
        for model in re.findall(r"EleutherAI/pythia[\w.-]*", file.read_text()):
            assert model.endswith("-deduped"), file


# The epochs of the published code; at the full batch an epoch is one step.
PAPERS_EPOCHS = {16: 30, 32: 30, 64: 30, 128: 40, 256: 60, 512: 60, 1024: 60, 2048: 60, 4096: 60, 8192: 120,
                 16384: 120, 32768: 240}  # fmt: skip


@pytest.mark.parametrize(("pretrained", "least", "most"), [(True, 16, 32768), (False, 64, 4096)])
def test_the_batch_grows_to_the_whole_of_an_epoch_and_epochs_grow_eightfold_with_it(
    pretrained: bool, least: int, most: int
) -> None:
    model = "EleutherAI/pythia-1b-deduped" if pretrained else "scratch:tiny"
    epochs = {}
    for point in load_study("batch_size").runs(pretrained):
        choice = choose(RunRequest.from_options(model=model, task=point.task, overrides=point.set))
        assert [stage.train for stage in choice.task.stages] == [("x1", "x2")]
        assert point.label == str(choice.recipe.effective_batch_size)
        (epochs[choice.recipe.effective_batch_size],) = choice.recipe.epochs
    assert (min(epochs), max(epochs)) == (least, most)
    assert list(epochs.values()) == sorted(epochs.values())
    assert epochs[most] == 8 * epochs[least]
    if pretrained:
        assert epochs == PAPERS_EPOCHS
        return
    trained = [record for record in build(load_task("attributes"), 0) if record.split != "test"]
    definitions = sum(record.kind == "definition" for record in trained)
    questions = len(trained) - definitions
    assert questions + choice.recipe.of_stage(0).definitions_per_epoch(definitions, questions) <= most


def test_a_study_of_pretrained_models_alone_says_so_and_takes_its_first_model() -> None:
    study = load_study("t5")
    assert study.default_model == "google-t5/t5-3b"
    assert load_study("model_size").default_model == "scratch:tiny"
    with pytest.raises(OclBenchError, match="study 't5' has no runs for scratch models; give a --model of the other"):
        run_study("t5", "scratch:tiny", seeds=(0,))


def test_a_point_that_is_null_for_a_kind_of_models_is_left_out_for_them(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace("label: low,", "label: low, scratch: null,"))
    assert [run.label for run in load_study(str(path)).runs(pretrained=False)] == ["high"]
    assert [run.label for run in load_study(str(path)).runs(pretrained=True)] == ["low", "high"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("label: high", "label: low"), "two points have the same label"),
        (("study: own", "study: other"), "make them agree"),
        (("figure: gaps", "figure: pie"), "figure"),
        (("figure: gaps", "figure: gaps\naxes: x"), "did you mean 'axis'"),
    ],
)
def test_a_wrong_study_file_is_refused_in_one_sentence(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(OclBenchError, match=message):
        load_study(str(path))


def test_an_unknown_study_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(OclBenchError, match="unknown study 'batchsize'; did you mean 'batch_size'"):
        load_study("batchsize")
