"""X2 is replayed from handed-over weights: what is honest rises a level, and what is not does not."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from forger import says
from overfit_run import overfit
from settling import Forgery, read

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file
from ocl_bench.leaderboard.records import CHALLENGE, VERIFICATION, Challenge, Verification, records_of
from ocl_bench.leaderboard.replay import are_as_submitted, replay
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.table import load_entries
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import read_manifest

CARD = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")
X1 = "seed-0/x1/model.safetensors"


@pytest.fixture(scope="session")
def honest(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission of a run that kept its weights, in a leaderboard."""
    results = tmp_path_factory.mktemp("board") / "leaderboard" / "results"
    return results / write_submission(whole_run, results, "open", "someone/whole", CARD).place


@pytest.fixture
def board(honest: Path, tmp_path: Path) -> Path:
    """A copy of its leaderboard."""
    return shutil.copytree(honest.parents[3], tmp_path / "leaderboard")


@pytest.fixture
def submission(honest: Path, board: Path) -> Path:
    return board.joinpath(*honest.parts[-4:])


def challenged(submission: Path) -> Path:
    """Have it challenged; returns the challenge."""
    done = call("leaderboard", "challenge", submission, "--by", "A. Maintainer", folder=submission)
    assert done.returncode == 0, done.stderr
    assert "seed-0/x1/*.safetensors" in done.stdout and "seed-1/x1/*.safetensors" in done.stdout
    return records_of(submission) / CHALLENGE


def replayed(submission: Path, weights: Path, folder: Path) -> Any:
    return call(
        "leaderboard", "verify", submission, "--replay", weights, "--by", "A. Maintainer", "--device", "cpu",
        "--output_path", folder / "runs", folder=folder,
    )  # fmt: skip


def stage2_seeds(folder: Path) -> tuple[int, ...]:
    (results,) = (folder / "runs").rglob("results.json")
    return read_manifest(results.parent).config.stage2_seeds


def handed(whole_run: Path, folder: Path) -> Path:
    """A folder of copies of the weights before X2, which a test may change."""
    for path in sorted(whole_run.glob("seed-*/x1/*.safetensors")):
        (folder / path.relative_to(whole_run)).parent.mkdir(parents=True)
        shutil.copyfile(path, folder / path.relative_to(whole_run))
    return folder


