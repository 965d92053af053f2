"""What `ocl-bench plan` says of memory and time beforehand, against runs of GPT-NeoX shapes from a folder, on this CPU.

Each shape goes through X1 of a small part of `cvdb_sample`, in one forward pass a step and in several. The peak is that
of the process that trains, its time that of the training alone. JSON under results/plan.json.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
from common import VOCABULARY, save, tokenizer
from tabulate import tabulate
from transformers import AutoModelForCausalLM, GPTNeoXConfig, set_seed
from transformers.utils import logging

import ocl_bench
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import texts

# Layers, width and heads of Pythia's models.
SHAPES = {"14m": (6, 128, 4), "70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16)}
SMALL = (
    "source_args.num_entities=40", "recipe.epochs=[1,1]", "recipe.precision=fp32", "recipe.effective_batch_size=64",
)  # fmt: skip


def save_model(folder: Path, layers: int, width: int, heads: int) -> None:
    """A model of this shape with random weights and Pythia's vocabulary, as `save_pretrained` leaves it."""
    set_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=128,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(texts(build(load_task("cvdb_sample"), 0))).save_pretrained(folder)


def compare(name: str, optim: str, batch_size: int | None) -> dict[str, Any]:
    """A row: estimated and measured peak and time of X1."""
    with tempfile.TemporaryDirectory() as place:
        folder, runs = Path(place, name), Path(place, "runs")
        save_model(folder, *SHAPES[name])
        options: dict[str, Any] = {
            "model": str(folder), "task": "cvdb_sample", "seeds": 1, "device": "cpu", "engine": "torch", "limit": 4,
            "curves": False, "batch_size": batch_size, "overrides": (*SMALL, f"recipe.optim={optim}"),
            "output_path": runs, "keep": "none",
        }  # fmt: skip
        told = ocl_bench.plan(**options)
        made = read_manifest(ocl_bench.run(**options).folder).stages["seed-0"]["x1"]
        shutil.rmtree(runs)
    row = {
        "name": name, "optim": optim, "parameters": told.plan.parameters, "micro_batch": made.micro_batch_size,
        "estimated_gib": told.stages[0].memory / 2**30, "measured_gib": (made.peak_memory_bytes or 0) / 2**30,
        "estimated_seconds": told.stages[0].seconds, "measured_seconds": made.seconds,
    }  # fmt: skip
    row["ratio"] = row["estimated_gib"] / row["measured_gib"]
    click.echo(f"{name} {optim}: {row['estimated_gib']:.2f} GiB told, {row['measured_gib']:.2f} measured")
    return row


@click.command()
@click.option("--only", default=",".join(SHAPES), show_default=True, help="Shapes, by comma.")
def main(only: str) -> None:
    """Print memory and time, told and measured."""
    logging.set_verbosity_error()
    rows = [
        compare(name, optim, batch_size)
        for name in only.split(",")
        for optim, batch_size in (("adafactor", None), ("adamw_torch_fused", None), ("adamw_torch_fused", 16))
    ]
    table = [
        [row["name"], row["optim"], row["micro_batch"], f"{row['estimated_gib']:.2f}", f"{row['measured_gib']:.2f}",
         f"{row['ratio'] - 1:+.0%}", f"{row['estimated_seconds']:.0f}", f"{row['measured_seconds']:.0f}"]
        for row in rows
    ]  # fmt: skip
    headers = ["model", "optimizer", "batch", "GiB told", "measured", "off by", "s told", "measured"]
    click.echo(tabulate(table, headers=headers, tablefmt="github"))
    click.echo(f"saved {save('plan', rows)}")


if __name__ == "__main__":
    main()
