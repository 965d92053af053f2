"""Training speed: the peer's recipe and ours, same model, same records, alternating in one run.

The peer's recipe is that of the paper's published code: the stock Trainer, every sequence padded to 48 tokens, loss on
all of them. Ours is `train_stage` with the recipe `paper`. Speed is counted in tokens of real text.
"""

import copy
import tempfile
import time
from statistics import median
from typing import Any

import click
from common import finetune, matmul_peak, model, records, save, tokenizer
from tabulate import tabulate
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from ocl_bench.finetune.recipe import Recipe, load_recipe
from ocl_bench.models.batches import Datapoint, datapoint
from ocl_bench.models.encoding import Encoder

SHAPES = ((6, 128), (6, 512))
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


@click.command()
@click.option("--steps", default=1, show_default=True, help="Optimizer steps of each measurement.")
@click.option("--batch", default=256, show_default=True, help="Datapoints per optimizer step.")
@click.option("--rounds", default=3, show_default=True, help="Measurements of each recipe, alternating.")
@click.option("--name", default="finetune-cpu", show_default=True, help="Name of the JSON file.")
def main(steps: int, batch: int, rounds: int, name: str) -> None:
    """Print tokens of real text per second, the ratio, and the share of the machine's matrix-multiply peak."""
    logging.set_verbosity_error()
    train = [record for record in records() if record.split == "x1"]
    encoder = Encoder(tokenizer([record.prompt + record.completion for record in train]), seq2seq=False)
    picked = train[:: len(train) // (steps * batch)][: steps * batch]
    encoded = encoder([(record.prompt, record.completion) for record in picked])
    points = [datapoint(one, False, "all") for one in encoded]
    tokens = sum(len(one.source) for one in points)
    lengths = sorted(len(one.source) for one in points)
    click.echo(f"{len(points)} sequences of {lengths[0]}–{lengths[-1]} tokens, mean {tokens / len(points):.1f}")
    rows = []
    for precision in ("fp32", "bf16"):
        peak = matmul_peak(precision)
        recipe = load_recipe("paper", [f"precision={precision}", "epochs=[1]", f"effective_batch_size={batch}"])
        for layers, width in SHAPES:
            network = model(layers, width)
            embedding = network.get_input_embeddings().weight.numel()
            weights = sum(parameter.numel() for parameter in network.parameters()) - embedding
            times: dict[str, list[float]] = {"peer": [], "ours": []}
            for _ in range(rounds):
                for label, train_one in (("peer", peer), ("ours", ours)):
                    times[label].append(train_one(copy.deepcopy(network), points, recipe, encoder.pad_id))
            rate = {label: tokens / median(seconds) for label, seconds in times.items()}
            rows.append(
                {
                    "precision": precision,
                    "shape": f"{layers} × {width}",
                    "peer_tokens_per_second": rate["peer"],
                    "ours_tokens_per_second": rate["ours"],
                    "ratio": median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)),
                    "matmul_peak_flops": peak,
                    # 6 FLOP per weight and token: forward, and backward to inputs and weights.
                    "peer_share_of_peak": 6 * weights * rate["peer"] / peak,
                    "ours_share_of_peak": 6 * weights * rate["ours"] / peak,
                    "seconds": times,
                }
            )
            click.echo(f"{precision} {layers} × {width}: {rows[-1]['ratio']:.2f}×", err=True)
    headers = [
        "precision",
        "shape",
        "peer tok/s",
        "ours tok/s",
        "ratio",
        "peer share of peak",
        "ours share of peak",
    ]
    table = [
        [row["precision"], row["shape"], f"{row['peer_tokens_per_second']:.0f}", f"{row['ours_tokens_per_second']:.0f}",
         f"{row['ratio']:.2f}", f"{row['peer_share_of_peak']:.0%}", f"{row['ours_share_of_peak']:.0%}"]
        for row in rows
    ]  # fmt: skip
    click.echo(tabulate(table, headers=headers, tablefmt="github"))
    click.echo(f"saved {save(name, rows)}")


if __name__ == "__main__":
    main()
