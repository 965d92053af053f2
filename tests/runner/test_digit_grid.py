"""The vision task goes the way of every task: run, go on, submit, checked, shown; and what does not fit is refused."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import Heard, call

import ocl_bench
from ocl_bench.cli import main
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import read_answers
from ocl_bench.finetune.epoch import epoch_pools, trained_on
from ocl_bench.leaderboard.site import write_site
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.table import load_entries
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import EpochDone
from ocl_bench.runner.workers import Workers
from ocl_bench.score.lm_eval_export import export
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task, task_files
from ocl_bench.tasks.records import read_dataset

SMALL = {
    "task": "digit_grid", "seeds": 1,
    "overrides": ("source_args.num_entities=40", "recipe.epochs=[3]", "recipe.draws_per_epoch=256"),
}  # fmt: skip
SETTINGS = [part for override in SMALL["overrides"] for part in ("--set", override)]
DECISIVE = ("data.jsonl", "answers.jsonl", "curve.jsonl", "model.safetensors", "results.json")


@contextmanager
def one_core() -> Iterator[None]:
    """A machine of one: last digits depend on the number of threads, and one seed takes all there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
        yield


@pytest.fixture(scope="module")
def small_grid(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with one_core():
        return ocl_bench.run(**SMALL, output_path=tmp_path_factory.mktemp("grid"))


def test_a_run_has_the_scores_of_every_task_and_its_answers_are_grids(small_grid: Any) -> None:
    assert small_grid.gaps.keys() >= {"ocl_gap", "meta_ocl_gap", "d1_binding_gap"}
    assert small_grid.metrics["d1_cons"]["choice"].n == 16
    assert small_grid.results.sets["recall"].metrics.keys() >= {"d1_cons", "d2_cons"}
    records = {record.id: record for record in read_dataset(small_grid.folder / "seed-0" / "data.jsonl")}
    answers = read_answers(small_grid.folder / "seed-0" / "x1x2" / "answers.jsonl")
    for answer in answers:
        record = records[answer.id]
        assert record.picture is not None and record.picture.seed is not None
    assert max(len(one.generated.split()) for one in answers) == 4, "a place of the answer for each cell"


def test_an_epoch_has_the_recipes_draws_as_many_of_each_subset(small_grid: Any) -> None:
    manifest = read_manifest(small_grid.folder)
    (record,), task = manifest.stages["seed-0"].values(), manifest.config.task
    records = trained_on(task.stages[0], read_dataset(small_grid.folder / "seed-0" / "data.jsonl"))
    drawn: dict[tuple[str, str], int] = {}
    for pool in epoch_pools(task.stages[0], manifest.config.recipe.of_stage(0), records):
        ((subset, kind),) = {(records[number].subset, records[number].kind) for number in pool.numbers}
        drawn[subset, kind] = pool.per_epoch
    assert drawn == {
        ("d1_cons_qa", "definition"): 19,
        ("d1_cons_qa", "qa"): 45,
        ("d2_incons_qa", "definition"): 19,
        ("d2_incons_qa", "qa"): 45,
        ("d1_cons", "definition"): 64,
        ("d2_cons", "definition"): 64,
    }
    assert (record.epochs, record.optimizer_steps) == (3, 3 * 256 // 64)
    assert record.real_tokens == 3 * 256 * 5  # four cells, and what ends an answer


def test_an_interrupted_run_goes_on_with_the_same_scans_to_the_same_bytes(small_grid: Any, tmp_path: Path) -> None:
    def interrupt(message: Any) -> None:
        if isinstance(message, EpochDone) and message.epoch == 2:
            raise KeyboardInterrupt

    with one_core():
        with pytest.raises(KeyboardInterrupt):
            ocl_bench.run(**SMALL, output_path=tmp_path, checkpoint_seconds=0, progress=Heard(interrupt).shown)
        again = ocl_bench.run(**SMALL, output_path=tmp_path, checkpoint_seconds=0)
    assert read_manifest(again.folder).stages["seed-0"]["x1x2"].resumed == 1
    for name in DECISIVE:
        whole, own = (next(folder.rglob(name)) for folder in (small_grid.folder, again.folder))
        assert own.read_bytes() == whole.read_bytes(), name


def test_a_submission_passes_the_checks_and_its_page_shows_the_pictures(small_grid: Any, tmp_path: Path) -> None:
    card = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC0-1.0", notes="few entities")
    submission = write_submission(small_grid.folder, tmp_path / "results", "open", "someone/reader", card)
    assert check(tmp_path / "results" / submission.place).problems == []
    (entry,) = load_entries(tmp_path / "results")
    assert entry.family == "resnet"
    index = write_site([entry], tmp_path / "site")
    (page,) = (path for path in index.parent.rglob("*.html") if "someone" in path.as_posix())
    assert page.read_text().count('<img class="picture" src="data:image/png;base64,iVBOR') >= 4


def test_two_stages_are_an_override(tmp_path: Path) -> None:
    stages = 'stages=[{"name":"x1","train":["x1"]},{"name":"x2","train":["x2"]}]'
    overrides = (*SMALL["overrides"], stages, "recipe.epochs=[1,1]")
    result = ocl_bench.run(**{**SMALL, "overrides": overrides}, output_path=tmp_path)
    assert result.metrics["d1_cons_qa"]["choice"].stage == "x1" and result.metrics["d1_cons"]["choice"].stage == "x2"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision model of which each stage halves the picture, five times in all."""
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("backbone")
    sizes = {"patch_size": 4, "depths": [1] * 4, "hidden_sizes": [8] * 4}
    AutoModel.from_config(AutoConfig.for_model("convnextv2", **sizes)).save_pretrained(folder)
    return folder


def test_a_vision_model_of_a_folder_is_finetuned(backbone: Path, tmp_path: Path) -> None:
    larger = ("design.picture.rows=4", "design.picture.columns=4", "source_args.cells=16", "evaluate.max_new_tokens=16")
    fields = {**SMALL, "overrides": (*SMALL["overrides"], *larger, "recipe.epochs=[1]"), "limit": 2}
    result = ocl_bench.run(str(backbone), **fields, output_path=tmp_path)
    assert result.metrics["d1_cons"]["choice"].n == 2
    (answers,) = tmp_path.rglob("answers.jsonl")
    assert 4 < max(len(one.generated.split()) for one in read_answers(answers)) <= 16


def test_a_new_head_is_the_same_for_all_seeds_and_made_for_each_tasks_answers(backbone: Path, tmp_path: Path) -> None:
    """As pretrained weights are; though workers keep a model from one job to the next."""
    larger = ("design.picture.rows=4", "source_args.num_entities=20", "recipe.draws_per_epoch=64", "recipe.epochs=[1]")
    fields = {"seeds": 2, "limit": 1, "curves": False, "output_path": tmp_path}
    with Workers() as workers:
        for columns in (4, 5):
            cells = (f"design.picture.columns={columns}", f"source_args.cells={4 * columns}")
            own = ocl_bench.run(str(backbone), "digit_grid", overrides=(*larger, *cells), workers=workers, **fields)
            stages = [stages["x1x2"] for stages in read_manifest(own.folder).stages.values()]
            assert len(stages) == 2 and len({stage.weights_before for stage in stages}) == 1
            assert {stage.real_tokens for stage in stages} == {64 * (4 * columns + 1)}


def test_a_finished_model_is_not_given_another_grid(small_grid: Any, tmp_path: Path) -> None:
    checkpoint = small_grid.folder / "seed-0" / "x1x2"
    larger = ("design.picture.columns=3", "source_args.cells=6")
    with pytest.raises(OclBenchError, match="says answers of 5 tokens, and the task's have 7"):
        ocl_bench.run(str(checkpoint), **{**SMALL, "overrides": larger}, output_path=tmp_path)


def test_a_hardly_trained_model_may_say_no_end_of_its_answer(tmp_path: Path) -> None:
    overrides = ("source_args.num_entities=20", "recipe.draws_per_epoch=64", "recipe.epochs=[1]")
    result = ocl_bench.run(
        task="digit_grid", seeds=1, limit=2, curves=False, output_path=tmp_path,
        overrides=(*overrides, "evaluate.max_new_tokens=16"),
    )  # fmt: skip
    assert result.metrics["d1_cons"]["em"].n == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks", "digit_grid", "--model", "scratch:tiny"], "it reads text, and the task shows pictures"),
        (["--tasks", "attributes", "--model", "BACKBONE"], "it looks at pictures, and the task is text"),
        (["--tasks", "world", "--model", "scratch:digits"], "it looks at pictures, and the task is text"),
        (["--tasks", "digit_grid", "--model", "BACKBONE"], "it cannot look at the task's pictures of 22 × 20 pixels"),
        (["--tasks", "digit_grid", "--set", "design.picture.rows=3"], "design.picture has 3 × 2 cells"),
        (["--tasks", "digit_grid", "--set", "design.picture.rows=0"], "design.picture.rows"),
        (["--tasks", "digit_grid", "--set", "design.variable_style=letters"], "belong together"),
        (["--tasks", "digit_grid", "--set", "evaluate.sets=[cloze]"], "'cloze' asks in words"),
        (["--tasks", "digit_grid", "--set", "source_args.num_entities=9000"], "half of the 10,000 grids"),
        (["--tasks", "digit_grid", "--also_tasks", "hellaswag"], "lm-eval asks in text"),
        (["--tasks", "digit_grid", "--model_args", "tokenizer=gpt2"], "reads no text"),
        (["--tasks", "MIXED"], "says answers of 5 tokens, and the task's have 2 or 5"),
        (["--tasks", "mnist"], "data fetch mnist --from FOLDER"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence_and_leaves_no_folder(
    arguments: list[str], sentence: str, backbone: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed.yaml"  # of four attributes, as many as there are cells
    grid, listed = (yaml.safe_load(task_files()[name].read_text()) for name in ("digit_grid", "attributes"))
    own = {"task": "mixed", "source": "attributes", "source_args": listed["source_args"] | {"num_entities": 40}}
    mixed.write_text(yaml.safe_dump(grid | own))
    named = [{"BACKBONE": str(backbone), "MIXED": str(mixed)}.get(word, word) for word in arguments]
    unreachable = {"OCL_BENCH_CACHE": str(tmp_path / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = call("run", *named, "--seeds", "1", folder=tmp_path, **unreachable)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("ocl-bench: ")]) == 1
    assert not (tmp_path / "runs").exists()


def test_a_task_file_with_more_cells_than_questions_is_not_valid(tmp_path: Path) -> None:
    text = (
        task_files()["digit_grid"].read_text().replace("rows: 2", "rows: 3").replace("task: digit_grid", "task: tall")
    )
    (tmp_path / "tall.yaml").write_text(text)
    done = call("validate", "tall.yaml", folder=tmp_path)
    assert done.returncode == 2 and "design.picture has 3 × 2 cells" in done.stderr


def test_a_checkpoint_is_not_scored_as_if_it_read_text(small_grid: Any, tmp_path: Path) -> None:
    done = call("eval", "--model", small_grid.folder / "seed-0" / "x1x2", "--task", "digit_grid", folder=tmp_path)
    assert done.returncode == 2 and "lm-eval's models read text" in done.stderr


def test_pictures_are_not_exported_as_text(tmp_path: Path) -> None:
    task = load_task("digit_grid", ("source_args.num_entities=40",))
    with pytest.raises(OclBenchError, match="shows pictures"):
        export(task, build(task, 0), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_data_show_prints_examples_and_draws_a_sheet_of_pictures(tmp_path: Path) -> None:
    done = call("data", "show", "digit_grid", "--set", "source_args.num_entities=40", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"x1 +d2_incons_qa +definition +[01]{10} \d{4} │ \d \d \d \d", done.stdout)
    assert (tmp_path / "digit_grid.png").read_bytes().startswith(b"\x89PNG")
    refused = call("data", "show", "digit_grid", "--output_path", tmp_path / "no" / "sheet.png", folder=tmp_path)
    assert refused.returncode == 2 and "cannot be written" in refused.stderr


@pytest.mark.parametrize("task", ["attributes", "sources_sample"])
def test_data_show_colours_tag_variable_and_entity_of_a_text_task(task: str, tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["data", "show", task], color=True).output
    (line,) = (line for line in printed.splitlines() if re.match(r"x2 +d1_cons +definition", line))
    assert all(f"\x1b[{code}m" in line for code in (35, 36, 32)), line
    assert not list(tmp_path.iterdir())
