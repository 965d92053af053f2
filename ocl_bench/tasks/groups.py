"""Groups: names that stand for several tasks, which may differ for models from random and from trained weights."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ocl_bench.contract import Contract, read_yaml
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.tasks.load import TASK_FOLDER, task_files


class Group(Contract):
    """A group file."""

    group: str = Field(pattern=r"^[a-z0-9_]+$", description="the group's name")
    description: str = Field(description="one sentence for `ocl-bench ls`")
    scratch: tuple[str, ...] = Field(min_length=1, description="tasks for models that start from random weights")
    pretrained: tuple[str, ...] = Field(min_length=1, description="tasks for models that start from trained weights")


def all_groups(include_path: Sequence[Path] = ()) -> dict[str, Group]:
    """Every group's name and content: `groups/*.yaml` in the suite's task folder and in those of `include_path`."""
    found: dict[str, Group] = {}
    for folder in (TASK_FOLDER, *include_path):
        for path in sorted((folder / "groups").glob("*.yaml")):
            group = Group.parse(read_yaml(path), str(path))
            if group.group != path.stem or group.group in found or group.group in task_files(include_path):
                raise OclBenchError(
                    f"{path}: group '{group.group}' needs the file's name, and one of its own; rename it."
                )
            found[group.group] = group
    return found


def expand(names: Sequence[str], pretrained: bool, include_path: Sequence[Path] = ()) -> list[str]:
    """Put the tasks of each group in its place; every task once. Raises OclBenchError for an unknown name."""
    groups, tasks = all_groups(include_path), task_files(include_path)
    expanded: dict[str, None] = {}
    for name in names:
        if name in groups:
            members = groups[name].pretrained if pretrained else groups[name].scratch
            expanded |= dict.fromkeys(members)
        elif name in tasks or name.endswith((".yaml", ".yml")):
            expanded[name] = None
        else:
            raise OclBenchError(f"unknown task '{name}'; {did_you_mean(name, [*tasks, *groups])}")
    return list(expanded)
