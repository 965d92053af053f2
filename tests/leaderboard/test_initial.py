"""Initial weights are made again, within bounds, and compared where they can be the same."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from settling import Forgery, read

from ocl_bench.leaderboard import initial as making
from ocl_bench.leaderboard import validate
from ocl_bench.leaderboard.initial import MAX_MEMORY, Initial
from ocl_bench.leaderboard.validate import check, check_new

NEOX = {
    "model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 128, "vocab_size": 103,
}  # fmt: skip
WORDS = {seed: [f"w{number}" for number in range(100)] for seed in range(5)}


def other_weights(forgery: Forgery) -> None:
    forgery.manifest["stages"]["seed-1"]["x1"]["weights_before"] = "1" * 64


def other_size(forgery: Forgery) -> None:
    forgery.manifest["parameters"] += 7


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (other_weights, "stages.seed-1.x1.weights_before: is not what configuration and seed give"),
        (other_size, "; the configuration gives "),
    ],
)
def test_what_the_configuration_does_not_give_is_named(
    change: Callable[[Forgery], None], line: str, small_submission: Path, tmp_path: Path, initial: Initial
) -> None:
    forgery = read(small_submission)
    change(forgery)
    (problem,) = check(forgery.write(tmp_path / "results"), initial).problems
    assert line in str(problem)


def test_an_honest_submission_passes_with_its_initial_weights(small_submission: Path, initial: Initial) -> None:
    assert check(small_submission, initial).problems == []


def test_a_new_submission_is_checked_for_them(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "Initial", Initial)  # a process of its own
    forgery = read(small_submission)
    other_weights(forgery)
    (problem,) = check_new(forgery.write(tmp_path / "results")).problems
    assert "weights_before: is not what configuration and seed give" in str(problem)


def test_without_torch_nothing_is_said_of_them(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "Initial", Initial)
    monkeypatch.setattr(making, "find_spec", lambda name: None)
    forgery = read(small_submission)
    other_weights(forgery)
    assert check_new(forgery.write(tmp_path / "results")).problems == []


@pytest.mark.parametrize(
    "made_with",
    [
        {"versions": {"torch": "2.5.1"}},
        {"hardware": {"processor": "Apple M5"}},
        {"hardware": {"vector_units": "of another kind"}},
    ],
)
def test_other_versions_and_processors_may_draw_other_weights(
    made_with: dict[str, Any], small_submission: Path, tmp_path: Path, initial: Initial
) -> None:
    forgery = read(small_submission)
    other_weights(forgery)
    provenance = forgery.manifest["stages"]["seed-1"]["x1"]["provenance"]
    for key, value in made_with.items():
        provenance[key] |= value
    forgery.manifest["starts"] = 2  # it went on elsewhere
    assert check(forgery.write(tmp_path / "results"), initial).problems == []


def test_who_does_not_tell_the_vector_units_is_compared_all_the_same(
    small_submission: Path, tmp_path: Path, initial: Initial
) -> None:
    forgery = read(small_submission)
    for number, cell in enumerate(forgery.manifest["stages"].values()):
        cell["x1"]["weights_before"] = str(number + 1) * 64  # so that no seed agrees
        for record in cell.values():
            del record["provenance"]["hardware"]["vector_units"]
    problems = check(forgery.write(tmp_path / "results"), initial).problems
    assert any("weights_before: is not what configuration and seed give" in str(problem) for problem in problems)


def test_a_configuration_of_any_size_costs_seconds_and_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "SECONDS", 4.0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Initial() as made:
        layers = made.of(NEOX | {"num_hidden_layers": 1_000_000}, WORDS, "float32", None)
        # Its attention masks are squares of this, and no parameters.
        neo = {
            "model_type": "gpt_neo", "hidden_size": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 103,
            "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 60_000,
        }  # fmt: skip
        buffers = made.of(neo, WORDS, "float32", None)
        honest = made.of(NEOX, WORDS, "float32", None)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert layers == {"error": "it takes more than 4 seconds"}
    assert buffers is not None and "can't allocate memory" in buffers["error"]
    assert honest is not None and len(set(honest["weights"].values())) == 5
    assert after.ru_utime - before.ru_utime < 40  # of which torch takes six, and more on a busy machine
    assert after.ru_maxrss * 1024 < MAX_MEMORY


def test_a_model_too_slow_to_be_made_for_every_seed_is_compared_as_far_as_time_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, "SECONDS", 4.0)
    large = NEOX | {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048}
    with Initial() as made:
        found = made.of(large, dict.fromkeys(range(1000), WORDS[0]), "float32", None)
    assert found is not None and "error" not in found
    assert 0 < len(found["weights"]) < 1000 and json.dumps(found)
