"""What identifies a training and an evaluation: their content, and one hash over it.

Machine, threads and code version are not part of it: they are recorded beside what was made, and are no reason to make
it again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256, sha256_of_file
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.models.spec import ModelSpec, has_tokenizer
from ocl_bench.models.word_level import vocabulary
from ocl_bench.runner.compute import Precision
from ocl_bench.tasks.records import Record, texts
from ocl_bench.tasks.schema import Selector
from ocl_bench.text import HubName, Revision, Sha256, Word

SHORT = 24  # hex digits of a key that name a folder


def content_key(content: Contract) -> str:
    """Hex SHA-256 of the canonical JSON of a contract: the only hash by which anything is found again."""
    text = json.dumps(content.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text)


class BaseIdentity(Contract):
    """The model that a first stage starts from."""

    source: Literal["hub", "folder", "scratch"] = Field(description="where its weights come from")
    name: HubName | None = Field(description="hub id; null for other models")
    revision: Revision | None = Field(description="commit of a hub model")
    config: Sha256 | None = Field(description="sha256 of the configuration of a model from random weights")
    weights: Sha256 | None = Field(description="sha256 of a folder's weight files, by name")
    tokenizer: HubName = Field(
        description="sha256 of a word-level tokenizer's words or of a folder's files; or a hub id"
    )
    dtype: Word = Field(description="dtype of the weights as they are loaded")
    attn_implementation: str | None = Field(description="attention implementation that was asked for")
    init_seed: int | None = Field(ge=0, description="seed of random weights; null for pretrained ones")


class StageIdentity(Contract):
    """What a stage's weights depend on."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    dataset: Sha256 = Field(description="sha256 of the records that it trains on, as JSON lines")
    parent: BaseIdentity | Sha256 = Field(description="the model that it starts from, or the sha256 of its weights")
    recipe: StageRecipe = Field(description="how it trains")
    seed: int = Field(ge=0, description="training seed: order of the data and every random choice")
    precision: Precision = Field(description="what it computes in")
    world_size: int = Field(ge=1, description="processes that train it together")
    replay: dict[Selector, float] = Field(
        {}, exclude_if=lambda replay: not replay, description="what of its data is replayed → how many for each other"
    )


class EvaluationIdentity(Contract):
    """What an evaluator's rows depend on."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    evaluator: Word = Field(description="its name")
    weights: Sha256 = Field(description="sha256 of the weights that it looks at")
    settings: dict[str, Any] = Field(description="what it asks, and how")


def base_identity(spec: ModelSpec, records: Sequence[Record], seed: int) -> BaseIdentity:
    """Identity of a model to finetune.

    Args:
        spec: with a hub model's revision pinned to a commit.
        records: the dataset, whose words are a scratch model's vocabulary.
        seed: stage-1 seed.
    """
    scratch = spec.source == "scratch"
    return BaseIdentity(
        source=spec.source,
        name=spec.location if spec.source == "hub" else None,
        revision=spec.args.revision if spec.source == "hub" else None,
        config=_config(Path(spec.location)) if scratch else None,
        weights=_files(Path(spec.location), ("*.safetensors",)) if spec.source == "folder" else None,
        tokenizer=_tokenizer(spec, records),
        dtype=spec.args.dtype,
        attn_implementation=spec.args.attn_implementation,
        init_seed=seed if scratch else None,
    )


def vocabulary_sha256(words: Sequence[str]) -> str:
    """Identity of the word-level tokenizer that has tokens for these words, in this order."""
    return sha256("\n".join(json.dumps(word) for word in words))


def _tokenizer(spec: ModelSpec, records: Sequence[Record]) -> str:
    location = spec.args.tokenizer or spec.location
    folder = Path(location)
    if spec.source == "scratch" and location == spec.location and not has_tokenizer(folder):
        return vocabulary_sha256(vocabulary(texts(records)))
    if folder.is_dir():
        return _files(folder, ("*token*", "vocab*", "merges*", "*.model"))
    return location


def _config(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{folder / 'config.json'}: cannot be read ({error}).") from None
    return sha256(json.dumps(config, sort_keys=True))


def _files(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over names and contents of files."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return sha256("".join(f"{path.name} {sha256_of_file(path)}\n" for path in found))
