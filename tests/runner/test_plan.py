"""A request is resolved, or refused in one sentence before anything is trained."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.finetune.recipe import RECIPE_FOLDER
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import ModelArgs, parse_model
from ocl_bench.runner.plan import Choice, choose, validate_task
from ocl_bench.runner.request import RunRequest
from ocl_bench.tasks.load import TASK_FOLDER

ATTRIBUTES = (TASK_FOLDER / "attributes" / "attributes.yaml").read_text()


def chosen(model: str | None = "scratch:tiny", task: str = "attributes", **options: Any) -> Choice:
    return choose(RunRequest.from_options(model=model, task=task, **options))


def test_the_recipe_depends_on_where_the_weights_come_from(model_folder: Any) -> None:
    assert chosen().recipe.recipe == "tiny"
    assert chosen(str(model_folder("gpt2"))).recipe.recipe == "paper"
    assert chosen(overrides=["recipe.scratch=paper"]).recipe.recipe == "paper"


def test_a_disk_without_room_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is told, since a test cannot fill one."""
    full = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    sentence = r"--output_path .*: the run may need 0\.0[0-9]+ GB and the disk has 0\.001 GB left; .*--keep last\.$"
    with pytest.raises(OclBenchError, match=sentence):
        ocl_bench.run(task="attributes", overrides=["source_args.num_entities=60"], output_path=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "modified"),
    [
        ({}, False),
        ({"recipe": "tiny"}, False),
        ({"overrides": ["recipe.weight_decay=0.1"]}, False),  # the value it has
        ({"overrides": ["recipe.weight_decay=0.2"]}, True),
        ({"overrides": ["design.alpha=0.9"]}, True),
        ({"recipe": "paper"}, True),
        ({"recipe": "lora"}, True),
        ({"overrides": ["recipe.adapter={rank: 4, alpha: 32}"]}, True),
        ({"overrides": ["recipe.adapter=null"]}, False),
        ({"model_args": ModelArgs(dtype="bfloat16")}, True),
        ({"trust_remote_code": True}, False),
        ({"overrides": ["evaluate.probes=true"]}, False),
        ({"task": "six_stages"}, False),  # which asks for probes by itself
        ({"task": "six_stages", "overrides": ["evaluate.probes=null"]}, False),
    ],
)
def test_only_the_suites_own_task_and_recipe_count_as_unmodified(options: dict[str, Any], modified: bool) -> None:
    assert chosen(**options).modified is modified


def test_files_with_the_names_of_the_suite_do_not_pass_for_them(tmp_path: Path) -> None:
    (tmp_path / "attributes.yaml").write_text(ATTRIBUTES.replace("2000", "60"))
    assert chosen("scratch:tiny", str(tmp_path / "attributes.yaml")).modified
    recipe = tmp_path / "recipes" / "tiny.yaml"
    recipe.parent.mkdir()
    recipe.write_text((RECIPE_FOLDER / "tiny.yaml").read_text().replace("2e-3", "1e-3"))
    assert chosen(recipe=str(recipe)).modified
    (tmp_path / "attributes.yaml").unlink()
    with pytest.raises(OclBenchError, match="recipe 'tiny' is in both"):
        chosen(include_path=[tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_entities: 2000", "num_entities: 5"), "d2_incons_qa"),
        (("num_entities: 2000", "num_entities: 50000"), "10000 combinations"),
        (("scratch: tiny", "scratch: tinny"), "did you mean 'tiny'"),
        (("train: [x2]", "train: [x2/qa]"), "unknown training data 'x2/qa'"),
    ],
)
def test_validate_finds_what_only_building_would_show(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ATTRIBUTES.replace("task: attributes", "task: mine").replace(*change))
    with pytest.raises(OclBenchError, match=message):
        validate_task(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "EleutherAI/none-such"}, "neither the hub nor the local cache has it"),
        ({"device": "gpu"}, "--device gpu"),
        ({"device": "cuda:7"}, "no such device"),
        ({"report_to": ["tensorbord"]}, "did you mean 'tensorboard'"),
        ({"limit": 0}, "limit: input should be greater than or equal to 1, got 0"),
        ({"overrides": ["evaluate.max_new_tokens=100"]}, "64 positions"),
        ({"overrides": ["recipe.epochs=[1]"]}, "epochs for 1 stages"),
        ({"overrides": ["recipe.epochs=[0,1]"]}, "epochs.0"),
        ({"output_path": "/dev/null/runs"}, "--output_path"),
        ({"engine": "vlm"}, "--engine vlm: unknown engine"),
        ({"engine": "torch", "engine_args": {"dtype": "float32"}}, "--engine is torch"),
        ({"engine": "vllm", "engine_args": {"seed": 1}}, "the run decides seed"),
        ({"engine_args": "seed=1"}, "give names and values"),
        ({"model_args": {"dtpye": "bfloat16"}}, r"unknown key 'model_args\.dtpye'; did you mean 'dtype'\?$"),
        ({"model_args": "dtype=bfloat16"}, "model_args: "),
    ],
)
def test_a_run_that_cannot_work_is_refused_and_leaves_nothing(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small = [*options.pop("overrides", []), "source_args.num_entities=60"]
    with pytest.raises(OclBenchError, match=message):
        ocl_bench.run(task="attributes", **({"seeds": 1, "output_path": tmp_path / "out"} | options), overrides=small)
    assert not (tmp_path / "out").exists()


def test_two_stage_2_seeds_need_a_stage_on_x2(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("include: attributes\ntask: one\nstages: [{name: x1, train: [x1]}]\n")
    with pytest.raises(OclBenchError, match="no stage that trains on x2"):
        ocl_bench.run(
            task="one", include_path=[tmp_path], stage2_seeds=2, overrides=["recipe.epochs=[1]"], output_path=tmp_path
        )


def test_an_encoder_that_loads_as_a_causal_model_is_refused(tmp_path: Path) -> None:
    shape = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape | {"intermediate_size": 64}))
    spec = parse_model(f"scratch:{tmp_path}")
    tokenizer = load_tokenizer(spec, ["Q: colour <|abcde|>\nA: red\n", "one two three four"])
    with pytest.raises(OclBenchError, match="not a causal language model"):
        load_model(spec, tokenizer, seed=0)


def test_a_folder_without_weights_is_refused_before_training(tmp_path: Path, model_folder: Any) -> None:
    folder = shutil.copytree(model_folder("gpt2"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OclBenchError, match="holds no"):
        ocl_bench.run(
            str(folder), task="attributes", overrides=["source_args.num_entities=60"], output_path=tmp_path / "out"
        )


def test_a_hub_model_is_pinned_to_its_commit_from_the_local_cache(tmp_path: Path, model_folder: Any) -> None:
    """A cache folder laid out as huggingface_hub lays it out, read with the hub's own code and no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = Path(os.environ["HF_HUB_CACHE"]) / "models--someone--tiny-neox"
    shutil.copytree(model_folder("gpt_neox"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    result = ocl_bench.run(
        "someone/tiny-neox", task="attributes", seeds=1, limit=5, curves=False, output_path=tmp_path,
        overrides=["source_args.num_entities=40", "recipe.epochs=[1,1]", "recipe.precision=fp32"],
    )  # fmt: skip
    assert result.results.model_revision == commit
    (manifest,) = (tmp_path / "someone__tiny-neox").rglob("manifest.json")
    assert json.loads(manifest.read_text())["config"]["model"]["args"]["revision"] == commit
