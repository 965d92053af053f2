"""Registries of lazily imported parts: a name maps to `module:attribute`, so that listing imports nothing heavy."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean


def load_attribute(target: str) -> Any:
    """Import what `module:attribute` names."""
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


class Registry(Mapping[str, str]):
    """Names of one kind of part, each with the `module:attribute` that provides it."""

    def __init__(self, kind: str, entries: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, str] = {}
        for name, target in (entries or {}).items():
            self.register(name, target)

    def register(self, name: str, target: str) -> None:
        """Add `name`. Raises OclBenchError if the name is taken or `target` is not `module:attribute`."""
        if name in self._entries:
            raise OclBenchError(f"{self.kind} '{name}' is registered twice; choose another name.")
        if target.count(":") != 1:
            raise OclBenchError(f"{self.kind} '{name}': '{target}' is not of the form module:attribute.")
        self._entries[name] = target

    def load(self, name: str) -> Any:
        """Import and return the part called `name`. Raises OclBenchError with the nearest names on a miss."""
        if name not in self._entries:
            raise OclBenchError(f"unknown {self.kind} '{name}'; {did_you_mean(name, self._entries)}")
        return load_attribute(self._entries[name])

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
