"""Every option of every command refuses wrong values at once: one sentence that names it, and nothing is left behind.

The commands are found by walking the command line, so that a new option is covered by its type. One whose values are
words of its own has to be told here which are wrong, or that any text is right.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import call

from ocl_bench.cli import main

ENTRY = next((Path(__file__).parents[1] / "leaderboard" / "results" / "digit_grid").glob("*/*"))  # of a small task
# What each command needs besides; `file` is a file, `entry` a submission.
ARGUMENTS = {
    "compare": ["entry", "entry"],
    "convert": ["entry", "--to", "every-eval-ever", "--by", "A. Researcher", "--name", "a/b"],
    "data build": ["attributes", "--output_path", "out"],
    "data card": ["attributes", "--output_path", "out"],
    "data fetch": ["cvdb"],
    "data show": ["attributes"],
    "data verify": ["attributes"],
    "eval": ["--model", "someone/none-such"],
    "export": ["attributes", "--output_path", "out"],
    "leaderboard challenge": ["entry", "--by", "A. Reviewer"],
    "leaderboard review": [".", "--base", "main"],
    "leaderboard revoke": ["entry", "--by", "A. Reviewer", "--reason", "a test"],
    "leaderboard verify": ["entry"],
    "plan": ["--task", "attributes"],
    "plot": ["entry"],
    "run": ["--task", "attributes"],
    "samples": ["entry"],
    "score": ["entry"],
    "study": ["two_stage"],
    "submit": ["entry", "--by", "A. Researcher", "--contact", "a@example.org"],
    "sweep": ["sweep.yaml"],
    "validate": ["file"],
}
UNWRITABLE = ["file", "file/below", "/proc/none"]
NOT_THERE = ["none-such", "file/below", "/proc/none"]
NUMBERS = ["x", "0", "1.5"]
WORDS = ["none-such", "", "file"]
UNSHOWN = ["a | b", "two\nlines", "<b>"]
# Option, or command and option → what is wrong for it.
WRONG: dict[str, list[str]] = {
    "--address": ["x", "localhost:6379", ""],
    "--also_tasks": ["none-such", "hellasswag", "a,b"],
    "--base": ["none-such", "-x", "main~9"],
    "--batch_size": NUMBERS,
    "--by": ["", *UNSHOWN[:2]],
    "cache ls --output_path": NOT_THERE,
    "cache prune --output_path": NOT_THERE,
    "status --output_path": NOT_THERE,
    "plot --output_path": ["file", "curves.none", "file/below.png"],
    "submit --leaderboard": UNWRITABLE,
    "leaderboard review --to": ["file", ".", "entry"],
    "--checkpoint_seconds": ["soon", "-1", "nan"],
    "--config": NOT_THERE,
    "--contact": ["", *UNSHOWN[:2]],
    "--device": ["gpu", "cuda:99", "cuda:x"],
    "--devices": ["x", "0,x", "99"],
    "convert --dataset": ["no-slash", "a b/c", ""],
    "convert --name": ["no-slash", "a b/c", "../.."],
    "--engine": WORDS,
    "--engine_args": ["x", "seed=1", "2=3"],
    "--executor": WORDS,
    "--from": ["none-such", "file/below", "http://localhost:1/x"],
    "--gap": ["none-such", "", "meta_ocl"],
    "--head": ["none-such", "-x", "main~9"],
    "--include_path": NOT_THERE,
    "--leaderboard": NOT_THERE,
    "--kind": ["none-such", "", "attribution"],
    "--learners": ["none-such", ",", "mlp,none-such"],
    "--license": ["", "a b", "<b>"],
    "--limit": NUMBERS,
    "--lm_eval_model": WORDS,
    "--metric": ["none-such", "", "accuracy"],
    "--model": ["", "./none", "scratch:none-such"],
    "--model_args": ["x", "dtpe=float32", "dtype=int8"],
    "eval --model_args": ["x", "=1", "a=1,b"],
    "--name": ["no-slash", "a b/c", "a/b__c"],
    "--notes": ["a | b", "<b>", " begins with a space"],
    "--output_path": UNWRITABLE,
    "--on": ["none-such", "", "X100"],
    "--plot": ["figure.none", "file", "file/below.png"],
    "--question": ["none-such-question", "", "\0"],
    "--reason": ["", *UNSHOWN[:2]],
    "--recipe": ["none-such", "none.yaml", ""],
    "--replay": ["none-such", "hf:a b", ""],
    "--report_to": ["none-such", "tensorbord", "a,b"],
    "--runs_path": UNWRITABLE,
    "--seed": ["x", "-1", "1.5"],
    "--stage2_seed": ["x", "-1", "1.5"],
    "--seeds": ["three", "0", "1,1"],
    "leaderboard challenge --seeds": ["x", "0", "6"],
    "leaderboard verify --seeds": NUMBERS,
    "--stage2_seeds": ["three", "0", "1,1"],
    "--set": ["design.alpha", "design.alfa=1", "design.alpha=x"],
    "toy --set": ["x", "none=1", "points=x"],
    "--shard": ["x", "0", "999"],
    "--stage": ["none-such", "x3", "X1"],
    "--subset": ["none-such", "", "D1_cons"],
    "--task": WORDS,
    "--tasks": WORDS,
    "--to": ["none-such", "hf:a", "hf:a b/c"],
}


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def wrong_values(name: str, option: click.Option) -> list[str]:
    spelled = option.opts[0]
    for told in (f"{name} {spelled}", spelled):
        if told in WRONG:
            return WRONG[told]
    if isinstance(option.type, click.Choice):
        return ["none-such", "", "file"]
    if isinstance(option.type, click.IntRange):
        below = [str(option.type.min - 1)] if option.type.min is not None else []
        return ["x", "1.5", *below]
    assert isinstance(option.type, click.Path), f"{name} {spelled}: say in WRONG which values are wrong for it"
    return NOT_THERE


CASES = [
    (name, option.opts[0], value)
    for name, command in commands(main)
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
    for value in wrong_values(name, option)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("")
    (folder / "sweep.yaml").write_text("sweep: sweep\nmodels: [scratch:tiny]\ntasks: [attributes]\n")
    shutil.copytree(ENTRY, folder / "entry")
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "file"],
        ["commit", "--quiet", "--message=first"],
    ):
        subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(("command", "option", "value"), CASES)
def test_a_wrong_value_is_refused_in_one_sentence_and_leaves_nothing(
    command: str, option: str, value: str, place: Path
) -> None:
    before = sorted(place.glob("[!.]*/**/*"))
    done = call(*command.split(), *ARGUMENTS.get(command, []), option, value, folder=place)
    assert done.returncode != 0, done.stdout
    said = done.stderr.strip().splitlines()
    assert option.removeprefix("--") in done.stderr or (value and value in done.stderr), done.stderr
    assert "Traceback" not in done.stderr and len(said) == 1, done.stderr
    assert sorted(place.glob("[!.]*/**/*")) == before
