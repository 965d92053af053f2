"""Parts as tasks of Ray: on a cluster that runs, or on a Ray that is started on this machine.

A task starts the part's process and waits for it. Nothing but two sentences of JSON goes through Ray: what to do, and
how it ended. A task whose node or process is lost is done again elsewhere, up to RETRIES times; one that failed is not.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ocl_bench.errors import OclBenchError, RunFailed, first_clause
from ocl_bench.runner.compute import CORES
from ocl_bench.runner.part import Ended, Part, perform

if TYPE_CHECKING:
    from ocl_bench.runner.executors import Job
    from ocl_bench.runner.request import RunRequest

RETRIES = 3
REACH_SECONDS = 5.0
# Ray would take a third of the memory for objects, and ours are sentences. It takes no less than 75 MiB.
OBJECT_STORE_BYTES = 80 * 2**20
# Ray prints what its nodes log, in the midst of our tables; read when it is imported.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "."}
TOKEN = "if the cluster asks for a token, set RAY_AUTH_MODE=token here and on its nodes, which share ~/.ray/auth_token"


class RayPool:
    """A Ray cluster.

    Args:
        address: of one that runs, `HOST:PORT` or `auto`; None starts one on this machine.
        options: further options of each task.

    Raises:
        OclBenchError: if Ray is not installed, the cluster cannot be reached, or is of other versions.
    """

    def __init__(self, address: str | None, options: Mapping[str, Any]) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise OclBenchError("Ray is not installed; pip install 'ocl-bench[ray]'.") from None
        self._ray, self._options, self._fitting = ray, dict(options), False
        if address is not None:
            _require_reachable(address)
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        with _signals_kept(), _no_stderr():
            try:
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level="error",
                    **({} if address else own),
                )
            except ConnectionError as error:
                raise OclBenchError(f"--address {address}: {first_clause(error)}; {TOKEN}.") from None
            except (RuntimeError, ValueError) as error:
                where = f"--address {address}" if address else "Ray cannot be started here"
                raise OclBenchError(f"{where}: {first_clause(error)}.") from None

    def submit(self, parts: Sequence[Part], request: "RunRequest") -> "list[Job]":
        """As of `Pool`."""
        device = request.device
        gpus = device is not None and device.startswith("cuda")
        if gpus and device != "cuda":
            raise OclBenchError(f"device {device}: Ray chooses which; give cuda.")
        count = request.shard if isinstance(request.shard, int) else 1  # a device for each process
        wanted = {"num_cpus": count, "num_gpus": count * gpus, "max_retries": RETRIES} | self._options
        try:
            task = self._ray.remote(_perform).options(**wanted)
        except (TypeError, ValueError) as error:
            raise OclBenchError(f"ray: {first_clause(error)}.") from None
        self._require_fitting({"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"]} | wanted.get("resources", {}))
        return [_Task(self._ray, task.remote(msgspec.json.encode(part).decode())) for part in parts]

    def _require_fitting(self, wanted: Mapping[str, float]) -> None:
        """Refuse what no node has, for which Ray would wait. Asked once: a node that is lost may come back."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not self._fitting and not any(all(node.get(one, 0) >= wanted[one] for one in wanted) for node in nodes):
            named = " with ".join(f"{one} {amount:g}" for one, amount in wanted.items() if amount)
            raise OclBenchError(f"no node of the Ray cluster has {named}; start one that has, or ask for less.")
        self._fitting = True

    def close(self) -> None:
        """As of `Pool`."""
        self._ray.shutdown()


class _Task:
    """A part that is a task of Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def ended(self) -> Ended | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return msgspec.json.decode(self._ray.get(self._reference), type=Ended)
        except self._ray.exceptions.RayError as error:
            reason = getattr(error, "cause", None) or error
            return Ended("Ray", error=f"{first_clause(reason)}.", exit_code=RunFailed.exit_code)

    def cancel(self) -> None:
        self._ray.cancel(self._reference, force=True)


def _perform(text: str) -> str:
    """The task: runs on the node."""
    import ray

    assigned = ray.get_runtime_context().get_assigned_resources()
    environment = dict(os.environ) | {CORES: str(max(1, int(assigned.get("CPU", 1))))}
    if not assigned.get("GPU"):
        environment["CUDA_VISIBLE_DEVICES"] = ""  # a task without GPUs sees all of the node's
    return perform(text, environment)


def _require_reachable(address: str) -> None:
    """Ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # auto
    try:
        with socket.create_connection((host, int(port)), timeout=REACH_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise OclBenchError(
            f"--address {address}: no Ray cluster can be reached there ({error}); `ray status` on its head says "
            "whether it runs."
        ) from None


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's library writes a line for each of its tries; the last is an exception."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
