"""The process that vLLM lives in: `python -m ocl_bench.evaluate.vllm_server`.

vLLM changes transformers' model classes in the process that imports it, so it never shares one with training. The first
message says what to start with, each further one names a checkpoint and asks prompts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from io import StringIO
from pathlib import Path
from queue import Queue
from typing import Any

from pydantic import ValidationError

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.evaluate.vllm_messages import Ask, Generated, Progressed, Start, Started, ToServer
from ocl_bench.processes import Emit, serve

# Memory that vLLM may take of a card besides two copies of the weights: activations and the key-value cache.
WORKING_BYTES = 6 * 2**30


def main() -> None:
    """Entry point."""
    serve(_serve, ToServer)


def _serve(messages: "Queue[Any]", emit: Emit) -> None:
    begin = time.perf_counter()
    start: Start = messages.get()
    server = Server(emit, start)
    emit(Started(*server.identity(), seconds=time.perf_counter() - begin, sleeps=server.sleeps))
    while True:
        ask: Ask = messages.get()
        begin = time.perf_counter()
        server.load(ask.checkpoint)
        seconds = time.perf_counter() - begin
        tokens = server.generate(ask.prompts, ask.max_new_tokens, ask.stop_ids)
        server.sleep()
        emit(Generated(tokens, seconds))


class Server:
    """vLLM with one model's shape in it.

    Args:
        emit: told how many prompts are answered.
        start: what to start with.

    Raises:
        OclBenchError: if vLLM rejects what the user passed, and would not without it.
    """

    def __init__(self, emit: Emit, start: Start) -> None:
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

        known = {field.name for field in fields(EngineArgs)}
        for name in start.args:
            if name not in known:
                raise OclBenchError(f"--engine_args: vLLM knows no '{name}'; {did_you_mean(name, known)}")
        self.emit: Emit | None = None  # nobody waits for answers yet
        self.progress_seconds = start.progress_seconds
        self.sleeps = bool(current_platform.is_sleep_mode_available())

        def resolved(args: Mapping[str, Any]) -> dict[str, Any]:
            return _resolved(start.model, start.parameters, {"enable_sleep_mode": self.sleeps, **args})

        try:
            self.engine = LLM(**resolved(start.args))
        except Exception as error:
            refused = _refused(start, resolved)
            if refused is not None:
                raise OclBenchError(refused) from error
            raise RuntimeError(reason(error)) from error
        # Whatever the platform cannot do with this model shows now, while another engine can still be taken.
        if Path(start.model).is_dir():
            self.load(start.model)
        self.generate([[0, 0]], [2], [])
        self.sleep()
        self.emit = emit

    def identity(self) -> tuple[str, str]:
        """vLLM's version, and the dtype it computes in."""
        import vllm

        return str(vllm.__version__), str(self.engine.llm_engine.model_config.dtype).removeprefix("torch.")

    def load(self, checkpoint: str) -> None:
        """Put the weights of a checkpoint in place of the present ones, and forget what was computed with those."""
        if self.sleeps:
            self.engine.wake_up(tags=["weights"])
        self.engine.collective_rpc("reload_weights", kwargs={"weights_path": checkpoint})
        if self.sleeps:
            self.engine.wake_up(tags=["kv_cache"])
        self.engine.reset_prefix_cache()

    def generate(self, prompts: list[list[int]], max_new_tokens: list[int], stop_ids: list[int]) -> list[list[int]]:
        """Greedy token ids for prompts of token ids, up to and with the first stop id, at most so many each."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                temperature=0.0, max_tokens=limit, stop_token_ids=stop_ids, ignore_eos=True, detokenize=False
            )
            for limit in max_new_tokens
        ]
        outputs = self.engine.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=self._progress
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    def sleep(self) -> None:
        """Leave the card to training, where vLLM can."""
        if self.sleeps:
            self.engine.sleep(level=2)

    def _progress(self, iterable: Any = None, **options: Any) -> Any:
        """What vLLM takes for a progress bar: shows answered prompts as events."""
        from tqdm import tqdm

        emit, seconds = self.emit, self.progress_seconds

        class Bar(tqdm):  # type: ignore[misc]
            shown, last = 0, time.monotonic()

            def update(self, n: int = 1) -> None:
                super().update(n)
                if emit is not None and time.monotonic() - self.last > seconds:
                    emit(Progressed(int(self.n) - self.shown))
                    self.shown, self.last = int(self.n), time.monotonic()

        # With something to go through, it is the bar of prompts taken in, which is none of ours.
        return iterable if iterable is not None else Bar(**options, file=StringIO())


def _resolved(model: str, parameters: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """All that `vllm.LLM` is given."""
    from vllm.platforms import current_platform

    share = {}
    if not current_platform.is_cpu() and "gpu_memory_utilization" not in args:
        total = current_platform.get_device_total_memory()
        # The card is shared with training: take what this model needs, not nine tenths.
        weights = parameters * (4 if args.get("dtype") == "float32" else 2)
        share = {"gpu_memory_utilization": min(0.9, (2 * weights + WORKING_BYTES) / total)}
    return {
        "model": model,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # none of the model's own: a repetition penalty is not greedy
        "disable_log_stats": True,
        "seed": 0,
        **share,
        **args,
    }


def _refused(start: Start, resolved: Callable[[Mapping[str, Any]], dict[str, Any]]) -> str | None:
    """A sentence, if vLLM makes no configuration of what the user passed, and makes one without it."""

    def problem(args: Mapping[str, Any]) -> str | None:
        from vllm.engine.arg_utils import EngineArgs

        try:
            EngineArgs(**resolved(args)).create_engine_config()
        except Exception as error:
            return reason(error)
        return None

    together = problem(start.args)
    if together is None or problem(start.defaults) is not None:
        return None
    passed = {name: value for name, value in start.args.items() if start.defaults.get(name) != value}
    alone = {name: problem({**start.defaults, name: value}) for name, value in passed.items()}
    guilty = [name for name in passed if alone[name] is not None] or list(passed)
    given = ",".join(f"{name}={passed[name]}" for name in guilty)
    return f"--engine_args {given}: vLLM refuses that ({alone[guilty[0]] or together})."


def reason(error: Exception) -> str:
    """An exception's first sentence; of many that a validation has found, the first one's."""
    text = str(error)
    if isinstance(error, ValidationError):
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
    return (text.strip().splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(" .")


if __name__ == "__main__":
    main()
