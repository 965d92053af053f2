"""Failures of training and of the vLLM process."""

import json
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec

import psutil

from torture.runs import Bench, Lost, Place, Skipped, Started, check_whole, one_sentence

# One layer with heads of 32: vLLM's attention on a CPU has none smaller.
SHAPE = {
    "model_type": "gpt_neox", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 256, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
# Bytes that a worker may take beyond what it has once its libraries are there, of which LARGE datapoints need more;
# tried in turn until it is torch's allocator that fails first, and not a library that says nothing of memory.
MARGINS, LARGE = tuple(mib * 2**20 for mib in (320, 256, 400, 200, 512, 160)), 8192
LARGE_BATCH = (
    "--set", f"recipe.effective_batch_size={LARGE}", "--set", "source_args.num_entities=4000",
    "--set", "recipe.epochs=[1,1]", "--batch_size", str(LARGE), "--no_curves",
)  # fmt: skip


def diverging(bench: Bench) -> Lost:
    """A learning rate at which the loss is soon no number, in a folder with a finished run."""
    place = bench.copy_of_reference()
    said = one_sentence(place.run("--set", "recipe.learning_rate=1e30"))
    assert "step" in said and "learning rate" in said, said
    trained_before = sum(place.epochs().values())
    assert place.run().code == 0
    assert sum(place.epochs().values()) == trained_before, "finished stages were trained again"
    (whole,) = [folder for folder in place.run_folders() if bench.holds_all(folder)]
    assert whole.is_dir()
    return Lost(1, 2, 0)


def out_of_memory(bench: Bench) -> Lost:
    """The allocator of a worker fails at a large micro-batch, and does not at a smaller one."""
    said = []
    for margin in MARGINS:
        place = bench.place()
        environment = {"TORTURE_MEMORY": str(margin), "MALLOC_ARENA_MAX": "1"}
        ended = place.run(*LARGE_BATCH, seeds=("--seeds", "1", "--stage2_seeds", "1"), environment=environment)
        if ended.code:
            said.append(ended.stderr)
            continue
        (folder,) = place.run_folders()
        stages = json.loads((folder / "manifest.json").read_text())["stages"]["seed-0"].values()
        if halved := sum(stage["out_of_memory"] for stage in stages):
            check_whole(place)
            smallest = min(stage["micro_batch_size"] for stage in stages)
            return Lost(halved, 1, place.epochs_again(), {f"datapoints in a micro-batch, of {LARGE}": smallest})
        said.append(f"memory did not run out at {margin} bytes")
    raise AssertionError(f"no limit made the allocator fail: {said}")


def vllm_lost(times: int) -> Callable[[Bench], Lost]:
    """SIGKILL of the vLLM process, so often, each time as soon as it is up."""

    def case(bench: Bench) -> Lost:
        place, options = _vllm_place(bench)
        run = place.start(*options)
        killed: set[int] = set()
        assert run.until(lambda: "up after" in run.stderr(), "vLLM"), run.stderr()
        while len(killed) < times and run.process.poll() is None:
            for process in _servers(run):
                if process.pid not in killed and len(killed) < times:
                    process.send_signal(signal.SIGKILL)
                    killed.add(process.pid)
            time.sleep(0.01)
        ended = run.wait()
        starts = 1
        if times > 1:
            one_sentence(ended)
            again = place.run(*options)
            assert again.code == 0, again.stderr
            starts += 1
        else:
            assert ended.code == 0, ended.stderr
            (folder,) = place.run_folders()
            assert json.loads((folder / "manifest.json").read_text())["engine_crashes"] == 1
        check_whole(place)
        return Lost(len(killed), starts, place.epochs_again())

    return case


def wrong_engine_args(bench: Bench) -> Lost:
    """An argument that vLLM does not take."""
    place, options = _vllm_place(bench)
    one_sentence(place.run(*options, "--engine_args", "max_model_len=1"), code=2)
    return Lost(1, 1, 0)


def _vllm_place(bench: Bench) -> tuple[Place, tuple[str, ...]]:
    if find_spec("vllm") is None:
        raise Skipped("vLLM is not installed")
    place = bench.place()
    shape = place.folder / "shape"
    shape.mkdir()
    (shape / "config.json").write_text(json.dumps(SHAPE))
    return place, ("--model", f"scratch:{shape}", "--engine", "vllm")


def _servers(run: Started) -> list[psutil.Process]:
    """The vLLM processes of a run."""
    return [process for process in run.processes() if "ocl_bench.evaluate.vllm_server" in process.cmdline()]
