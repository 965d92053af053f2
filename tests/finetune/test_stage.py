"""A stage trains as its recipe says, on labelled positions alone, and reports what it did."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.checkpoints import EpochCheckpoints
from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import OnEpoch, StageReport, Trained, micro_batch_size, train_stage
from ocl_bench.finetune.trainer import LossWatch
from ocl_bench.models.batches import Datapoint, datapoint
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model
from ocl_bench.tasks.records import Record, texts


@pytest.fixture(scope="module")
def tiny(small_records: list[Record]) -> tuple[Any, list[Datapoint]]:
    spec = parse_model("scratch:tiny")
    tokenizer = load_tokenizer(spec, texts(small_records))
    train = [record for record in small_records if record.split == "x1"][:60]
    encoded = Encoder(tokenizer, False)([(record.prompt, record.completion) for record in train])
    return load_model(spec, tokenizer, seed=0), [datapoint(one, False, "all") for one in encoded]


def train(
    model: Any,
    points: list[Datapoint],
    folder: Path,
    batch_size: int | None = None,
    checkpoint_seconds: float = math.inf,
    on_epoch: OnEpoch = lambda model, epoch, loss: [],
    **recipe: Any,
) -> StageReport:
    return start(model, points, folder, batch_size, checkpoint_seconds, on_epoch, **recipe).report


def start(
    model: Any,
    points: list[Datapoint],
    folder: Path,
    batch_size: int | None = None,
    checkpoint_seconds: float = math.inf,
    on_epoch: OnEpoch = lambda model, epoch, loss: [],
    **recipe: Any,
) -> Trained:
    """Train `model` in place; where memory runs out, a copy of it as it is now."""
    settings = {"epochs": "[2]", "effective_batch_size": 24, "optim": "sgd", "learning_rate": 0.1, "precision": "fp32"}
    loaded = load_recipe("paper", [f"{key}={value}" for key, value in (settings | recipe).items()])
    models = [copy.deepcopy(model), copy.deepcopy(model), model]
    return train_stage(
        models.pop, points, everything(len(points)),
        recipe=loaded.of_stage(0), seed=0, pad_id=0, device="cpu", bf16=loaded.precision == "bf16",
        batch_size=batch_size, report_to=(), run_name="test", folder=folder / "checkpoints", log_folder=folder / "logs",
        checkpoint_seconds=checkpoint_seconds, on_epoch=on_epoch,
    )  # fmt: skip


def weights(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_one_step_is_the_gradient_of_each_datapoint_alone_averaged_over_its_tokens(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    trained, plain = copy.deepcopy(model), copy.deepcopy(model).train()
    train(
        trained,
        points,
        tmp_path,
        epochs="[1]",
        effective_batch_size=60,
        max_grad_norm=0,
        lr_scheduler_type="constant",
    )
    total = 0
    for point in points:  # each alone, with the model's own loss: no padding, no neighbours
        ids = torch.tensor([point.source])
        (plain(input_ids=ids, labels=ids).loss * (len(point.source) - 1)).backward()
        total += len(point.source) - 1
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.1 * parameter.grad / total
    assert torch.allclose(weights(trained), weights(plain), atol=1e-6)
    assert not torch.allclose(weights(trained), weights(model), atol=1e-4)


def test_micro_batches_change_nothing_but_the_last_digits(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    reports = train(whole, points, tmp_path, batch_size=24), train(parts, points, tmp_path, batch_size=4)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-5)
    assert [report.micro_batch_size for report in reports] == [24, 4]
    assert {(report.effective_batch_size, report.optimizer_steps) for report in reports} == {(24, 6)}


def test_the_same_seed_gives_the_same_weights(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    train(first, points, tmp_path)
    train(second, points, tmp_path)
    assert torch.equal(weights(first), weights(second))


def test_the_report_has_the_learning_rates_that_were_used(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    linear = train(copy.deepcopy(model), points, tmp_path)
    assert linear.learning_rate_first == linear.learning_rate_peak == 0.1
    assert linear.learning_rate_last == pytest.approx(0.1 / 6)
    warm = train(copy.deepcopy(model), points, tmp_path, warmup_steps=3, lr_scheduler_type="constant_with_warmup")
    assert (warm.learning_rate_first, warm.learning_rate_last) == (0.0, 0.1)
    assert linear.real_tokens == 2 * sum(len(point.source) for point in points)


def test_bf16_trains_and_keeps_the_weights_in_their_dtype(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    trained = copy.deepcopy(model)
    report = train(trained, points, tmp_path, precision="bf16", optim="adafactor", learning_rate=1e-2, epochs="[8]")
    assert report.train_loss < 5.0
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("requested", "effective", "longest", "size"),
    [
        (None, 256, 16, 256),
        (None, 256, 21, 128),
        (None, 64, 7, 64),
        (100, 256, 16, 64),
        (1000, 256, 16, 256),
        (None, 256, 10_000, 1),
    ],
)
def test_micro_batches_divide_the_effective_batch(
    requested: int | None, effective: int, longest: int, size: int
) -> None:
    assert micro_batch_size(requested, effective, longest, "cpu") == size


def test_nothing_is_left_but_checkpoints_and_what_trackers_wrote(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    train(copy.deepcopy(model), points, tmp_path, checkpoint_seconds=3600)
    assert list(tmp_path.iterdir()) == []


def poison(model: Any, step: int) -> Any:
    """The model, with a gradient that is no number in one optimizer step."""
    steps = itertools.count(1)
    model.get_input_embeddings().weight.register_hook(
        lambda gradient: gradient * math.nan if next(steps) == step else gradient
    )
    return model


@pytest.mark.parametrize(
    ("step", "message"),
    [  # epochs of three steps
        (5, r"the loss was no number at step 6 \(epoch 2, learning rate 0\.0444444\); lower recipe.learning_rate"),
        (6, r"a weight was no number at step 6 \(epoch 2, learning rate 0\.0444444\); lower recipe.learning_rate"),
    ],
)
def test_divergence_names_its_step_and_leaves_the_last_good_checkpoint(
    step: int, message: str, tiny: Any, tmp_path: Path
) -> None:
    model, points = tiny
    epochs: list[int] = []
    with pytest.raises(RunFailed, match=message):
        train(
            poison(copy.deepcopy(model), step), points, tmp_path, batch_size=24, epochs="[3]", checkpoint_seconds=0,
            on_epoch=lambda model, epoch, loss: epochs.append(epoch) or [],  # type: ignore[func-returns-value]
        )  # fmt: skip
    assert epochs == [1]
    found = EpochCheckpoints(tmp_path / "checkpoints").newest()
    assert found is not None and found[1].epoch == 1


def test_a_learning_rate_that_is_far_too_high_is_found_out(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    with pytest.raises(RunFailed, match=r"diverged: .* was no number at step [1-6] \(epoch [12], learning rate"):
        train(copy.deepcopy(model), points, tmp_path, learning_rate=1e30, max_grad_norm=0)


def test_the_first_bad_step_is_remembered_whatever_comes_after() -> None:
    watch = LossWatch(torch.device("cpu"))
    for step, loss in enumerate((2.0, math.inf, 1.0, math.nan), start=1):
        assert watch.first_bad_step() == (0 if step < 3 else 2)
        watch.see(torch.tensor(loss), step)
    assert watch.first_bad_step() == 2


def run_out_of_memory(model: Any, above: int, after: int = 0) -> Any:
    """The model, which asks for a petabyte for batches of more than `above` rows, once it has been called so often."""
    calls = itertools.count(1)

    def allocate(module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        if next(calls) > after and len(inputs["input_ids"]) > above:
            torch.empty(10**15, dtype=torch.uint8)

    model.register_forward_pre_hook(allocate, with_kwargs=True)
    return model


def test_after_memory_ran_out_the_result_is_that_of_the_smaller_batch(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    small = start(copy.deepcopy(model), points, tmp_path, batch_size=6, optim="adamw_torch_fused", learning_rate=1e-2)
    hungry = run_out_of_memory(
        copy.deepcopy(model), above=6, after=4
    )  # in the second epoch: the weights have moved by then
    halved = start(hungry, points, tmp_path, batch_size=24, optim="adamw_torch_fused", learning_rate=1e-2)
    assert torch.equal(weights(halved.model), weights(small.model))
    assert (halved.report.micro_batch_size, halved.report.out_of_memory) == (6, 2)
    assert (small.report.micro_batch_size, small.report.out_of_memory) == (6, 0)
    assert halved.report.real_tokens == small.report.real_tokens
    assert halved.report.optimizer_steps == small.report.optimizer_steps == 6


def test_after_memory_ran_out_training_goes_on_from_its_checkpoint(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    whole = start(copy.deepcopy(model), points, tmp_path, batch_size=24)
    epochs: list[int] = []
    halved = start(
        run_out_of_memory(copy.deepcopy(model), above=12, after=4), points, tmp_path, batch_size=24,
        checkpoint_seconds=0, on_epoch=lambda model, epoch, loss: epochs.append(epoch) or [],  # type: ignore[func-returns-value]
    )  # fmt: skip
    assert (epochs, halved.resumed_epoch, halved.report.micro_batch_size) == ([1, 2], 1, 12)
    assert halved.report.real_tokens == whole.report.real_tokens
    assert torch.allclose(weights(halved.model), weights(whole.model), atol=1e-5)


def test_where_no_batch_fits_one_sentence_says_so(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    with pytest.raises(RunFailed, match="out of memory on cpu, with one datapoint per forward pass"):
        train(run_out_of_memory(copy.deepcopy(model), above=0), points, tmp_path, batch_size=2)
    with pytest.raises(RunFailed, match="memory ran out at the learning curve after epoch 1; run with --no_curves"):
        train(
            copy.deepcopy(model), points, tmp_path,
            on_epoch=lambda model, epoch, loss: [{"size": len(torch.empty(10**15, dtype=torch.uint8))}],
        )  # fmt: skip


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_attention_in_bf16_is_plain_products_on_a_cpu(tiny: Any, tmp_path: Path, precision: str, fused: bool) -> None:
    model, points = tiny
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        train(copy.deepcopy(model), points[:24], tmp_path, epochs="[1]", precision=precision)
    names = {event.key for event in profiler.key_averages()}
    assert any("scaled_dot_product_flash_attention" in name for name in names) == fused
    assert ("aten::_scaled_dot_product_attention_math" in names) != fused
