"""Evaluation speed: one forced pass, our greedy generation and transformers' text-generation pipeline, same prompts.

The three are measured alternating in one run, on a model that was finetuned briefly so that its answers are answers.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from common import DTYPES, model, records, save, tokenizer
from tabulate import tabulate
from transformers import pipeline
from transformers.utils import logging

from ocl_bench.evaluate.metrics import exact_match
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.finetune.batches import datapoint
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import train_stage
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.tasks.records import Record

SHAPES = ((2, 64), (6, 128), (6, 512))
PIPELINE_BATCH = 128
NEW_TOKENS = 8


def finetuned(layers: int, width: int, encoder: Encoder, train: list[Record]) -> Any:
    """A model that has seen the questions for a few steps: it knows the form of an answer, and some answers."""
    network = model(layers, width)
    encoded = encoder([(record.prompt, record.completion) for record in train])
    train_stage(
        network,
        [datapoint(one, False, "completion") for one in encoded],
        [False] * len(train),
        recipe=load_recipe("tiny", ["epochs=[4]", "learning_rate=1e-3", "warmup_steps=5"]),
        stage=0,
        seed=0,
        pad_id=encoder.pad_id,
        device="cpu",
        batch_size=None,
        report_to=(),
        run_name="benchmark",
        log_folder=Path("benchmark-logs"),
        on_epoch=lambda epoch, loss: None,
    )
    return network.eval()


@click.command()
@click.option("--prompts", default=1000, show_default=True, help="Questions to answer.")
@click.option("--rounds", default=3, show_default=True, help="Measurements of each way, alternating.")
@click.option("--name", default="evaluate-cpu", show_default=True, help="Name of the JSON file.")
def main(prompts: int, rounds: int, name: str) -> None:
    """Print prompts per second, ratios to the pipeline, and how often the ways agree."""
    logging.set_verbosity_error()
    all_records = records()
    tests = [record for record in all_records if record.split == "test"][:prompts]
    words = tokenizer([record.prompt + record.completion for record in all_records])
    encoder = Encoder(words, seq2seq=False)
    encoded = encoder([(record.prompt, record.completion) for record in tests])
    train = [record for record in all_records if record.kind == "qa"][:600]
    rows = []
    for layers, width in SHAPES:
        network = finetuned(layers, width, encoder, train)
        for precision in DTYPES:
            rows.append(
                measure(network, encoder, words, tests, encoded, precision, rounds) | {"shape": f"{layers} × {width}"}
            )
            click.echo(f"{layers} × {width} {precision} {rows[-1]['forced_ratio']:.2f}×", err=True)
    speeds = ["pipeline /s", "generate /s", "forced /s", "forced / pipeline"]
    headers = ["shape", "precision", *speeds, "forced ≠ pipeline", "of them other spelling"]
    table = [
        [row["shape"], row["precision"], f"{row['pipeline']:.0f}", f"{row['generate']:.0f}", f"{row['forced']:.0f}",
         f"{row['forced_ratio']:.2f}", f"{row['differing']} of {row['prompts']}", row["other_spelling"]]
        for row in rows
    ]  # fmt: skip
    click.echo(tabulate(table, headers=headers, tablefmt="github"))
    click.echo(f"saved {save(name, rows)}")


def measure(
    network: Any,
    encoder: Encoder,
    words: Any,
    tests: list[Record],
    encoded: list[Encoded],
    precision: str,
    rounds: int,
) -> dict[str, Any]:
    """Prompts per second of each way, and where forced scoring and the pipeline's answers disagree."""
    engine = TorchEngine(network, encoder, bf16=precision == "bf16")
    generator = pipeline("text-generation", model=network, tokenizer=words, device="cpu")
    texts = [record.prompt for record in tests]

    def by_pipeline() -> list[str]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = generator(
                texts,
                batch_size=PIPELINE_BATCH,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_full_text=False,
            )
        return [output[0]["generated_text"].partition("\n")[0].strip() for output in outputs]

    ways = {
        "pipeline": by_pipeline,
        "generate": lambda: engine.generate(encoded, NEW_TOKENS),
        "forced": lambda: engine.forced(encoded),
    }
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    outcome: dict[str, Any] = {}
    for _ in range(rounds):
        for label, way in ways.items():
            start = time.perf_counter()
            outcome[label] = way()
            seconds[label].append(time.perf_counter() - start)
    matches = [exact_match(text, record.answers) for text, record in zip(outcome["pipeline"], tests, strict=True)]
    differing = [n for n, forced in enumerate(outcome["forced"]) if float(forced.greedy) != matches[n]]
    # The pipeline's text is right while other tokens than ours spell it: the decoded answer is not unique.
    other = sum(matches[n] > outcome["forced"][n].greedy for n in differing)
    return {
        "precision": precision,
        "prompts": len(tests),
        **{label: len(tests) / median(times) for label, times in seconds.items()},
        "forced_ratio": median(p / f for p, f in zip(seconds["pipeline"], seconds["forced"], strict=True)),
        "generate_ratio": median(p / g for p, g in zip(seconds["pipeline"], seconds["generate"], strict=True)),
        "em": sum(matches) / len(tests),
        "differing": len(differing),
        "other_spelling": other,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
