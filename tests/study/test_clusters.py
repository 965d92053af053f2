"""Sweeps on a real Ray cluster that loses a node, and in jobs of submitit, end with the digits of a local run."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import WHOLE, assert_same, call

from ocl_bench.errors import OclBenchError
from ocl_bench.runner.compute import CORES
from ocl_bench.runner.executors import Elsewhere, executor
from ocl_bench.runner.on_ray import QUIET
from ocl_bench.runner.on_slurm import SlurmPool
from ocl_bench.study.run import read_study_results, run_study
from ocl_bench.study.sweep import load_sweep, points_of, run_sweep

STORE = 80 * 2**20  # bytes of Ray's object store, of which nothing is used
SWEEP = {
    "sweep": "own",
    "tasks": ["attributes"],
    "seeds": WHOLE["seeds"],
    "set": list(WHOLE["overrides"]),
    "run": {"stage2_seeds": WHOLE["stage2_seeds"], "checkpoint_seconds": 0},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(SWEEP | changes))
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, list[Any]]]:
    """A Ray cluster of two nodes with one core each, besides a head that does nothing."""
    # Before Ray is imported, as an executor does; and its workers are not to wait for all else that is tested.
    os.environ.update(QUIET | {"RAY_worker_niceness": "0"})
    from ray.cluster_utils import Cluster

    # A node that does not answer for a second is lost: by default it takes half a minute.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 6}
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made, [made.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    finally:
        made.shutdown()


def at_a_stage(output: Path, candidates: Callable[[], list[psutil.Process]]) -> psutil.Process | None:
    """Wait for a process, one of whose children is at a stage that is not finished; None if none ever is."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        unfinished = {str(lock) for lock in output.glob("stages/.*.lock") if not (lock.parent / lock.stem[1:]).exists()}
        with contextlib.suppress(psutil.Error):  # one that ends while it is looked at
            for one in candidates() if unfinished else ():
                own = one.children(recursive=True)
                if any(file.path in unfinished for process in own for file in process.open_files()):
                    return one
        time.sleep(0.01)
    return None


