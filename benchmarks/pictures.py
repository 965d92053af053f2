"""What a training step on pictures costs, and how much of it is making them: `python benchmarks/pictures.py`.

On one thread, medians of alternating rounds: making a batch (collation, by indexing), a whole step of `scratch:digits`
in fp32, with channels first, and in bf16; its share of what this machine's convolutions reach at best. Beside it, the
same batch with a Python loop for each picture; and where MNIST was fetched, a batch of its 3 × 3 grids. JSON under
results/, named after the processor.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from common import RESULTS
from machine import slug

from ocl_bench.models.batches import Collator, Datapoint, datapoints
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.pictures import Album, Shown, pixels
from ocl_bench.models.spec import parse_model
from ocl_bench.runner.manifest import hardware, versions
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.pictures import Picture
from ocl_bench.tasks.records import texts

BATCH = 64


def seconds(work: Callable[[], object], times: int) -> float:
    """Of one call, on average."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def convolution_peak() -> float:
    """The most FLOP/s that one thread reaches in a 3 × 3 convolution of 64 channels, fp32."""
    layer, images = torch.nn.Conv2d(64, 64, 3, padding=1), torch.rand(64, 64, 16, 16)
    with torch.no_grad():
        layer(images)
        return 2 * 64 * 16 * 16 * 64 * 64 * 9 / min(seconds(lambda: layer(images), 3) for _ in range(5))


def flops(model: Any, inputs: torch.Tensor) -> int:
    """Of a forward pass, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=inputs)
    return int(counter.get_total_flops())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    records = [one for one in build(load_task("digit_grid"), 0) if one.split != "test"]
    spec = parse_model("scratch:digits")
    tokenizer = load_tokenizer(spec, texts(records))
    encoder = Encoder(tokenizer, False)
    points = datapoints(encoder([(one.given, one.completion) for one in records]), False, "completion")
    collate = Collator(encoder.pad_id, None)
    model = load_model(spec, tokenizer, 0).train()
    channels_first = load_model(spec, tokenizer, 0).train()
    for parameter in channels_first.parameters():
        parameter.data = parameter.data.to(memory_format=torch.contiguous_format)
    draws = iter(range(10**9))

    def batch() -> list[Datapoint]:
        chosen = [points[(7 * (number := next(draws))) % len(points)] for _ in range(BATCH)]
        return [replace(one, shown=replace(one.shown, draw=number)) for one in chosen if one.shown]

    def one_by_one() -> None:
        torch.cat([pixels([one.shown]) for one in batch() if one.shown])

    def step(own: Any, precision: torch.dtype | None = None) -> None:
        inputs = collate(batch())
        with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
            logits = own(pixel_values=inputs["pixel_values"]).logits.flatten(0, 1)[inputs["positions"]].float()
        torch.nn.functional.cross_entropy(logits, inputs["targets"]).backward()
        own.zero_grad()

    mnist = load_task("mnist").design.picture
    assert mnist is not None
    large = Album([Picture(**dict(mnist), digits="314159265", cell=4, seed=0)]) if _has_mnist() else None
    work: dict[str, Callable[[], object]] = {
        "making a batch": lambda: collate(batch()),
        "making it one by one": one_by_one,
        "step, fp32": lambda: step(model),
        "step, fp32, channels first": lambda: step(channels_first),
        "step, bf16": lambda: step(model, precision=torch.bfloat16),
    }
    if large is not None:
        work["making a batch of mnist"] = lambda: pixels([Shown(large, 0, next(draws))] * BATCH)
    for one in work.values():
        one()
    found = {name: median(seconds(one, 5) for _ in range(rounds)) for name, one in work.items()}
    share = 3 * flops(model, collate(batch())["pixel_values"]) / found["step, fp32"] / convolution_peak()
    making = found["making a batch"] / found["step, fp32"]
    for name, took in found.items():
        print(f"{name:28s} {1000 * took:7.2f} ms")
    print(f"making is {making:.1%} of a step; a step reaches {share:.0%} of this machine's best convolution")
    result = {
        "milliseconds": {name: round(1000 * took, 3) for name, took in found.items()},
        "making_share": round(making, 4),
        "share_of_convolution_peak": round(share, 3),
        "hardware": hardware(),
        "versions": versions(),
    }
    (RESULTS / f"pictures-{slug()}.json").write_text(json.dumps(result, indent=1) + "\n")


def _has_mnist() -> bool:
    from ocl_bench.tasks.sources.mnist import Mnist

    return Mnist().state() == "present"


if __name__ == "__main__":
    main()
