"""Load what a model spec names: configuration, tokenizer, weights, all through transformers' Auto classes."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, first_clause
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.hub import commit_of
from ocl_bench.models.spec import ModelSpec, has_tokenizer
from ocl_bench.models.word_level import count_tokens, word_level_tokenizer
from ocl_bench.tasks.pictures import Picture

HEADLESS = 0  # vocabulary size of a vision backbone, which says nothing before a head is made for the answers
# Seed of such a head: all seeds of a run start from the same weights, as with any pretrained model.
HEAD_SEED = 0


def load_config(spec: ModelSpec) -> Any:
    """The model's configuration. Raises OclBenchError if it cannot be found or its code is not trusted."""
    from transformers import AutoConfig

    from ocl_bench.models.picture_reader import PictureReaderConfig  # registers itself

    config = _from_pretrained(spec, AutoConfig.from_pretrained, spec.location, "model")
    if not _is_backbone(config):
        return config
    # What the weights were saved as is none of the reader's: it decides for backbone and head.
    backbone = {name: value for name, value in config.to_dict().items() if name not in ("dtype", "torch_dtype")}
    return PictureReaderConfig(backbone, vocab_size=HEADLESS)


def _sees(config: Any) -> bool:
    """Whether a model looks at pictures."""
    return bool(config.model_type == "picture_reader")


def _needs_head(config: Any) -> bool:
    return _sees(config) and config.vocab_size == HEADLESS


def _is_backbone(config: Any) -> bool:
    """Whether a model of this configuration looks at pictures and says nothing by itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def hub_commit(spec: ModelSpec) -> str | None:
    """Commit that a hub model's revision stands for, online or in the local cache; None for other models.

    Raises:
        OclBenchError: if neither has the model, or its tokenizer.
    """
    tokenizer = spec.args.tokenizer
    if tokenizer is not None and not Path(tokenizer).is_dir():
        if spec.source != "hub":
            _require_text(spec)
        commit_of(tokenizer, "tokenizer_config.json", "main", f"--model_args tokenizer={tokenizer}")
    if spec.source != "hub":
        return None
    return commit_of(spec.location, "config.json", spec.args.revision, f"--model {spec.name}")


def _require_text(spec: ModelSpec) -> None:
    """Refuse a tokenizer for a model of pictures."""
    if spec.args.tokenizer and _sees(load_config(spec)):
        raise OclBenchError(
            f"--model_args tokenizer={spec.args.tokenizer}: {spec.name} looks at pictures, and reads no text."
        )


def checkpoint_spec(folder: Path, spec: ModelSpec) -> ModelSpec:
    """The spec of a checkpoint that a finished stage of `spec` has saved, with its own tokenizer."""
    args = spec.args.model_copy(update={"tokenizer": None})
    return ModelSpec(name=spec.name, source="folder", location=str(folder), args=args)


def load_tokenizer(spec: ModelSpec, texts: Iterable[str]) -> Any:
    """The model's tokenizer; for a scratch model without one, a word-level tokenizer made from `texts`.

    So for a vision backbone, which has none: its words are those of answers, and its length that of the longest.
    """
    from transformers import AutoTokenizer

    location = spec.args.tokenizer or spec.location
    _require_text(spec)
    if _sees(load_config(spec)) and not has_tokenizer(Path(location)):
        answers = list(texts)
        tokenizer = word_level_tokenizer(answers)
        tokenizer.model_max_length = max(map(count_tokens, map(str.strip, answers))) + 1
        return tokenizer
    if spec.source == "scratch" and location == spec.location and not has_tokenizer(Path(location)):
        return word_level_tokenizer(texts)
    if Path(location).is_dir() and not has_tokenizer(Path(location)):
        raise OclBenchError(
            f"{location}: the folder holds no tokenizer; save one there or give --model_args tokenizer=…"
        )
    return _from_pretrained(spec, AutoTokenizer.from_pretrained, location, "tokenizer")


def load_model(spec: ModelSpec, tokenizer: Any, seed: int) -> Any:
    """The model, in training dtype, on the CPU.

    Args:
        spec: which model.
        tokenizer: decides the vocabulary size of a scratch model.
        seed: decides every weight that is not loaded.

    Raises:
        OclBenchError: if it cannot be loaded, or a causal model looks at later tokens.
    """
    from transformers import set_seed

    config = load_config(spec)
    set_seed(seed)
    if spec.source == "scratch":
        model = _from_config(spec, fitted(spec, config, tokenizer))
    else:
        model = _from_pretrained(
            spec, _loader(spec, config, tokenizer), spec.location, "model", **_weight_options(spec)
        )
        _take_from_file(model)
        _require_numbers(spec, model)
    if _sees(config):
        _channels_last(model)
    if not config.is_encoder_decoder and not _sees(config):
        _require_causal(spec, model)
    return model


def _loader(spec: ModelSpec, config: Any, tokenizer: Any) -> Callable[..., Any]:
    """What loads weights: for a vision backbone, into a reader whose head is new."""
    from transformers import AutoModel, set_seed

    if not _needs_head(config):
        return _auto_class(config).from_pretrained  # type: ignore[no-any-return]

    def load(location: str, **options: Any) -> Any:
        set_seed(HEAD_SEED)
        model = _from_config(spec, fitted(spec, config, tokenizer))
        model.backbone = AutoModel.from_pretrained(location, **options)
        return model

    return load


def _take_from_file(model: Any) -> None:
    """Copy weights from where their file lies in memory to where torch puts tensors.

    A file's tensors begin at any multiple of eight bytes, and matrix products of some processors have other last digits
    there than at a multiple of 64, where those of a model are that was just trained.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _channels_last(model: Any) -> None:
    """Lay the weights of convolutions out as their kernels take them: a fifth less time for a small ResNet's step."""
    import torch

    for parameter in model.parameters():
        if parameter.dim() == 4:
            # Not `contiguous`, which leaves weights of one channel as they are: their output has its channels first.
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


