"""A part of a request, done by a process of its own wherever an executor starts it: `python -m ocl_bench.runner.part`.

Paths and names travel to that machine, never tensors. It has to see the same output folder, where stages are found by
content, and to have the same versions and task files.
"""

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import msgspec
from filelock import FileLock, Timeout

from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.files import sha256
from ocl_bench.forking import own_process
from ocl_bench.processes import Child, Emit, Events, Exited, Failed, serve

if TYPE_CHECKING:
    from ocl_bench.runner.plan import Choice
    from ocl_bench.runner.request import RunRequest

FOLDER = ".parts"  # in the output folder: where parts work
# Besides ocl-bench and packages that bring parts: what stages are made with, which has to be the same on all nodes.
COMPARED = ("torch", "transformers")


class Part(msgspec.Struct, tag=True, frozen=True):
    """What a node is to do.

    Attributes:
        request: JSON of the fields that were given of a `RunRequest`; its output folder is absolute.
        seeds: stage-1 seeds whose stages are to be done, besides those that all share; None: the whole request.
        marker: a file in the output folder, by which a node sees that its folder is the same.
        cwd: the folder that relative paths start from.
        versions: of the code that has sent this.
        choice: sha256 of the task and the recipe, as they were read where this was sent from.
    """

    request: str
    seeds: tuple[int, ...] | None
    marker: str
    cwd: str
    versions: dict[str, str]
    choice: str

    @property
    def folder(self) -> Path:
        """Where the part works and logs, until it has succeeded; the same command has the same."""
        return Path(self.marker).parent / f"{sha256(self.request)[:12]}-{self.name.replace(' ', '-')}"

    @property
    def name(self) -> str:
        """What people call it."""
        if self.seeds is None:
            return "results"
        return "seed " + ", ".join(map(str, self.seeds)) if self.seeds else "x0"


class Ended(msgspec.Struct, tag=True, frozen=True):
    """How a part ended.

    Attributes:
        node: what messages call the machine.
        seconds: how long it took there.
        folder: the run folder, of a whole request that succeeded.
        error: one sentence, if it did not.
        exit_code: that of the command line for the error.
    """

    node: str
    seconds: float = 0.0
    folder: str = ""
    error: str = ""
    exit_code: int = 0

    @property
    def failure(self) -> OclBenchError | None:
        """The error that a run here would have raised."""
        if not self.error:
            return None
        kind = OclBenchError if self.exit_code == OclBenchError.exit_code else RunFailed
        return kind(f"{self.node}: {self.error}")


def perform(text: str, environment: Mapping[str, str]) -> str:
    """Do a part in a process of its own, which ends with this one; called on the node.

    Args:
        text: JSON of a `Part`.
        environment: of the process.

    Returns:
        JSON of `Ended`: whatever goes wrong is told there.
    """
    part, start = msgspec.json.decode(text, type=Part), time.monotonic()
    try:
        ended = _refused(part) or _ended(part, environment)
    except OSError as error:
        ended = Ended("", error=f"{error.filename}: {error.strerror or error}.", exit_code=RunFailed.exit_code)
    told = msgspec.structs.replace(ended, node=f"node {platform.node()}", seconds=time.monotonic() - start)
    return msgspec.json.encode(told).decode()


def _refused(part: Part) -> Ended | None:
    """What is said where the output folder is not the one that the part was sent from."""
    if Path(part.marker).is_file():
        return None
    output = Path(part.marker).parents[1]
    error = (
        f"the output folder {output} is not there, or is not the one of the machine that started this; choose one that "
        "all nodes share with --output_path."
    )
    return Ended("", error=error, exit_code=OclBenchError.exit_code)


def _ended(part: Part, environment: Mapping[str, str]) -> Ended:
    events: Events = Queue()
    part.folder.mkdir(parents=True, exist_ok=True)
    log = part.folder / "part.log"
    child = Child("ocl_bench.runner.part", [], environment, log, events, sends=Ended)
    try:
        child.send(part)
        _, message = events.get()
    finally:
        child.end()
    match message:
        case Ended():
            with contextlib.suppress(Timeout), FileLock(part.folder / ".lock", timeout=0):  # another may be at it
                shutil.rmtree(part.folder, ignore_errors=True)
            return message
        case Failed(message=reason, exit_code=int(code)):
            return Ended("", error=reason, exit_code=code)
        case Failed(message=reason):
            return Ended("", error=f"{reason.splitlines()[0]} (see {log})", exit_code=RunFailed.exit_code)
        case Exited(code=code):
            error = f"its process ended with code {code} (negative: killed by that signal); see {log}"
            return Ended("", error=error, exit_code=RunFailed.exit_code)
    raise AssertionError(message)


def main() -> None:
    """Entry point of `python -m ocl_bench.runner.part`."""
    from ocl_bench.runner.workers import prepare

    own_process()
    prepare()  # before there is another thread
    serve(_work, Part)


def _work(inbox: "Queue[Any]", emit: Emit) -> None:
    part: Part = inbox.get()
    _require_same(part.versions, code_versions())
    from ocl_bench.runner.begin import perform_part, perform_request
    from ocl_bench.runner.request import RunRequest
    from ocl_bench.runner.workers import Workers

    if Path(part.cwd).is_dir():
        os.chdir(part.cwd)
    request = RunRequest.from_options(**msgspec.json.decode(part.request))
    _require_files(request, part.choice)
    folder = ""
    with Workers() as workers:
        if part.seeds is None:
            folder = str(perform_request(request, workers)[0])
        else:
            perform_part(request, part.seeds, part.folder, workers)
    emit(Ended("", folder=folder))


def code_versions() -> dict[str, str]:
    """Versions, here, of what has to be the same on all nodes."""
    from ocl_bench.plugins import packages
    from ocl_bench.runner.manifest import checkout_state, versions
    from ocl_bench.runner.schedule import code_version

    found = versions()
    # A build for CPUs and one for GPUs, 2.13.0+cpu and 2.13.0+cu130, may work side by side.
    public = {name: found.get(name, "none").partition("+")[0] for name in COMPARED}
    return {"ocl-bench": code_version(checkout_state()[0], found), **public, **packages()}


def _require_same(wanted: Mapping[str, str], here: Mapping[str, str]) -> None:
    for name, version in wanted.items():
        if here.get(name) != version:
            raise OclBenchError(
                f"it has {name} {here.get(name, 'none')}, and the machine that started this has {version}; install the "
                "same on all nodes."
            )


def choice_sha256(choice: "Choice") -> str:
    """Identity, by content, of the task and the recipe that a request names."""
    return sha256(f"{choice.task.model_dump_json()} {choice.recipe.model_dump_json()}")


def _require_files(request: "RunRequest", wanted: str) -> None:
    from ocl_bench.runner.plan import choose

    remedy = "keep task, recipe and model files in folders that all nodes share, at the same place"
    try:
        found = choice_sha256(choose(request))
    except OclBenchError as error:
        raise OclBenchError(f"{str(error).rstrip('.')}; the machine that started this has it: {remedy}.") from None
    if found != wanted:
        raise OclBenchError(
            f"task '{request.task}' or its recipe is another than on the machine that started this; {remedy}."
        )


if __name__ == "__main__":
    main()
