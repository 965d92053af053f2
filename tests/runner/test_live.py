"""What a run is at can be seen while it is, on this machine and from its folder."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from conftest import WHOLE, Heard, call

import ocl_bench
from ocl_bench.runner.live import LIVE, Live, LiveState, seen
from ocl_bench.runner.messages import Answered, EpochDone, Note, StageDone, Stepped, TrainingBegins, Where
from ocl_bench.runner.progress import RunProgress

ONE, TWO = Where(0, 0, 0, "seed 0 x1"), Where(1, 0, 0, "seed 1 x1")


def test_a_stage_is_under_way_from_its_first_message_to_its_last() -> None:
    live = Live(of=2)
    live.take(Stepped(ONE, 10, 100, 5e3, 2**30, "cuda:1", 3.5))
    assert live.running["seed 0 x1"].loss == 3.5  # before the first epoch ends
    live.take(Stepped(TWO, 1, 100, 5e3, 2**30, "cuda:0", 3.5))
    live.take(EpochDone(ONE, 1, 4, 2.5))
    live.take(Stepped(ONE, 20, 100, 4e3, 2**30, "cuda:1", 2.4))
    one = live.running["seed 0 x1"]
    assert (one.doing, one.step, one.steps, one.loss, one.device) == ("training", 20, 100, 2.4, "cuda:1")
    assert one.seconds_left is not None and one.seconds_left >= 0
    live.take(Answered(ONE, 30, 80))
    live.take(Answered(ONE, 20, 80))
    one = live.running["seed 0 x1"]
    assert (one.doing, one.step, one.steps) == ("answering", 50, 80)
    live.take(Answered(ONE, 30, 80))
    live.take(Answered(ONE, 10, 40))  # of another evaluator
    one = live.running["seed 0 x1"]
    assert (one.step, one.steps) == (10, 40)
    live.take(Note("a line about nothing that is under way"))
    assert set(live.running) == {"seed 0 x1", "seed 1 x1"}
    live.take(StageDone(ONE, "key", 1.0, False))
    live.take(Note("seed 1 x1 failed: why", TWO))
    assert live.running == {}
    live.take(Stepped(TWO, 1, 100, 5e3, 2**30, "cuda:0", 3.5))  # it is tried again
    assert live.running["seed 1 x1"].seconds_left is None


def test_one_bar_counts_the_steps_of_all_stages_from_the_first_on() -> None:
    progress = RunProgress("attributes", 2)
    overall = lambda: progress.bars.tasks[1]  # noqa: E731
    progress(TrainingBegins(0, 2, 200, 1000, ("cpu", "cpu")))
    progress(Stepped(ONE, 1, 100, 5e3, 2**30, "cpu", 3.5))
    progress(Stepped(TWO, 4, 100, 5e3, 2**30, "cpu", 3.5))
    assert (overall().description, overall().completed, overall().total) == ("all, 0 of 2 stages", 5, 200)
    progress(Stepped(ONE, 100, 100, 5e3, 2**30, "cpu", 3.5))
    progress(StageDone(ONE, "key", 1.0, False))
    assert (overall().description, overall().completed) == ("all, 1 of 2 stages", 104)


def test_a_run_is_seen_from_its_folder_while_it_is_under_way(tmp_path: Path) -> None:
    printed: list[str] = []
    states: list[LiveState] = []

    def look(message: Any) -> None:
        if isinstance(message, StageDone) and not printed:
            printed.append(call("status", "--output_path", tmp_path, folder=tmp_path).stdout)
            states.extend(run.state for run in seen(tmp_path) if run.state)

    heard = Heard(look)
    folder = ocl_bench.run(**WHOLE | {"output_path": tmp_path}, progress=heard.shown).folder
    (begun,) = heard.of(TrainingBegins)
    assert (begun.done, begun.of, begun.slots[0]) == (0, 6, "cpu")
    trained = json.loads((folder / "manifest.json").read_text())["stages"]
    steps = [stage["optimizer_steps"] for stages in trained.values() for stage in stages.values()]
    assert begun.steps == sum(steps) and len(steps) == 6
    (state,) = states
    assert (state.host, state.of, state.done) == (platform.node(), 6, 1)
    assert str(folder.relative_to(tmp_path)) in printed[0] and "running" in printed[0] and "1/6" in printed[0]
    assert not (folder / LIVE).exists(), "nothing is under way any more"
    shown = call("status", "--output_path", tmp_path, folder=tmp_path).stdout
    assert shown.strip() == "1 run, 1 complete"
    assert "complete" in call("status", "--all", "--output_path", tmp_path, folder=tmp_path).stdout.splitlines()[2]


def test_a_run_that_was_killed_is_told_from_one_that_works(whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "model" / "task" / "key"
    run.mkdir(parents=True)
    manifest = json.loads((whole_run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    live = Live(of=6)
    live.write(run, at_once=True)
    assert [one.status for one in seen(tmp_path)] == ["running"]
    old = json.loads((run / LIVE).read_text()) | {"updated": "2026-01-02T03:04:05+00:00"}
    (run / LIVE).write_text(json.dumps(old))
    assert [one.status for one in seen(tmp_path)] == ["silent since 03:04:05 UTC"]
    part = tmp_path / ".parts" / "123-seed-0"  # of a run that other machines do
    part.mkdir(parents=True)
    (part / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    live.write(part, at_once=True)
    assert (part, "running") in {(one.folder, one.status) for one in seen(tmp_path, underway=True)}
    (run / "manifest.json").write_text("{")
    assert [one.folder for one in seen(tmp_path)] == [part]


def test_a_folder_that_is_not_there_gets_one_sentence(tmp_path: Path) -> None:
    result = call("status", "--output_path", "nowhere", folder=tmp_path)
    assert (result.returncode, result.stderr) == (2, "ocl-bench: --output_path nowhere: there is no such folder.\n")


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.runner.live.WRITTEN_SECONDS", 0.0)
