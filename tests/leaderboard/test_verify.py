"""A submission is run again, and its intervals are compared with the new ones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tampering import Copy

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.validate import check
from ocl_bench.leaderboard.verify import compare, model_of, verify
from ocl_bench.score.result import Gap, Results


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocl_bench.cli", "leaderboard", "verify", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=500, env=os.environ,
    )  # fmt: skip


def test_the_same_seeds_on_the_same_machine_agree(small_submission: Path, tmp_path: Path) -> None:
    done = command(str(small_submission), "--output_path", str(tmp_path), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("ocl_gap")]
    assert len(rows) == 3 and all(row[2] == row[3] and row[-1] == "yes" for row in rows)


def test_a_private_seed_trains_what_the_submitter_could_not_prepare(small_submission: Path, tmp_path: Path) -> None:
    done = command(
        str(small_submission), "--private_seed", "71", "--seeds", "2", "--output_path", str(tmp_path), folder=tmp_path
    )
    (manifest,) = tmp_path.rglob("manifest.json")
    assert '"seeds": [\n      71,\n      72\n    ]' in manifest.read_text()
    assert (done.returncode == 1) == ("NO" in done.stdout) == ("does not agree" in done.stderr)


def test_what_fails_the_checks_or_was_never_published_is_not_run(small_submission: Path, tmp_path: Path) -> None:
    copy = Copy(small_submission, tmp_path)
    copy.edit("results.json", lambda results: results.update(submittable=True))
    with pytest.raises(OclBenchError, match="does not pass the checks"):
        verify(copy.path, None, None, tmp_path / "runs")
    with pytest.raises(OclBenchError, match="nobody can run it again"):
        model_of(small_submission, "folder", "someone/small")
    assert not (tmp_path / "runs").exists()


def test_seeds_that_were_submitted_are_not_private(small_submission: Path, tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="seed 1 is one of those that were submitted"):
        verify(small_submission, 2, 1, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_model_of_another_size_than_was_said_is_found(small_submission: Path, tmp_path: Path) -> None:
    copy = Copy(small_submission, tmp_path)
    copy.edit("manifest.json", lambda manifest: manifest.update(parameters=10**9))
    copy.rehash()
    with pytest.raises(OclBenchError, match=r"manifest says 1000000000 parameters, the model has [0-9]{5} "):
        verify(copy.path, 1, None, tmp_path / "runs")


def results(like: Path, per_seed: dict[str, float]) -> Results:
    found = check(like).results
    assert found is not None
    gap: dict[str, Any] = found.gaps["ocl_gap"]["em"].model_dump()
    gap["per_seed"] = per_seed
    return found.model_copy(update={"gaps": {"ocl_gap": {"em": Gap.model_validate(gap)}}})


@pytest.mark.parametrize(
    ("submitted", "again", "agrees"),
    [
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.40, 0.42, 0.38, 0.41, 0.39], True),  # the same seeds and digits
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.20, 0.22, 0.18, 0.21, 0.19], False),  # the same seeds, half as much
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.41, 0.42, 0.37, 0.42, 0.38], True),  # the same but for rounding
    ],
)
def test_the_same_seeds_are_compared_in_pairs(
    small_submission: Path, submitted: list[float], again: list[float], agrees: bool
) -> None:
    old, new = ({str(seed): value for seed, value in enumerate(values)} for values in (submitted, again))
    (one,) = compare(results(small_submission, old), results(small_submission, new))
    assert one.agrees == agrees and one.ci95 is not None
    assert one.difference == pytest.approx(one.again - one.submitted)


def test_other_seeds_are_compared_as_two_samples(small_submission: Path) -> None:
    old = results(small_submission, {str(seed): 0.4 + 0.02 * seed for seed in range(5)})
    near = results(small_submission, {str(seed): 0.35 + 0.0003 * seed for seed in range(100, 300, 40)})
    far = results(small_submission, {str(seed): 0.0001 * seed for seed in range(100, 300, 40)})
    assert [compare(old, new)[0].agrees for new in (near, far)] == [True, False]
