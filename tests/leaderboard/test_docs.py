"""The pages that tell how to add a model and a task are followed, command by command."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The file's name is the last that is named before its block.
NAMED = re.compile(r"`([\w./-]+\.(?:json|yaml|csv))`[^`]*:\s*$")


def follow(page: Path, folder: Path) -> list[str]:
    """Write the files that a page shows, and run its commands; returns what each printed."""
    text, printed = page.read_text(encoding="utf-8"), []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in BLOCK.finditer(text):
        kind, content = block.groups()
        if kind in ("json", "yaml", "csv"):
            named = NAMED.search(text[: block.start()])
            assert named, f"{page.name}: a file is shown without its name"
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        elif kind == "sh":
            for command in content.splitlines():
                program, *arguments = shlex.split(command)
                if program == "ocl-bench" and not set(command) & set("|<>$`;&*"):
                    done = call(*arguments, folder=folder)
                else:
                    done = subprocess.run(
                        ["bash", "-c", command],
                        cwd=folder,
                        env=environment,
                        capture_output=True,
                        text=True,
                        timeout=300,
                    )
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
                printed.append(done.stdout + done.stderr)
        else:
            assert kind == "text", f"{page.name}: a block of kind {kind} is not followed"
    return printed


def test_adding_a_model_is_as_its_page_says(tmp_path: Path) -> None:
    trial, refused, submitted, checked, built, again = follow(DOCS / "adding_a_model.md", tmp_path)
    assert "meta_ocl_gap" in trial
    for reason in (
        "lacks the standard seeds 2, 3, 4",
        "the task was changed",
    ):
        assert reason in refused
    assert "submission" in submitted and "next" in submitted
    assert checked == again and checked.strip().endswith(": ok")
    assert built.split()[:2] == ["leaderboard/README.md", "leaderboard/site/index.html"]
    assert "me/my-gpt2" in (tmp_path / "leaderboard" / "README.md").read_text()


def test_adding_a_task_is_as_its_page_says(tmp_path: Path) -> None:
    valid, listed, examples, built, shown, run, own_valid, own = follow(DOCS / "adding_a_task.md", tmp_path)
    assert "task 'less_reliable' version 1 is valid" in valid
    assert "less_reliable" in listed and built.count("records") == 3
    assert re.search(r"x1 +d1_cons_qa +definition", examples) and '"split": "x1"' in shown
    assert "less_reliable (version 1)" in run and "meta_ocl_gap" in run
    assert "task 'elements' version 1 is valid" in own_valid and "What is the symbol of" in own


@pytest.mark.parametrize("page", ["adding_a_model.md", "adding_a_task.md", "plugins.md", "running.md"])
def test_what_the_pages_link_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        assert (DOCS / target).exists(), target
