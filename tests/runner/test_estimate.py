"""What `ocl-bench plan` says beforehand, against what training then takes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.files import read_json_lines
from ocl_bench.finetune.cost import step_cost
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.report.estimates import estimate_table
from ocl_bench.runner import compute
from ocl_bench.runner.devices import KNOWN, Rated, named, of_driver
from ocl_bench.runner.estimate import Estimate, require_fit
from ocl_bench.runner.manifest import read_manifest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MEASURED = {card: json.loads((RESULTS / f"gpu-{card.lower()}.json").read_text())["rows"] for card in ("H100", "H200")}
SMALL = {"task": "attributes", "overrides": ["source_args.num_entities=60"]}


@pytest.mark.parametrize("card", MEASURED)
def test_memory_is_what_a_card_measured(card: str) -> None:
    """The micro-batch of benchmarks/gpu.py: 256 sequences of 20 tokens as the model is given them."""
    from transformers import GPTNeoXConfig

    config = GPTNeoXConfig(
        vocab_size=50304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
    )
    ids, labels = torch.ones(256, 20, dtype=torch.long), torch.arange(3968)
    batch = {"input_ids": ids, "attention_mask": ids, "positions": labels, "targets": labels}
    rows = [row for row in MEASURED[card] if row.get("name") == "70m" and "optim" in row]
    measured = {row["optim"]: row["memory_gib"] for row in rows}
    assert set(measured) == {"adafactor", "adamw_torch_fused"}
    for optim, memory in measured.items():
        recipe = load_recipe("paper", [f"optim={optim}"]).of_stage(0)
        cost = step_cost(_on_meta(config), batch, recipe, bf16=True, accumulates=False)
        assert cost.peak / 2**30 == pytest.approx(memory, rel=0.05)
        assert cost.weights == pytest.approx(4 * sum(p.numel() for p in _on_meta(config).parameters()), rel=0.01)


def _on_meta(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_a_plan_has_the_steps_tokens_and_questions_that_the_run_then_has(whole_run: Path) -> None:
    manifest = read_manifest(whole_run)
    passed = {name: value for name, value in manifest.passed.items() if name not in ("output_path", "model")}
    found = ocl_bench.plan(**passed)
    assert found.plan.parameters == manifest.parameters
    assert [one.trainings for one in found.stages] == [2, 4]
    for one in found.stages:
        made = manifest.stages["seed-0"][one.name]
        assert (one.steps, one.micro_batch_size, one.records) == (
            made.optimizer_steps, made.micro_batch_size, made.records,
        )  # fmt: skip
        assert one.tokens == pytest.approx(made.real_tokens, rel=0.02)  # later epochs draw others
        stage = whole_run / "seed-0" / one.name
        assert one.questions == len(list(read_json_lines(stage / "answers.jsonl")))
        assert one.curve_questions == sum(point["n"] for point in read_json_lines(stage / "curve.jsonl"))
        assert one.memory > one.weights + one.gradients + one.optimizer and not one.by_rule


@pytest.mark.parametrize("family", ["gpt2", "opt", "mamba", "t5", "bart"])
def test_any_architecture_is_tried_without_weights(family: str, model_folder: Callable[[str], Path]) -> None:
    found = ocl_bench.plan(model=str(model_folder(family)), device="cpu", seeds=1, **SMALL)
    assert all(one.flops > 0 and one.activations > 0 and not one.by_rule for one in found.stages)


def test_a_model_that_looks_at_numbers_is_estimated_by_rule(model_folder: Callable[[str], Path]) -> None:
    found = ocl_bench.plan(model=str(model_folder("mixtral")), device="cpu", seeds=1, **SMALL)
    assert all(one.by_rule and one.memory > 4 * found.plan.parameters * 2 for one in found.stages)


@pytest.fixture(scope="module")
def small() -> Estimate:
    return ocl_bench.plan(seeds=1, device="cpu", **SMALL)


def test_what_cannot_fit_is_refused_with_the_option_that_would_make_it_fit(small: Estimate) -> None:
    require_fit(small)
    gib = 2**30
    big = replace(
        small.stages[0], memory=72 * gib, weights=16 * gib, gradients=16 * gib, optimizer=32 * gib, activations=8 * gib,
        micro_batch_size=8,
    )  # fmt: skip

    def refusal(room: int, kind: str = "H100", **changes: int) -> str:
        device = replace(named("H100"), name=kind, memory=room * gib)
        with pytest.raises(OclBenchError) as refused:
            require_fit(replace(small, device=device, stages=(replace(big, **changes),)))
        return str(refused.value)

    # A card makes its micro-batches smaller by itself, a CPU's process would be killed.
    require_fit(replace(small, device=replace(named("H100"), memory=70 * gib), stages=(big,)))
    assert refusal(70, "cpu").endswith("; it would fit with --batch_size 2.")
    assert refusal(40).endswith(
        "; it would fit with --shard 2, or with --set recipe.optim=adafactor, or with --model_args dtype=bfloat16, "
        f"or with {ADAPTER}."
    )
    assert refusal(20).endswith(f"; it would fit with --shard 4, or with {ADAPTER}.")
    assert refusal(1).endswith("; take a smaller model.")
    assert "stage x1 needs 65.0 GiB on H100, which has 38.0 (weights 16.0, gradients 16.0, optimizer 32.0" in refusal(
        40
    )


def test_the_command_prints_a_line_for_each_stage_and_json(tmp_path: Path) -> None:
    small = ["--task", "attributes", "--set", "source_args.num_entities=60", "--seeds", "3"]
    printed = call("plan", *small, "--on", "A100", folder=tmp_path).stdout
    for text in ("x1", "x2", "steps", "FLOPs", "3 seeds", "75 GiB on A100", "about"):
        assert text in printed
    found = json.loads(call("plan", *small, "--json", folder=tmp_path).stdout)
    assert [one["trainings"] for one in found["stages"]] == [3, 3] and found["device"]["name"] == "cpu"


def test_a_plan_for_another_machine_needs_none_of_its_devices_here() -> None:
    asked: tuple[dict[str, Any], ...] = ({}, {"shard": 4}, {"devices": (0, 0)})
    alone, four, two = (ocl_bench.plan(**SMALL, seeds=2, on="H100", **options) for options in asked)
    assert [one.device.name for one in (alone, four, two)] == ["H100"] * 3
    assert (alone.sharing, four.sharing, two.sharing) == (1, 1, 2)
    assert (alone.at_a_time, four.plan.config.compute.processes, two.at_a_time) == (1, 4, 1)
    assert four.stages[0].optimizer == alone.stages[0].optimizer // 4
    assert two.memory == 2 * alone.memory
    with pytest.raises(OclBenchError, match="--devices all: say which, as 0,1,2,3, of a machine that is not this one"):
        ocl_bench.plan(**SMALL, on="H100", devices="all")


ADAPTER = "--set 'recipe.adapter={rank: 16, alpha: 32}'"
NO_DEVICE = "--devices: this machine has no CUDA device; leave it out to train on what there is."
TWICE = "--device and --devices both say where to train; leave one of them out."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--on", "H1000"], "--on H1000: no such device in the table; did you mean 'H100' or 'H200' or 'A100'?"),
        (["--devices", "0"], NO_DEVICE),
        (["--devices", "a"], "--devices a: give numbers of cards, as 0,1,2,3, or all."),
        (["--devices", "0", "--device", "cpu"], TWICE),
    ],
)  # fmt: skip
def test_wrong_devices_get_one_sentence(options: list[str], sentence: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = call("plan", "--task", "attributes", *options, folder=tmp_path)
    assert result.returncode == 2 and result.stderr.strip() == f"ocl-bench: {sentence}"


# FLOP and operations of a step of benchmarks/gpu.py, as `step_cost` counts them.
@pytest.mark.parametrize("card", MEASURED)
@pytest.mark.parametrize(("name", "flops", "operations"), [("410m", 10.5e12, 15950), ("1b", 27.19e12, 10710)])
def test_a_step_takes_about_as_long_as_a_card_measured(name: str, flops: float, operations: int, card: str) -> None:
    """The constants were fitted to the H200's steps; the H100's were measured afterwards."""
    rows = [row for row in MEASURED[card] if row.get("name") == name and row.get("optim") == "adamw_torch_fused"]
    assert named(card).seconds(flops, operations, bf16=True) == pytest.approx(rows[0]["seconds_per_step"], rel=0.1)


# FLOP and operations of X1 in benchmarks/plan.py as `estimate` counts them, on a CPU of .069 TFLOP/s in fp32.
@pytest.mark.parametrize(
    ("name", "micro_batch", "flops", "operations"),
    [
        ("70m", 64, 1.28e12, 9966),
        ("70m", 16, 1.01e12, 39864),
        ("160m", 64, 3.81e12, 19326),
        ("160m", 16, 2.89e12, 77304),
    ],
)
def test_training_takes_about_as_long_as_a_cpu_measured(
    name: str, micro_batch: int, flops: float, operations: int
) -> None:
    rows = json.loads((RESULTS / "plan.json").read_text())["rows"]
    (row,) = (
        row
        for row in rows
        if (row["name"], row["optim"], row["micro_batch"]) == (name, "adamw_torch_fused", micro_batch)
    )
    cpu = Rated("cpu", 0.017e12, 0.069e12, 24 * 10**9, "measured")
    assert cpu.seconds(flops, operations, bf16=False) == pytest.approx(row["measured_seconds"], rel=0.2)


@pytest.mark.parametrize(
    ("asked", "other"),
    [("bf16", {}), ("fp32", {}), ("bf16", {"on": "H100"}), ("bf16", {"model_args": {"dtype": "bfloat16"}})],
)
def test_another_precision_is_advised_where_bfloat16_is_emulated(
    asked: str, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a product of matrices in bfloat16 takes four times as long."""
    monkeypatch.setattr(compute, "has_bf16", lambda device: device != "cpu")
    found = ocl_bench.plan(**SMALL | {"overrides": [*SMALL["overrides"], f"recipe.precision={asked}"]}, **other)
    emulated = asked == "bf16" and not other and found.plan.config.compute.device == "cpu"
    assert ("--set recipe.precision=fp32 trains faster here" in estimate_table(found)) == emulated


@pytest.mark.parametrize(
    ("driver", "known"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-80GB", "A100"),
     ("NVIDIA L4", "L4"), ("NVIDIA L40", None), ("NVIDIA A10G", None)],
)  # fmt: skip
def test_a_card_is_known_by_its_whole_name(driver: str, known: str | None) -> None:
    found = of_driver(driver)
    assert (found and found.name) == known


@pytest.mark.parametrize(("device", "together"), [("cpu", sum), ("H100", max)])
def test_a_cpu_computes_and_calls_in_turn_and_a_card_at_the_same_time(
    device: str, together: Callable[[tuple[float, float]], float]
) -> None:
    rated = Rated("cpu", 1e10, 7e10, 1, "measured") if device == "cpu" else named(device)
    alone = rated.seconds(2e12, 0, bf16=False), rated.seconds(0, 5e5, bf16=False)
    assert rated.seconds(2e12, 5e5, bf16=False) == pytest.approx(together(alone))


def test_the_fastest_device_has_the_shortest_time() -> None:
    rates = {one.name: one.seconds(1e18, 1e6, bf16=True) for one in KNOWN}
    assert rates["H200"] < rates["A100"] < rates["A10"]
