"""The same command goes on where it was, and what one run has trained no other trains again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import WHOLE, WHOLE_COMMAND, Heard, assert_same

import ocl_bench
from ocl_bench.errors import RunFailed
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import Answered, EngineChosen, EpochDone, StageDone
from ocl_bench.study.run import run_study

COMMAND = str(Path(sys.executable).parent / "ocl-bench")


def run(output: Path, heard: Heard, **changes: Any) -> Path:
    return ocl_bench.run(**{**WHOLE, "output_path": output, **changes}, progress=heard.shown).folder


def trained(heard: Heard) -> set[str]:
    """The stages that were trained, at least in part."""
    return {message.where.name for message in heard.of(EpochDone)}


def about(kind: type, **fields: int) -> Callable[[Any], bool]:
    """Whether a message is of this kind, and about the stage and epoch that the fields say."""

    def is_it(message: Any) -> bool:
        if not isinstance(message, kind):
            return False
        return all(getattr(message, name, getattr(message.where, name, None)) == fields[name] for name in fields)

    return is_it


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine on which one process trains all stages, one after the other."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
        yield patch


def test_a_run_interrupted_anywhere_goes_on_to_the_same_bytes(whole_run: Path, tmp_path: Path, one_core: Any) -> None:
    """One run, interrupted in one stage after the other; each start begins with what the one before has left."""
    points = [
        lambda message: isinstance(message, EngineChosen),
        about(EpochDone, seed=0, stage=0, epoch=2),
        about(Answered, seed=0, stage2_seed=0, stage=1),
        about(EpochDone, seed=1, stage=0, epoch=2),
        about(Answered, seed=1, stage2_seed=0, stage=1),
        about(StageDone, seed=0, stage2_seed=1, stage=1),
        about(StageDone, seed=1, stage2_seed=1, stage=1),
    ]
    there: list[int] = []
    for point in points:

        def interrupt(message: Any, point: Callable[[Any], bool] = point) -> None:
            if point(message):
                raise KeyboardInterrupt

        heard = Heard(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, heard, checkpoint_seconds=0)
        for path in tmp_path.rglob("manifest.json"):
            manifest = read_manifest(path.parent)
            assert manifest.status == "interrupted"
            there.append(sum(len(stages) for stages in manifest.stages.values()))
    assert there == sorted(there), "nothing that was finished is lost"
    heard = Heard()
    folder = run(tmp_path, heard, checkpoint_seconds=0)
    assert trained(heard) == set(), "the last stage was finished"
    assert_same(folder, whole_run)
    manifest = read_manifest(folder)
    assert (manifest.status, manifest.starts) == ("complete", len(points))
    assert max(manifest.stages[cell]["x1"].resumed for cell in ("seed-0", "seed-1")) == 1, "it went on in a stage"
    assert not list(tmp_path.rglob("stages/.*.work")), "no epoch checkpoint is left"


def test_a_killed_run_leaves_no_process_and_the_same_command_goes_on_to_the_same_bytes(
    whole_run: Path, tmp_path: Path
) -> None:
    """The installed command, as it is used."""
    killed = subprocess.Popen([COMMAND, *WHOLE_COMMAND], cwd=tmp_path, stdout=subprocess.DEVNULL)
    started: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/stages/[!.]*")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.02)
        started = psutil.Process(killed.pid).children(recursive=True) or started
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(started) >= 2, "a template and what it has forked"
    assert not psutil.wait_procs(started, timeout=60)[1]
    (path,) = tmp_path.rglob("manifest.json")
    assert read_manifest(path.parent).status == "running"

    done = subprocess.run([COMMAND, *WHOLE_COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "meta_ocl_gap" in done.stdout, done.stderr
    assert "of 6 stages were there" in done.stderr
    assert_same(path.parent, whole_run)
    assert (read_manifest(path.parent).status, read_manifest(path.parent).starts) == ("complete", 2)


def test_a_finished_run_is_shown_again_and_nothing_is_done(whole_run: Path, whole_output: Path) -> None:
    heard = Heard()
    folder = run(whole_output, heard)
    assert heard.notes == ["6 of 6 stages were there"] and len(heard.messages) == 1
    assert_same(folder, whole_run)
    assert (folder / "manifest.json").read_bytes() == (whole_run / "manifest.json").read_bytes()


def test_other_seeds_and_stage_2_seeds_take_the_stages_that_are_there(whole_run: Path, whole_output: Path) -> None:
    heard = Heard()
    folder = run(whole_output, heard, seeds=[1], stage2_seeds=1)
    assert heard.notes == ["2 of 2 stages were there"] and trained(heard) == set()
    name = "seed-1/x2/model.safetensors"
    assert any((folder / name).samefile(path) for path in whole_output.glob("stages/*/model.safetensors"))
    heard = Heard()
    run(whole_output, heard, seeds=[0, 2], stage2_seeds=[0, 2], limit=3, curves=False)
    assert heard.notes == ["2 of 6 stages were there"]
    assert trained(heard) == {"seed 0 stage-2 seed 2 x2", "seed 2 x1", "seed 2 x2", "seed 2 stage-2 seed 2 x2"}


def test_a_study_shares_the_stages_of_its_points(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "own.yaml").write_text(
        "study: own\ndescription: two epochs of x2\npaper: nothing\naxis: epochs\nfigure: gaps\n"
        "scratch: {task: attributes}\npretrained: {task: attributes}\n"
        "points: [{label: one, set: ['recipe.epochs=[1,1]']}, {label: two, set: ['recipe.epochs=[1,2]']}]\n"
    )
    heard = Heard()
    run_study(
        "own", "scratch:tiny-16", seeds=(0,), overrides=("source_args.num_entities=60",), include_path=[tmp_path],
        output_path=tmp_path, runs_path=tmp_path / "runs", progress=heard.shown, curves=False,
    )  # fmt: skip
    assert heard.notes == ["1 of 2 stages were there"]
    assert [done.where.name for done in heard.of(StageDone)] == ["seed 0 x1", "seed 0 x2", "seed 0 x2"]


def test_another_limit_is_asked_and_nothing_is_trained(whole_output: Path) -> None:
    heard = Heard()
    folder = run(whole_output, heard, limit=3, curves=False)
    assert heard.notes == ["6 of 6 stages were there"] and trained(heard) == set()
    assert [done.reused for done in heard.of(StageDone)] == [True] * 6
    assert {message.of for message in heard.of(Answered)} == {7 * 3}
    assert ocl_bench.load(folder).results.metrics["d1_cons"]["em"].n == 2 * 2 * 3
    heard = Heard()
    run(whole_output, heard, limit=3, curves=False)
    assert len(heard.messages) == 1, "and what was asked once is not asked again"


def test_fresh_trains_anew_what_is_there_whatever_is_asked_to_the_same_bytes(
    whole_run: Path, whole_output: Path
) -> None:
    before = {path.parent.name: path.stat().st_mtime_ns for path in whole_output.glob("stages/*/stage.json")}
    heard = Heard()
    folder = run(whole_output, heard, limit=4, fresh=True)
    assert heard.notes == [] and len(trained(heard)) == 6 and read_manifest(folder).reused == 0
    after = {path.parent.name: path.stat().st_mtime_ns for path in whole_output.glob("stages/*/stage.json")}
    assert after.keys() == before.keys() and not after.items() & before.items()
    heard = Heard()
    assert_same(run(whole_output, heard), whole_run)
    assert heard.notes == ["6 of 6 stages were there"] and trained(heard) == set()


def test_a_changed_version_of_the_code_is_said_and_no_reason_to_train_again(whole_output: Path) -> None:
    commit = "0123456789" * 4
    for path in whole_output.glob("stages/*/stage.json"):
        record = json.loads(path.read_text())
        if record["identity"]["seed"] % 2:
            record["provenance"]["commit"] = commit
            path.unlink()  # a run folder has a link to the same file
            path.write_text(json.dumps(record))
    other = sum(commit in path.read_text() for path in whole_output.glob("stages/*/stage.json"))
    assert 0 < other <= 6
    heard = Heard()
    run(whole_output, heard)
    sentence = f"6 of 6 stages were there, {other} of them made by other code (0123456789); --fresh trains anew"
    assert heard.notes == [sentence] and trained(heard) == set()


def workers() -> list[psutil.Process]:
    """The processes that this one's template has forked."""
    mine = psutil.Process()
    return [one for one in mine.children(recursive=True) if one.ppid() != mine.pid]


