"""The built wheel, away from the checkout, has everything a run needs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("ocl_bench-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, cwd=tmp_path)

    def call(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "ocl_bench.cli", *arguments]
        environment = os.environ | {"PYTHONPATH": str(site)}  # goes before the checkout that is installed for the tests
        return subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, check=True, timeout=300
        ).stdout

    assert str(site) in call("ls")
    verified = call("data", "verify", "attributes").splitlines()
    assert len(verified) == 3 * 10 and all(line.startswith("ok") for line in verified)
    small = [
        "--task",
        "attributes",
        "--set",
        "source_args.num_entities=60",
        "--set",
        "recipe.epochs=[1,1]",
        "--seeds",
        "1",
        "--limit",
        "3",
    ]
    assert "meta_ocl_gap" in call("run", *small)
