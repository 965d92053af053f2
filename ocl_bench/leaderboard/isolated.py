"""Train what nobody vouches for in a process of its own: `python -m ocl_bench.leaderboard.isolated`.

No code of a submission is run, so that nothing should need this. Should a library be led to run some all the same, it
finds no network, where the system lets a process leave it, and none of the user's tokens in its environment. Files
stay as they are: what the user can read, this process can.
"""

import ctypes
import os
import re
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec

from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.forking import own_process
from ocl_bench.leaderboard.handed import Handed, take_in
from ocl_bench.plugins import SWITCH
from ocl_bench.processes import Child, Emit, Events, Exited, Failed, Message, serve
from ocl_bench.runner.messages import FromRun

MODULE = "ocl_bench.leaderboard.isolated"
# Names of variables that hold secrets, lead to them, or carry them in an address.
SECRET = re.compile(
    r".*(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL).*|.*_(PROXY|URL)"
    r"|(AWS|AZURE|WANDB|GITHUB|GH|SSH|DBUS)_.*"
    r"|NETRC|KUBECONFIG",
    re.IGNORECASE,
)
WEIGHTS = "*.safetensors"
# Weights and tokenizers as plain data: no code, and no pickle, which can hold some.
FETCHED = ("*.json", "*.model", "*.txt")


class Request(msgspec.Struct, tag=True, frozen=True):
    """What to run: arguments of `ocl_bench.run`, as JSON can hold them."""

    arguments: dict[str, Any]
    handed: list[Handed] = []


class Online(msgspec.Struct, tag=True, frozen=True):
    """The process keeps its network, and why."""

    reason: str


class Begun(msgspec.Struct, tag=True, frozen=True):
    """A run of a task begins, with so many datasets to build."""

    task: str
    cells: int


class Built(msgspec.Struct, tag=True, frozen=True):
    """One more dataset is built."""


class Finished(msgspec.Struct, tag=True, frozen=True):
    """The run is finished, in this folder."""

    folder: str


Told = Online | Begun | Built | Finished | FromRun

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def fetch(name: str, revision: str | None, weights: bool) -> None:
    """Put a hub repository's weights and tokenizer into the local cache, where the isolated process finds them.

    Args:
        name: the repository's id.
        revision: the commit; None takes the newest.
        weights: whether weights are needed, and not the tokenizer alone.

    Raises:
        OclBenchError: if it cannot be fetched, has no weights that are plain data, or a folder here has its name.
    """
    from huggingface_hub import snapshot_download

    if Path(name).exists():
        raise OclBenchError(f"{name} is a folder here, and would be taken for the hub's; start from another folder.")
    wanted = [*FETCHED, *([WEIGHTS] if weights else [])]
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*", "adapter_*", "*.py"]
        )
    except Exception as error:  # the hub's client and its transport raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OclBenchError(f"{name}: it cannot be fetched from the hub ({reason}).") from None
    if weights and not any(Path(folder).glob(WEIGHTS)):
        raise OclBenchError(f"{name}: it has no {WEIGHTS} at {revision}; other weights can hold code, and are not run.")


def run_isolated(
    request: Mapping[str, Any],
    progress: Callable[[str, int], Any] | None = None,
    handed: Sequence[Handed] = (),
) -> Path:
    """Run `ocl_bench.run` in a process without network and tokens.

    Args:
        request: arguments of `ocl_bench.run` as JSON can hold them. Code that comes with a model is never run.
        progress: shows progress; None shows nothing.
        handed: weights that the run goes on from.

    Returns:
        The run folder.

    Raises:
        OclBenchError: as `ocl_bench.run`.
    """
    with tempfile.TemporaryDirectory() as own:
        events: Events = Queue()
        log = Path(own, "log")
        child = Child(MODULE, [], environment(os.environ, Path(own)), log, events, sends=Told)
        try:
            child.send(Request(dict(request), list(handed)))
            return _follow(events, progress, log)
        finally:
            child.end()


def environment(of: Mapping[str, str], empty: Path) -> dict[str, str]:
    """The environment without secrets, in which no plugin is found and the hub's client is offline.

    Args:
        of: the environment.
        empty: a folder that holds no token.
    """
    kept = {name: value for name, value in of.items() if not SECRET.fullmatch(name)}
    return kept | {
        SWITCH: "0",
        "HF_TOKEN_PATH": str(empty / "no-token"),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "USE_HUB_KERNELS": "0",  # kernels are code, and come from the hub
    }


def leave_network() -> str | None:
    """Move this process, which must have one thread, out of reach of any network; returns why that failed, or None.

    It keeps a loopback of its own, which its children share.
    """
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no network namespaces"
    # Halfway, a process could write no file any more: a copy of this one tries first.
    if (attempt := os.fork()) == 0:
        try:
            _enter_namespaces()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    if failed := os.waitstatus_to_exitcode(os.waitpid(attempt, 0)[1]):
        return f"this system keeps it there: {os.strerror(failed)}"
    _enter_namespaces()
    _raise_loopback()
    return None


def _enter_namespaces() -> None:
    """Root may leave the network as it is, others in a user namespace in which they stay who they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _raise_loopback() -> None:
    """vLLM talks to its own processes over it. Where it stays down, training does not need it."""
    import fcntl

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh22x", b"lo", 0)
            flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))
    except OSError:
        pass


def _follow(events: Events, progress: Callable[[str, int], Any] | None, log: Path) -> Path:
    """Show what the child tells until it has finished, and return its run folder."""
    shown: Any = None
    try:
        while True:
            _, message = events.get()
            match message:
                case Online(reason):
                    print(f"ocl-bench: training keeps its network ({reason}).", file=sys.stderr)
                case Begun(task, cells):
                    if progress is not None:
                        shown = progress(task, cells)
                        shown.__enter__()
                case Finished(folder):
                    return Path(folder)
                case Failed(text, code):
                    first = text.strip().splitlines()[0]
                    raise OclBenchError(first) if code == OclBenchError.exit_code else RunFailed(first)
                case Exited(code):
                    raise RunFailed(f"the run ended with code {code} ({_last_line(log)}).")
                case Built():
                    if shown is not None:
                        shown.built()
                case _:
                    if shown is not None:
                        shown(message)
    finally:
        if shown is not None:
            shown.__exit__(None, None, None)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


class _Told:
    """Progress of the run, as events for the parent."""

    def __init__(self, emit: Emit, task: str, cells: int) -> None:
        self._emit = emit
        emit(Begun(task, cells))

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def built(self) -> None:
        self._emit(Built())

    def __call__(self, message: Message) -> None:
        self._emit(message)


def main() -> None:
    """Entry point. The network is left before a library can start a thread, which would keep it."""
    from ocl_bench.runner.workers import prepare

    reason = leave_network()
    own_process()
    prepare()  # before there is another thread

    def work(messages: "Queue[Any]", emit: Emit) -> None:
        if reason is not None:
            emit(Online(reason))
        request = messages.get()
        _run(dict(request.arguments), request.handed, emit)

    serve(work, Request)


def _run(request: dict[str, Any], handed: Sequence[Handed], emit: Emit) -> None:
    from ocl_bench import api
    from ocl_bench.models.spec import ModelArgs

    args = ModelArgs.parse(request.pop("model_args"), "model_args")
    if args.trust_remote_code or request.get("trust_remote_code"):
        raise OclBenchError("trust_remote_code: code that comes with a submission's model is never run.")
    request["model_args"] = args
    if handed:
        take_in(request, handed)
    told: Any = partial(_Told, emit)
    result = api.run(progress=told, **request)
    emit(Finished(str(result.folder)))


if __name__ == "__main__":
    main()
