"""A table of the keys of a file, made from the contract that reads it: a Sphinx extension.

```{fields} ocl_bench.finetune.recipe.Recipe
```
"""

import importlib
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null", Any: "anything"}
Row = tuple[str, str, str, str]


def told(kind: Any) -> str:
    """A type in words, such as `list of whole number`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return told(inner[0])
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(told, inner)))
    if origin in (tuple, list):
        return "list of " + " and ".join(dict.fromkeys(told(one) for one in inner if one is not ...))
    if origin is dict:
        return f"mapping of {told(inner[0])} to {told(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping"
    return NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def contracts(kind: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The contracts inside a type, each with the key below which its own keys are."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield path, kind
    elif origin is dict:
        yield from contracts(inner[1], f"{path}.*")
    else:
        for one in inner:
            yield from contracts(one, f"{path}[]" if origin in (tuple, list) else path)


def default_of(field: FieldInfo) -> str:
    """What a key is where it is not given."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return "as below"
    return str(list(value)) if isinstance(value, tuple) else str(value).replace("\n", "\\n")


def rows(model: type[BaseModel], path: str = "") -> Iterator[Row]:
    """Key, type, default and meaning of all fields, those of inner contracts below their own."""
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        yield key, told(field.annotation), default_of(field), field.description or ""
        for where, inner in contracts(field.annotation, key):
            yield from rows(inner, f"{where}.")


class Fields(SphinxDirective):
    """`{fields} module.Class`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        module, name = self.arguments[0].rsplit(".", 1)
        found = list(rows(getattr(importlib.import_module(module), name)))
        if missing := [key for key, _, _, meaning in found if not meaning]:
            raise self.error(f"{self.arguments[0]}: {', '.join(missing)} have no description")
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(4)), cols=4)
        group += nodes.thead("", line("key", "type", "default", "meaning"))
        group += nodes.tbody("", *(line(f"`{key}`", *rest) for key, *rest in found))
        return [nodes.table("", group, classes=["fields"])]


def line(*cells: str) -> nodes.row:
    """A row of a table; what is between backquotes is code."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *marked(cell))) for cell in cells))


def marked(text: str) -> Iterator[nodes.Node]:
    """Text and code in turn."""
    for number, part in enumerate(text.split("`")):
        yield nodes.literal("", part) if number % 2 else nodes.Text(part)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("fields", Fields)
    return {"parallel_read_safe": True}