def test_a_seed_whose_process_is_killed_twice_fails_and_the_others_are_kept(
    whole_run: Path, tmp_path: Path, one_core: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill(message: Any) -> None:
        if isinstance(message, EpochDone) and message.where.seed == 1 and message.epoch == 1:
            (busy,) = workers()
            killed.append(busy.pid)
            busy.kill()

    heard = Heard(kill)
    sentence = (
        r"^seed 1 x1: its process ended with code -9 .*; see .*worker-0\.log\. "
        r"3 of 6 stages are finished and kept; run the same command again to go on\.$"
    )
    with pytest.raises(RunFailed, match=sentence):
        run(tmp_path, heard)
    one_core.undo()
    assert len(set(killed)) == 2
    assert heard.notes[0].startswith("seed 1 x1: its process ended with code -9 ")
    assert heard.notes[0].endswith("; trying it once more") and heard.notes[1].startswith("seed 1 x1 failed: ")
    (manifest,) = (read_manifest(path.parent) for path in tmp_path.rglob("manifest.json"))
    assert manifest.status == "failed" and list(manifest.stages["seed-0"]) == ["x1", "x2"]
    heard = Heard()
    folder = run(tmp_path, heard)
    assert heard.notes == ["3 of 6 stages were there"]
    assert {message.where.seed for message in heard.of(EpochDone)} == {1}
    assert_same(folder, whole_run)


def test_a_run_goes_on_without_a_process_that_has_died(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    killed: list[int] = []

    def kill(message: Any) -> None:
        if isinstance(message, EpochDone) and not killed:
            killed.append(workers()[0].pid)
            workers()[0].kill()

    heard = Heard(kill)
    folder = run(tmp_path, heard)
    (note,) = heard.notes
    assert "ended with code -9" in note
    assert note.endswith("; trying it once more; the run goes on without this process (cpu)")
    monkeypatch.undo()
    results = json.loads((folder / "results.json").read_text())
    assert results["gaps"] == json.loads((whole_run / "results.json").read_text())["gaps"]
