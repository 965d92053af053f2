"""A run by adapters has stages as any other, with the adapter beside, and goes into the open division."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Heard, call

import ocl_bench
from ocl_bench import OclBenchError
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.validate import check
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.store import Store

X2_BY_ADAPTER = "recipe.adapter=[null, {rank: 2, alpha: 4}]"
FILES = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def run(output: Path, *overrides: str, **options: Any) -> tuple[Path, Heard]:
    heard = Heard()
    asked = {"seeds": 1, "curves": False, **options}
    done = ocl_bench.run(
        "scratch:tiny-16",
        task="attributes",
        overrides=["source_args.num_entities=60", "recipe.epochs=[2,2]", "evaluate.sets=[]", *overrides],
        output_path=output,
        progress=heard.shown,
        **asked,
    )
    return done.folder, heard


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output folder, and its run of an X1 in full and an X2 by adapter."""
    output = tmp_path_factory.mktemp("adapters") / "out"
    return output, run(output, X2_BY_ADAPTER, curves=True)[0]


def test_the_adapter_lies_beside_the_merged_weights_and_nothing_else_knows_of_it(finished: tuple[Path, Path]) -> None:
    output, folder = finished
    stages = read_manifest(folder).stages["seed-0"]
    assert set(stages["x2"].files) >= FILES and not FILES & set(stages["x1"].files)
    assert stages["x2"].weights_before == stages["x1"].weights_after
    assert (folder / "seed-0" / "x2" / "curve.jsonl").is_file()
    for place in (Store(output).stage_path(stages["x2"].key), folder / "seed-0" / "x2"):
        assert {path.relative_to(place).as_posix() for path in place.glob("*/*")} == FILES
    spec = parse_model(str(folder / "seed-0" / "x2"))
    assert load_model(spec, load_tokenizer(spec, ()), 0)
    config = json.loads((folder / "seed-0" / "x2" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 4, None)


def test_a_stage_without_an_adapter_is_the_one_of_runs_that_have_none(finished: tuple[Path, Path]) -> None:
    output, folder = finished
    in_full, _ = run(output)
    first, second = (read_manifest(one).stages["seed-0"] for one in (folder, in_full))
    assert first["x1"] == second["x1"] and first["x2"].key != second["x2"].key
    assert "adapter" not in json.loads((in_full / "manifest.json").read_text())["config"]["recipe"]


def test_weights_may_go_and_the_adapter_stays_and_a_damaged_one_is_made_again(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished[0], tmp_path / "out"))
    record = read_manifest(finished[1]).stages["seed-0"]["x2"]
    place = Store(output).stage_path(record.key)
    assert call("cache", "prune", "--weights", "--output_path", output, folder=tmp_path).returncode == 0
    assert [path.relative_to(place).as_posix() for path in place.rglob("*.safetensors")] == [max(FILES)]
    path = place / max(FILES)
    own = path.read_bytes()
    path.write_bytes(own[:-1])
    heard = run(output, X2_BY_ADAPTER, curves=True)[1]
    assert any(note.startswith(f"{path} has") and note.endswith("x2 is trained again") for note in heard.notes)
    assert path.read_bytes() == own


def test_a_run_by_adapters_goes_into_the_open_division_without_them(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    card = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="X2 by adapters")
    place = write_submission(finished[1], tmp_path, "open", "someone/small", card).place
    assert check(tmp_path / place).problems == []
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_plan_counts_what_an_adapter_trains_and_not_what_it_leaves() -> None:
    small = {"task": "attributes", "overrides": ["source_args.num_entities=60"], "seeds": 1, "device": "cpu"}
    full, low = (ocl_bench.plan(**small, recipe=recipe).stages[0] for recipe in ("paper", "lora"))
    assert full.gradients == pytest.approx(full.weights, rel=0.01)
    assert low.gradients < 0.5 * full.gradients and low.weights > full.weights
    assert low.optimizer == pytest.approx(2 * low.gradients, rel=0.01)  # Adam's two moments


def test_an_adapter_over_several_devices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="--shard 2: recipe 'lora' trains an adapter, whose gradients would differ"):
        ocl_bench.run(task="attributes", recipe="lora", shard=2, device="cpu", output_path=tmp_path / "out")
