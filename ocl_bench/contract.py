"""Strict, frozen, described data: the base of every file format, and safe YAML to read them from.

A contract refuses unknown keys and wrong types, and says so in one sentence with the file, the key and the fix.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ocl_bench.errors import OclBenchError, did_you_mean


class Contract(BaseModel):
    """Base of every persisted or user-written structure."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, data: object, where: str) -> Self:
        """Validate plain data (as YAML or JSON gives it); `where` names its origin in the error.

        Raises:
            OclBenchError: naming the file, the first wrong key and the fix.
        """
        try:
            text = json.dumps(data)
        except (TypeError, ValueError) as error:
            raise OclBenchError(f"{where}: {error}; use numbers, strings, lists and mappings only.") from None
        try:
            # JSON mode, because there a list may become a tuple while every scalar stays strict.
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise OclBenchError(f"{where}: {explain(cls, error)}") from None


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """Turn pydantic's first complaint into one sentence with the dotted key and the fix."""
    said = _said(model, error)
    return said if said.endswith(("?", ".")) else f"{said}."


def _said(model: type[BaseModel], error: ValidationError) -> str:
    # A misspelt key is also one that is missing: say what was written.
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join(path) or "(top level)"
    if first["type"] == "extra_forbidden":
        owner = _model_at(model, path[:-1])
        return f"unknown key '{key}'; {did_you_mean(path[-1], owner.model_fields if owner else [])}"
    if first["type"] == "missing":
        return f"key '{key}' is missing; add it"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']!s}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, got {json.dumps(first['input'], default=str)[:80]}"


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue  # an index into a list, or a union's branch
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return None
        model = inner
    return model


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses repeated keys and reads `5e-5` as the number that its writer meant."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same on libyaml, where PyYAML has it: ten times as fast, and less clear about what is wrong."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        fault = "is not text; quote it" if not isinstance(key, str) else "is there twice" if key in mapping else None
        if fault:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} {fault}", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


for _loader in (_Loader, _FastLoader):
    _loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML value, safely. Raises OclBenchError with the line of the first mistake."""
    with suppress(yaml.YAMLError, RecursionError):
        return yaml.load(text, Loader=_FastLoader)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise OclBenchError(f"{where}{line}: {error.problem or error.context}; correct the YAML.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise OclBenchError(f"{where}: this is not YAML ({str(error).splitlines()[0]}).") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OclBenchError(f"{path}: cannot be read ({error}).") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise OclBenchError(f"{path}: the file must hold a mapping of keys to values.")
    return data
