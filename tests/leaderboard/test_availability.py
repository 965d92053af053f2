"""Whatever a submission holds, checking it costs little, and what is printed is short and safe to log."""

import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import call

from ocl_bench.evaluate.answers import Answer
from ocl_bench.files import to_json_lines
from ocl_bench.leaderboard.checks import data
from ocl_bench.leaderboard.checks.answers import _stored
from ocl_bench.leaderboard.checks.data import expected_records
from ocl_bench.leaderboard.table import problem_lines
from ocl_bench.leaderboard.untrusted import Problem, Unreadable, list_files, read_bytes
from ocl_bench.leaderboard.validate import EXAMPLES, check, find_submissions
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from validate import HARMLESS, HOSTILE, make

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
# What refuses each, of all that is said.
SENTENCES = {
    "40,000 keys": "has the key 'k1' twice",
    "400,000 keys": "of JSON are taken",
    "a million zeros": "of JSON are taken",
    "45,000 odd texts": "and 44995 more of this kind",
    "45,000 wrong types": "and 44995 more of this kind",
    "20 MB of {} lines": "its files unpack to more than",
    "60 MB of {} lines": "its files unpack to more than",
    "14,400 {} lines a cell": "lines that the suite does not write so",
    "20 MB of newlines": "its files unpack to more than",
    "one line of 20 MB": "its files unpack to more than",
    "answers of another writer": "lines that the suite does not write so",
    "answers twice": "has 28800 lines; the task asks for 14400 answers",
    "answers of 300 letters": "14400 answers have 300 on average at most",
    "answers of 9,000 letters": "its files unpack to more than",
    "every answer right": "the answers give",
    "every answer unknown": "has no answer",
    "an eleventh seed": "two trainings ended with the same weights",
    "14 seeds": "has about 190400 records in 14 trainings, and at most 180000",
    "20 seeds": "has about 272000 records in 20 trainings, and at most 180000",
    "40 seeds": "more than 20 trainings",
    "30,000 seeds": "more than 20 trainings",
    "2,000 files": "has more than 1000 files and folders",
    "400 folders deep": "lies more than 16 folders deep",
    "20,000 folders": "has more than 1000 files and folders",
    "90 archives of 200 MB": "has more than 100 files",
    "a sparse file": "has 1099511627776 bytes; at most",
    "300,000 gzip members": "more than one gzip member",
    "490,000 curve points": "its files unpack to more than",
    "the largest task": "has about 2384000 records in 10 trainings",
    "12,800,000 wordings": "make 12800000 texts; give at most 10000",
    "a source that draws for ever": "of processor time to build",
    "20,000 entities": "more combinations than can be numbered",
    "24 attributes": "more combinations than can be numbered",
    "15 kB of attributes": "is not what the task builds",
    "200 stages": "asks for more than 180000 answers",
    "300 questions of the variable": "and at most 180000 are built",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_costs_little_and_is_refused_in_few_lines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(name, tmp_path)
    if name == "a source that draws for ever":
        monkeypatch.setattr(data, "BUILD_SECONDS", 2.0)
    start = time.process_time()
    done = call("leaderboard", "validate", *tmp_path.glob("*/*/*"), folder=tmp_path)
    assert time.process_time() - start < 20  # benchmarks/validate.py measures it closely
    lines = done.stdout.splitlines()
    if name in HARMLESS:
        assert done.returncode == 0 and lines[0].endswith(": ok")
    else:
        assert done.returncode == 1 and SENTENCES[name] in done.stdout
        assert len(lines) <= 51 and "the checks failed" not in done.stdout


@pytest.mark.parametrize(
    "name", ["attributes", "cvdb_sample", "reversal", "set_inclusion_mini", "sources_attributes", "sources_sample"]
)
def test_the_records_of_a_task_are_known_before_they_are_built(name: str) -> None:
    task = load_task(name)
    assert expected_records(task) == pytest.approx(len(build(task, 0)), rel=0.01)


def test_answers_are_written_as_the_suite_writes_them() -> None:
    texts = ["plain", 'a "quote" \\ and \t a tab', "naïve 日本 😀", "\x7f\x01"]
    answers = [
        Answer(id=one, em_forced=1, logprob=value, generated=one) for one in texts for value in (0.0, -1e-06, -12.5)
    ]
    assert _stored(answers) == to_json_lines(one.model_dump() for one in answers)


def test_of_a_checked_submission_remain_a_few_examples_and_its_fingerprint() -> None:
    """Of 144,000 samples: a board of a thousand submissions has to fit into memory."""
    (folder,) = (RESULTS / "attributes" / "ocl-bench__gpt-neox-1x64").iterdir()
    checked = check(folder)
    assert checked.problems == [] and 0 < len(checked.samples) <= 2 * EXAMPLES * len(
        {one.record.subset for one in checked.samples}
    )
    assert list(checked.fingerprint) == [(f"seed-{seed}", stage) for seed in range(10) for stage in ("x1", "x2")]
    (first, hashes), (later, _) = checked.fingerprint["seed-0", "x1"], checked.fingerprint["seed-0", "x2"]
    assert len(first) == len(hashes) == 6000 and first.dtype == np.float32 and hashes.dtype == np.uint32
    assert len(later) == 8400


def test_odd_names_are_named_and_not_read(tmp_path: Path) -> None:
    for name in (b"a\nb", b"caf\xe9", b"::error::x", b"x" * 200):
        (tmp_path / os.fsdecode(name)).write_text("{}")
    (tmp_path / "plain.json").write_text("{}")
    files, problems = list_files(tmp_path)
    assert files == ["plain.json"]
    assert {problem.message for problem in problems} == {"has a name that no file of a submission has"}
    assert all(str(problem).isprintable() for problem in problems) and len(problems) == 4


def test_what_is_no_plain_file_by_the_time_it_is_read_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("secret")
    (tmp_path / "link").symlink_to("file")
    for name, reason in (("pipe", "not a plain file"), ("link", "cannot be read"), ("", "not a plain file")):
        with pytest.raises(Unreadable, match=reason):
            read_bytes(tmp_path / name)
    with pytest.raises(Unreadable, match="at most 5 are taken"):
        read_bytes(tmp_path / "file", 5)


def test_few_problems_of_a_kind_are_printed_and_few_in_all() -> None:
    same = [Problem(f"f{number}", "", f"is {number}; data give 7") for number in range(400)]
    lines = problem_lines(Path("x"), same)
    assert len(lines) == 6 and lines[-1] == "x: and 395 more"
    kinds = [
        Problem("f", "", f"is wrong in way {chr(97 + number % 26)}{chr(97 + number // 26)}") for number in range(99)
    ]
    lines = problem_lines(Path("x"), kinds)
    assert len(lines) == 51 and lines[-1] == "x: and 49 more"


def test_nothing_that_is_printed_is_a_command_of_a_runner(tmp_path: Path) -> None:
    folder = tmp_path / "::error file=a::b" / "##[error]c\n::warning::d"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"##[group]x": 1, "::error::": 2}')
    (folder.parent / "loose ::error::").write_text("")
    done = call("leaderboard", "validate", ".", folder=tmp_path)
    assert done.returncode == 1 and done.stdout.count("\n") == len(done.stdout.splitlines()) > 3
    assert not re.search(r"::|##\[", done.stdout)


def test_a_wide_or_cyclic_tree_is_not_walked_for_ever(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    for number in range(10_001):
        (tmp_path / "wide" / str(number)).touch()
    (tmp_path / "deep" / "a" / "b").mkdir(parents=True)
    (tmp_path / "deep" / "a" / "b" / "again").symlink_to(tmp_path)
    assert list(find_submissions(tmp_path)) == [tmp_path / "deep/a/b/again", tmp_path / "wide"]
