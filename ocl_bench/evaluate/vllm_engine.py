"""The vLLM engine: greedy answers from a vLLM process that is started once and given one checkpoint after another."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.evaluate.vllm_messages import Ask, FromServer, Generated, Progressed, Start, Started
from ocl_bench.processes import Child, Events, Exited, Failed, Message

# No wait is without a limit: seconds until the process is up, and seconds without any sign of progress after that.
START_SECONDS = 900
SILENT_SECONDS = 600
PROGRESS_SECONDS = 0.5
CPU_CACHE_GIB = "1"  # of keys and values; questions are short


class EngineUnsupported(OclBenchError):
    """vLLM cannot serve this model on this machine."""


class EngineLost(RunFailed):
    """The vLLM process ended or hung, and so did the one that replaced it."""


class VllmEngine:
    """A vLLM process, replaced once if it crashes or hangs, and ended with the block.

    Args:
        parameters: how many the model has: on a GPU, the share of memory that is taken follows from it.
        args: further arguments of `vllm.LLM`, such as dtype, max_model_len, tensor_parallel_size.
        log: where vLLM's own messages go.
        defaults: `args` without what the user passed, so that a wrong argument is told from a model that vLLM cannot
            serve; None if the user passed none of them.
        environment: of the process; None takes this one's.
        start_seconds: longest wait for the process to be up.
        silent_seconds: longest wait for a further sign of progress.
    """

    def __init__(
        self,
        parameters: int,
        args: Mapping[str, Any],
        log: Path,
        *,
        defaults: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        start_seconds: float = START_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.parameters, self.args, self.log = parameters, dict(args), log
        self.defaults = self.args if defaults is None else dict(defaults)
        self.environment = os.environ if environment is None else environment
        self.start_seconds, self.silent_seconds = start_seconds, silent_seconds
        self.progress_seconds = PROGRESS_SECONDS
        self.served: Started | None = None
        self.crashes = 0
        self.load_seconds: list[float] = []
        self._child: Child | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._events: Events = Queue()

    def __enter__(self) -> "VllmEngine":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def start(self, model: str) -> Started:
        """Start with a checkpoint folder or a hub id, which decides the model's shape.

        Raises:
            EngineUnsupported: if vLLM cannot serve it here, with vLLM's reason.
            OclBenchError: if it could, but for what the user passed to vLLM.
        """
        try:
            self._start(model, self.args)
        except _Crash as crash:
            if self._starts_without_what_was_passed(model):
                given = ",".join(f"{key}={value}" for key, value in self.args.items() if self._was_passed(key))
                raise OclBenchError(
                    f"--engine_args {given}: vLLM does not start with that, and does without ({crash}; see {self.log})."
                ) from None
            raise EngineUnsupported(f"vLLM does not start with this model: {crash} (see {self.log})") from None
        assert self.served is not None
        return self.served

    def _was_passed(self, key: str) -> bool:
        return key not in self.defaults or bool(self.args[key] != self.defaults[key])

    def _starts_without_what_was_passed(self, model: str) -> bool:
        if not any(self._was_passed(key) for key in self.args):
            return False
        try:
            self._start(model, self.defaults)
        except _Crash:
            return False
        self._end()
        self.served = None
        return True

    def generate(
        self,
        checkpoint: Path,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        stop_ids: Sequence[int],
        on_answered: Callable[[int], None] = lambda count: None,
    ) -> list[list[int]]:
        """Greedy answers of a checkpoint: token ids up to and with the first stop id.

        Args:
            checkpoint: folder with config.json and *.safetensors, of the shape that the engine was started with.
            prompts: token ids.
            max_new_tokens: longest answer to each prompt, in tokens.
            stop_ids: token ids that end an answer.
            on_answered: called with the number of further answers.

        Raises:
            EngineLost: if the process is lost for the second time.
        """
        request = Ask(
            str(checkpoint.absolute()), [list(prompt) for prompt in prompts], list(max_new_tokens), list(stop_ids)
        )
        answered = 0

        def count(questions: int) -> None:
            nonlocal answered
            answered += questions
            on_answered(questions)

        while True:
            try:
                if self._child is None:
                    self._start(str(checkpoint.absolute()), self.args)
                tokens = self._ask(request, count)
            except _Crash as crash:
                self.crashes += 1
                if self.crashes > 1:
                    raise EngineLost(
                        f"vLLM was lost twice, the second time because {crash}; see {self.log}, or pass --engine torch."
                    ) from None
                count(-answered)
                continue
            count(len(prompts) - answered)
            return tokens

    def close(self) -> None:
        """End the process and whatever it started, for good; from another thread, a wait for it ends with an error."""
        with self._lock:
            self._closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _start(self, model: str, args: dict[str, Any]) -> None:
        environment = {
            **self.environment,
            "VLLM_CPU_KVCACHE_SPACE": self.environment.get("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this is a process of its own already
            "VLLM_NO_USAGE_STATS": "1",
        }
        with self._lock:
            if self._closed:
                raise _Crash("the run has ended")
            self._events = Queue()
            self._child = child = Child(
                "ocl_bench.evaluate.vllm_server", [], environment, self.log, self._events, sends=FromServer
            )
        child.send(Start(model, self.parameters, args, self.defaults, self.progress_seconds))
        started = self._next(self.start_seconds)
        assert isinstance(started, Started)
        self.served = started

    def _ask(self, request: Ask, on_answered: Callable[[int], None]) -> list[list[int]]:
        child = self._child
        if child is None:  # closed in the meantime
            raise _Crash("the run has ended")
        child.send(request)
        while isinstance(message := self._next(self.silent_seconds), Progressed):
            on_answered(message.questions)
        assert isinstance(message, Generated)
        self.load_seconds.append(message.load_seconds)
        return message.tokens

    def _next(self, seconds: float) -> Message:
        """The process's next message. If it has none in time, or ends, it is ended for good."""
        start = time.monotonic()
        try:
            _, message = self._events.get(timeout=seconds)
        except Empty:
            self._end()
            raise _Crash(f"it gave no sign of life for {time.monotonic() - start:.0f} s") from None
        match message:
            case Failed(said, exit_code):
                self._end()
                first = said.strip().splitlines()[0].rstrip(" .")
                raise _Crash(first) if exit_code is None else OclBenchError(f"{first}.")
            case Exited(code):
                self._end()
                raise _Crash(f"it ended with code {code} (negative: killed by that signal)")
        return message


class _Crash(Exception):
    """The process is gone; the text says why."""
