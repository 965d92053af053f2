"""Registries of lazily imported parts: a name maps to `module:attribute`, so that listing imports nothing heavy."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.plugins import Plugins


def load_attribute(target: str) -> Any:
    """Import what `module:attribute` names."""
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


class Registry(Mapping[str, str]):
    """Names of one kind of part, each with the `module:attribute` that provides it: the suite's own, then plugins.

    Args:
        kind: what the parts are.
        entries: the suite's own.
        needs: attributes that a part of another package has to have.
    """

    def __init__(self, kind: str, entries: Mapping[str, str] | None = None, needs: Sequence[str] = ()) -> None:
        self.kind = kind
        self._entries: dict[str, str] = {}
        for name, target in (entries or {}).items():
            self.register(name, target)
        self.plugins = Plugins(kind, lambda: self._entries, needs)

    def register(self, name: str, target: str) -> None:
        """Add `name`. Raises OclBenchError if the name is taken or `target` is not `module:attribute`."""
        if name in self._entries:
            raise OclBenchError(f"{self.kind} '{name}' is registered twice; choose another name.")
        if target.count(":") != 1:
            raise OclBenchError(f"{self.kind} '{name}': '{target}' is not of the form module:attribute.")
        self._entries[name] = target

    def load(self, name: str) -> Any:
        """Import and return the part called `name`.

        Raises:
            OclBenchError: with the nearest names on a miss; naming the package, if another's part cannot be used.
        """
        if name in self._entries:
            return load_attribute(self._entries[name])
        if name in self.plugins:
            return self.plugins.load(name)
        raise OclBenchError(self.plugins.clash(name) or f"unknown {self.kind} '{name}'; {did_you_mean(name, self)}")

    def working(self) -> list[str]:
        """Every name but those of other packages' parts that cannot be imported."""
        return [*self._entries, *self.plugins.working()]

    def __getitem__(self, name: str) -> str:
        return self._entries[name] if name in self._entries else self.plugins[name].entry.value

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries, *self.plugins])

    def __len__(self) -> int:
        return len(self._entries) + len(self.plugins)
