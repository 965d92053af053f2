"""What a manifest says of the checkout that made a run."""

import subprocess
from pathlib import Path

import pytest

from ocl_bench.runner import manifest


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("runs/results.json", False),
        ("notes.md", False),
        ("docs/studies/pairs.json", False),
        ("ocl_bench/score/gaps.py", True),
        ("tasks/mine/mine.yaml", True),
        ("pyproject.toml", True),
    ],
)
def test_only_what_decides_numbers_makes_a_checkout_dirty(
    path: str, dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for arguments in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all")):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments], check=True
        )
    monkeypatch.setattr(manifest, "PROJECT", tmp_path / "pyproject.toml")
    assert manifest.checkout_state.__wrapped__()[1] is False
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("changed\n")
    assert manifest.checkout_state.__wrapped__()[1] is dirty
