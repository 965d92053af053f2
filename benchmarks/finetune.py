"""Training speed: the peer's recipe and ours, same model, same records, alternating in one run.

The peer's recipe is that of the paper's published code: the stock Trainer, every sequence padded to 48 tokens, loss on
all of them. Ours is `train_stage` with the recipe `paper`. Speed is counted in tokens of real text. Beside each figure
stands what the machine could do (see roofline.py).

    python benchmarks/finetune.py [--only "6 × 512 bf16"]

JSON under results/, a file for each processor and precision; prints what `python benchmarks/tables.py` puts into
docs/performance.md.
"""

import copy
import gc
import tempfile
import time
from dataclasses import asdict
from statistics import median
from typing import Any

import click
from common import VOCABULARY, finetune, model, records, save, tokenizer
from machine import cache_bytes, machine, slug
from roofline import count, row, split
from tables import TRAINED, kept, training
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from ocl_bench.finetune.recipe import Recipe, load_recipe
from ocl_bench.models.batches import Datapoint, datapoint
from ocl_bench.models.encoding import Encoder

SHAPES = {"6 × 128": (6, 128), "6 × 512": (6, 512)}
BLOCK_SIZE = 48


def peer(network: Any, points: list[Datapoint], recipe: Recipe, pad_id: int) -> float:
    """Seconds of one epoch with the stock Trainer on sequences padded to BLOCK_SIZE, loss on every position."""
    dataset = []
    for point in points:
        padding = BLOCK_SIZE - len(point.source)
        row = [*point.source, *[pad_id] * padding]
        dataset.append({"input_ids": row, "labels": row, "attention_mask": [1] * len(point.source) + [0] * padding})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=recipe.effective_batch_size,
            num_train_epochs=1,
            learning_rate=recipe.learning_rate,
            optim=recipe.optim,
            bf16=recipe.precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model=network, args=arguments, train_dataset=dataset)
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def ours(network: Any, points: list[Datapoint], recipe: Recipe, pad_id: int) -> float:
    """Seconds of one epoch with the suite's stage (its set-up included)."""
    start = time.perf_counter()
    finetune(network, points, recipe, pad_id)
    return time.perf_counter() - start


WAYS = {"peer": peer, "ours": ours}


def measure(
    shape: str, precision: str, points: list[Datapoint], recipe: Recipe, pad_id: int, rounds: int
) -> dict[str, Any]:
    """A row: both ways' rates, and what stands beside them."""
    network = model(*SHAPES[shape])
    embedding = network.get_input_embeddings().weight.numel()
    weights = sum(parameter.numel() for parameter in network.parameters()) - embedding
    tokens = sum(len(one.source) for one in points)
    step = points[: recipe.effective_batch_size]  # counted and split is one step
    # Counting is also what warms up.
    work = {
        way: count(lambda train=train: train(copy.deepcopy(network), step, recipe, pad_id), cache_bytes())
        for way, train in WAYS.items()
    }
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, train in WAYS.items():
            times[way].append(train(copy.deepcopy(network), points, recipe, pad_id))
    found: dict[str, Any] = {
        "precision": precision,
        "shape": shape,
        "ratio": median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)),
        "seconds": times,
    }
    for way, train in WAYS.items():
        rate, copied = tokens / median(times[way]), copy.deepcopy(network)
        where = split(lambda train=train, copied=copied: train(copied, step, recipe, pad_id), VOCABULARY)
        found[way] = {
            "tokens_per_second": rate,
            # Of tokens of real text: 6 FLOP a weight, forward, and backward to inputs and weights.
            "useful_flops": 6 * weights,
            **row(work[way].of(sum(len(one.source) for one in step)), where, precision),
        }
    return found


@click.command()
@click.option("--steps", default=2, show_default=True, help="Optimizer steps of each measurement.")
@click.option("--batch", default=256, show_default=True, help="Datapoints per optimizer step.")
@click.option("--rounds", default=3, show_default=True, help="Measurements of each recipe, alternating.")
@click.option("--only", type=click.Choice([*TRAINED]), help="Model and precision; the others' rows are kept.")
def main(steps: int, batch: int, rounds: int, only: str | None) -> None:
    """Print tokens of real text per second, what the machine could do, and where the rest goes."""
    logging.set_verbosity_error()
    click.echo(machine().sentence())
    train = [record for record in records() if record.split == "x1"]
    encoder = Encoder(tokenizer([record.prompt + record.completion for record in train]), seq2seq=False)
    picked = train[:: len(train) // (steps * batch)][: steps * batch]
    encoded = encoder([(record.prompt, record.completion) for record in picked])
    points = [datapoint(one, False, "all") for one in encoded]
    lengths = sorted(len(one.source) for one in points)
    click.echo(f"{len(points)} sequences of {lengths[0]}–{lengths[-1]} tokens, mean {sum(lengths) / len(points):.1f}")
    gc.collect()
    gc.freeze()  # for both, as in the suite's own processes: no search for cycles goes through what is imported
    for shape, precision in [TRAINED[only]] if only else TRAINED.values():
        recipe = load_recipe("paper", [f"precision={precision}", "epochs=[1]", f"effective_batch_size={batch}"])
        found = measure(shape, precision, points, recipe, encoder.pad_id, rounds)
        found["command"] = f"python benchmarks/finetune.py --steps {steps} --batch {batch} --rounds {rounds}"
        others = [one for one in kept("finetune", slug(), [precision]) if one["shape"] != shape]
        path = save(f"finetune-{slug()}-{precision}", [*others, found], machine=asdict(machine()))
        click.echo(f"{precision} {shape}: {found['ratio']:.2f}×; saved {path}")
    click.echo(training(slug()))


if __name__ == "__main__":
    main()
