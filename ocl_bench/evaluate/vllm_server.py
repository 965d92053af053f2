"""The process that vLLM lives in: `python -m ocl_bench.evaluate.vllm_server`.

vLLM changes transformers' model classes in the process that imports it, so it never shares one with training. The first
message says what to start with, each further one names a checkpoint and asks prompts.
"""

import time
from collections.abc import Mapping
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.processes import Emit, Messages, serve

PROGRESS_SECONDS = 0.5
# Memory that vLLM may take of a card besides two copies of the weights: activations and the key-value cache.
WORKING_BYTES = 6 * 2**30


def main() -> None:
    """Entry point."""
    serve(_serve)


def _serve(messages: Messages, emit: Emit) -> None:
    start = time.perf_counter()
    server = Server(emit, **messages.get())
    emit({"event": "ready", "seconds": time.perf_counter() - start, **server.identity()})
    while True:
        message = messages.get()
        begin = time.perf_counter()
        server.load(message["checkpoint"])
        seconds = time.perf_counter() - begin
        tokens = server.generate(message["prompts"], message["max_new_tokens"], message["stop_ids"])
        server.sleep()
        emit({"event": "generated", "tokens": tokens, "load_seconds": seconds})


class Server:
    """vLLM with one model's shape in it.

    Args:
        emit: told how many prompts are answered.
        model: hub id or checkpoint folder to start with.
        parameters: how many the model has.
        args: further arguments of `vllm.LLM`.
    """

    def __init__(self, emit: Emit, model: str, parameters: int, args: Mapping[str, Any]) -> None:
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

        known = {field.name for field in fields(EngineArgs)}
        for name in args:
            if name not in known:
                raise OclBenchError(f"--engine_args: vLLM knows no '{name}'; {did_you_mean(name, known)}")
        self.emit = emit
        self.sleeps = bool(current_platform.is_sleep_mode_available())
        resolved = {"enable_sleep_mode": self.sleeps, **args}
        if not current_platform.is_cpu() and "gpu_memory_utilization" not in resolved:
            total = current_platform.get_device_total_memory()
            # The card is shared with training: take what this model needs, not nine tenths.
            weights = parameters * (4 if resolved.get("dtype") == "float32" else 2)
            resolved["gpu_memory_utilization"] = min(0.9, (2 * weights + WORKING_BYTES) / total)
        self.engine = LLM(
            model=model,
            skip_tokenizer_init=True,
            generation_config="vllm",  # none of the model's own: a repetition penalty is not greedy
            disable_log_stats=True,
            seed=0,
            **resolved,
        )
        # Whatever the platform cannot do with this model shows now, while another engine can still be taken.
        if Path(model).is_dir():
            self.load(model)
        self.generate([[0, 0]], [2], [])
        self.sleep()

    def identity(self) -> dict[str, Any]:
        """vLLM's version, the dtype it computes in, and whether it sleeps."""
        import vllm

        dtype = str(self.engine.llm_engine.model_config.dtype).removeprefix("torch.")
        return {"version": str(vllm.__version__), "dtype": dtype, "sleeps": self.sleeps}

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

        emit = self.emit

        class Bar(tqdm):  # type: ignore[misc]
            shown, last = 0, time.monotonic()

            def update(self, n: int = 1) -> None:
                super().update(n)
                if time.monotonic() - self.last > PROGRESS_SECONDS:
                    emit({"event": "answered", "questions": int(self.n) - self.shown})
                    self.shown, self.last = int(self.n), time.monotonic()

        # With something to go through, it is the bar of prompts taken in, which is none of ours.
        return iterable if iterable is not None else Bar(**options, file=StringIO())


if __name__ == "__main__":
    main()