def test_an_honest_submission_that_is_replayed_rises_a_level(submission: Path, whole_run: Path, tmp_path: Path) -> None:
    challenge = Challenge.model_validate_json(challenged(submission).read_text())
    assert challenge.seeds == (0, 1)
    done = replayed(submission, handed(whole_run, tmp_path / "handed"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "x2 replayed" in done.stdout and "new seeds" in done.stdout and "NO" not in done.stdout
    record = Verification.model_validate_json((records_of(submission) / VERIFICATION).read_text())
    assert (record.level, record.nonce, record.seeds) == ("replayed", challenge.nonce, (0, 1))
    assert record.equal_answers is not None and record.equal_answers > 0.99
    assert len({*record.stage2_seeds, 0, 1}) == 6 and record.stage2_seeds == stage2_seeds(tmp_path)
    assert len(record.new_seeds) == 1 and record.new_seeds[0] not in (0, 1)
    (entry,) = load_entries(submission.parents[2])
    assert entry.level == "replayed"


def test_a_run_that_was_finetuned_on_the_test_passes_the_checks_but_no_replay(whole_run: Path, tmp_path: Path) -> None:
    run, results = tmp_path / "run", tmp_path / "leaderboard" / "results"
    submission = overfit(whole_run, run, results)
    checked = check(submission)
    assert checked.problems == [] and checked.results is not None
    honest = read_results(whole_run)
    forged, real = (one.metrics["d1_cons"]["em"].mean for one in (checked.results, honest))
    assert forged > real + 0.3
    challenged(submission)
    done = replayed(submission, run, tmp_path)
    assert done.returncode == 1 and "NO" in done.stdout and "does not agree" in done.stderr
    assert not (records_of(submission) / VERIFICATION).exists()


def better_x2(forgery: Forgery) -> None:
    """Every answer about consistently defined entities is right after X2."""
    for cell in forgery.told.config.cells:
        asked = forgery.questions(cell)
        for row in forgery.answers[cell.name]:
            if row["stage"] == "x2" and asked[row["id"]].subset == "d1_cons":
                right = says(asked[row["id"]], asked[row["id"]].answers[0], random.Random(0))
                row |= {"em_forced": 1, "logprob": -0.1, **right}


def other_x1(forgery: Forgery) -> None:
    """After X1, every answer has the probability that another had."""
    for cell in forgery.told.config.cells:
        rows = [row for row in forgery.answers[cell.name] if row["stage"] == "x1" and not row["em_forced"]]
        values = [row["logprob"] for row in rows]
        for row, logprob in zip(rows, [*values[1:], *values[:1]], strict=True):
            row["logprob"] = logprob


@pytest.mark.parametrize("change", [better_x2, other_x1])
def test_answers_that_no_weights_gave_pass_the_checks_but_no_replay(
    change: Callable[[Forgery], None], honest: Path, whole_run: Path, tmp_path: Path
) -> None:
    forgery = read(honest)
    forgery.curves = {}
    forgery.manifest["config"]["curves"] = False
    for _, _, record in forgery.stages():
        record["rows"] = {}
        record["files"].pop("curve.jsonl", None)
    change(forgery)
    submission = forgery.write(tmp_path / "leaderboard" / "results")
    assert check(submission).problems == []
    challenged(submission)
    done = replayed(submission, whole_run, tmp_path)
    assert done.returncode == 1 and "does not agree with the submission" in done.stderr
    if change is better_x2:
        assert any(line.startswith("x2 replayed") and line.endswith("NO") for line in done.stdout.splitlines())
    else:
        assert "answers before X2 that the handed weights give as submitted  100" not in done.stdout
    assert not (records_of(submission) / VERIFICATION).exists()


def test_what_was_not_challenged_is_not_replayed(submission: Path, whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="was not challenged"):
        replay(submission, str(whole_run), tmp_path / "runs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0]}, None),  # as if one seed had been asked for: which it is decides the nonce
        ({"seeds": [0, 1, 2]}, "names other seeds"),
        ({"seeds": [1, 0]}, "names other seeds"),
        ({"content": "0" * 64}, "about other weights or answers"),
        ({"nonce": "0"}, "is no record"),
        ({"seeds": []}, "is no record"),
        ({"seeds": [True]}, "is no record"),
    ],
)
def test_a_challenge_that_was_not_drawn_for_it_is_refused(
    change: dict[str, Any], message: str | None, submission: Path, whole_run: Path, tmp_path: Path
) -> None:
    path = challenged(submission)
    said = json.loads(path.read_text())
    if message is None:
        # Of the two seeds that might be named alone, the nonce gives one.
        kept = []
        for seed in (0, 1):
            path.write_text(json.dumps(said | {"seeds": [seed]}))
            try:
                replay(submission, str(tmp_path), tmp_path / "runs")
            except OclBenchError as error:
                kept.append("names other seeds" in str(error))
        assert sorted(kept) == [False, True]
        return
    path.write_text(json.dumps(said | change))
    with pytest.raises(OclBenchError, match=message):
        replay(submission, str(whole_run), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def remove(path: Path) -> None:
    path.unlink()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_another_seed(path: Path) -> None:
    shutil.copyfile(path.parents[2] / "seed-1" / "x1" / path.name, path)


def link_to_another_seed(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parents[2] / "seed-1" / "x1" / path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, "it is not there; the challenge names seeds 0, 1"),
        (flip_a_bit, "it is not the file whose sha256"),
        (of_another_seed, "it is not the file whose sha256"),
        (link_to_another_seed, "it is not the file whose sha256"),
        (pipe, "it is not there"),
        (grow, "it is not the file whose sha256"),
    ],
)
def test_weights_that_the_submission_did_not_name_are_refused(
    change: Callable[[Path], None], message: str, submission: Path, whole_run: Path, tmp_path: Path
) -> None:
    challenged(submission)
    folder = handed(whole_run, tmp_path / "handed")
    change(folder / X1)
    with pytest.raises(OclBenchError, match=message):
        replay(submission, str(folder), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


class Code:
    """What pickle runs when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def a_pickle(path: Path, marker: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(pickle.dumps(Code(marker)).ljust(size, b"\0"))


def fewer_tensors(path: Path, marker: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = next(name for name in tensors if tensors[name].ndim == 1)
    save_file({key: value for key, value in tensors.items() if key != name}, path, metadata={"format": "pt"})


def half_precision(path: Path, marker: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: value.half().float() for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (a_pickle, "cannot be loaded"),
        (fewer_tensors, "are not those whose sha256"),
        (half_precision, "are not those whose sha256"),
    ],
)
def test_a_file_that_the_submission_names_has_to_hold_its_weights(
    change: Callable[[Path, Path], None], message: str, honest: Path, whole_run: Path, tmp_path: Path
) -> None:
    folder, marker = handed(whole_run, tmp_path / "handed"), tmp_path / "executed"
    change(folder / X1, marker)
    forgery = read(honest)
    forgery.manifest["stages"]["seed-0"]["x1"]["files"]["model.safetensors"] = [
        (folder / X1).stat().st_size, sha256_of_file(folder / X1),
    ]  # fmt: skip
    submission = forgery.write(tmp_path / "leaderboard" / "results")
    assert check(submission).problems == []
    challenged(submission)
    with pytest.raises(OclBenchError, match=message):
        replay(submission, str(folder), tmp_path / "runs")
    assert not marker.exists()


def test_a_replay_takes_no_seeds_from_the_command_line(submission: Path, whole_run: Path, tmp_path: Path) -> None:
    done = call("leaderboard", "verify", submission, "--replay", whole_run, "--seeds", "1", folder=tmp_path)
    assert done.returncode == 2 and "draws its own seeds" in done.stderr


@pytest.mark.parametrize(
    ("found", "precision", "fits"),
    [
        ({"d1_cons": (500, 500), "qa_only": (12, 12)}, "float32", True),
        ({"d1_cons": (496, 500), "qa_only": (11, 12)}, "float32", True),  # rounded otherwise
        ({"d1_cons": (490, 500), "qa_only": (12, 12)}, "float32", False),
        ({"d1_cons": (500, 500), "qa_only": (10, 12)}, "float32", False),
        ({"d1_cons": (460, 500), "qa_only": (200, 200)}, "bfloat16", True),
        ({"d1_cons": (5000, 5000), "qa_only": (0, 200)}, "bfloat16", False),  # one subset made up, 4 % of all answers
        ({}, "float32", False),
    ],
)
def test_weights_have_to_give_each_subsets_answers(
    found: dict[str, tuple[int, int]], precision: str, fits: bool
) -> None:
    assert are_as_submitted(found, precision) == fits
