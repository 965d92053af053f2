"""What is wrong with the input is found before anything is trained or half written, and told in one sentence."""

import contextlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from safetensors.torch import load_file, save_file

import ocl_bench
from ocl_bench.errors import OclBenchError, counted, did_you_mean, first_line
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model

SMALL = ["source_args.num_entities=60"]


def refusal(model: Path | str, folder: Path, **options: Any) -> str:
    """What is said of a run that is refused; nothing may be left of it, and one dataset may be built at most."""
    fields = {"task": "attributes", "seeds": 3, "overrides": SMALL, "output_path": folder / "out", **options}
    with pytest.raises(OclBenchError) as caught:
        ocl_bench.run(str(model), **fields)
    assert not (folder / "out").exists()
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, model_folder: Any) -> Path:
    """A model's folder that a test may spoil."""
    return Path(shutil.copytree(model_folder("gpt2"), tmp_path / "model"))


def test_weights_that_were_cut_off_are_told_by_their_file(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors is not whole" in refusal(folder, tmp_path)


def test_weights_that_are_no_numbers_are_told_by_their_name(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.c_fc.bias"))
    weights[name][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    spec = parse_model(str(folder))
    with pytest.raises(OclBenchError, match=r"its weights are spoilt, because '.*mlp\.c_fc\.bias' holds NaN"):
        load_model(spec, load_tokenizer(spec, []), seed=0)


def test_an_encoder_is_told_by_its_configuration(tmp_path: Path) -> None:
    shape = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    assert "it is an encoder" in refusal(f"scratch:{tmp_path}", tmp_path)


def test_of_a_configuration_that_is_wrong_the_cause_is_told(tmp_path: Path) -> None:
    shape = {"model_type": "gpt_neox", "hidden_size": 50, "num_hidden_layers": 1, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    assert "not divisible by the number of attention heads" in refusal(f"scratch:{tmp_path}", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_args": {"tokenizer": "someone/none-such"}}, "--model_args tokenizer=someone/none-such: neither"),
        ({"also_tasks": ["piqa"]}, "--also_tasks: what lm-eval's 'piqa' asks cannot be loaded"),
        ({"engine_args": {"dtype": "half"}, "engine": "torch"}, "--engine_args are vLLM's"),
    ],
)
def test_what_is_not_here_is_refused_without_asking_for_it_again(
    options: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    assert message in refusal(folder, tmp_path, **options)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.probes={layers: [9]}", "has layers 0 to"),
        ("evaluate.probes={folds: 50}", "50 folds need as many entities"),
        ("evaluate.gradients={subsets: [qa_only, d1_cons]}", "'qa_only' has no definitions"),
    ],
)
def test_probes_and_gradients_are_checked_on_the_first_dataset(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocl_bench.runner import plan

    built = []

    def counting(*arguments: Any) -> Any:
        built.append(arguments)
        return plan_build(*arguments)

    plan_build = plan.build
    monkeypatch.setattr(plan, "build", counting)
    assert message in refusal("scratch:tiny-16", tmp_path, overrides=[*SMALL, override])
    assert len(built) == 1


def test_all_tasks_are_checked_before_the_first_is_trained(tmp_path: Path) -> None:
    done = call(
        "run", "--tasks", "attributes,world", "--seeds", "2", "--set", "source_args.num_entities=60",
        "--set", "evaluate.max_new_tokens=500", "--output_path", "out", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert len(done.stderr.strip().splitlines()) == 1 and "task '" in done.stderr


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file becomes larger than some kilobytes: the write itself fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("command", [("data", "build"), ("export",)])
@pytest.mark.parametrize("there", [False, True])
def test_on_a_full_disk_nothing_is_half_written(command: tuple[str, ...], there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x1.jsonl").write_text("what was there\n")
    before = sorted(tmp_path.rglob("*"))
    words = (*command, "attributes", "--set", "source_args.num_entities=200", "--output_path", "out")
    with full_disk():
        done = call(*words, folder=tmp_path)
    assert done.returncode == 2 and "out cannot be written (File too large)" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and sorted(tmp_path.rglob("*")) == before
    assert call(*words, folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("name", "meant"), [("lr", "learning_rate"), ("num_train_epochs", "epochs"), ("wd", "weight_decay")]
)
def test_what_other_libraries_call_it_is_known(name: str, meant: str, tmp_path: Path) -> None:
    done = call("run", "--set", f"recipe.{name}=1", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.endswith(f"unknown key '{name}'; did you mean '{meant}'?\n")


def test_texts_of_errors() -> None:
    assert did_you_mean("lr", ["learnt"]) == "did you mean 'learnt'?" or did_you_mean("lr", ["x"]) == "known: x"
    assert first_line("it failed:\n  the cause\n more") == "it failed: the cause"
    assert first_line("a line\nanother") == "a line"
    assert (counted(1, "seed"), counted(2, "seed"), counted(0, "seed")) == ("1 seed", "2 seeds", "0 seeds")
