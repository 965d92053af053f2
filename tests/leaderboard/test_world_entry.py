"""A submission of a task with an X0 that seeds share, and with options, is checked as any other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from settling import Forgery, read

import ocl_bench
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.validate import check

CARD = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    run = ocl_bench.run(
        task="world", seeds=2, keep="all", output_path=folder / "runs",
        overrides=["source_args.num_entities=20", "recipe.epochs=[1,1,4]", "evaluate.curve_questions=5"],
    )  # fmt: skip
    return folder / write_submission(run.folder, folder, "open", "someone/world", CARD).place


def test_an_honest_one_passes_and_so_does_it_written_again(entry: Path, tmp_path: Path) -> None:
    assert check(entry).problems == []
    assert check(read(entry).write(tmp_path)).problems == []


def test_its_x0_is_handed_over_once_and_x2_replayed_from_it(entry: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    own = shutil.copytree(entry, results / entry.relative_to(entry.parents[2]))
    (run,) = (entry.parents[2] / "runs" / "scratch__world" / "world").iterdir()
    drawn = call("leaderboard", "challenge", own, "--by", "M", folder=tmp_path)
    assert drawn.returncode == 0 and drawn.stdout.count("/x0/") == 1
    done = call(
        "leaderboard", "verify", own, "--replay", run, "--by", "M", "--output_path", tmp_path / "runs", folder=tmp_path
    )
    assert "submitted  100.0%" in done.stdout, done.stdout + done.stderr
    assert "x0 done" not in done.stderr  # the new seed goes on from the one that was handed over


def rows(forgery: Forgery, stage: str) -> list[dict[str, Any]]:
    return [row for row in forgery.answers["seed-0"] if row["stage"] == stage]


def sure_but_wrong(forgery: Forgery) -> None:
    row = next(row for row in rows(forgery, "x2") if "/qa/" in row["id"])
    right = forgery.questions(next(forgery.told.config.cells.__iter__()))[row["id"]]
    row |= {"logprob": -0.1, "em_forced": 1, "generated": right.answers[0]}
    row["choice"] = (right.options.index(right.answers[0]) + 1) % len(right.options)


def beyond_the_options(forgery: Forgery) -> None:
    next(row for row in rows(forgery, "x2") if "/qa/" in row["id"])["choice"] = 10


def no_choice(forgery: Forgery) -> None:
    del next(row for row in rows(forgery, "x2") if "/qa/" in row["id"])["choice"]


def one_where_there_are_no_options(forgery: Forgery) -> None:
    next(row for row in rows(forgery, "x2") if "/recall/" in row["id"])["choice"] = 0


def choices_of(forgery: Forgery, subset: str, generated: bool) -> None:
    """Every choice of a subset after X2 is made the right one, perhaps beside an answer that is another option."""
    questions = forgery.questions(next(forgery.told.config.cells.__iter__()))
    for row in rows(forgery, "x2"):
        record = questions[row["id"]]
        if row["id"].startswith(f"{subset}/qa/"):
            row |= {"choice": record.options.index(record.answers[0]), "em_forced": 0, "logprob": -5.0}
            row["generated"] = record.options[row["choice"] - 1] if generated else "something else"


def chosen_at_will(forgery: Forgery) -> None:
    for subset in ("d1_cons", "d2_cons", "d3_cons", "d1_cons_qa", "d2_incons_qa", "d1_swapped", "d2_swapped"):
        choices_of(forgery, subset, generated=True)


def chosen_without_having_been_taught(forgery: Forgery) -> None:
    choices_of(forgery, "unseen", generated=False)


def another_replay(forgery: Forgery) -> None:
    forgery.manifest["config"]["task"]["stages"][2]["replay"] = {"x0": 1.0}


def a_rate_of_another_stage(forgery: Forgery) -> None:
    last = forgery.manifest["stages"]["seed-1"]["x2"]
    for name in ("first", "peak", "last"):
        last[f"learning_rate_{name}"] /= 2  # as if X2 had the rate of X1


def x0_trained_by_each(forgery: Forgery) -> None:
    forgery.manifest["stages"]["seed-1"] = forgery.manifest["stages"]["seed-0"]


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (sure_but_wrong, "is not the right one, though that has more than half of the probability"),
        (beyond_the_options, "choice: is 10; the question has "),
        (no_choice, "choice: is None; the question has "),
        (one_where_there_are_no_options, "choice: is 0; the question has 0 options"),
        (chosen_at_will, "is another option than the one that was generated"),
        (chosen_without_having_been_taught, "choice is 1.00 on what was not taught yet"),
        (another_replay, "real_tokens: is "),
        (a_rate_of_another_stage, "learning_rate_peak: is "),
        (x0_trained_by_each, "has not exactly the stages x1, x2"),
    ],
)
def test_what_no_run_gives_is_named(
    forge: Callable[[Forgery], None], sentence: str, entry: Path, tmp_path: Path
) -> None:
    forgery = read(entry)
    forge(forgery)
    try:
        folder = forgery.write(tmp_path)
    except (AssertionError, IndexError, KeyError, StopIteration):  # what cannot even be scored
        pytest.fail("the forgery could not be written")
    said = "\n".join(map(str, check(folder).problems))
    assert sentence in said, said
