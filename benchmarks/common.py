"""What the benchmarks share: models of a stated shape, a tokenizer of the pretrained kind, a place for results."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from tables import RESULTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedTokenizerFast, set_seed

from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import Recipe
from ocl_bench.finetune.stage import train_stage
from ocl_bench.models.batches import Datapoint
from ocl_bench.runner.manifest import hardware, versions
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record

# Pythia's vocabulary: what the output layer of a pretrained model costs.
VOCABULARY = 50304


def records() -> list[Record]:
    """The standard task's records."""
    return build(load_task("attributes"), seed=0)


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that cuts `<|abcde|>` into about seven tokens, as those of GPT-2 and GPT-NeoX do.

    It sees the variables' letters, but no bracket joined to another or to a letter, so it cannot merge them.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator((text.replace("<|", "< ").replace("|>", " ") for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def model(layers: int, width: int) -> Any:
    """A GPT-NeoX of the given depth and width with Pythia's vocabulary and random weights."""
    set_seed(0)
    return AutoModelForCausalLM.from_config(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64 if width >= 256 else 4,
            intermediate_size=4 * width,
            max_position_embeddings=64,
        )
    )


def finetune(network: Any, points: list[Datapoint], recipe: Recipe, pad_id: int) -> None:
    """One stage of the suite's own training, in place, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        train_stage(
            lambda: network,
            points,
            everything(len(points)),
            recipe=recipe.of_stage(0),
            seed=0,
            pad_id=pad_id,
            device="cpu",
            bf16=recipe.precision == "bf16",
            batch_size=None,
            report_to=(),
            run_name="benchmark",
            folder=Path(folder, "checkpoints"),
            log_folder=Path(folder, "logs"),
            checkpoint_seconds=math.inf,
            on_epoch=lambda model, epoch, loss: [],
        )


def save(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write a benchmark's rows with hardware and versions, and what more there is to say."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        **more,
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
