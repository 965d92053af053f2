"""The layout holds: a module imports only from those above it, and nothing goes in circles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ocl_bench

PACKAGE = Path(ocl_bench.__file__).parent
# package → those that it may import from, besides itself and the modules at the top (contract, errors, files, …)
ABOVE = {
    "tasks": set(),
    "models": {"tasks"},
    "finetune": {"tasks", "models"},
    "evaluate": {"tasks", "models"},
    "score": {"tasks", "models", "evaluate"},
    "runner": {"tasks", "models", "finetune", "evaluate", "score"},
    "report": {"tasks", "models", "evaluate", "score", "runner", "study", "toy"},
    "study": {"tasks", "models", "score", "runner", "report"},
    "toy": {"tasks", "runner", "score", "report"},
    "leaderboard": {"tasks", "models", "finetune", "evaluate", "score", "runner", "report"},
}
BASE = {
    "collection", "contract", "errors", "files", "frames", "registry", "processes", "forking", "lean", "template",
    "text", "plugins",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """First names below `ocl_bench` that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.ImportFrom) and node.module == "ocl_bench":
            names = [f"ocl_bench.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("ocl_bench.")}
    return found


@pytest.mark.parametrize("package", ABOVE)
def test_a_package_imports_only_from_those_above_it(package: str) -> None:
    allowed = ABOVE[package] | BASE | {package}
    lazily = {"leaderboard": {"api"}, "study": {"api"}, "score": {"api"}, "tasks": set()}.get(package, set())
    for path in sorted((PACKAGE / package).rglob("*.py")):
        assert imported(path) <= allowed | lazily, path


def test_what_is_at_the_top_imports_no_package() -> None:
    for name in BASE:
        assert imported(PACKAGE / f"{name}.py") <= BASE, name


def test_listing_and_helping_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ocl_bench.cli import main; "
        "main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torch', 'transformers', 'peft', 'ray', 'submitit', 'numpy', 'pyarrow', 'pandas', 'scipy'}; "
        "assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))"
    )
    for arguments in (["ls"], ["run", "--help"], ["cache", "ls", "--output_path", str(tmp_path)]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr[-500:])
