"""Real child processes, started on their own and forked from a template: they behave alike, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import psutil
import pytest
import typed_children
from typed_children import Do, Said

from ocl_bench.forking import forked, warm
from ocl_bench.processes import Child, Events, Exited, Failed, Message, Start, spawn

TESTS = Path(__file__).parent
MODULE = typed_children.__name__
PRELOAD = ("torch", MODULE)
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "PYTHONUNBUFFERED")
} | {"PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}


class Children:
    """Starts children in one of the two ways and ends them all."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.start, self.log = start, folder / "children.log"
        self.events: Events = Queue()
        self.all: list[Child] = []

    def __call__(self, *arguments: str, sends: Any = Said, **environment: str) -> Child:
        whole = ENVIRONMENT | environment
        self.all.append(Child(MODULE, arguments, whole, self.log, self.events, sends=sends, start=self.start))
        return self.all[-1]

    def said(self) -> Message:
        return self.events.get(timeout=60)[1]


@pytest.fixture(params=["spawned", "forked"])
def children(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Children]:
    made = Children(spawn if request.param == "spawned" else forked(PRELOAD), tmp_path)
    yield made
    for child in made.all:
        child.end()


def templates(process: psutil.Process | None = None) -> list[psutil.Process]:
    """A process's templates of these tests: other tests keep some of their own."""
    found = (process or psutil.Process()).children()
    return [one for one in found if {"ocl_bench.template", *PRELOAD} <= {*one.cmdline()}]


def test_a_child_gets_arguments_environment_folder_and_messages_and_prints_to_its_log(children: Children) -> None:
    child = children("one", "two", OCL_BENCH_TEST="here", CUDA_VISIBLE_DEVICES="3")
    assert children.said() == Said("one two")
    for what, value, answer in (
        ("say", "x" * 10**6, "x" * 10**6),
        ("environment", "OCL_BENCH_TEST", "here"),
        ("environment", "CUDA_VISIBLE_DEVICES", "3"),
        ("environment", "JE_ARROW_MALLOC_CONF", "unset"),
        ("folder", "", str(Path.cwd())),
    ):
        child.send(Do(what, value))
        assert children.said() == Said(answer)
    child.send(Do("print", "for the log"))
    child.send(Do("say", "printed"))
    assert children.said() == Said("printed")
    assert children.log.read_text().splitlines() == ["for the log", "for the log"]
    assert os.getpgid(child.process.pid) == child.process.pid


def test_children_run_side_by_side_and_each_has_its_own_environment_and_exit_code(children: Children) -> None:
    pair = [children(str(number), CUDA_VISIBLE_DEVICES=str(number)) for number in range(2)]
    assert {children.said() for _ in pair} == {Said("0"), Said("1")}
    for number, child in enumerate(pair):
        child.send(Do("environment", "CUDA_VISIBLE_DEVICES"))
        assert children.said() == Said(str(number))
    pair[0].send(Do("leave", "7"))
    assert children.events.get(timeout=60) == (pair[0], Exited(7))
    pair[1].send(Do("say", "still here"))
    assert children.said() == Said("still here")
    os.kill(pair[1].process.pid, signal.SIGSEGV)
    assert children.events.get(timeout=60) == (pair[1], Exited(-signal.SIGSEGV))
    pair[1].send(Do("say", "to nobody"))  # is no error


def test_an_exception_arrives_as_failed_and_its_traceback_is_in_the_log(children: Children) -> None:
    children().send(Do("fail", "the loss is no number."))
    assert [children.said() for _ in range(3)] == [Said(""), Failed("the loss is no number.", 3), Exited(1)]
    assert "Traceback" in children.log.read_text()


def test_a_line_that_is_none_of_the_expected_messages_is_a_failure_that_names_the_module(children: Children) -> None:
    child = children(sends=Do)
    failed = children.said()
    assert isinstance(failed, Failed) and failed.exit_code is None
    assert failed.message.startswith("typed_children sent a line that is none of its messages: Invalid value 'Said'")
    child.send(Said("no order"))
    failed = children.said()
    assert isinstance(failed, Failed) and "typed_children.py was sent a line that is none of" in failed.message
    assert children.said() == Exited(1)


def test_end_ends_at_once_what_the_child_has_started_too_even_if_it_is_stopped(children: Children) -> None:
    child = children()
    child.send(Do("descendant"))
    children.said()
    said = children.said()
    assert isinstance(said, Said)
    descendant = psutil.Process(int(said.text))
    os.kill(child.process.pid, signal.SIGSTOP)
    child.end()
    assert children.said() == Exited(-signal.SIGKILL)
    assert not psutil.wait_procs([descendant], timeout=10)[1]


