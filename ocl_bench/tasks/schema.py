"""The task file: a study as data, readable by someone who knows no Python."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import did_you_mean
from ocl_bench.tasks.subsets import CROSSED, SUBSETS

SELECTORS = ("x1", "x1/definition", "x1/qa", "x2")

Order = Literal["tve", "tev", "vte", "vet", "evt", "etv"]


class Design(Contract):
    """How entities are dealt to subsets and how definitions are worded."""

    fractions: dict[str, float] = Field(description="subset → share of the entities; the shares sum to 1")
    order: Order = Field("tve", description="order of tag (t), variable (v) and entity (e) in a definition")
    alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="correlation of tag and consistency: share of X1 definitions that keep it",
    )

    @field_validator("fractions")
    @classmethod
    def _known_and_whole(cls, fractions: dict[str, float]) -> dict[str, float]:
        for name, share in fractions.items():
            if name not in SUBSETS:
                raise ValueError(f"unknown subset '{name}'; {did_you_mean(name, SUBSETS)}")
            if not 0 <= share <= 1:
                raise ValueError(f"the share of '{name}' is {share}; give a number from 0 to 1")
        total = math.fsum(fractions.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares sum to {total:g}; change them so that they sum to 1")
        return fractions

    @model_validator(mode="after")
    def _alpha_fills_the_crossed_subsets(self) -> "Design":
        filled = [name for name in CROSSED.values() if self.fractions.get(name)]
        if self.alpha < 1 and filled:
            raise ValueError(f"alpha fills {' and '.join(filled)}; give alpha or their fractions, not both")
        return self


class Stage(Contract):
    """One finetuning stage."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="folder name of the stage's checkpoint")
    train: tuple[str, ...] = Field(min_length=1, description="what is trained on: x1, x1/definition, x1/qa or x2")

    @field_validator("train")
    @classmethod
    def _selectors(cls, train: tuple[str, ...]) -> tuple[str, ...]:
        for selector in train:
            if selector not in SELECTORS:
                raise ValueError(f"unknown training data '{selector}'; {did_you_mean(selector, SELECTORS)}")
        return train


class Evaluate(Contract):
    """What is asked of the finetuned model."""

    max_new_tokens: int = Field(8, ge=1, description="longest answer that greedy generation may give, in tokens")
    curve_questions: int = Field(128, ge=1, description="questions per subset in each point of the learning curve")


class Metadata(Contract):
    """Where the data comes from."""

    license: str = Field(description="SPDX name of the data's licence")
    citation: str = Field(description="what to cite")


class Recipes(Contract):
    """The recipe to use when none is asked for, by where the weights come from."""

    scratch: str = Field(description="recipe for models that start from random weights")
    pretrained: str = Field(description="recipe for models that start from trained weights")


class Task(Contract):
    """A benchmark task."""

    schema_version: Literal[1] = Field(1, description="version of this file format")
    task: str = Field(pattern=r"^[a-z0-9_]+$", description="the task's name")
    version: int = Field(ge=1, description="goes up with every change that could change a score")
    description: str = Field(description="one sentence for `ocl-bench ls`")
    source: str = Field(description="which knowledge source provides entities and questions")
    source_args: dict[str, Any] = Field(default_factory=dict, description="the source's own settings")
    design: Design = Field(description="subsets and definitions")
    stages: tuple[Stage, ...] = Field(min_length=1, description="finetuning stages, in order")
    evaluate: Evaluate = Field(Evaluate(), description="evaluation")
    recipe: Recipes = Field(description="default recipes")
    metadata: Metadata = Field(description="licence and citation")

    @model_validator(mode="after")
    def _stages_are_sound(self) -> "Task":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("stages: two stages have the same name; rename one")
        used = [SUBSETS[name] for name, share in self.design.fractions.items() if share > 0]
        provided: set[str] = {subset.split for subset in used}
        provided |= {f"{subset.split}/definition" for subset in used if subset.tag is not None}
        provided |= {f"{subset.split}/qa" for subset in used if subset.qa}
        for stage in self.stages:
            for selector in stage.train:
                if selector not in provided:
                    raise ValueError(
                        f"stages: '{stage.name}' trains on '{selector}', but no subset of design.fractions provides it"
                    )
        return self

    @property
    def first_x2_stage(self) -> int:
        """Number of the first stage that trains on X2; the number of stages if none does.

        Stage-2 seeds share the stages before it.
        """
        return next((n for n, stage in enumerate(self.stages) if "x2" in stage.train), len(self.stages))
