"""The command line answers at once, spells options as lm-eval does, and turns mistakes into one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call

from ocl_bench.cli import too_wide


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["ls"], ["validate", "mine.yaml"], ["--version"]])
def test_light_commands_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("include: attributes\ntask: mine\n")
    command = [sys.executable, "-X", "importtime", "-m", "ocl_bench.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "click" in imported
    assert not imported & {"torch", "transformers", "scipy", "matplotlib", "peft", "ray", "submitit"}


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ocl_bench; ocl_bench.run; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_ls_names_tasks_recipes_and_scratch_models(tmp_path: Path) -> None:
    done = call("ls", folder=tmp_path)
    for name in ("attributes", "cvdb", "standard", "batch_size", "paper", "tiny", "scratch:tiny", "CC-BY-SA-4.0"):
        assert name in done.stdout


def test_data_build_writes_the_released_records(tmp_path: Path) -> None:
    done = call("data", "build", "attributes", "--seed", "2", "--output-path", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.jsonl", "x1.jsonl", "x2.jsonl"]
    assert len((tmp_path / "out" / "x2.jsonl").read_text().splitlines()) == 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "unknown command 'rn'; did you mean 'run'"),
        (["run", "--modle", "x"], "--model"),
        (["run", "--task", "atributes"], "did you mean 'attributes'"),
        (["run", "--tasks", ","], "name at least one task"),
        (["run", "--tasks", "attributes,atributes"], "unknown task 'atributes'"),
        (["study", "batchsize"], "did you mean 'batch_size'"),
        (["study", "two_stage", "--seeds", "x"], "--seeds: 'x' is not a number"),
        (["data", "fetch", "cvd"], "did you mean 'cvdb'"),
        (["run", "--model", ""], "there is no such folder"),
        (["run", "--model", "./none"], "there is no such folder"),
        (["run", "--model", "a b/c"], "there is no such folder"),
        (["run", "--model", "scratch:tinny"], "did you mean 'tiny'"),
        (["run", "--model-args", "dtpe=bfloat16"], "did you mean 'dtype'"),
        (["run", "--seeds", "three"], "--seeds: 'three' is not a number"),
        (["run", "--batch_size", "²"], "--batch_size"),
        (["run", "--set", "design.alfa=1"], "did you mean 'alpha'"),
        (["run", "--set", "design.fractions.unseen=.5"], "sum to 1.4"),
        (["run", "--set", "design.alpha"], "write it as key=value"),
        (["run", "--set", "recipe.epochs=[1"], "--set recipe.epochs=[1 line 1"),
        (["run", "--recipe", "papr"], "did you mean 'paper'"),
        (["run", "--output_path", "/proc/none"], "choose another with --output_path"),
        (["run", "--config", "none.yaml"], "none.yaml"),
        (["run", "--include_path", "none"], "there is no such folder"),
        (["validate", "none.yaml"], "none.yaml"),
        (["data", "build", "none", "--output_path", "left"], "unknown task 'none'"),
        (["data", "build", "attributes", "--seed", "-1", "--output_path", "left"], "--seed"),
        (["data", "verify", "none"], "unknown task"),
        (["score", "."], "not a run folder"),
        (["plot", "."], "not a run folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = call(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


def test_a_table_wider_than_the_terminal_says_so() -> None:
    assert too_wide("a" * 80, 80) is None and too_wide("", 80) is None
    assert too_wide("a\n" + "b" * 81, 80) == "lines of 81 columns, this terminal has 80"


def test_a_wrong_option_in_a_config_file_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 3\n")
    done = call("run", "--config", "run.yaml", folder=tmp_path)
    assert done.returncode == 2 and "did you mean 'seeds'" in done.stderr
