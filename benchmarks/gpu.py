"""What training and evaluation reach on one GPU, at Pythia's shapes with random weights: `make bench-gpu`.

Each shape is trained by `train_stage` with the paper's recipe on the standard task's records, whose variables a
byte-level tokenizer cuts as Pythia's does, and is then asked a thousand questions. Beside the rates: what share of the
card's measured matrix-multiply rate they are, how much of a step the card is busy, and memory. Then the tasks that
train from random weights at their full size: set inclusion, and grids of 28-pixel digits before a ConvNeXt V2 Tiny
(scikit-learn's scans, enlarged, in place of MNIST's). JSON under results/, named after the card.
"""

import gc
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from common import VOCABULARY, records, save, tokenizer
from machine import matmul_peak
from tabulate import tabulate
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPTNeoXConfig, set_seed
from transformers.utils import logging

from ocl_bench.evaluate.ask import ask, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import StageRecipe, load_recipe
from ocl_bench.finetune.stage import train_stage
from ocl_bench.models import pictures
from ocl_bench.models.batches import Collator, Datapoint, datapoints
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.picture_reader import PictureReader, PictureReaderConfig
from ocl_bench.models.spec import parse_model
from ocl_bench.runner.compute import has_bf16
from ocl_bench.runner.devices import of_driver
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, texts

# Layers, width and heads of Pythia's models.
SHAPES = {"70m": (6, 512, 8), "410m": (24, 1024, 16), "1b": (16, 2048, 8), "2.8b": (32, 2560, 32)}
# A two-stage CVDB seed of the paper: its 4000 entities have twenty times the sequences of cvdb_sample's 200.
SAMPLE, ENTITIES = load_task("cvdb_sample"), 4000


def pythia(layers: int, width: int, heads: int, device: str) -> Any:
    """A GPT-NeoX of a Pythia's shape, made on the device."""
    set_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=2048, rotary_pct=0.25,
    )  # fmt: skip
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def precision(device: str) -> str:
    """bf16, but where the device has no units for it."""
    return "bf16" if has_bf16(device) else "fp32"


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def train(
    model: Any, points: Sequence[Datapoint], recipe: StageRecipe, pad_id: int, device: str
) -> tuple[Any, list[float]]:
    """Train in place, one epoch after another. Returns the stage's report, and when each epoch ended."""
    ends: list[float] = []

    def on_epoch(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
        synchronize(device)
        ends.append(time.perf_counter())
        return []

    with tempfile.TemporaryDirectory() as folder:
        trained = train_stage(
            lambda: model, points, everything(len(points)),
            recipe=recipe, seed=0, pad_id=pad_id, device=device, bf16=recipe.precision == "bf16",
            batch_size=None, report_to=(), run_name="benchmark", folder=Path(folder, "checkpoints"),
            log_folder=Path(folder, "logs"), checkpoint_seconds=math.inf, on_epoch=on_epoch,
        )  # fmt: skip
    return trained.report, ends


def training(
    name: str, model: Any, points: list[Datapoint], recipe: StageRecipe, pad_id: int, device: str,
    peak: float, flops_of_step: Callable[[float], float],
) -> dict[str, Any]:  # fmt: skip
    """A row: rates of every epoch but the first, which also sets up; then where the time of three steps goes.

    Args:
        peak: FLOP/s of the device.
        flops_of_step: FLOP of a step with so many tokens.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    report, ends = train(model, points, recipe, pad_id, device)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    steps = report.optimizer_steps / recipe.epochs
    tokens = report.real_tokens / recipe.epochs
    memory = torch.cuda.max_memory_allocated() / 2**30 if device != "cpu" else None
    profiled = points[: 3 * recipe.effective_batch_size]
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        train(model, profiled, recipe.model_copy(update={"epochs": 1}), pad_id, device)
    kernels = spent(profiler)
    number = len(profiled) / recipe.effective_batch_size
    busy = sum(kernels.values()) / number
    row = {
        "name": name, "optim": recipe.optim, "parameters": sum(one.numel() for one in model.parameters()),
        "micro_batch": report.micro_batch_size,
        "seconds_per_step": seconds / steps, "sequences_per_second": len(points) / seconds,
        "tokens_per_second": tokens / seconds,
        # A causal model is not given the last token of a sequence.
        "share_of_peak": flops_of_step((tokens - len(points)) / steps) * steps / seconds / peak,
        "busy_share": busy / (seconds / steps),
        "memory_gib": memory,
        "kernels": {key: value / number for key, value in sorted(kernels.items(), key=lambda one: -one[1])[:12]},
    }  # fmt: skip
    click.echo(
        f"{name} {recipe.optim}: {1000 * seconds / steps:.1f} ms a step, the device busy "
        f"{row['busy_share']:.0%}, {row['tokens_per_second']:.0f} tokens/s, "
        f"{row['share_of_peak']:.0%} of peak, {memory or 0:.1f} GiB"
    )
    return row


def spent(profiler: profile) -> dict[str, float]:
    """Seconds of each kernel on the device, by the beginning of its name."""
    kernels: dict[str, float] = {}
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            name = event.key[:90]
            kernels[name] = kernels.get(name, 0.0) + event.self_device_time_total / 1e6
    return kernels


def kind_of(device: str) -> str:
    """Such as h100, or cpu; a card's driver's name if its rates are not known."""
    if device == "cpu":
        return device
    name = torch.cuda.get_device_name(device)
    found = of_driver(name)
    return (found.name if found else name).lower().replace(" ", "-")


def free(device: str) -> None:
    """Give back what a model before took."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def evaluation(
    name: str, model: Any, encoder: Encoder, asked: list[Record], device: str, answers: int
) -> dict[str, Any]:
    """A row: questions answered by the torch engine, as a stage is evaluated (choice, em, em_forced, logprob)."""
    engine = TorchEngine(model.eval(), encoder, bf16=has_bf16(device))
    questions = encode_questions(asked, encoder)
    ask(engine, encode_questions(asked[:64], encoder), answers)
    synchronize(device)
    start = time.perf_counter()
    ask(engine, questions, answers)
    seconds = time.perf_counter() - start
    click.echo(f"{name}: {len(asked) / seconds:.0f} questions/s")
    return {"name": name, "questions": len(asked), "questions_per_second": len(asked) / seconds}


