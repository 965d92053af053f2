"""Trains tiny models by as many processes as WORLD_SIZE says: what `test_sharding.py` starts, and calls for one.

python sharded_training.py FOLDER WORD… leaves `FOLDER/WORD-RANK.pt` of each: of a case, of one that is interrupted in
epoch 2 (CASE@2), or of layers, which shards a model of each architecture.
"""

import gc
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import ARCHITECTURES
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.sharding import Sharded, local
from ocl_bench.finetune.stage import Trained, train_stage
from ocl_bench.models.batches import Datapoint
from ocl_bench.models.group import join_group, rank

VOCABULARY, EPOCHS = 61, 2


@dataclass(frozen=True)
class Case:
    """A training of ten steps of 8, the last of each epoch of `last`.

    Attributes:
        micro: datapoints per forward pass: 4 is all of a step for one of two processes, 2 half of it.
        kept: whether it leaves a checkpoint after each epoch.
    """

    architecture: str
    optim: str
    micro: int
    last: int
    precision: str = "fp32"
    rate: float = 0.01
    dtype: str = "float32"
    tied: bool = False
    dropout: float = 0.0
    kept: bool = False


CASES = {
    "gpt_neox-sgd": Case("gpt_neox", "sgd", 4, 1, rate=0.1),
    "gpt_neox-adamw": Case("gpt_neox", "adamw_torch", 2, 3, rate=0.003),
    "gpt_neox-adafactor": Case("gpt_neox", "adafactor", 2, 3),
    "llama-sgd": Case("llama", "sgd", 2, 3, rate=0.1, tied=True),
    "llama-adamw": Case("llama", "adamw_torch_fused", 4, 1, rate=0.003, tied=True),
    "llama-adafactor": Case("llama", "adafactor", 4, 1),
    "mixtral-sgd": Case("mixtral", "sgd", 4, 3, rate=0.1),
    "mixtral-adamw": Case("mixtral", "adamw_torch", 2, 1, rate=0.003),
    "mixtral-adafactor": Case("mixtral", "adafactor", 2, 1),
    "gpt2-sgd": Case("gpt2", "sgd", 4, 3, rate=0.1),
    "t5-sgd": Case("t5", "sgd", 2, 1, rate=0.1),
    "bfloat16": Case("llama", "adafactor", 4, 1, dtype="bfloat16"),
    "autocast": Case("gpt_neox", "sgd", 4, 1, rate=0.1, precision="bf16"),
    "diverges": Case("llama", "sgd", 4, 1, rate=1e12),
    "one then two": Case("mixtral", "adafactor", 4, 1, kept=True),
    "two then one": Case("gpt_neox", "adamw_torch", 4, 1, rate=0.003, kept=True),
    "two then two": Case("gpt2", "adamw_torch", 4, 3, rate=0.003, dropout=0.1, kept=True),
    "two": Case("gpt2", "adamw_torch", 4, 3, rate=0.003, dropout=0.1),
}


class Interrupted(Exception):
    """What ends a training in these tests."""


def points(case: Case) -> list[Datapoint]:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 12, (32 + case.last,), generator=draw).tolist()
    rows = [tuple(torch.randint(1, VOCABULARY, (length,), generator=draw).tolist()) for length in lengths]
    return [Datapoint(row, row[2:] if case.architecture == "t5" else row, 1) for row in rows]


def configuration(architecture: str) -> Any:
    """A tiny model's, of sizes that two processes do not share equally."""
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture][1], vocab_size=VOCABULARY)
    if architecture == "gpt_neox":
        # The gradient of a bias of keys is nought but for rounding, which Adafactor blows up: on one process too.
        config.attention_bias = False
    if architecture == "mixtral":
        config.num_local_experts = 3
    if architecture == "t5":
        config.dropout_rate = 0.0
    return config


def new_model(case: Case) -> Any:
    config = configuration(case.architecture)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    config.decoder_start_token_id = 0
    config.tie_word_embeddings |= case.tied
    if case.dropout:
        config.resid_pdrop = case.dropout
    set_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config).to(getattr(torch, case.dtype))


def train(case: Case, folder: Path, end: int = 0) -> Trained:
    """Train in `folder`; ends in the hands of epoch `end`."""

    def on_epoch(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
        if epoch == end:
            raise Interrupted
        return [{"epoch": epoch, "loss": loss}]

    recipe = load_recipe(
        "paper",
        [
            f"epochs=[{EPOCHS}]", "effective_batch_size=8", f"optim={case.optim}", f"learning_rate={case.rate}",
            f"precision={case.precision}", "weight_decay=0.1",
        ],
    ).of_stage(0)  # fmt: skip
    data = points(case)
    return train_stage(
        lambda: new_model(case), data, everything(len(data)), recipe=recipe, seed=1, pad_id=0, device="cpu",
        bf16=case.precision == "bf16", batch_size=case.micro, report_to=(), run_name="test",
        folder=folder / "checkpoints", log_folder=folder / "logs", checkpoint_seconds=0 if case.kept else 1e9,
        on_epoch=on_epoch,
    )  # fmt: skip


def outcome(case: Case, folder: Path, end: int = 0) -> dict[str, Any]:
    """What a training ends with, in numbers."""
    try:
        trained = train(case, folder, end)
    except (Interrupted, RunFailed) as error:
        return {"error": str(error)}
    return {
        "weights": {name: tensor.clone() for name, tensor in trained.model.state_dict().items()},
        "report": asdict(trained.report),
        "rows": trained.rows,
        "resumed": trained.resumed_epoch,
        "parameters": type(next(trained.model.parameters())).__name__,
    }


def layers() -> dict[str, Any]:
    """Of each architecture: which layers are sharded, what share this process has, and whether it is whole again."""
    found = {}
    for architecture in ARCHITECTURES:
        if architecture == "byt5":  # a T5
            continue
        model = new_model(Case(architecture, "sgd", 4, 1))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        sharded = Sharded(model, "cpu")
        own = sum(local(parameter).numel() for parameter in sharded.model.parameters())
        after = sharded.whole().state_dict()
        same = after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in after)
        found[architecture] = (dict(sharded.layers), own / sharded.whole().num_parameters(), same)
    return found


def main() -> None:
    """Do what the command line names, as one process of a group."""
    gc.freeze()  # what was imported is not searched for garbage, which takes most of the time of such small trainings
    torch.set_num_threads(1)
    join_group("cpu")
    folder = Path(sys.argv[1])
    for word in sys.argv[2:]:
        name, _, end = word.partition("@")
        found = layers() if name == "layers" else outcome(CASES[name], folder / name, int(end or 0))
        torch.save(found, folder / f"{word}-{rank()}.pt")
    gc.unfreeze()


if __name__ == "__main__":
    main()