class BaseModel:
    """Pretrained weights, loaded once and copied for every training that starts from them."""

    def __init__(self) -> None:
        self._spec: ModelSpec | None = None
        self._model: Any = None

    def copy(self, spec: ModelSpec, tokenizer: Any, seed: int) -> Any:
        """What `load_model` gives. A model from random weights is made anew, because its seed decides them."""
        from transformers import set_seed

        if spec.source == "scratch":
            return load_model(spec, tokenizer, seed)
        if _needs_head(load_config(spec)):  # which is made for the answers of one task
            model = load_model(spec, tokenizer, seed)
            set_seed(seed)
            return model
        if self._spec != spec:
            self._model = load_model(spec, tokenizer, seed)
            self._spec = spec
        set_seed(seed)
        return copy.deepcopy(self._model)


def _require_numbers(spec: ModelSpec, model: Any) -> None:
    """Refuse weights that are spoilt, of which nothing else that is found would be true."""
    for name, tensor in model.named_parameters():
        if not tensor.isfinite().all():
            raise OclBenchError(
                f"--model {spec.name}: its weights are spoilt, because '{name}' holds NaN or infinity; take a "
                "checkpoint from before that."
            )


def require_decoder(spec: ModelSpec, config: Any) -> None:
    """Refuse what its configuration says is an encoder alone; what else looks ahead is found when it is loaded."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    decodes = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    known = type(config) in MODEL_FOR_MASKED_LM_MAPPING and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if known and not decodes and not getattr(config, "causal", False):
        raise _not_causal(spec, "it is an encoder, which reads what it is to predict")


def _not_causal(spec: ModelSpec, why: str) -> OclBenchError:
    return OclBenchError(
        f"--model {spec.name}: it is not a causal language model, because {why}; take a decoder or a seq2seq model."
    )


def _require_causal(spec: ModelSpec, model: Any) -> None:
    """Some encoders load as causal models and would read the answer while predicting it."""
    import torch

    ids = torch.arange(8).remainder(model.config.get_text_config().vocab_size)[None]
    changed = ids.clone()
    changed[0, -1] = 0
    model.eval()
    with torch.no_grad():
        before, after = (model(input_ids=one, use_cache=False).logits[0, :-1].float() for one in (ids, changed))
    if not torch.allclose(before, after, atol=1e-4, rtol=1e-3):
        raise _not_causal(spec, "a later token changes what it predicts before")


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
    except Exception as error:  # whatever a configuration breaks, it is the configuration's fault
        raise OclBenchError(f"--model {spec.name}: no model can be made of it ({first_clause(error)}).") from None


def outline(spec: ModelSpec, config: Any, tokenizer: Any) -> Any:
    """The model without memory for its weights. Raises OclBenchError if no Auto class can build it."""
    import torch

    with torch.device("meta"):
        return _from_config(spec, fitted(spec, config, tokenizer))


def parameter_count(spec: ModelSpec, config: Any, tokenizer: Any) -> int:
    """Parameters of the model. Raises OclBenchError if no Auto class can build it."""
    return sum(parameter.numel() for parameter in outline(spec, config, tokenizer).parameters())


def fitted(spec: ModelSpec, config: Any, tokenizer: Any) -> Any:
    """The configuration that a model will have: a copy, with the tokenizer's words where their weights are new."""
    config = copy.deepcopy(config)
    if spec.source == "scratch" or _needs_head(config):
        fit_to_tokenizer(config, tokenizer)
    return config


