"""Find, include, override and validate task files."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.contract import parse_yaml, read_yaml
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import SOURCES

_PACKAGE = Path(__file__).resolve().parent.parent
# In an installed package the task folder is inside it; in a checkout it is at the top of the repository.
TASK_FOLDER = next(path for path in (_PACKAGE / "task_files", _PACKAGE.parent / "tasks") if path.is_dir())

# Folders beside tasks whose YAML files are something else.
OTHER_FILES = ("recipes", "groups", "studies", "lm_eval")


def task_files(include_path: Sequence[Path] = ()) -> dict[str, Path]:
    """Every task's name and file: those of the suite and those below the folders of `include_path`.

    Raises:
        OclBenchError: if a folder is missing or two files have the same name.
    """
    found: dict[str, Path] = {}
    for folder in (TASK_FOLDER, *include_path):
        if not folder.is_dir():
            raise OclBenchError(f"--include_path {folder}: there is no such folder.")
        for path in sorted(path for path in folder.rglob("*.yaml") if path.parent.name not in OTHER_FILES):
            if path.stem in found:
                raise OclBenchError(f"task '{path.stem}' is in both {found[path.stem]} and {path}; rename one.")
            found[path.stem] = path
    return found


def load_task(name: str | Path, overrides: "Overrides" = (), include_path: Sequence[Path | str] = ()) -> Task:
    """Load a task by name or by file.

    Args:
        name: a task's name, or the path of a `.yaml` file.
        overrides: dotted key → value, or `key=value` with YAML values, such as `design.alpha=0.9`.
        include_path: further folders with task files.

    Raises:
        OclBenchError: naming the file, the key and the fix.
    """
    name, overrides, folders = str(name), as_overrides(overrides), [Path(folder) for folder in include_path]
    path = Path(name) if name.endswith((".yaml", ".yml")) else _find(name, folders)
    data = _read_with_includes(path, folders, ())
    for override in overrides:
        apply_override(data, override)
    where = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    task = Task.parse(data, where)
    if task.task != path.stem:
        raise OclBenchError(f"{path}: task is '{task.task}', but the file is called {path.name}; make them agree.")
    source_args(task, where)
    return task


def source_args(task: Task, where: str = "task") -> Any:
    """The source's own arguments, validated by the source's contract."""
    if task.source not in SOURCES:
        raise OclBenchError(f"{where}: unknown source '{task.source}'; {did_you_mean(task.source, SOURCES)}")
    return SOURCES.load(task.source).Args.parse(task.source_args, f"{where}: source_args")


Overrides = Mapping[str, Any] | Sequence[str] | str


def as_overrides(overrides: Overrides) -> tuple[str, ...]:
    """Overrides as `key=value`, the way that manifests keep them.

    Raises:
        OclBenchError: for what are none, or a value that no task file could hold.
    """
    if isinstance(overrides, str):
        return (overrides,)
    if not isinstance(overrides, (Mapping, Sequence)):
        raise OclBenchError(f"overrides {overrides!r}: give a mapping of dotted keys to values, or texts as key=value.")
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    try:
        # JSON is YAML too.
        return tuple(
            f"{key}={json.dumps(value, ensure_ascii=False, allow_nan=False)}" for key, value in overrides.items()
        )
    except (TypeError, ValueError) as error:
        raise OclBenchError(f"overrides: {error}; use numbers, strings, lists and mappings only.") from None


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key of `data` in place, as in `design.alpha=0.9`."""
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise OclBenchError(f"--set {override}: write it as key=value, such as design.alpha=0.9.")
    for part in parts[:-1]:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise OclBenchError(f"--set {override}: '{part}' is a value and has no keys below it.")
        data = inner
    data[parts[-1]] = parse_yaml(value, f"--set {override}")


def _find(name: str, include_path: Sequence[Path]) -> Path:
    files = task_files(include_path)
    if name not in files:
        raise OclBenchError(f"unknown task '{name}'; {did_you_mean(name, files)}")
    return files[name]


def _read_with_includes(path: Path, include_path: Sequence[Path], chain: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in chain:
        raise OclBenchError(f"{path}: the file includes itself; remove the include.")
    data = read_yaml(path)
    parent = data.pop("include", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise OclBenchError(f"{path}: include must be a task's name or a file, got {parent!r}.")
    try:
        base = path.parent / parent if parent.endswith((".yaml", ".yml")) else _find(parent, include_path)
        included = _read_with_includes(base, include_path, (*chain, path.resolve()))
    except OclBenchError as error:
        raise OclBenchError(f"{path}: include: {error}") from None
    return merge(included, data)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`: mappings key by key, everything else whole."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def all_tasks(include_path: Sequence[Path] = ()) -> Iterator[Task]:
    """Every task that can be found, validated, in the order of their names."""
    for name in sorted(task_files(include_path)):
        yield load_task(name, include_path=include_path)
