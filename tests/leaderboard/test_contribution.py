"""What a pull request adds is tried from git alone, and what came out is a summary that a stranger cannot write in."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import call
from proposals import REPOSITORY, Checkout

SCRIPT = REPOSITORY / ".github" / "contribution.py"
SMALL = ("--seeds", "1", "--no_curves", "--limit", "3", "--set", "recipe.epochs=[1,1]")
TASK = {
    "include": "attributes", "task": "shorter", "version": 1, "description": "Fewer entities.",
    "source_args": {"num_entities": 60}, "evaluate": {"sets": []}, "model": "hub/none",
}  # fmt: skip


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("contribution", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def proposal(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path / "proposal")
    checkout.git("switch", "--quiet", "--create", "new")
    return checkout


def test_a_task_is_run_and_its_table_is_the_summary(script: Any, proposal: Checkout, tmp_path: Path) -> None:
    proposal.write("tasks/shorter/shorter.yaml", yaml.safe_dump(TASK))
    proposal.write("tasks/shorter/README.md", "# shorter\n")
    proposal.write("ocl_bench/__init__.py", "raise SystemExit('the code of the pull request was run')\n")
    summary = tmp_path / "summary.md"
    code = script.main(proposal.path, "main", proposal.commit(), summary, SMALL)
    text = summary.read_text()
    assert code == 0 and "shorter (version 1) · scratch:tiny" in text and "meta_ocl_gap" in text, text
    assert text.count("###") == 1 and str(tmp_path) not in text and not (proposal.path / "runs").exists()


def test_a_large_model_is_planned_and_not_trained(
    script: Any, proposal: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*arguments: str | Path) -> tuple[bool, str]:
        done = call(*arguments, folder=tmp_path)
        return done.returncode == 0, done.stdout or done.stderr

    monkeypatch.setattr(script, "MOST_PARAMETERS", 1000)
    monkeypatch.setattr(script, "ask", ask)  # the task above is tried by processes, as on a runner
    config = (REPOSITORY / "ocl_bench/models/scratch/tiny-16/config.json").read_text()
    proposal.write("ocl_bench/models/scratch/large/config.json", config)
    summary = tmp_path / "summary.md"
    assert script.main(proposal.path, "main", proposal.commit(), summary, SMALL) == 0
    assert "parameters; at most 1000 are trained here" in summary.read_text()


def test_what_does_not_work_is_told_and_is_not_markdown(script: Any, proposal: Checkout, tmp_path: Path) -> None:
    wrong = yaml.safe_dump(TASK | {"colour": 1, "description": "x"}) + "# ````\n"
    proposal.write("tasks/shorter/shorter.yaml", wrong.replace("colour", '"````\\n<img src=x>\\e[31m"'))
    proposal.write("tasks/long/long.yaml", "#" * 70_000)
    (proposal.path / "tasks/linked").mkdir()
    (proposal.path / "tasks/linked/linked.yaml").symlink_to("/etc/passwd")
    proposal.write("code.py", "print('better')\n")
    summary = tmp_path / "summary.md"
    assert script.main(proposal.path, "main", proposal.commit(), summary, SMALL) == 1
    linked, long, shorter = summary.read_text().split("### ")[1:]
    assert "is no plain file" in linked and "root:" not in linked and "more than 64 KiB" in long
    assert shorter.count("`````") == 2 and "\x1b" not in shorter and "unknown key" in shorter


def test_code_alone_is_left_to_people(proposal: Checkout, tmp_path: Path) -> None:
    proposal.write("code.py", "print('better')\n")
    summary = tmp_path / "summary.md"
    command = [sys.executable, SCRIPT, proposal.path, "main", proposal.commit(), summary]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == summary.read_text().strip()
        == "No task file and no model configuration is added or changed."
    )