def test_forked_and_spawned_processes_compute_the_same_to_the_last_bit(tmp_path: Path) -> None:
    def numbers(start: Start, threads: int) -> Message:
        children = Children(start, tmp_path)
        child = children(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        child.send(Do("numbers", str(threads)))
        children.said()
        found = children.said()
        child.end()
        return found

    for threads in (1, 2):
        found = numbers(forked(PRELOAD), threads)
        assert isinstance(found, Said) and found.text.startswith(f"{threads} ")
        assert found == numbers(spawn, threads)


def test_forks_share_memory_and_start_at_once(tmp_path: Path) -> None:
    children = Children(forked(PRELOAD), tmp_path)
    children().send(Do("numbers", "1"))
    children.said(), children.said()
    begin = time.monotonic()
    children()
    children.said()
    assert time.monotonic() - begin < 1, "torch takes longer to import"
    last = psutil.Process(children.all[-1].process.pid)
    assert last.memory_full_info().uss < last.memory_info().rss / 4
    for child in children.all:
        child.end()
    assert len(templates()) == 1


def test_a_new_template_is_started_if_imports_would_see_another_environment(tmp_path: Path) -> None:
    children = Children(forked(PRELOAD), tmp_path)
    children()
    (first,) = templates()
    children(HF_HOME="elsewhere").send(Do("environment", "HF_HOME"))
    assert {children.said() for _ in range(3)} == {Said(""), Said("elsewhere")}
    assert first.is_running() and len(templates()) == 2, "the first has a process to wait for"
    children.all[0].send(Do("leave", "3"))
    assert children.events.get(timeout=60) == (children.all[0], Exited(3))
    assert not psutil.wait_procs([first], timeout=10)[1]
    children.all[1].end()


@pytest.mark.parametrize("preload", ["no_such_module", "starts_a_thread"])
def test_without_a_template_processes_are_started_on_their_own(preload: str, tmp_path: Path) -> None:
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    children = Children(forked([preload]), tmp_path)
    child = children("hello", PYTHONPATH=f"{ENVIRONMENT['PYTHONPATH']}:{tmp_path}")
    assert children.said() == Said("hello")
    assert psutil.Process(child.process.pid).ppid() == os.getpid()
    child.end()


def test_a_template_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    children = Children(forked(PRELOAD), tmp_path)
    forked_child = children("before")
    assert children.said() == Said("before")
    templates()[0].kill()
    forked_child.send(Do("say", "alive"))
    assert children.said() == Said("alive")
    children("after")
    assert children.said() == Said("after")
    for child in children.all:
        child.end()
    assert {children.said(), children.said()} == {Exited(-signal.SIGKILL)}
    warm(("msgspec",), ENVIRONMENT)  # so that the next test has one of its own


# A parent of two children; with a word, the suite's own, of which its template is a fork.
PARENT = f"""
import os, sys
from pathlib import Path
from queue import Queue
from ocl_bench.forking import forked, own_process, warm
from ocl_bench.processes import Child
from typed_children import Do, Said
if "own" in sys.argv:
    print("printed before")
    kept = open("kept", "w")
    kept.write("once")
    own_process()
    warm({PRELOAD}, os.environ)
events = Queue()
children = [
    Child("{MODULE}", ["one"], os.environ, Path("log"), events, sends=Said, start=forked({PRELOAD})) for _ in range(2)
]
events.get(), events.get()
"""
WAITS = (
    PARENT
    + """
print("up", "torch" in sys.modules, flush=True)
sys.stdin.read(1)
"""
)
ASKS = (
    PARENT
    + """
for what, value in (
    ("numbers", "2"), ("environment", "JE_ARROW_MALLOC_CONF"), ("open", "kept"), ("path", ""), ("fail", "no more.")
):
    children[0].send(Do(what, value))
    print(getattr(said := events.get()[1], "text", said))
print(events.get()[1])
"""
)


def started(code: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *words]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, **pipes)


@pytest.mark.parametrize(
    ("how", "words"),
    [(signal.SIGKILL, []), (signal.SIGTERM, []), (None, []), (signal.SIGKILL, ["own"]), (None, ["own"])],
)
def test_neither_template_nor_children_outlive_the_parent(
    how: signal.Signals | None, words: list[str], tmp_path: Path
) -> None:
    parent = started(WAITS, words, tmp_path)
    assert parent.stdout is not None and parent.stdin is not None
    if words:
        assert parent.stdout.readline() == "printed before\n"
    assert parent.stdout.readline() == f"up {bool(words)}\n"
    below = psutil.Process(parent.pid).children(recursive=True)
    assert len(below) == 3 and len(templates(psutil.Process(parent.pid))) == int(not words)
    assert len({os.getpgid(pid) for pid in (parent.pid, *(one.pid for one in below))}) == 4
    if how is None:
        parent.stdin.close()
    else:
        parent.send_signal(how)
    assert parent.wait(timeout=60) == (0 if how is None else -how)
    assert not psutil.wait_procs(below, timeout=10)[1]


def test_children_of_a_template_that_is_a_fork_have_nothing_of_the_parents(tmp_path: Path) -> None:
    said = []
    for words in ([], ["own"]):
        out, _ = started(ASKS, words, tmp_path).communicate(timeout=60)
        said.append(out.splitlines())
    numbers, *rest = said[0]
    failed = Failed("no more.", 3)
    assert numbers.startswith("2 ") and rest == ["unset", "False", "False", str(failed), "Exited(code=1)"]
    assert said[1] == ["printed before", *said[0]]
    assert (tmp_path / "kept").read_text() == "once" and "printed" not in (tmp_path / "log").read_text()


def test_a_lean_process_has_what_transformers_does_without() -> None:
    code = (
        "import sys, ocl_bench.lean\n"
        "from importlib.util import find_spec\n"
        "from transformers.utils import is_datasets_available, is_scipy_available\n"
        "print(is_datasets_available(), is_scipy_available(), find_spec('scipy') is not None, 'scipy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False", "True", "False"]
