"""Parts as jobs of Slurm, by submitit.

A job that is preempted or runs out of time is queued again by itself, and goes on where it was.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ocl_bench.errors import OclBenchError, RunFailed, first_clause
from ocl_bench.runner.compute import CORES
from ocl_bench.runner.part import Ended, Part, perform

if TYPE_CHECKING:
    from ocl_bench.runner.executors import Job
    from ocl_bench.runner.request import RunRequest

# How often a job may run out of time: a stage goes on from its last checkpoint, so each of them brings it further.
TIMEOUTS = 20
# submitit's own default are five minutes.
DEFAULTS = {"name": "ocl-bench", "timeout_min": 60}


class SlurmPool:
    """A Slurm cluster, from one of its machines.

    Args:
        options: submitit's parameters. `cluster: local` runs jobs on this machine, all at once, without Slurm.

    Raises:
        OclBenchError: if submitit is not installed.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError:
            raise OclBenchError("submitit is not installed; pip install 'ocl-bench[slurm]'.") from None
        self._submitit, self._cluster = submitit, options.get("cluster", "slurm")
        self._parameters = DEFAULTS | {name: options[name] for name in options if name != "cluster"}

    def submit(self, parts: Sequence[Part], request: "RunRequest") -> "list[Job]":
        """As of `Pool`. Raises OclBenchError if Slurm does not take them."""
        folder = parts[0].folder.parent / "jobs"
        try:
            executor = self._submitit.AutoExecutor(folder, self._cluster, slurm_max_num_timeout=TIMEOUTS)
            executor.update_parameters(**self._parameters)
            jobs = executor.map_array(_Again(), [msgspec.json.encode(part).decode() for part in parts])
        except (RuntimeError, OSError, ValueError, NameError, TypeError, AssertionError) as error:
            raise OclBenchError(f"slurm: {first_clause(error)}.") from None  # submitit's words, or sbatch's
        return [_SlurmJob(job) for job in jobs]

    def close(self) -> None:
        """As of `Pool`."""


class _SlurmJob:
    """A part that is a job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def ended(self) -> Ended | None:
        if not self._job.done():
            return None
        try:
            return msgspec.json.decode(self._job.result(), type=Ended)
        except RuntimeError as error:  # submitit's: it was cancelled, or its machine is lost
            reason = f"{first_clause(error)}. See {self._job.paths.stderr}."
            return Ended("Slurm", error=reason, exit_code=RunFailed.exit_code)

    def cancel(self) -> None:
        self._job.cancel()


class _Again:
    """The job: runs on the node, and again if that takes it away too soon."""

    def __call__(self, text: str) -> str:
        allowed = os.environ.get("SLURM_CPUS_PER_TASK")
        return perform(text, dict(os.environ) | ({CORES: allowed} if allowed else {}))

    def checkpoint(self, text: str) -> Any:
        """What submitit queues then."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, text)
