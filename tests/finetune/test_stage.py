"""A stage trains as its recipe says, on labelled positions alone, and reports what it did."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import StageReport, micro_batch_size, train_stage
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
    model: Any, points: list[Datapoint], folder: Path, batch_size: int | None = None, **recipe: Any
) -> StageReport:
    settings = {
        "epochs": "[2]",
        "effective_batch_size": 24,
        "optim": "sgd",
        "precision": "fp32",
        "learning_rate": 0.1,
    }
    return train_stage(
        model, points, [False] * len(points),
        recipe=load_recipe("paper", [f"{key}={value}" for key, value in (settings | recipe).items()]),
        stage=0, seed=0, pad_id=0, device="cpu", batch_size=batch_size, report_to=(), run_name="test",
        log_folder=folder / "logs", on_epoch=lambda epoch, loss: None,
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


def test_no_empty_log_folder_is_left(tiny: Any, tmp_path: Path) -> None:
    model, points = tiny
    train(copy.deepcopy(model), points, tmp_path)
    assert list(tmp_path.iterdir()) == []
