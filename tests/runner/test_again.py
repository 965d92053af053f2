"""Commands that a run leaves, to go on from it or to do it again, are read back as what they mean."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import WHOLE, call
from test_request import WRITTEN, read

import ocl_bench
from ocl_bench.cli import _json_of
from ocl_bench.leaderboard.verify import command_again
from ocl_bench.runner.again import next_run, same_run
from ocl_bench.runner.manifest import Manifest, RunConfig, read_manifest
from ocl_bench.runner.plan import choose
from ocl_bench.runner.request import RunRequest, command_line
from ocl_bench.score.gaps import scored_questions
from ocl_bench.tasks.build import build

BOARD = Path(__file__).parents[2] / "leaderboard" / "results"


def request_in(command: str, task: str) -> RunRequest:
    """What a command asks for, which has to name this task."""
    program, run, *words = shlex.split(command)
    assert (program, run) == ("ocl-bench", "run")
    place = words.index("--task")
    assert words[place + 1] == task
    return read(*words[:place], *words[place + 2 :])


@pytest.fixture(scope="module")
def world() -> Manifest:
    return read_manifest(next((BOARD / "world" / "ocl-bench__llama-4x64").iterdir()))


def test_a_request_is_written_as_the_command_that_makes_it() -> None:
    fields = {name: meant for name, (_, meant) in WRITTEN.items()}
    whole = RunRequest.from_options(**fields | {"task": "world", "curves": False, "output_path": Path("my runs; ls")})
    assert request_in(command_line(whole), "world") == whole.model_copy(update={"task": "world"})
    for seeds in ((0,), (0, 1, 2), (3,), (4, 7)):
        one = RunRequest.from_options(task="world", seeds=seeds)
        assert request_in(command_line(one), "world").seeds == seeds


@pytest.mark.parametrize(
    ("given", "seeds", "expected", "why"),
    [
        (
            {"model": "scratch:./my model", "limit": 20, "overrides": ("recipe.epochs=[2,1]",), "fresh": True},
            (0, 1),
            {"model": "scratch:./my model", "overrides": ("recipe.epochs=[2,1]",)},
            "all questions; what is trained is there",
        ),
        ({"output_path": Path("a b"), "seeds": (4, 7)}, (4, 7), {"output_path": Path("a b"), "seeds": tuple(range(10))},
         "the task's standard seeds"),
        ({"overrides": ("design.alpha=0.9",)}, tuple(range(10)),
         {"overrides": ("design.alpha=0.9",), "seeds": tuple(range(20))}, "narrower intervals"),
    ],
)  # fmt: skip
def test_what_to_run_next_keeps_what_was_given(
    given: dict[str, Any], seeds: tuple[int, ...], expected: dict[str, Any], why: str, world: Manifest
) -> None:
    changed = {"seeds": seeds, "limit": given.get("limit"), "modified": "overrides" in given}
    config: RunConfig = world.config.model_copy(update=changed)
    command, told = next_run(RunRequest.from_options(task="world", **given), config)
    assert told == why
    assert request_in(command, "world").passed == RunRequest.from_options(**expected).passed


@pytest.mark.parametrize(("count", "named"), [(10, None), (40, 40)])
def test_after_the_standard_from_random_weights_comes_a_pretrained_model(
    count: int, named: int | None, world: Manifest
) -> None:
    config = world.config.model_copy(update={"seeds": tuple(range(count)), "modified": False})
    command, why = next_run(RunRequest.from_options(task="world"), config)
    asked = request_in(command, "cvdb")
    assert why == "a pretrained model" and asked.model == "EleutherAI/pythia-70m-deduped"
    standard = len(ocl_bench.load_task("cvdb").standard_seeds)
    assert len(asked.seeds or range(standard)) >= count


def test_run_it_again_is_the_whole_command(world: Manifest, tmp_path: Path) -> None:
    made = RunRequest.from_options(
        task="world", model="scratch:world", recipe="tiny", seeds=(3,), stage2_seeds=(0, 5), limit=7, own_x0=True,
        overrides=(
            "design.alpha=0.9", "evaluate.sets=[]", "source_args.num_entities=500", "recipe.epochs=[3,2,1]",
            "recipe.adapter={rank: 4, alpha: 8}", "recipe.learning_rate=[1e-3,2e-3,5e-4]",
        ),
    )  # fmt: skip
    choice = choose(made)
    config = world.config.model_copy(
        update={
            "model": choice.model, "task": choice.task, "recipe": choice.recipe, "seeds": (3,),
            "stage2_seeds": (0, 5), "limit": 7, "own_x0": True,
        }
    )  # fmt: skip
    command = same_run(config, "scratch:world", None)
    assert command is not None
    again = request_in(command, "world").model_copy(update={"task": "world"})
    assert choose(again).task == choice.task and choose(again).recipe == choice.recipe
    for name in ("model", "seeds", "stage2_seeds", "own_x0", "limit"):
        assert getattr(again, name) == getattr(made, name), name
    other = config.model_copy(update={"recipe": choice.recipe.model_copy(update={"recipe": "mine"})})
    assert same_run(other, "scratch:world", None) is None


def test_the_command_of_an_entry_makes_its_recipe_and_task() -> None:
    for path in sorted(BOARD.glob("*/*/*/manifest.json")):
        manifest = read_manifest(path.parent)
        command = command_again(path.parent, manifest)
        assert command is not None
        task = manifest.config.task.task
        choice = choose(request_in(command, task).model_copy(update={"task": task}))
        assert choice.task.scored == manifest.config.task.scored and choice.recipe == manifest.config.recipe


def test_the_same_limit_asks_the_same_questions_in_a_run_an_eval_and_an_export(whole_run: Path, tmp_path: Path) -> None:
    task = ocl_bench.load_task("attributes", WHOLE["overrides"][:1])
    records = build(task, 0)
    done = call(
        "export", "attributes", "--set", "source_args.num_entities=60", "--limit", "3", "--output_path", "out",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    exported = {
        json.loads(line)["id"] for path in (tmp_path / "out" / "data").iterdir() for line in path.open(encoding="utf-8")
    }
    assert exported == {record.id for record in scored_questions(task, records, 3, 0)}
    of_stages = [scored_questions(task, records, 3, 0, stage.name) for stage in task.stages]  # what eval asks
    assert exported == {record.id for own in of_stages for record in own}
    run = ocl_bench.run(**{**WHOLE, "overrides": WHOLE["overrides"][:2]}, limit=3, output_path=tmp_path / "runs")
    answered = set()
    for stage, own in zip(task.stages, of_stages, strict=True):
        lines = (run.folder / "seed-0" / stage.name / "answers.jsonl").read_text().splitlines()
        assert {record.id for record in own} <= {json.loads(line)["id"] for line in lines}
        answered |= {record.id for record in own}
    assert answered == exported and "--batch_size 64 --tasks ocl_attributes" in done.stdout


def test_several_tasks_are_one_json_document(whole_run: Path) -> None:
    results = ocl_bench.load(whole_run).results
    assert json.loads(_json_of([results]))["task"] == "attributes"
    assert [one["task"] for one in json.loads(_json_of([results, results]))] == ["attributes", "attributes"]


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "ocl_bench", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ocl-bench, version")
