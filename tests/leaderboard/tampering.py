"""A way to tamper with copies of a submission."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocl_bench.files import sha256_of_file
from ocl_bench.leaderboard.submission import SUBMISSION
from ocl_bench.leaderboard.validate import check


class Copy:
    """A copy of a submission, to tamper with."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.path = folder.joinpath(*original.parts[-3:])
        shutil.copytree(original, self.path)

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change a JSON file; `change` edits the value in place, or returns another."""
        value = json.loads((self.path / name).read_text())
        changed = change(value)
        self.write(name, json.dumps(value if changed is None else changed, indent=2))

    def edit_lines(self, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Change the lines of a compressed file."""
        rows = [json.loads(line) for line in gzip.decompress((self.path / name).read_bytes()).splitlines()]
        change(rows)
        self.write(name, gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    def replace(self, name: str, old: str, new: str) -> None:
        """Change text, where JSON would not hold it."""
        packed = name.endswith(".gz")
        content = (self.path / name).read_bytes()
        text = (gzip.decompress(content) if packed else content).decode()
        assert old in text
        changed = text.replace(old, new, 1).encode("utf-8", "surrogatepass")
        self.write(name, gzip.compress(changed) if packed else changed)

    def write(self, name: str, content: bytes | str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def rehash(self) -> None:
        """What a careful cheat does: make the checksums those of the changed files."""
        try:
            submission = json.loads((self.path / SUBMISSION).read_text())
            files = (path for path in sorted(self.path.rglob("*")) if path.is_file() and path.name != SUBMISSION)
            submission["files"] = {path.relative_to(self.path).as_posix(): sha256_of_file(path) for path in files}
        except (OSError, ValueError, TypeError):
            return
        self.write(SUBMISSION, json.dumps(submission))

    def problems(self) -> list[str]:
        return [str(problem) for problem in check(self.path).problems]
