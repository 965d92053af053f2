"""Nothing of a submission chooses code, or a file, that running it again would load."""

import re
from collections.abc import Iterator
from typing import Any

from ocl_bench.evaluate.engines import RESERVED
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import CONFIG, MANIFEST, NOT_OWN
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.models.spec import HUB_ID, SCRATCH_PREFIX
from ocl_bench.runner.manifest import Manifest
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import SOURCES

COMMIT = re.compile(r"[0-9a-f]{40}")
ARCHITECTURE = re.compile(r"[a-z0-9_-]{1,64}")
WORD = re.compile(r"\w[\w-]{0,199}", re.ASCII)
# Any other is the address of a kernel on the hub, which is code.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
# What transformers reads from a config.json to choose code, or files other than those beside it.
CODE_KEYS = re.compile(
    r"auto_map|trust_remote_code|custom_(pipelines?|generate)|_?name_or_path|base_model_name_or_path|model_name"
    r"|(_?attn|_?experts)_implementation(_\w*)?|quantization_config|compression_config|transformers_weights|gguf_file"
    r"|adapter_(config|kwargs|name|file)\w*|peft_\w*|(use_|hub_)?kernels|kernel_(config|mapping)"
    r"|(use_local|allow_all)_kernels?",
    re.ASCII,
)


def check_code(checked: Checked) -> None:
    """Model loading, task, engine and configuration name neither code nor files."""
    assert checked.manifest is not None
    _check_loading(checked, checked.manifest)
    _check_task(checked, checked.manifest.config.task)
    _check_engine(checked, checked.manifest.config.compute.engine_args)
    _check_config(checked, is_run=checked.manifest.config.model.source == "scratch")


def _check_loading(checked: Checked, manifest: Manifest) -> None:
    """The manifest pins a model of the hub to a commit, and loads nothing with code of its own."""
    model, args = manifest.config.model, manifest.config.model.args
    revision = manifest.model_revision
    if model.source == "hub":
        if not HUB_ID.fullmatch(model.name):
            checked.add(MANIFEST, "config.model.name", "is no name of a model of the hub")
        if revision is None or not COMMIT.fullmatch(revision):
            checked.add(MANIFEST, "model_revision", "is no commit of the hub: 40 digits from 0 to f")
        if args.revision != revision:
            checked.add(MANIFEST, "config.model.args.revision", "is not model_revision, the commit that was run")
    else:
        if revision is not None:
            checked.add(MANIFEST, "model_revision", "has to be null: the model is not from the hub")
        if args.revision != "main":
            checked.add(MANIFEST, "config.model.args.revision", "has to be 'main': the model is not from the hub")
    if args.trust_remote_code:
        checked.add(MANIFEST, "config.model.args.trust_remote_code", "has to be false: no model's own code is run")
    if args.tokenizer is not None:
        if checked.submission is not None and checked.submission.division == "standard":
            checked.add(MANIFEST, "config.model.args.tokenizer", "has to be null in the standard division")
        if not HUB_ID.fullmatch(args.tokenizer) or ".." in args.tokenizer:
            checked.add(MANIFEST, "config.model.args.tokenizer", "is no name of a tokenizer of the hub")
    if args.attn_implementation not in (None, *ATTENTION):
        checked.add(MANIFEST, "config.model.args.attn_implementation", f"is none of {', '.join(ATTENTION)}")


def _check_task(checked: Checked, task: Task) -> None:
    """The task names models and recipes, not files, and a source of the suite: no other is run in a check."""
    if task.source not in SOURCES:
        checked.add(MANIFEST, "config.task.source", NOT_OWN)
    if not (HUB_ID.fullmatch(task.model) or WORD.fullmatch(task.model.removeprefix(SCRATCH_PREFIX))):
        checked.add(MANIFEST, "config.task.model", "names neither a model of the hub nor one of the suite")
    for key in ("scratch", "pretrained"):
        if not WORD.fullmatch(getattr(task.recipe, key)):
            checked.add(MANIFEST, f"config.task.recipe.{key}", "is no recipe's name")


def _check_engine(checked: Checked, args: dict[str, Any]) -> None:
    """What vLLM was given are numbers and words."""
    for key, value in args.items():
        where = printable(f"config.compute.engine_args.{key}")
        if key in RESERVED or not WORD.fullmatch(key):
            checked.add(MANIFEST, where, "is not part of a run")
        elif key == "trust_remote_code" and value is not False:
            checked.add(MANIFEST, where, "has to be false: no model's own code is run")
        elif not (value is None or isinstance(value, (bool, int, float))) and not _is_word(value):
            checked.add(MANIFEST, where, "is neither a number nor a word")


def _check_config(checked: Checked, is_run: bool) -> None:
    """config.json tells of an architecture and its sizes. Where a model is made from it, no text in it is a path."""
    if "model_type" not in checked.config:
        checked.add(CONFIG, "model_type", "is no name of an architecture")
    for where, key, value in _entries(checked.config):
        if key == "model_type":
            if not isinstance(value, str) or not ARCHITECTURE.fullmatch(value):
                checked.add(CONFIG, where, "is no name of an architecture")
        elif CODE_KEYS.fullmatch(key):
            checked.add(CONFIG, where, "chooses code or other files; leave it out")
        elif key.endswith("_class") and isinstance(value, (str, dict, list)) and not _is_word(value):
            checked.add(CONFIG, where, "is no name of a class")
        elif key == "architectures" and not (value is None or (isinstance(value, list) and all(map(_is_word, value)))):
            checked.add(CONFIG, where, "are no names of classes")
        elif "kernel" in key and (isinstance(value, dict) or (isinstance(value, str) and not WORD.fullmatch(value))):
            checked.add(CONFIG, where, "chooses code or other files; leave it out")
        elif is_run and any("/" in text or "\\" in text for text in _texts(value)):
            checked.add(CONFIG, where, "holds a path or an address; a configuration needs none")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and WORD.fullmatch(value) is not None


def _texts(value: Any) -> list[str]:
    """A text, or those of a list; what is deeper is an entry of its own."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _entries(value: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Dotted key, key and value of every entry of every mapping, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            inside = printable(f"{where}.{key}".removeprefix("."))
            yield inside, key, inner
            yield from _entries(inner, inside)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _entries(inner, f"{where}.{number}")
