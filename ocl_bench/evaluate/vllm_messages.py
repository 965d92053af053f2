"""What is said to the process that vLLM lives in, and what it says."""

from typing import Any

import msgspec


class Start(msgspec.Struct, tag=True, frozen=True):
    """Start with a model's shape.

    Attributes:
        model: hub id or checkpoint folder.
        parameters: how many the model has.
        args: further arguments of `vllm.LLM`.
        defaults: the same without what the user passed.
        progress_seconds: least time between two signs of progress.
    """

    model: str
    parameters: int
    args: dict[str, Any]
    defaults: dict[str, Any]
    progress_seconds: float


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Answer prompts of token ids with a checkpoint's weights, at most so many tokens each."""

    checkpoint: str
    prompts: list[list[int]]
    max_new_tokens: list[int]
    stop_ids: list[int]


class Started(msgspec.Struct, tag=True, frozen=True):
    """vLLM is up.

    Attributes:
        version: vLLM's.
        dtype: what it computes in.
        seconds: how long it took to start.
        sleeps: whether it gives its memory back between requests.
    """

    version: str
    dtype: str
    seconds: float
    sleeps: bool


class Progressed(msgspec.Struct, tag=True, frozen=True):
    """So many further prompts are answered."""

    questions: int


class Generated(msgspec.Struct, tag=True, frozen=True):
    """Token ids of the answers, up to and with the first stop id, and how long the weights took to load."""

    tokens: list[list[int]]
    load_seconds: float


FromServer = Started | Progressed | Generated
ToServer = Start | Ask
