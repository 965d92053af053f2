"""`--shard 2`: two processes train one model, and a run is as whole as that of one, whatever happens to it."""

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from conftest import Heard, once

import ocl_bench
from ocl_bench.cli import main
from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.files import read_json_lines
from ocl_bench.runner.compute import sharded_over
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import Answered, EpochDone

WANTED: dict[str, Any] = {
    "task": "attributes",
    "seeds": 1,
    "overrides": ("source_args.num_entities=60", "recipe.epochs=[2,2]", "evaluate.sets=[]"),
    "checkpoint_seconds": 0,
}


def run(output: Path, on_message: Any = lambda message: None, **options: Any) -> tuple[Path, Heard]:
    heard = Heard(on_message)
    return ocl_bench.run(**WANTED, **options, output_path=output, progress=heard.shown).folder, heard


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests need at least, and no more: numbers depend on threads in the last digits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)


@pytest.fixture(scope="module")
def alone(whole_run: Path) -> Path:
    """The same run by one process for each of two seeds."""
    return whole_run


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A sharded run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
        folder = once(tmp_path_factory, worker_id, "sharded_run", lambda folder: run(folder, shard=2))
    (made,) = folder.rglob("manifest.json")
    return made.parent


def test_it_finds_what_one_process_finds(sharded: Path, alone: Path) -> None:
    for name in ("x1", "x2"):
        rows, expected = (list(read_json_lines(run / "seed-0" / name / "answers.jsonl")) for run in (sharded, alone))
        assert [row["id"] for row in rows] == [row["id"] for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert row["logprob"] == pytest.approx(other["logprob"], abs=1e-2)
        points, expected = (list(read_json_lines(run / "seed-0" / name / "curve.jsonl")) for run in (sharded, alone))
        assert [point["loss"] for point in points] == pytest.approx([point["loss"] for point in expected], abs=1e-3)
        assert [point["n"] for point in points] == [point["n"] for point in expected]


def test_its_manifest_and_its_stages_say_how_they_were_made(sharded: Path, alone: Path) -> None:
    manifest, other = read_manifest(sharded), read_manifest(alone)
    assert (manifest.status, manifest.config.compute.processes, len(manifest.config.compute.slots)) == (
        "complete",
        2,
        1,
    )
    for name, stage in manifest.stages["seed-0"].items():
        assert stage.identity.world_size == 2
        assert stage.key != other.stages["seed-0"][name].key
        assert stage.real_tokens == other.stages["seed-0"][name].real_tokens
        assert stage.optimizer_steps == other.stages["seed-0"][name].optimizer_steps
    assert not list(sharded.parents[2].rglob("stages/.*.work")), "no epoch checkpoint is left"


def processes() -> list[psutil.Process]:
    """The processes that train, which a template has forked."""
    mine = psutil.Process()
    return sorted((one for one in mine.children(recursive=True) if one.ppid() != mine.pid), key=lambda one: one.pid)


def test_interrupted_and_killed_it_goes_on_to_the_same_numbers(sharded: Path, tmp_path: Path) -> None:
    interrupted: list[int] = []
    killed: list[int] = []

    def interrupt(message: Any) -> None:
        if isinstance(message, EpochDone) and message.where.stage == 0 and message.epoch == 2:
            interrupted.append(len(processes()))
            raise KeyboardInterrupt

    def kill(message: Any) -> None:
        """The second of both, which has told nothing."""
        if isinstance(message, Answered) and not killed:
            killed.append(processes()[-1].pid)
            psutil.Process(killed[0]).kill()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt, shard=2)
    assert interrupted == [2]
    folder, heard = run(tmp_path, kill, shard=2)
    assert any("trying it once more" in note for note in heard.notes), heard.notes
    manifest, whole = read_manifest(folder), read_manifest(sharded)
    assert manifest.stages["seed-0"]["x1"].resumed == 1
    for name, stage in whole.stages["seed-0"].items():
        assert manifest.stages["seed-0"][name].weights_after == stage.weights_after
    assert (folder / "results.json").read_bytes() == (sharded / "results.json").read_bytes()


def test_a_failure_of_one_process_is_the_runs_and_no_process_waits_for_ever(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"training diverged: .* was no number at step"):
        ocl_bench.run(
            task="attributes", seeds=1, shard=2, output_path=tmp_path,
            overrides=["source_args.num_entities=60", "recipe.epochs=[1,1]", "recipe.learning_rate=1e30"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--shard", "3"], "--shard 3: each process needs a device, and this machine has 2 cores."),
        (["--shard", "two"], "--shard two: give a number from 1 up, or auto."),
        (
            ["--shard", "2", "--task", "digit_grid"],
            "--shard 2: models of task 'digit_grid' look at pictures; leave it out.",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options: list[str], sentence: str, tmp_path: Path) -> None:
    task = [] if "--task" in options else ["--task", "attributes", "--set", "source_args.num_entities=60"]
    done = CliRunner().invoke(main, ["run", *task, *options, "--output-path", str(tmp_path / "out")])
    assert done.exit_code == OclBenchError.exit_code
    assert done.stderr.strip().endswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_auto_takes_as_few_devices_as_hold_the_model() -> None:
    # All cores share one memory.
    assert sharded_over("auto", "cpu", 10**12) == sharded_over(None, "cpu", 1) == sharded_over(1, "mps", 1) == 1
    with pytest.raises(OclBenchError, match=r"--shard 2: it takes the first devices; give --device cuda, without a"):
        sharded_over(2, "cuda:1", 1)