def weights_sha256(model: Any) -> str:
    """Hex SHA-256 of a model's weights, by name: the same for the same numbers, wherever they were loaded from."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fit_to_tokenizer(config: Any, tokenizer: Any) -> None:
    """Give a scratch configuration the tokenizer's vocabulary size and special tokens, in place."""
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    config.vocab_size = len(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    if _sees(config) and tokenizer.model_max_length < VERY_LARGE_INTEGER:  # which says that it has no length
        config.answer_length = tokenizer.model_max_length
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.pad_token_id


def check_fit(
    spec: ModelSpec,
    config: Any,
    pad_id: int,
    asked: Sequence[Encoded],
    trained: Sequence[Encoded],
    max_new_tokens: int,
) -> None:
    """Refuse data that the model cannot read, before anything is trained.

    Args:
        pad_id: id that fills up batches.
        asked: what is generated from: a prompt may be followed by `max_new_tokens`.
        trained: what is only trained on.

    Raises:
        OclBenchError: if the model reads text and these are pictures, or the other way round; if pictures are too small
            for it, or it says longer or shorter answers; if a sequence is longer than the model's positions, or a token
            has no embedding.
    """
    pictures = [one.media[0] for one in asked if one.media]
    if pictures and not _sees(config):
        raise OclBenchError(
            f"--model {spec.name}: it reads text, and the task shows pictures; give a vision model, as scratch:digits."
        )
    if _sees(config) and not pictures:
        raise OclBenchError(f"--model {spec.name}: it looks at pictures, and the task is text; give a language model.")
    if pictures:
        lengths = {len(one.completion) for one in (*asked, *trained)}
        if lengths != {config.answer_length}:
            raise OclBenchError(
                f"--model {spec.name}: it says answers of {config.answer_length} tokens, and the task's have "
                f"{' or '.join(map(str, sorted(lengths)))}; a model is of one grid, its answers of one length."
            )
        _require_seen(spec, config, pictures[0])
    text_config = config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    separate = config.is_encoder_decoder  # prompt and completion then have positions of their own

    def length(one: Encoded, least_answer: int) -> int:
        answer = max(len(one.completion), least_answer)
        return max(len(one.prompt), answer) if separate else len(one.prompt) + answer

    longest = max([*(length(one, max_new_tokens) for one in asked), *(length(one, 0) for one in trained)])
    if positions is not None and longest > positions:
        raise OclBenchError(
            f"--model {spec.name}: a sequence of the task takes {longest} tokens, the model has {positions} positions; "
            "take another model or tokenizer, or a smaller evaluate.max_new_tokens."
        )
    highest = max(pad_id, *(max((*one.prompt, *one.completion)) for one in (*asked, *trained)))
    if spec.source != "scratch" and highest >= text_config.vocab_size:
        raise OclBenchError(
            f"--model {spec.name}: the tokenizer gives token {highest}, the model has {text_config.vocab_size}; "
            "model and tokenizer do not belong together."
        )


def _require_seen(spec: ModelSpec, config: Any, picture: Picture) -> None:
    """Refuse pictures that a model cannot look at, such as those smaller than its patches, by a try without weights."""
    import torch

    height, width = picture.size
    with torch.device("meta"):
        model = _from_config(spec, config).eval()
        try:
            model(pixel_values=torch.zeros(1, 1, height, width))
        except Exception as error:  # whatever a backbone raises, it is about the only thing that it was given
            raise OclBenchError(
                f"--model {spec.name}: it cannot look at the task's pictures of {height} × {width} pixels "
                f"({first_clause(error)}); take one with smaller patches or fewer stages, or a larger grid."
            ) from None


def require_weights(spec: ModelSpec) -> None:
    """Refuse a model folder without weights, or with files that are not whole, before anything is trained."""
    from safetensors import SafetensorError, safe_open

    if spec.source != "folder":
        return
    files = sorted(Path(spec.location).glob("*.safetensors"))
    if not files:
        raise OclBenchError(
            f"--model {spec.name}: the folder holds no *.safetensors; save weights there with save_pretrained, "
            f"or start from random ones with --model scratch:{spec.name}."
        )
    for path in files:
        try:
            with safe_open(path, "np"):  # reads its table of contents, and compares that with its length
                pass
        except (SafetensorError, OSError) as error:
            raise OclBenchError(
                f"--model {spec.name}: {path.name} is not whole ({first_clause(error)}); copy or save it again."
            ) from None


def _from_pretrained(spec: ModelSpec, loader: Callable[..., Any], location: str, what: str, **options: Any) -> Any:
    if location == spec.location and spec.source == "hub":
        options["revision"] = spec.args.revision
    try:
        return loader(location, trust_remote_code=spec.args.trust_remote_code, **options)
    except Exception as error:  # a broken file can raise anything
        if "trust_remote_code" in str(error):
            raise OclBenchError(
                f"--model {spec.name}: the {what} comes with code of its own; pass --trust_remote_code if you trust it."
            ) from None
        hint = " and neither the hub nor the local cache has it" if spec.source == "hub" else ""
        raise OclBenchError(
            f"--model {spec.name}: the {what} cannot be loaded{hint} ({first_clause(error)})."
        ) from None
