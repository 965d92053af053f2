"""Find, include, override and validate task files."""

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    folders = [Path(folder) for folder in include_path]
    return _with_what_is_read(*_read_task(str(name), as_overrides(overrides), folders))


def _read_task(name: str, overrides: Sequence[str], include_path: Sequence[Path]) -> tuple[Task, str]:
    """A task as its file has it, and what messages call the file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _find(name, include_path)
    data = read_with_includes(path, partial(_find, include_path=include_path), _read_anchored, _lay_task)
    for override in overrides:
        apply_override(data, override)
    where = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    task = Task.parse(data, where)
    if task.task != path.stem:
        raise OclBenchError(f"{path}: task is '{task.task}', but the file is called {path.name}; make them agree.")
    return task, where


def source_args(task: Task, where: str = "task") -> Any:
    """The source's own arguments, validated by the source's contract.

    Raises:
        OclBenchError: if there is no such source here, saying where it may come from; or they do not fit.
    """
    if task.source not in SOURCES:
        raise OclBenchError(f"{where}: {_missing(task)}")
    return SOURCES.load(task.source).Args.parse(task.source_args, f"{where}: source_args")


def _missing(task: Task) -> str:
    """Why a task's source is not here, and where it may come from."""
    if clash := SOURCES.plugins.clash(task.source):
        return clash
    if task.package is not None:
        return f"source '{task.source}' is missing; it comes with the package {task.package}: install that."
    known = did_you_mean(task.source, SOURCES)
    return f"source '{task.source}' is missing: no package that is installed brings it, nor ocl-bench ({known})."


def _with_what_is_read(task: Task, where: str) -> Task:
    """The task with what its source reads from files in its arguments, so that the task holds all it is made from."""
    args = source_args(task, where)
    source = SOURCES.load(task.source)()
    if not hasattr(source, "read"):
        return task
    return task.model_copy(update={"source_args": source.read(args).model_dump(mode="json", exclude_none=True)})


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


def apply_override(data: dict[str, Any], override: str, below: str = "") -> None:
    """Set one dotted key of `data` in place, as in `design.alpha=0.9`; `below` is what the user wrote before it."""
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    where = f"--set {below}{override}"
    if not equals or not all(parts):
        raise OclBenchError(f"{where}: write it as key=value, such as design.alpha=0.9.")
    for part in parts[:-1]:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise OclBenchError(f"{where}: '{part}' is a value and has no keys below it.")
        data = inner
    data[parts[-1]] = parse_yaml(value, where)


def _find(name: str, include_path: Sequence[Path]) -> Path:
    files = task_files(include_path)
    if name not in files:
        raise OclBenchError(f"unknown task '{name}'; {did_you_mean(name, files)}")
    return files[name]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base`: mappings key by key, everything else whole."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def read_with_includes(
    path: Path,
    find: Callable[[str], Path],
    read: Callable[[Path], dict[str, Any]] = read_yaml,
    lay: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = merge,
    chain: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Read a file, laid on the one that its key `include` names, if it has one.

    Args:
        path: the file.
        find: the file of a name; `include` may also name a `.yaml` file, relative to the one that includes it.
        read: reads one file.
        lay: lays what a file says on what it includes.
        chain: the files that include it.

    Raises:
        OclBenchError: naming each file on the way to one that is missing or wrong, or that includes itself.
    """
    if path.resolve() in chain:
        circle = " → ".join(one.name for one in (*chain[chain.index(path.resolve()) :], path))
        raise OclBenchError(f"{path}: the file includes itself ({circle}); remove the include.")
    data = read(path)
    parent = data.pop("include", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise OclBenchError(f"{path}: include must be a name or a file, got {parent!r}.")
    try:
        base = path.parent / parent if parent.endswith((".yaml", ".yml")) else find(parent)
        included = read_with_includes(base, find, read, lay, (*chain, path.resolve()))
    except OclBenchError as error:
        raise OclBenchError(f"{path}: include: {error}") from None
    return lay(included, data)


def _read_anchored(path: Path) -> dict[str, Any]:
    """A task file, in which a source's path is relative to the file that names it."""
    data = read_yaml(path)
    args = data.get("source_args")
    if isinstance(args, dict) and isinstance(args.get("path"), str):
        args["path"] = os.path.normpath(path.absolute().parent / args["path"])
    return data


def _lay_task(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As `merge`, but another source begins with no arguments and no package: those of the base are not its own."""
    if over.get("source", base.get("source")) != base.get("source"):
        base = {key: value for key, value in base.items() if key not in ("source_args", "package")}
    return merge(base, over)


@dataclass(frozen=True)
class Listed:
    """A task that was found, and why it cannot be run here: one sentence, empty if it can."""

    task: Task
    fault: str


def all_tasks(include_path: Sequence[Path] = ()) -> Iterator[Listed]:
    """Every task that can be found, in the order of their names, whether or not its source is here."""
    for name in sorted(task_files(include_path)):
        task, where = _read_task(name, (), include_path)
        try:
            yield Listed(_with_what_is_read(task, where), "")
        except OclBenchError as error:
            yield Listed(task, str(error))