def lose_node_in_a_stage(cluster: Any, nodes: list[Any], output: Path, lost: list[psutil.Process]) -> None:
    """Remove a node that is at a stage; `lost` gets its processes."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    found = at_a_stage(output, lambda: list(map(psutil.Process, raylets)))
    if found is not None:
        lost += found.children(recursive=True)
        cluster.remove_node(raylets[found.pid], allow_graceful=False)


def preempt_job_in_a_stage(output: Path, preempted: list[psutil.Process]) -> None:
    """Send a job that is at a stage the signal by which Slurm takes its machine away."""

    def jobs() -> list[psutil.Process]:
        return [one for one in psutil.Process().children(recursive=True) if "submitit.core._submit" in one.cmdline()]

    found = at_a_stage(output, jobs)
    if found is not None:
        found.send_signal(signal.SIGUSR2)
        preempted.append(found)


def test_a_cluster_that_loses_a_node_in_a_stage_ends_with_the_bytes_of_a_local_run(
    cluster: tuple[Any, list[Any]], whole_run: Path, tmp_path: Path
) -> None:
    made, nodes = cluster
    lost: list[psutil.Process] = []
    losing = threading.Thread(target=lose_node_in_a_stage, args=(made, nodes, tmp_path / "runs", lost))
    losing.start()
    done = call("sweep", written(tmp_path), "--executor", "ray", "--address", made.address, folder=tmp_path)
    losing.join()
    assert done.returncode == 0, done.stderr
    assert lost and not psutil.wait_procs(lost, timeout=30)[1], "whatever ran on the node has ended with it"
    (folder,) = (tmp_path / "runs" / "scratch__tiny" / "attributes").iterdir()
    assert_same(folder, whole_run)
    assert "2 of 2" in done.stdout and str(folder) in done.stdout
    assert done.stderr.count(" done after ") == len(done.stderr.splitlines()) == 3, (
        "two seeds, results, and nothing else"
    )
    assert not (tmp_path / "runs" / ".parts").exists()

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/stages/*/stage.json")}
    again = call("sweep", "own.yaml", "--executor", "ray", "--address", made.address, folder=tmp_path)
    assert again.stdout == done.stdout and len(again.stderr.splitlines()) == 1, "only results are looked at"
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/stages/*/stage.json")}


class Losing:
    """A pool that loses a file as soon as it is handed parts."""

    def __init__(self, pool: SlurmPool, file: Path) -> None:
        self.pool, self.file = pool, file

    def submit(self, parts: Any, device: str | None) -> Any:
        self.file.unlink(missing_ok=True)
        return self.pool.submit(parts, device)

    def close(self) -> None:
        self.pool.close()


def test_jobs_of_which_one_is_preempted_end_with_the_bytes_of_a_local_run_and_a_lost_task_file_fails_its_point_alone(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORES, "1")  # digits depend on threads
    monkeypatch.chdir(tmp_path)
    Path("lost.yaml").write_text("include: attributes\ntask: lost\n")
    path = written(tmp_path, tasks=["attributes", "lost.yaml"], executor="slurm", slurm={"cluster": "local"})
    sweep = load_sweep(path)
    points = points_of(sweep, path, Path("runs"))
    said: list[str] = []
    pool = Losing(SlurmPool(sweep.slurm), Path("lost.yaml"))
    preempted: list[psutil.Process] = []
    preempting = threading.Thread(target=preempt_job_in_a_stage, args=(tmp_path / "runs", preempted))
    preempting.start()
    lost, found = sorted(run_sweep(points, Elsewhere(lambda: pool, said.append)), key=lambda one: one.error is None)
    preempting.join()
    assert preempted and not psutil.wait_procs(preempted, timeout=30)[1]
    assert_same(found.folder, whole_run)
    assert found.seeds == 2 and lost.seeds == 0 and lost.error is not None and lost.error.exit_code == 2
    for words in ("node ", "lost.yaml: cannot be read", "keep task, recipe and model files in folders that all nodes"):
        assert words in str(lost.error)
    assert sum("lost.yaml seed" in line and "failed" in line for line in said) == 2
    left = sorted(path.name.rpartition("-")[2] for path in Path("runs/.parts").iterdir())
    assert left == ["0", "1", "jobs"], "logs of the two that failed"


def test_a_study_keeps_what_jobs_have_finished_and_ends_with_the_reason_of_what_failed(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "own.yaml").write_text(
        "study: own\ndescription: two models\npaper: nothing\naxis: model\nfigure: gaps\n"
        "scratch: {task: attributes}\npretrained: {task: attributes}\n"
        f"points: [{{label: broken, scratch: {{model: '{tmp_path / 'broken'}'}}}}, {{label: whole}}]\n"
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "gpt_neox"}')
    with pytest.raises(OclBenchError, match=f"^node .*{tmp_path / 'broken'}"):
        run_study(
            "own", "scratch:tiny-16", seeds=(0,), overrides=(*WHOLE["overrides"],), limit=6, curves=False,
            include_path=[tmp_path], output_path=tmp_path, runs_path=tmp_path / "runs",
            executor=executor("slurm", options={"cluster": "local"}),
        )  # fmt: skip
    assert [point.run.label for point in read_study_results(tmp_path / "own.json").points] == ["whole"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--executor", "ray", "--address", "127.0.0.1:1"],
            "--address 127.0.0.1:1: no Ray cluster can be reached there",
        ),
        (["--address", "auto"], "--address is that of a Ray cluster, and the executor is local"),
        (["--executor", "pbs"], "unknown executor 'pbs'; known: local, ray, slurm"),
        (["--executor", "slurm"], 'slurm: Could not detect "srun"'),
    ],
)
def test_an_executor_that_is_not_there_is_told_in_one_sentence(
    options: list[str], message: str, tmp_path: Path
) -> None:
    done = call("sweep", written(tmp_path), *options, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"ocl-bench: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("stages"))


@pytest.mark.parametrize(("kind", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_not_installed_is_named(
    kind: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as the import system has a package that is not there
    with pytest.raises(OclBenchError, match=rf"is not installed; pip install 'ocl-bench\[{kind}\]'"):
        executor(kind).__enter__()


def test_a_wrong_parameter_of_slurm_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, executor="slurm", slurm={"cluster": "local", "partitoin": "gpu"})
    done = call("sweep", path, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("ocl-bench: slurm: ") and "partitoin" in done.stderr
    assert not list(tmp_path.rglob("stages"))
