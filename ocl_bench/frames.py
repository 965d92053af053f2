"""Rows that pandas and `datasets` take: both are imported when asked for, and only then."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar, overload

from ocl_bench.errors import OclBenchError

Row = Mapping[str, Any]
T = TypeVar("T")


class Rows(Sequence[T]):
    """Things that are each a row of a table.

    Args:
        items: the things, in order.
        row: a thing → column → value. All have the same columns.
    """

    def __init__(self, items: Iterable[T], row: Callable[[T], Row]) -> None:
        self._items, self._row = list(items), row

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._items[index]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each as column → value."""
        return [dict(self._row(one)) for one in self._items]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`. Raises OclBenchError if pandas is not installed."""
        return to_pandas(self.rows)

    def to_datasets(self) -> Any:
        """A `datasets.Dataset`. Raises OclBenchError if datasets is not installed."""
        return to_datasets(self.rows)


def to_pandas(rows: Iterable[Row]) -> Any:
    """A `pandas.DataFrame` of rows. Raises OclBenchError if pandas is not installed."""
    return _library("pandas").DataFrame(list(rows))


def to_datasets(rows: Iterable[Row]) -> Any:
    """A `datasets.Dataset` of rows, in memory. Raises OclBenchError if datasets is not installed."""
    return _library("datasets").Dataset.from_list([dict(row) for row in rows])


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise OclBenchError(f"{name} cannot be imported ({error}); install it with `pip install {name}`.") from None
