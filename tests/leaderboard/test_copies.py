"""What was copied from another submission is found, and what was trained alike is not."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from settling import Forgery, read

from ocl_bench.files import sha256
from ocl_bench.leaderboard.checks.copies import Fingerprint, Seen, is_copy
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.validate import check

ACCEPTED = Path(__file__).parents[2] / "leaderboard" / "results" / "world"
ALIKE = ("ocl-bench__gpt-neox-2x64", "ocl-bench__gpt-neox-4x64", "ocl-bench__gpt-neox-4x64-tied")


@pytest.fixture(scope="module")
def alike() -> list[Checked]:
    """Accepted submissions of models that differ little."""
    return [check(next((ACCEPTED / name).iterdir())) for name in ALIKE]


def test_models_that_were_trained_alike_are_no_copies(alike: list[Checked]) -> None:
    seen = Seen()
    assert [seen.look(one) for one in alike] == [[], [], []]
    for first, second in itertools.combinations(alike, 2):
        assert not any(is_copy(first.fingerprint[key], second.fingerprint[key]) for key in first.fingerprint)


def test_two_seeds_of_one_model_are_no_copies(alike: list[Checked]) -> None:
    found = alike[0].fingerprint
    assert not is_copy(found["seed-0", "x2"], found["seed-1", "x2"])


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_a_copy_with_noise_is_found(noise: float, alike: list[Checked]) -> None:
    rng = np.random.default_rng(0)
    logprobs, said = alike[0].fingerprint["seed-0", "x2"]
    moved = (logprobs * rng.normal(1, noise, len(logprobs))).astype(np.float32)
    other = said.copy()
    changed = rng.random(len(said)) < noise
    other[changed] += 1  # some other text
    assert is_copy((logprobs, said), (moved, other))


def saturated(seed: int, telling: int) -> Fingerprint:
    """A model that is right and sure in all of 1000 answers but a few."""
    rng = np.random.default_rng(seed)
    logprobs = np.zeros(1000, np.float32)
    logprobs[:telling] = -rng.exponential(0.1, telling) - 1e-3
    return logprobs, np.zeros(1000, np.uint32)


@pytest.mark.parametrize("telling", [0, 20, 200, 1000])
def test_models_that_are_always_right_are_no_copies_of_each_other(telling: int) -> None:
    assert not is_copy(saturated(0, telling), saturated(1, telling))


def own_weights(forgery: Forgery) -> None:
    for cell, stage, record in forgery.stages():
        record["weights_after"] = sha256(f"copied {cell.name} {stage}")


def shuffled(forgery: Forgery) -> None:
    own_weights(forgery)
    for rows in forgery.answers.values():
        random.Random(0).shuffle(rows)
        rows.sort(key=lambda row: row["stage"])


@pytest.mark.parametrize(
    ("change", "what"), [(lambda forgery: None, "weights"), (own_weights, "answers"), (shuffled, "answers")]
)
def test_anothers_run_under_a_new_name_is_refused(
    change: object, what: str, small_submission: Path, tmp_path: Path
) -> None:
    forgery = read(small_submission)
    forgery.rename("forger", "copied")
    assert callable(change)
    change(forgery)
    copied = check(forgery.write(tmp_path / "results"))
    assert copied.problems == []
    seen = Seen()
    first = check(small_submission)
    assert seen.look(first) == []
    assert any(f"its {what} are those of attributes/someone__small/" in str(one) for one in seen.look(copied))
    again = Seen()
    assert again.look(first) == again.look(first) == []  # the same place is no other submission
