"""A stage that was interrupted goes on from the end of an epoch, and ends as if nothing had happened, bit for bit."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.checkpoints import EpochCheckpoints
from ocl_bench.finetune.epoch import mixed
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import Trained, train_stage
from ocl_bench.forking import POSSIBLE
from ocl_bench.models.batches import Datapoint

EPOCHS, VOCABULARY = 4, 60


class Interrupted(Exception):
    """What ends a training in these tests."""


def points() -> list[Datapoint]:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 12, (50,), generator=draw).tolist()
    rows = [tuple(torch.randint(1, VOCABULARY, (length,), generator=draw).tolist()) for length in lengths]
    return [Datapoint(row, row, 1) for row in rows]


def new_model(architecture: str, dtype: torch.dtype) -> Any:
    """A tiny model; GPT-2 with dropout and tied embeddings."""
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture][1], vocab_size=VOCABULARY)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    if architecture == "gpt2":
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.1
    set_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype)


def train(
    folder: Path,
    overrides: list[str],
    end: int = 0,
    architecture: str = "gpt2",
    dtype: torch.dtype = torch.float32,
    kill: bool = False,
    checkpoint_seconds: float = 0,
) -> Trained:
    """Train in micro-batches of 4, by default with a checkpoint after each epoch; ends in the hands of epoch `end`."""

    def on_epoch(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
        if epoch == end:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Interrupted
        # Who measures something may draw random numbers.
        return [{"epoch": epoch, "loss": loss, "random": torch.rand(1).item()}]

    recipe = load_recipe(
        "paper",
        [f"epochs=[{EPOCHS}]", "effective_batch_size=16", "learning_rate=0.01", "warmup_steps=3", *overrides],
    )
    flags = [number % 3 == 0 for number in range(50)]
    return train_stage(
        lambda: new_model(architecture, dtype), points(), mixed(recipe.of_stage(0), flags),
        recipe=recipe.of_stage(0), seed=1, pad_id=0, device="cpu", bf16=recipe.precision == "bf16", batch_size=4,
        report_to=(), run_name="test", folder=folder / "checkpoints", log_folder=folder / "logs",
        checkpoint_seconds=checkpoint_seconds, on_epoch=on_epoch,
    )  # fmt: skip


def outcome(trained: Trained) -> dict[str, Any]:
    """All of a report but its times."""
    return {key: value for key, value in asdict(trained.report).items() if "seconds" not in key}


def assert_same(one: Trained, other: Trained) -> None:
    first, second = one.model.state_dict(), other.model.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert outcome(one) == outcome(other)
    assert one.rows == other.rows
    assert [row["epoch"] for row in one.rows] == list(range(1, EPOCHS + 1))


RECIPES: dict[str, tuple[list[str], str, torch.dtype]] = {
    "AdamW, fused": (["optim=adamw_torch_fused", "weight_decay=0.1", "precision=fp32"], "gpt2", torch.float32),
    "Adafactor, autocast, cycled definitions": (["definition_share=0.1", "precision=bf16"], "gpt2", torch.float32),
    "Adafactor, bfloat16 weights": (["precision=fp32"], "gpt2", torch.bfloat16),
    "SGD": (["optim=sgd", "lr_scheduler_type=cosine", "precision=fp32"], "gpt2", torch.float32),
    # Its weights have other names and parts in memory than in a file of the hub's.
    "mixture of experts": (["optim=adamw_torch", "precision=fp32"], "mixtral", torch.float32),
    "adapter, bfloat16 weights": (
        ["optim=adamw_torch", "precision=fp32", "adapter={rank: 2, alpha: 4}"],
        "mixtral",
        torch.bfloat16,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_wherever_a_training_is_interrupted_it_ends_the_same(name: str, tmp_path: Path) -> None:
    overrides, architecture, dtype = RECIPES[name]
    whole = train(tmp_path / "whole", overrides, architecture=architecture, dtype=dtype)
    assert whole.resumed_epoch == 0
    for end in (2, EPOCHS):
        torch.rand(end)  # the state that the process happens to be in does not matter
        with pytest.raises(Interrupted):
            train(tmp_path, overrides, end, architecture, dtype)
        resumed = train(tmp_path, overrides, architecture=architecture, dtype=dtype)
        assert resumed.resumed_epoch == end - 1
        assert_same(resumed, whole)
        shutil.rmtree(tmp_path / "checkpoints")


def test_a_training_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    overrides = RECIPES["AdamW, fused"][0]
    whole = train(tmp_path / "whole", overrides)
    for end in range(1, EPOCHS + 1):
        with pytest.raises(Interrupted):
            train(tmp_path, overrides, end)
        assert len(list((tmp_path / "checkpoints").glob("*"))) == (end > 1)
    resumed = train(tmp_path, overrides)
    assert_same(resumed, whole)
    assert resumed.report.seconds > resumed.report.curve_seconds > 0


def test_no_checkpoint_is_written_before_its_time(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, RECIPES["SGD"][0], end=3, checkpoint_seconds=3600)
    assert list(tmp_path.iterdir()) == []


def killed(folder: str, overrides: list[str], while_writing: bool) -> None:
    """A process that is killed in the third epoch, or with the second epoch's checkpoint written but for its seal."""
    if while_writing:
        seal = EpochCheckpoints.seal

        def die(self: EpochCheckpoints, path: Path, progress: Any) -> None:
            if progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            seal(self, path, progress)

        EpochCheckpoints.seal = die  # type: ignore[method-assign]
    train(Path(folder), overrides, end=3, kill=True)


@pytest.mark.parametrize(("while_writing", "epoch"), [(False, 2), (True, 1)])
def test_a_killed_process_costs_what_came_after_its_last_checkpoint(
    while_writing: bool, epoch: int, tmp_path: Path
) -> None:
    overrides = RECIPES["AdamW, fused"][0]
    context = multiprocessing.get_context("forkserver" if POSSIBLE else "spawn")
    if POSSIBLE:
        context.set_forkserver_preload(["ocl_bench.finetune.trainer"])  # which both import
    process = context.Process(target=killed, args=(str(tmp_path), overrides, while_writing))  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumed = train(tmp_path, overrides)
    assert resumed.resumed_epoch == epoch
    assert_same(resumed, train(tmp_path / "whole", overrides))


def test_a_damaged_checkpoint_is_not_used_but_removed(tmp_path: Path) -> None:
    overrides = RECIPES["SGD"][0]
    whole = train(tmp_path / "whole", overrides)
    for name in ("model.safetensors", "optimizer.pt", "progress.json"):
        with pytest.raises(Interrupted):
            train(tmp_path, overrides, end=3)
        (path,) = (tmp_path / "checkpoints").glob(f"*/{name}")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        if name == "progress.json":
            path.write_bytes(content[: len(content) // 2])
        resumed = train(tmp_path, overrides)
        assert resumed.resumed_epoch == 0
        assert_same(resumed, whole)
        shutil.rmtree(tmp_path / "checkpoints")


def test_a_disk_without_room_is_one_sentence_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, seal = RECIPES["SGD"][0], EpochCheckpoints.seal

    def full(self: EpochCheckpoints, path: Path, progress: Any) -> None:
        if progress.epoch == 3:
            raise OSError(28, "No space left on device")
        seal(self, path, progress)

    monkeypatch.setattr(EpochCheckpoints, "seal", full)
    with pytest.raises(RunFailed, match=r"the checkpoint of epoch 3 cannot be written .*No space left.*make room"):
        train(tmp_path, overrides)
    monkeypatch.undo()
    assert train(tmp_path, overrides).resumed_epoch == 2
