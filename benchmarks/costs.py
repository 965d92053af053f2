"""What a run of `cvdb` costs with models of Pythia's shapes: told by `ocl-bench plan`, beside what was measured.

The models are folders with a config.json, a tokenizer and an empty file of weights; the people are made up, in CVDB's
format, so that nothing is fetched. Tokens are those of a byte-level tokenizer that cuts variables as Pythia's does.
Measured are steps and questions in results/gpu-*.json, times how many a seed has. Prints the table of docs/running.md,
and the command of each row; JSON under results/costs.json.

    python benchmarks/costs.py
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from build_data import write_cvdb
from common import RESULTS, VOCABULARY, save, tokenizer
from safetensors.numpy import save_file
from transformers import GPTNeoXConfig
from transformers.utils import logging

import ocl_bench
from ocl_bench.report.estimates import duration, gib
from ocl_bench.runner.estimate import USABLE
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import texts
from ocl_bench.tasks.sources import published_data

# Layers, width and heads of Pythia's models.
SHAPES = {
    "70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16), "1b": (16, 2048, 8), "2.8b": (32, 2560, 32),
    "6.9b": (32, 4096, 32),
}  # fmt: skip
# Shape, device, and options of `plan`.
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((shape, "H100", {}) for shape in SHAPES),
    ("6.9b", "H100", {"recipe": "lora"}),
    ("6.9b", "H100", {"shard": 4}),
    *((shape, "RTX 4090", {}) for shape in ("70m", "160m", "410m", "1b")),
    ("2.8b", "RTX 4090", {"recipe": "lora", "batch_size": 32}),
)


def save_shape(folder: Path, layers: int, width: int, heads: int, tokens: Any) -> None:
    """Configuration and tokenizer of a model of this shape, and a file of weights with none in it."""
    GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=2048, rotary_pct=0.25,
    ).save_pretrained(folder)  # fmt: skip
    tokens.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")


def measured(shape: str, device: str, kind: str) -> dict[str, Any]:
    """What the GPU benchmark measured of this shape by the paper's recipe; empty if it did not."""
    path = RESULTS / f"gpu-{device.lower()}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    found = (row for row in rows if (row["kind"], row.get("name")) == (kind, shape))
    return next((row for row in found if row.get("optim", "adafactor") == "adafactor"), {})


def row_of(folder: Path, shape: str, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `plan` tells of one seed, and what was measured of such steps and questions."""
    told = ocl_bench.plan(str(folder / shape), "cvdb", on=device, seeds=1, output_path=folder / "runs", **options)
    steps = sum(one.steps for one in told.stages)
    questions = sum(one.questions + one.curve_questions for one in told.stages)
    trained, asked = ({} if options else measured(shape, device, kind) for kind in ("training", "evaluation"))
    click.echo(f"{shape} on {device}", err=True)
    return {
        "name": shape, "device": device, "options": options, "parameters": told.plan.parameters, "steps": steps,
        "tokens": sum(one.tokens for one in told.stages), "questions": questions, "room_bytes": told.device.memory,
        "memory_bytes": told.memory, "disk_bytes": told.plan.disk, "seconds": told.seconds,
        "measured_bytes": trained["memory_gib"] * 2**30 if trained else None,
        "measured_seconds": trained["seconds_per_step"] * steps if trained else None,
        "measured_seconds_of_questions": questions / asked["questions_per_second"] if asked else None,
    }  # fmt: skip


def command(row: dict[str, Any]) -> str:
    """What to type for the told part of a row."""
    options = "".join(f" --{name} {value}" for name, value in row["options"].items())
    device = f"'{row['device']}'" if " " in row["device"] else row["device"]
    return f"ocl-bench plan --model ./{row['name']} --task cvdb --seeds 1{options} --on {device}"


def line(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    options = " ".join(f"`--{name} {value}`" for name, value in row["options"].items())
    told = gib(row["memory_bytes"]) + ("" if row["memory_bytes"] <= USABLE * row["room_bytes"] else " (too much)")
    return [
        row["name"], row["device"], options, told, _if_any(gib, row["measured_bytes"]), duration(row["seconds"]),
        _if_any(duration, row["measured_seconds"]), _if_any(duration, row["measured_seconds_of_questions"]),
        f"{row['disk_bytes'] / 1e9:.0f} GB",
    ]  # fmt: skip


def _if_any(show: Callable[[float], str], value: float | None) -> str:
    return show(value) if value else ""


HEADERS = (
    "shape", "on", "with", "memory told", "measured", "training told", "measured", "questions measured", "disk told",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [HEADERS, ["---"] * len(HEADERS), *map(line, rows)]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in one) + "|" for one in lines)


def kept() -> list[dict[str, Any]]:
    """The rows of the last run."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / "costs.json").read_text())["rows"]
    return rows


@click.command()
def main() -> None:
    """Print what one seed of `cvdb` takes."""
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["OCL_BENCH_CACHE"] = str(folder / "cache")
        write_cvdb(folder / "cvdb.csv", 60_000)
        source = published_data(load_task("cvdb"))
        assert source is not None
        source.fetch(str(folder / "cvdb.csv"), lambda done, total: None)
        tokens = tokenizer(texts(build(load_task("cvdb"), 0)))
        for shape, sizes in SHAPES.items():
            save_shape(folder / shape, *sizes, tokens)
        rows = [row_of(folder, *row) for row in ROWS]
    click.echo(table(rows))
    click.echo("\n".join(map(command, rows)))
    click.echo(f"saved {save('costs', rows)}")


if __name__ == "__main__":
    main()
