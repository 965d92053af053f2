"""A sweep is a grid as data: all of it is checked first, a point that fails ends no other, the same command goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import call

from ocl_bench.errors import OclBenchError
from ocl_bench.study.sweep import load_sweep, points_of
from ocl_bench.tasks.groups import expand

OWN = """
sweep: own
description: two shapes, and a folder that holds no weights
models: [scratch:tiny-16, scratch:tiny, broken]
tasks: [attributes]
seeds: 2
set: [source_args.num_entities=60, 'recipe.epochs=[1, 1]', 'evaluate.sets=[]']
run: {limit: 6, curves: false, device: cpu}
"""


def written(folder: Path, text: str = OWN) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: Any) -> tuple[Path, Any]:
    """A sweep of three points, one of which cannot be trained, that was run once."""
    folder: Path = tmp_path_factory.mktemp("sweep")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}))
    return folder, call("sweep", written(folder), folder=folder)


def test_a_point_that_fails_ends_no_other_and_the_command_with_its_reason(swept: tuple[Path, Any]) -> None:
    folder, done = swept
    assert done.returncode == 2
    assert "ocl-bench: broken attributes: --model broken: " in done.stderr
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines() if "attributes" in line}
    assert list(rows) == ["scratch:tiny-16 attributes", "scratch:tiny attributes", "broken attributes"]
    assert "? of 2" in rows.pop("broken attributes")
    for row in rows.values():
        assert "2 of 2" in row and "[" in row
        results = json.loads((folder / row.split()[-1] / "results.json").read_text())
        assert results["seeds"] == [0, 1]
    assert "meta_ocl_gap [95 %]" in done.stdout


def test_the_same_command_takes_what_is_there(swept: tuple[Path, Any]) -> None:
    folder, _ = swept
    written(folder, OWN.replace(", broken", ""))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/stages/*/stage.json")}
    done = call("sweep", "own.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4 of 4 stages were there") == 2
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("runs/stages/*/stage.json")}


def test_a_grid_has_a_point_for_each_model_task_and_recipe(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "sweep: own\nmodels: [scratch:tiny, gpt2]\ntasks: [attributes, sources_attributes]\nrecipes: [tiny, paper]\n",
    )
    labels = [point.label for point in points_of(load_sweep(path), path, tmp_path)]
    assert labels[:3] == [
        "scratch:tiny attributes tiny",
        "scratch:tiny attributes paper",
        "scratch:tiny sources_attributes tiny",
    ]
    assert len(set(labels)) == len(labels) == 2 * 2 * 2


def test_a_group_is_that_of_the_models_kind(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: own\nmodels: [scratch:tiny, gpt2]\ntasks: [standard]\n")
    tasks = [(point.request.model, point.request.task) for point in points_of(load_sweep(path), path, tmp_path)]
    for model, pretrained in (("scratch:tiny", False), ("gpt2", True)):
        assert [task for own, task in tasks if own == model] == expand(["standard"], pretrained)


def test_models_recipes_and_seeds_are_the_tasks_unless_the_sweep_names_them(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: own\ntasks: [attributes]\n")
    (point,) = points_of(load_sweep(path), path, tmp_path)
    assert point.label == "attributes" and point.seeds > 1
    assert point.request.passed.keys() == {"task", "overrides", "output_path"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sweep: own", "sweep: other"), "make them agree"),
        (("seeds:", "seed:"), "unknown key 'seed'; did you mean 'seeds'"),
        (("tasks: [attributes]", "tasks: [atributes]"), "unknown task 'atributes'; did you mean 'attributes'"),
        (("scratch:tiny-16", "scratch:tinny"), r"own\.yaml: scratch:tinny attributes: .*did you mean"),
        (("scratch:tiny-16", "scratch:tiny"), "'scratch:tiny attributes' is there twice"),
        (("limit: 6", "limits: 6"), "unknown key 'limits'; did you mean 'limit'"),
        (("limit: 6", "fresh: true"), r"run\.fresh: a sweep sets that"),
        (("seeds: 2", "seeds: [1, 1]"), "different seeds"),
        (("'recipe.epochs=[1, 1]'", "'recipe.epochs=[1]'"), "has epochs for 1 stages"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, OWN.replace(", broken", "").replace(*change))
    with pytest.raises(OclBenchError, match=message):
        points_of(load_sweep(path), path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_sweep_that_the_docs_show_can_be_planned(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs", "clusters.md").read_text()
    path = tmp_path / "shapes.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    assert len(points_of(load_sweep(path), path, tmp_path)) == 4


def test_every_wrong_point_has_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, OWN.replace("scratch:tiny-16", "scratch:a").replace("broken", "scratch:b"))
    with pytest.raises(OclBenchError) as raised:
        points_of(load_sweep(path), path, tmp_path)
    told = [line.split(": ")[1] for line in str(raised.value).splitlines()]
    assert told == ["scratch:a attributes", "scratch:b attributes"]
