"""Tables of what there is to run: tasks, and what other packages bring. Shown at once, so with little to import."""

from collections.abc import Sequence

from tabulate import tabulate

from ocl_bench.plugins import Plugin
from ocl_bench.tasks.load import Listed, source_args
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import published_data


def task_table(tasks: Sequence[Listed]) -> str:
    """Tasks with version, entities, licence, and whether their data is here; then why some cannot be run."""
    rows = []
    for one in tasks:
        task = one.task
        entities, data = ("", "missing") if one.fault else (getattr(source_args(task), "num_entities", ""), _data(task))
        rows.append([task.task, task.version, entities, task.metadata.license, data, task.description])
    table = tabulate(rows, headers=["task", "version", "entities", "licence", "data", "what it is"], tablefmt="simple")
    faults = "".join(f"\n{one.fault}" for one in tasks if one.fault)
    return f"{table}\n{faults}" if faults else table


def _data(task: Task) -> str:
    states = {"present": "here", "fetched": "fetched, not built", "absent": "to be fetched"}
    source = published_data(task)
    return "here" if source is None else states[source.state()]


def plugin_table(plugins: Sequence[tuple[Plugin, str]]) -> str:
    """Parts of other packages: kind, name, package, version, and what is wrong with them."""
    rows = [[one.kind, one.name, f"{one.package} {one.version}", fault] for one, fault in plugins]
    return tabulate(rows, headers=["from other packages", "name", "package", ""], tablefmt="simple")
