"""Make a model's initial weights again, from its configuration and seed: `python -m ocl_bench.leaderboard.initial`.

Random weights depend on nothing else but versions and the kind of processor. It takes torch, which the checks
themselves do without: a process of its own makes them, as poor and as far from any network as the one that trains
(`ocl_bench.leaderboard.isolated`).
"""

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ocl_bench.leaderboard.isolated import environment, leave_network

MODULE = "ocl_bench.leaderboard.initial"
MAX_PARAMETERS = 20_000_000  # whose weights are made: a second each; of larger models only the shapes are
# Of processor time, for one submission: an honest one takes one, and ten times that on a slow machine that is busy.
SECONDS = 15.0
MAX_MEMORY = 3 * 2**30  # of data: some configurations ask for buffers of any size
SMALLEST = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 8}
PATIENCE = 120.0  # seconds of the clock until a process that says nothing is given up


class Initial:
    """The process, started for the first model, or before: its imports take as long as the other checks of one.

    Where there is no torch, it tells nothing of any model.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> "Initial":
        return self

    def start(self) -> None:
        """Start the process, if there is none, before it is needed."""
        if self._process is None and find_spec("torch") is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(os.environ, Path(self._folder.name)) | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        self._folder.cleanup()

    def of(
        self, config: Mapping[str, Any], words: Mapping[int, Sequence[str]], dtype: str, attention: str | None
    ) -> dict[str, Any] | None:
        """What a model of random weights is before training.

        Args:
            config: its configuration.
            words: seed → the words of that seed's data, each of which is a token.
            dtype, attention: how it is loaded.

        Returns:
            `parameters`, and `weights`: seed → sha256 of the weights, as far as time allows, and none of a large
            model; or `error`: why none can be made. None without torch.
        """
        self.start()
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        request = {"config": config, "words": words, "dtype": dtype, "attention": attention}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as ready:
                ready.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if ready.select(PATIENCE) else b""
            found: dict[str, Any] = json.loads(line)
        except (OSError, ValueError):
            self._end()  # another is started for the next model
            return {"error": "making them ended the process, or took too long"}
        return found

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def main() -> None:
    """Entry point: a request a line, and an answer a line. The argument says how many seconds each may take."""
    seconds = float(sys.argv[1])
    leave_network()
    with suppress(OSError, ValueError):  # not all systems have this limit
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    # Before time is taken: torch and what transformers imports late take seconds.
    import ocl_bench.lean  # isort: skip
    import transformers

    import ocl_bench.models.load  # noqa: F401

    transformers.logging.set_verbosity_error()
    transformers.AutoModelForCausalLM.from_config(transformers.GPTNeoXConfig(**SMALLEST))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    signal.signal(signal.SIGVTALRM, partial(_too_long, seconds))
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        try:
            with _time_limit(seconds):
                _make(json.loads(line), answer)
        except (Exception, _TooLong) as error:  # whatever a configuration breaks
            if "parameters" not in answer or not isinstance(error, _TooLong):
                answer = {"error": (str(error).splitlines() or [type(error).__name__])[0][:300]}
        print(json.dumps(answer), file=told, flush=True)


class _TooLong(BaseException):
    """Time is up; no library takes it for an error of its own."""


def _too_long(seconds: float, *_: Any) -> None:
    raise _TooLong(f"it takes more than {seconds:g} seconds")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _make(request: dict[str, Any], answer: dict[str, Any]) -> None:
    """Put into the answer what is known so far."""
    from transformers.utils import CONFIG_NAME

    from ocl_bench.models.load import load_config, load_model, parameter_count, weights_sha256
    from ocl_bench.models.spec import ModelArgs, ModelSpec
    from ocl_bench.models.word_level import word_level_tokenizer
    from ocl_bench.runner.manifest import vector_units

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CONFIG_NAME).write_text(json.dumps(request["config"]), encoding="utf-8")
        args = ModelArgs(dtype=request["dtype"], attn_implementation=request["attention"])
        spec = ModelSpec(name="scratch:submitted", source="scratch", location=folder, args=args)
        tokenizers = {seed: word_level_tokenizer(words) for seed, words in request["words"].items()}
        first = next(iter(tokenizers.values()))
        # Seeds have vocabularies of one size in the suite's tasks; the manifest tells the last seed's.
        parameters = parameter_count(spec, load_config(spec), [*tokenizers.values()][-1])
        if parameters > MAX_PARAMETERS or parameter_count(spec, load_config(spec), first) > MAX_PARAMETERS:
            answer |= {"parameters": parameters, "weights": {}, "vector_units": vector_units()}
            return
        weights: dict[str, str] = {}
        answer |= {"parameters": parameters, "weights": weights, "vector_units": vector_units()}
        for seed, tokenizer in tokenizers.items():
            weights[seed] = weights_sha256(load_model(spec, tokenizer, int(seed)))


if __name__ == "__main__":
    main()
