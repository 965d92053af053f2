"""The model spec: what `--model` and `--model_args` say, checked without importing torch."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from ocl_bench.contract import Contract, parse_yaml
from ocl_bench.errors import OclBenchError, did_you_mean

SCRATCH_FOLDER = Path(__file__).parent / "scratch"
SCRATCH_PREFIX = "scratch:"
HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


class ModelArgs(Contract):
    """Settings of `--model_args`, spelled as transformers' `from_pretrained` spells them."""

    revision: str = Field("main", description="branch, tag or commit of a model on the hub")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the weights in training")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    tokenizer: str | None = Field(None, description="hub id or folder of another tokenizer")
    attn_implementation: str | None = Field(None, description="transformers' attention implementation, such as eager")


class ModelSpec(Contract):
    """A model to finetune: where it comes from and how to load it."""

    name: str = Field(description="as given: a hub id, a folder, or scratch:NAME")
    source: Literal["hub", "folder", "scratch"] = Field(description="where weights come from; scratch: random weights")
    location: str = Field(description="hub id, or the folder of the configuration")
    args: ModelArgs = Field(description="how to load it")

    @property
    def slug(self) -> str:
        """The name as a folder name, in the hub's manner: `org__model`, `scratch__tiny`, a folder's own name."""
        if self.source == "hub":
            return self.name.replace("/", "__")
        return ("scratch__" if self.source == "scratch" else "") + Path(self.location).name


def scratch_models() -> dict[str, Path]:
    """The from-scratch shapes in the package: name → folder with a `config.json`."""
    return {path.parent.name: path.parent for path in sorted(SCRATCH_FOLDER.glob("*/config.json"))}


def parse_model_args(text: str) -> ModelArgs:
    """Read the text of `--model_args`, `key=value,key=value`. Only the command line does; all else passes `ModelArgs`.

    Raises:
        OclBenchError: for a pair that is none, an unknown setting, or a wrong value.
    """
    data: dict[str, object] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise OclBenchError(f"--model_args {pair}: write it as key=value, such as dtype=bfloat16.")
        if key == "pretrained":  # as lm-eval has it
            raise OclBenchError(f"--model_args {pair}: name the model with --model {value}")
        is_switch = key == "trust_remote_code"
        data[key] = parse_yaml(value.lower(), f"--model_args {pair}") if is_switch else value
    return ModelArgs.parse(data, "--model_args")


def parse_model(name: str, args: ModelArgs | None = None) -> ModelSpec:
    """Resolve `--model`; `args` say how to load it.

    Raises:
        OclBenchError: for an unknown scratch model, or a folder that holds no model.
    """
    args = args or ModelArgs()
    if name.startswith(SCRATCH_PREFIX):
        return ModelSpec(name=name, source="scratch", location=str(_scratch_folder(name)), args=args)
    if name and Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise OclBenchError(
                f"--model {name}: the folder holds no config.json; give a folder made by save_pretrained."
            )
        return ModelSpec(name=name, source="folder", location=str(Path(name).resolve()), args=args)
    if not HUB_ID.fullmatch(name):
        raise OclBenchError(
            f"--model '{name}': there is no such folder, and a hub id looks like EleutherAI/pythia-1b-deduped."
        )
    return ModelSpec(name=name, source="hub", location=name, args=args)


def is_pretrained(name: str | None) -> bool:
    """Whether a model of this name starts from trained weights; no name is a model from random weights."""
    return name is not None and not name.startswith(SCRATCH_PREFIX)


def _scratch_folder(name: str) -> Path:
    wanted = name.removeprefix(SCRATCH_PREFIX)
    known = scratch_models()
    if wanted in known:
        return known[wanted]
    folder = Path(wanted)
    if folder.is_dir() and (folder / "config.json").is_file():
        return folder.resolve()
    raise OclBenchError(
        f"--model {name}: neither a model of the suite nor a folder with a config.json; {did_you_mean(wanted, known)}"
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files of a tokenizer."""
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "spiece.model",
        "vocab.json",
        "vocab.txt",
    )
    return any((folder / name).is_file() for name in names)
