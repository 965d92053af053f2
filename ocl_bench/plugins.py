"""Parts that other packages bring, found by entry points of `ocl_bench.sources`, `ocl_bench.metrics` and the like.

Every process finds them where the package is installed, and imports one when it is needed. What is checked or run for
the leaderboard finds none.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ocl_bench.errors import OclBenchError, first_clause

PREFIX = "ocl_bench."
GROUPS = ("sources", "metrics", "evaluators", "executors", "recipes")
SWITCH = "OCL_BENCH_PLUGINS"  # 0: none are found, in this process and in those that it starts
NAME = re.compile(r"[a-z0-9_]+")

_blocks = 0  # of `own_parts_only` that this process is in


@dataclass(frozen=True)
class Plugin:
    """One part that a package says it has.

    Attributes:
        kind: source, metric, evaluator, executor or recipe.
        name: as tasks, options and results name it.
        package, version: of the distribution.
        entry: what to import.
    """

    kind: str
    name: str
    package: str
    version: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of package {self.package}"


@contextmanager
def own_parts_only() -> Iterator[None]:
    """A block in which no part of another package is found, and so none is imported or run."""
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1


def installed() -> tuple[Plugin, ...]:
    """What all packages say they have, in the order of kinds and names."""
    if _blocks or os.environ.get(SWITCH) == "0":
        return ()
    return _installed(tuple(sys.path))


def packages() -> dict[str, str]:
    """Version of each package that has parts."""
    return {plugin.package: plugin.version for plugin in installed()}


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    found = []
    for group in GROUPS:
        own = [
            Plugin(group.removesuffix("s"), entry.name, entry.dist.name, entry.dist.version, entry)
            for entry in entry_points(group=f"{PREFIX}{group}")
            if entry.dist is not None  # an entry point that is found always has one
        ]
        found += sorted(own, key=lambda plugin: (plugin.name, plugin.package))
    return tuple(found)


class Plugins(Mapping[str, Plugin]):
    """The parts of one kind that other packages bring, by name: all whose name is their own.

    Args:
        kind: source, metric, evaluator, executor or recipe.
        own: gives the names of the suite's own parts.
        needs: attributes that each part has to have; a `name` among them has to be the plugin's.
    """

    def __init__(self, kind: str, own: Callable[[], Collection[str]], needs: Sequence[str] = ()) -> None:
        self.kind, self._own, self._needs = kind, own, needs
        self._loaded: dict[Plugin, Any] = {}
        self._faults: dict[Plugin, str] = {}

    def load(self, name: str) -> Any:
        """Import a part. Raises OclBenchError, naming the package, if that fails or it is no such part."""
        plugin = self[name]
        if fault := self._fault(plugin):
            raise OclBenchError(fault)
        return self._loaded[plugin]

    def working(self) -> list[str]:
        """Names of those that can be imported."""
        return [name for name, plugin in self._usable().items() if not self._fault(plugin)]

    def listed(self) -> list[tuple[Plugin, str]]:
        """Each that is installed, and what is wrong with it in one sentence: empty if it can be used."""
        return [(plugin, self._clash(plugin) or self._fault(plugin)) for plugin in self._all()]

    def clash(self, name: str) -> str:
        """Why there is no part of a name although packages have one: one sentence, empty if they have none."""
        return next((self._clash(plugin) for plugin in self._all() if plugin.name == name), "")

    def __getitem__(self, name: str) -> Plugin:
        return self._usable()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._usable())

    def __len__(self) -> int:
        return len(self._usable())

    def _all(self) -> list[Plugin]:
        return [plugin for plugin in installed() if plugin.kind == self.kind]

    def _usable(self) -> dict[str, Plugin]:
        return {plugin.name: plugin for plugin in self._all() if not self._clash(plugin)}

    def _clash(self, plugin: Plugin) -> str:
        if plugin.name in self._own():
            return f"{plugin} is not used, because ocl-bench has a {self.kind} of that name; rename or uninstall it."
        others = [one.package for one in self._all() if one.name == plugin.name and one is not plugin]
        if others:
            return f"{plugin} is not used, because package {others[0]} has one of that name; uninstall one of them."
        return ""

    def _fault(self, plugin: Plugin) -> str:
        """Import a part, once; returns what is wrong with it."""
        if plugin not in self._faults:
            try:
                self._loaded[plugin] = self._checked(plugin, plugin.entry.load())
                self._faults[plugin] = ""
            except Exception as error:  # whatever the package does when it is imported
                why = f"{type(error).__name__}: {first_clause(error)}"
                self._faults[plugin] = f"{plugin} cannot be used ({why}); update or uninstall the package."
        return self._faults[plugin]

    def _checked(self, plugin: Plugin, part: Any) -> Any:
        if not NAME.fullmatch(plugin.name):
            raise ValueError("a name is lower-case letters, digits and _")
        for name in self._needs:
            if not hasattr(part, name):
                raise TypeError(f"{plugin.entry.value} has no '{name}'")
        if "name" in self._needs and part.name != plugin.name:
            raise ValueError(f"{plugin.entry.value} is called '{part.name}'")
        return part