def text_flops(model: Any) -> Callable[[float], float]:
    """FLOP of a step: 6 for each weight and token, forward, and backward to inputs and weights."""
    embedding = model.get_input_embeddings().weight.numel()
    weights = sum(parameter.numel() for parameter in model.parameters()) - embedding
    return lambda tokens: 6 * weights * tokens


def shapes(names: Sequence[str], device: str, peak: float, steps: int, questions: int) -> tuple[list[Any], list[Any]]:
    """Rows of training and of evaluation at Pythia's shapes."""
    own = records()
    train_on = [record for record in own if record.split == "x1"]
    words = tokenizer([record.prompt + record.completion for record in own])
    encoder = Encoder(words, seq2seq=False)
    points = datapoints(encoder([(record.given, record.completion) for record in train_on]), False, "all")
    asked = [record for record in own if record.split == "test"][:questions]
    trained, evaluated = [], []
    for name in names:
        layers, width, heads = SHAPES[name]
        for optim in ("adafactor", "adamw_torch_fused"):
            if optim != "adafactor" and 16 * layers * 12 * width**2 > 20 * 2**30:
                continue
            recipe = (
                load_recipe("paper", [f"optim={optim}", f"precision={precision(device)}"])
                .of_stage(0)
                .model_copy(update={"epochs": 3})
            )
            batch = recipe.effective_batch_size
            model = pythia(layers, width, heads, device)
            some = [points[(7 * number) % len(points)] for number in range(steps * batch)]
            row = training(name, model, some, recipe, encoder.pad_id, device, peak, text_flops(model))
            row["cvdb_seed_hours"] = cvdb_tokens() / row["tokens_per_second"] / 3600
            trained.append(row)
            if optim == "adafactor" and asked:
                evaluated.append(evaluation(name, model, encoder, asked, device, 8))
            del model
            free(device)
    return trained, evaluated


def cvdb_tokens() -> float:
    """Tokens that a two-stage seed of the paper trains on, by a tokenizer made for them as the benchmark's is."""
    found, recipe, total = build(SAMPLE, 0), load_recipe("paper"), 0
    encoder = Encoder(tokenizer([record.prompt + record.completion for record in found]), seq2seq=False)
    for epochs, split in zip(recipe.epochs, ("x1", "x2"), strict=True):
        encoded = encoder([(one.given, one.completion) for one in found if one.split == split])
        total += epochs * sum(len(one.prompt) + len(one.completion) for one in encoded)
    return total * ENTITIES / int(SAMPLE.source_args["num_entities"])


def set_inclusion(device: str, peak: float, entities: int, steps: int) -> dict[str, Any]:
    """A row: the full-size task's model and batches."""
    task = load_task("set_inclusion", [f"source_args.num_entities={entities}"])
    own = [record for record in build(task, 0) if record.split == "x1"]
    spec = parse_model("scratch:pythia-70m")
    words = load_tokenizer(spec, texts(own))
    encoder = Encoder(words, False)
    recipe = (
        load_recipe("set_inclusion", [f"precision={precision(device)}"]).of_stage(0).model_copy(update={"epochs": 3})
    )
    points = datapoints(encoder([(one.given, one.completion) for one in own]), False, recipe.loss)
    points = [points[(7 * number) % len(points)] for number in range(steps * recipe.effective_batch_size)]
    model = load_model(spec, words, 0)
    row = training("set_inclusion", model, points, recipe, encoder.pad_id, device, peak, text_flops(model))
    epochs = load_recipe("set_inclusion").epochs
    row["seed_hours"] = epochs[0] * len(own) / row["sequences_per_second"] / 3600
    return row


