"""The recipe: how a stage is trained, as data."""

from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.plugins import Plugins
from ocl_bench.tasks.load import apply_override, read_with_includes

RECIPE_FOLDER = Path(__file__).parent / "recipes"
# An entry point of a recipe names a package, in whose folder the recipe's file lies.
PLUGINS = Plugins("recipe", lambda: {path.stem for path in RECIPE_FOLDER.glob("*.yaml")})


class Training(Contract):
    """What decides the training of a stage but for its length. Names are those of transformers' TrainingArguments."""

    effective_batch_size: int = Field(
        ge=1, description="datapoints per optimizer step, over all devices and micro-batches"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="learning-rate schedule within a stage"
    )
    warmup_steps: int = Field(0, ge=0, description="optimizer steps over which the learning rate rises, per stage")
    optim: Literal["adafactor", "adamw_torch", "adamw_torch_fused", "sgd"] = Field(description="optimizer")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="gradient clipping; 0 for none")
    loss: Literal["all", "completion"] = Field(
        "all", description="which real tokens carry loss in a causal model: all, or those of the completion"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 computes under autocast; weights stay as loaded"
    )
    definition_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of definitions in a stage that mixes them with questions, or with draws_per_epoch in each "
        "subset that does; null: as in the data, or half",
    )
    draws_per_epoch: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda draws: draws is None,
        description="datapoints of an epoch, as many of each subset; null: each datapoint once",
    )

    def definitions_per_epoch(self, definitions: int, questions: int) -> int:
        """How many definitions an epoch draws, of a stage with so many definitions and questions."""
        if self.definition_share is None or not definitions or not questions:
            return definitions
        return round(questions * self.definition_share / (1 - self.definition_share))


class Adapter(Contract):
    """Low-rank matrices that are trained in place of the model's weights, and merged into them (LoRA, by peft)."""

    rank: int = Field(ge=1, description="rank of what is added to each linear layer's weights")
    alpha: float = Field(gt=0, description="what is learned is multiplied by alpha / rank")
    embeddings: bool = Field(
        False,
        exclude_if=lambda embeddings: not embeddings,
        description="whether the input embedding is adapted too: for a model that has not seen the data's words",
    )


class StageRecipe(Training):
    """Everything about the training of one stage that is not data or model."""

    epochs: int = Field(ge=1, description="epochs of the stage")
    learning_rate: float = Field(gt=0, description="peak learning rate")
    adapter: Adapter | None = Field(
        None, exclude_if=lambda adapter: adapter is None, description="train this adapter; null: all weights"
    )


class Named(Contract):
    """What a recipe is called, and how long it trains: the head of its file."""

    recipe: str = Field(pattern=r"^[a-z0-9_]+$", description="the recipe's name")
    description: str = Field(description="one sentence for `ocl-bench ls`")
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="epochs of each stage, in the order of the task's stages"
    )


Rate = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
# What may be one value for all stages, or one for each.
OF_EACH = ("effective_batch_size", "warmup_steps", "learning_rate", "adapter")


class Recipe(Training, Named):  # in this order the fields of Named come first, as in a recipe's file
    """Everything about training that is not data or model."""

    effective_batch_size: Size | tuple[Size, ...] = Field(  # type: ignore[assignment]  # of_stage chooses one
        description="datapoints per optimizer step, over all devices and micro-batches; of all stages or of each"
    )
    warmup_steps: Count | tuple[Count, ...] = Field(  # type: ignore[assignment]
        0, description="optimizer steps over which the learning rate rises in a stage, in all stages or in each"
    )
    learning_rate: Rate | tuple[Rate, ...] = Field(description="peak learning rate, of all stages or of each")
    adapter: Adapter | tuple[Adapter | None, ...] | None = Field(
        None,
        exclude_if=lambda adapter: adapter is None,
        description="adapter to train in place of the weights, of all stages or of each; null: the weights",
    )
    learned_below: float | None = Field(
        None,
        gt=0,
        description="a stage whose training loss in its last epoch is not below this (nats per labelled token) has "
        "not learned its data, and results say so",
    )

    @model_validator(mode="after")
    def _one_for_each_stage(self) -> "Recipe":
        for key in OF_EACH:
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != len(self.epochs):
                raise ValueError(
                    f"{key} has {len(value)} values and epochs {len(self.epochs)}; give one for each stage, or one for "
                    "all"
                )
        return self

    def of_stage(self, number: int) -> StageRecipe:
        """What decides the training of the stage with this number, from 0."""
        shared = self.model_dump(exclude={*Named.model_fields, *OF_EACH, "learned_below"})
        values = {key: getattr(self, key) for key in OF_EACH}
        own = {key: value[number] if isinstance(value, tuple) else value for key, value in values.items()}
        return StageRecipe(**shared, epochs=self.epochs[number], **own)


def recipe_files(include_path: Sequence[Path] = ()) -> dict[str, Path]:
    """Name and file of the suite's recipes, and of `recipes/*.yaml` in the folders of `include_path`."""
    found: dict[str, Path] = {}
    for folder in (RECIPE_FOLDER, *(folder / "recipes" for folder in include_path)):
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in found:
                raise OclBenchError(f"recipe '{path.stem}' is in both {found[path.stem]} and {path}; rename one.")
            found[path.stem] = path
    return found


def load_recipe(name: str, overrides: Sequence[str] = (), include_path: Sequence[Path] = ()) -> Recipe:
    """Load a recipe by name or file, with `key=value` overrides. Raises OclBenchError with file, key and fix."""
    find = partial(_find, include_path=include_path)
    path = Path(name) if name.endswith((".yaml", ".yml")) else find(name)
    data: dict[str, Any] = read_with_includes(path, find)
    for override in overrides:
        apply_override(data, override, "recipe.")
    given = " ".join(f"recipe.{override}" for override in overrides)
    recipe = Recipe.parse(data, f"{path} with --set {given}" if overrides else str(path))
    if recipe.recipe != path.stem:
        raise OclBenchError(
            f"{path}: recipe is '{recipe.recipe}', but the file is called {path.name}; make them agree."
        )
    return recipe


def _find(name: str, include_path: Sequence[Path]) -> Path:
    files = recipe_files(include_path)
    if name in files:
        return files[name]
    if name in PLUGINS:
        return Path(str(resources.files(PLUGINS.load(name)) / f"{name}.yaml"))
    raise OclBenchError(PLUGINS.clash(name) or f"unknown recipe '{name}'; {did_you_mean(name, [*files, *PLUGINS])}")
