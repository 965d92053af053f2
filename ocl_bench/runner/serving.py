"""A run's vLLM engine: started beside the first stage's training, and asked by the processes that train."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.vllm_engine import EngineUnsupported, VllmEngine
from ocl_bench.processes import Child, Events, Failed
from ocl_bench.runner.compute import TRAINING_BYTES_PER_PARAMETER, device_environment
from ocl_bench.runner.messages import Answered, EngineChosen, Generate, Tokens
from ocl_bench.runner.plan import Plan

# Memory of a vLLM process on a CPU: libraries and the key-value cache, besides twice the weights.
PROCESS_BYTES = 3 * 2**30


class Serving:
    """Keeps one vLLM process for a run, in a thread, and ends it with the block.

    If vLLM cannot serve the model, workers are told to generate by themselves.

    Args:
        plan: the run.
        folder: its run folder.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.log = plan, folder / "vllm.log"
        compute = plan.config.compute
        several = int(compute.engine_args.get("tensor_parallel_size", 1)) > 1
        self.engine = VllmEngine(
            plan.parameters,
            compute.engine_args,
            self.log,
            defaults=plan.engine_defaults,
            environment=device_environment(compute.device, several=several),
        )
        self.fallback: str | None = None
        self._requests: Queue[tuple[Child, Generate] | None] = Queue()
        self._up = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *error: Any) -> None:
        self._requests.put(None)
        self.engine.close()
        if self._thread is not None:
            self._thread.join()

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of the engine; nothing if vLLM has generated no answers."""
        served = self.engine.served
        if served is None:
            return {}
        return {
            "engine_seconds": served.seconds,
            "engine_load_seconds": tuple(self.engine.load_seconds),
            "engine_crashes": self.engine.crashes,
        }

    def start(self, events: Events) -> None:
        """Start the thread, which tells of itself and its failure in `events`.

        On a GPU this returns when the engine is up and asleep, because it measures the memory that is free.
        """
        self._thread = threading.Thread(target=self._run, args=(events,), daemon=True)
        self._thread.start()
        if self.plan.config.compute.device != "cpu":
            self._up.wait()

    def ask(self, worker: Child, request: Generate) -> None:
        """Have a worker's request answered: it is sent the tokens, or None if it has to generate by itself."""
        self._requests.put((worker, request))

    def _run(self, events: Events) -> None:
        begun = False
        try:
            if self._fits_beside_training():
                with self._first_checkpoint() as model:
                    self._begin(model, events)
                begun = True
            while (asked := self._requests.get()) is not None:
                worker, request = asked
                if not begun:
                    self._begin(request.checkpoint, events)
                    begun = True
                worker.send(Tokens(None) if self.fallback else self._answer(request, events))
        except OclBenchError as error:
            events.put((None, Failed(str(error), error.exit_code)))
        except Exception as error:  # whatever happens in a thread has to be seen
            events.put((None, Failed(str(error) or type(error).__name__, None)))
        finally:
            self._up.set()

    def _begin(self, model: str, events: Events) -> None:
        try:
            served = self.engine.start(model)
        except EngineUnsupported as error:
            self.fallback = str(error)
            events.put((None, EngineChosen("torch", self.fallback)))
        else:
            sleeps = ", asleep while training runs" if served.sleeps else ""
            reason = f"{served.version}, {served.dtype}, up after {served.seconds:.0f} s{sleeps}"
            events.put((None, EngineChosen("vllm", reason)))
        self._up.set()

    def _answer(self, request: Generate, events: Events) -> Tokens:
        def answered(count: int) -> None:
            events.put((None, Answered(request.where, count, len(request.prompts))))

        tokens = self.engine.generate(
            Path(request.checkpoint), request.prompts, request.max_new_tokens, request.stop_ids, answered
        )
        served = self.engine.served
        assert served is not None, "an engine that has answered was started"
        return Tokens(tokens, served.version, served.dtype)

    def _fits_beside_training(self) -> bool:
        """On a CPU, whether memory allows to start while the first stage trains; a GPU is free only before it."""
        import psutil

        compute, parameters = self.plan.config.compute, self.plan.parameters
        needed = PROCESS_BYTES + parameters * (8 + len(compute.slots) * TRAINING_BYTES_PER_PARAMETER)
        return compute.device != "cpu" or psutil.virtual_memory().available > needed

    @contextmanager
    def _first_checkpoint(self) -> Iterator[str]:
        """What vLLM starts with, which decides its shape: the pretrained model, or random weights of a scratch one."""
        from ocl_bench.models.load import load_model, load_tokenizer
        from ocl_bench.tasks.records import texts

        spec = self.plan.config.model
        if spec.source != "scratch":
            yield spec.location
            return
        records = next(iter(self.plan.records.values()))
        tokenizer = load_tokenizer(spec, texts(records))
        with tempfile.TemporaryDirectory() as folder:
            load_model(spec, tokenizer, seed=0).save_pretrained(folder)
            yield folder
