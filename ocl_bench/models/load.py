"""Load what a model spec names: configuration, tokenizer, weights. Everything goes through transformers' Auto classes."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.spec import ModelSpec
from ocl_bench.models.word_level import word_level_tokenizer


def load_config(spec: ModelSpec) -> Any:
    """The model's configuration. Raises OclBenchError if it cannot be found or its code is not trusted."""
    from transformers import AutoConfig

    return _from_pretrained(spec, AutoConfig.from_pretrained, spec.location, "model")


def load_tokenizer(spec: ModelSpec, texts: Sequence[str]) -> Any:
    """The model's tokenizer; for a scratch model without one, a word-level tokenizer made from `texts`."""
    from transformers import AutoTokenizer

    location = spec.args.tokenizer or spec.location
    if spec.source == "scratch" and location == spec.location and not _has_tokenizer(Path(location)):
        return word_level_tokenizer(texts)
    if Path(location).is_dir() and not _has_tokenizer(Path(location)):
        raise OclBenchError(f"{location}: the folder holds no tokenizer; save one there or give --model_args tokenizer=…")
    return _from_pretrained(spec, AutoTokenizer.from_pretrained, location, "tokenizer")


def load_model(spec: ModelSpec, tokenizer: Any, seed: int) -> Any:
    """The model, in training dtype, on the CPU.

    Args:
        spec: which model.
        tokenizer: decides the vocabulary size of a scratch model.
        seed: decides a scratch model's random weights.
    """
    from transformers import set_seed

    config = load_config(spec)
    if spec.source == "scratch":
        set_seed(seed)
        fit_to_tokenizer(config, tokenizer)
        return _from_config(spec, config)
    loader = _auto_class(config).from_pretrained
    return _from_pretrained(spec, loader, spec.location, "model", **_weight_options(spec))


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _weight_options(spec: ModelSpec) -> dict[str, Any]:
    import torch

    attention = {"attn_implementation": spec.args.attn_implementation} if spec.args.attn_implementation else {}
    return {"dtype": getattr(torch, spec.args.dtype), **attention}


def _from_config(spec: ModelSpec, config: Any) -> Any:
    try:
        return _auto_class(config).from_config(
            config, trust_remote_code=spec.args.trust_remote_code, **_weight_options(spec)
        )
    except (ValueError, ImportError) as error:
        raise OclBenchError(f"--model {spec.name}: {_first_sentence(error)}") from None


def parameter_count(spec: ModelSpec, config: Any, tokenizer: Any) -> int:
    """Parameters of the model, counted on a model without memory. Raises OclBenchError if no Auto class can build it."""
    import torch

    config = copy.deepcopy(config)
    if spec.source == "scratch":
        fit_to_tokenizer(config, tokenizer)
    with torch.device("meta"):
        model = _from_config(spec, config)
    return sum(parameter.numel() for parameter in model.parameters())


def load_checkpoint(folder: Path, spec: ModelSpec) -> Any:
    """A model that a finished stage has saved."""
    saved = spec.model_copy(update={"source": "folder", "location": str(folder)})
    return load_model(saved, tokenizer=None, seed=0)


def fit_to_tokenizer(config: Any, tokenizer: Any) -> None:
    """Give a scratch configuration the tokenizer's vocabulary size and special tokens, in place."""
    config.vocab_size = len(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.pad_token_id


def check_fit(spec: ModelSpec, config: Any, tokenizer: Any, encoded: Sequence[Encoded], max_new_tokens: int) -> None:
    """Refuse data that the model cannot read, before anything is trained.

    Raises:
        OclBenchError: if a sequence is longer than the model's positions, or a token has no embedding.
    """
    text_config = config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    longest = max(
        max(len(one.prompt) + max(len(one.completion), max_new_tokens) for one in encoded)
        if not config.is_encoder_decoder
        else max(max(len(one.prompt), len(one.completion)) for one in encoded),
        1,
    )
    if positions is not None and longest > positions:
        raise OclBenchError(
            f"--model {spec.name}: a sequence of the task takes {longest} tokens, the model has {positions} positions; "
            "take another model or tokenizer, or a smaller evaluate.max_new_tokens."
        )
    highest = max(max((*one.prompt, *one.completion)) for one in encoded)
    if spec.source != "scratch" and highest >= text_config.vocab_size:
        raise OclBenchError(
            f"--model {spec.name}: the tokenizer gives token {highest}, the model has {text_config.vocab_size}; "
            "model and tokenizer do not belong together."
        )


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
    return any((folder / name).is_file() for name in names)


def _from_pretrained(spec: ModelSpec, loader: Callable[..., Any], location: str, what: str, **options: Any) -> Any:
    if not Path(location).is_dir():
        options["revision"] = spec.args.revision
    try:
        return loader(location, trust_remote_code=spec.args.trust_remote_code, **options)
    except (OSError, ValueError, KeyError, ImportError, json.JSONDecodeError) as error:
        if "trust_remote_code" in str(error):
            raise OclBenchError(
                f"--model {spec.name}: the {what} comes with code of its own; pass --trust_remote_code if you trust it."
            ) from None
        hint = " and neither the hub nor the local cache has it" if spec.source == "hub" else ""
        raise OclBenchError(
            f"--model {spec.name}: the {what} cannot be loaded{hint} ({_first_sentence(error)})"
        ) from None


def _first_sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