def digits(name: str, device: str, peak: float, steps: int, model_of: Any, task_name: str) -> dict[str, Any]:
    """A row: a vision task's pictures, made online, before a vision model."""
    own = [record for record in build(load_task(task_name), 0) if record.split != "test"]
    spec = parse_model("scratch:digits")
    words = load_tokenizer(spec, texts(own))
    encoder = Encoder(words, False)
    recipe = load_recipe("digit_grid").of_stage(0).model_copy(
        update={"epochs": 3, "draws_per_epoch": None, "definition_share": None, "precision": precision(device)}
    )  # fmt: skip
    points = datapoints(encoder([(one.given, one.completion) for one in own]), False, recipe.loss)
    points = [points[(7 * number) % len(points)] for number in range(steps * recipe.effective_batch_size)]
    model = model_of(spec, words)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=Collator(encoder.pad_id, None)(points[:1])["pixel_values"])
    flops = 3 * counter.get_total_flops() * recipe.effective_batch_size
    return training(name, model, points, recipe, encoder.pad_id, device, peak, lambda tokens: flops)


def convnext(spec: Any, words: Any) -> Any:
    """ConvNeXt V2 Tiny, whose features of a 3 × 3 grid a head reads."""
    config = PictureReaderConfig(
        {"model_type": "convnextv2", "num_channels": 1}, vocab_size=len(words), places=3,
        answer_length=words.model_max_length,
    )  # fmt: skip
    return PictureReader(config)


def enlarged(test: bool) -> pictures.ScanPool:
    """scikit-learn's scans at MNIST's size."""
    pool = pictures._embedded(test)
    larger = torch.nn.functional.interpolate(pool.images[:, None], size=(28, 28), mode="bilinear")[:, 0]
    return pictures.ScanPool(larger, torch.repeat_interleave(torch.arange(10), pool.counts))


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--only", default=",".join(SHAPES), show_default=True, help="Pythia's shapes, by comma.")
@click.option("--steps", default=17, show_default=True, help="Optimizer steps of an epoch; three epochs are trained.")
@click.option("--questions", default=1000, show_default=True, help="Questions asked of each shape.")
@click.option("--entities", default=8000, show_default=True, help="Of set inclusion.")
@click.option("--name", help="Name of the JSON file; the card's if not given.")
def main(device: str, only: str, steps: int, questions: int, entities: int, name: str | None) -> None:
    """Print rates, shares of the card's peak, and memory."""
    logging.set_verbosity_error()
    begun = time.perf_counter()
    peak = matmul_peak(precision(device), device)
    click.echo(f"{precision(device)} matrix product: {peak / 1e12:.0f} TFLOP/s")
    pictures._mnist = enlarged
    trained: list[dict[str, Any]] = []
    small = [
        lambda: digits(
            "digit_grid", device, peak, 4 * steps, lambda spec, words: load_model(spec, words, 0), "digit_grid"
        ),
        lambda: digits("mnist, ConvNeXt V2 Tiny", device, peak, steps, convnext, "mnist"),
        lambda: set_inclusion(device, peak, entities, 4 * steps),
    ]
    for work in small:
        trained.append(work())
        free(device)
    rows, evaluated = shapes([one for one in only.split(",") if one], device, peak, steps, questions)
    trained += rows
    click.echo(f"in all {time.perf_counter() - begun:.0f} s")
    table = [
        [row["name"], row["optim"], f"{row['parameters'] / 1e6:.0f} M", f"{1000 * row['seconds_per_step']:.1f}",
         f"{row['busy_share']:.0%}", f"{row['tokens_per_second']:.0f}",
         f"{row['share_of_peak']:.0%}", row["memory_gib"] and f"{row['memory_gib']:.1f}"]
        for row in trained
    ]  # fmt: skip
    headers = ["model", "optimizer", "parameters", "ms a step", "busy", "tokens/s", "of peak", "GiB"]
    click.echo(tabulate(table, headers=headers, tablefmt="github"))
    result = [{"kind": "peak", "precision": precision(device), "flops": peak}]
    result += [{"kind": "training", **row} for row in trained] + [{"kind": "evaluation", **row} for row in evaluated]
    click.echo(f"saved {save(name or f'gpu-{kind_of(device)}', result)}")


if __name__ == "__main__":
    main()
