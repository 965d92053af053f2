"""The task file: a study as data, readable by someone who knows no Python."""

import math
from itertools import combinations, takewhile
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import did_you_mean
from ocl_bench.tasks.mechanisms import Gradients, Probes
from ocl_bench.tasks.names import TagStyle, VariableStyle
from ocl_bench.tasks.parts import parted
from ocl_bench.tasks.pictures import DigitGrid
from ocl_bench.tasks.records import Records
from ocl_bench.tasks.subsets import CROSSED, SUBSETS, SWAPPED, X0_SUBSETS
from ocl_bench.tasks.wording import Wording, tag_wording

Selector = Literal["x0", "x0/definition", "x0/qa", "x1", "x1/definition", "x1/qa", "x2"]
SELECTORS: tuple[str, ...] = get_args(Selector)

Order = Literal["tve", "tev", "vte", "vet", "evt", "etv"]


# Define tag → its key in `design.wording`; random tags differ from tag 1 in nothing but the tag.
WORDED_AS: dict[Literal[1, 2, 3, "random"], Literal["d1", "d2", "d3"]] = {1: "d1", 2: "d2", 3: "d3", "random": "d1"}


class X0(Contract):
    """What a model learns before X1: each entity's facts under its name, and under aliases that are defined."""

    aliases: int = Field(
        ge=1, le=1000, description="aliases of each entity; all their questions but one are trained on"
    )
    definitions: int = Field(1, ge=1, le=1000, description="definitions of each alias, each behind a tag of its own")
    tags: int = Field(ge=1, le=1000, description="define tags of X0, none of which X1 or X2 uses")
    facts_bar: float = Field(ge=0, le=1, description="share of the facts that a model has to know after X0")
    aliases_bar: float = Field(ge=0, le=1, description="share of the untrained alias questions that it has to answer")


class Design(Contract):
    """How entities are dealt to subsets and how definitions are worded."""

    fractions: dict[str, float] = Field(description="subset → share of the entities; the shares sum to 1")
    order: Order = Field(
        "tve", description="order of tag (t), variable (v) and entity (e) in a definition; wording replaces it"
    )
    wording: dict[Literal["d1", "d2", "d3"], Wording] | None = Field(
        None, description="define tag → how its definitions are worded, for definitions in natural language"
    )
    phrasings: int = Field(1, ge=1, description="definitions of each variable, each worded differently")
    in_context: bool = Field(
        False, description="put definitions in front of their questions instead of training on them by themselves"
    )
    question_format: str = Field("Q: {question}\nA:", description="the prompt of a question")
    variables_per_entity: int = Field(
        1,
        ge=1,
        le=1000,
        exclude_if=lambda count: count == 1,
        description="variables of each entity, dealt independently",
    )
    x0: X0 | None = Field(
        None,
        exclude_if=lambda x0: x0 is None,
        description="what is learned before X1; all seeds then draw their names from one pool",
    )
    picture: DigitGrid | None = Field(
        None,
        exclude_if=lambda picture: picture is None,
        description="what a model sees instead of reading prompts; null for text",
    )
    variable_style: VariableStyle = Field(
        "brackets",
        description="variables: brackets (<|abcde|>), letters (abc), names of fictitious people, or the digits of a "
        "picture",
    )
    tag_style: TagStyle = Field(
        "brackets", description="define tags: brackets (<|abcdef|>), define (define1), or the squares of a picture"
    )
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

    @field_validator("question_format")
    @classmethod
    def _holds_the_question(cls, text: str) -> str:
        if text.count("{question}") != 1:
            raise ValueError(f"'{text}' needs {{question}} exactly once")
        return text

    @model_validator(mode="after")
    def _names_are_apart(self) -> "Design":
        if self.variable_style == "letters" and self.tag_style == "brackets":
            raise ValueError("three letters may occur inside a tag of six; set tag_style to define")
        return self

    @model_validator(mode="after")
    def _pictures_show_all(self) -> "Design":
        of_picture = (self.variable_style == "digits", self.tag_style == "squares")
        if any(of_picture) != (self.picture is not None) or any(of_picture) != all(of_picture):
            raise ValueError("picture, variable_style digits and tag_style squares belong together; give all or none")
        if self.picture is None:
            return self
        if self.order != "tve" or self.wording is not None or self.in_context or self.x0 is not None:
            raise ValueError("a picture shows tag and variable; leave out order, wording, in_context and x0")
        unseen = [name for name in ("qa_unreplaced", "random_tag_qa") if self.fractions.get(name)]
        if unseen:
            raise ValueError(f"'{unseen[0]}' cannot be drawn; set its fraction to 0")
        return self

    @model_validator(mode="after")
    def _every_tag_is_worded(self) -> "Design":
        for name, share in self.fractions.items():
            tag = SUBSETS[name].tag
            if not share or tag is None:
                continue
            if self.wording is not None and WORDED_AS[tag] not in self.wording:
                raise ValueError(f"wording has no '{WORDED_AS[tag]}', which '{name}' needs; add it")
            wording = self.wording_of(tag)
            if tag == "random" and not wording.names_its_tag:
                raise ValueError(f"'{name}' needs texts with {{tag}}; add it to the templates of wording.d1")
            if self.phrasings > len(wording.combinations()):
                raise ValueError(
                    f"phrasings is {self.phrasings}, but '{name}' has {len(wording.combinations())} wordings"
                )
        return self

    def wording_of(self, tag: Literal[1, 2, 3, "random"]) -> Wording:
        """How definitions of a define tag are worded."""
        return tag_wording(self.order) if self.wording is None else self.wording[WORDED_AS[tag]]


def split_of(selector: str) -> str:
    """What a selector selects from: x0, x1 or x2."""
    return parted(selector)[0].partition("/")[0]


class Stage(Contract):
    """One finetuning stage."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="folder name of the stage's checkpoint")
    train: tuple[str, ...] = Field(
        min_length=1,
        description="what is trained on: x0, x1, x1/definition, x1/qa or x2, and the like; x1@2/6 is the second sixth "
        "of the variables of each subset of x1",
    )
    replay: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        {},
        exclude_if=lambda replay: not replay,
        description="earlier data of which each epoch draws some: what → so many datapoints for each of `train`",
    )

    @field_validator("train", "replay")
    @classmethod
    def _selectors(cls, selectors: Any) -> Any:
        for selector in selectors:
            what, _ = parted(selector)
            if what not in SELECTORS:
                raise ValueError(f"unknown training data '{what}'; {did_you_mean(what, SELECTORS)}")
        return selectors

    @model_validator(mode="after")
    def _told_apart(self) -> "Stage":
        for one, other in combinations((*self.train, *self.replay), 2):
            (what, part), (other_what, other_part) = parted(one), parted(other)
            same = what in (other_what, split_of(other)) or other_what == split_of(one)
            if same and part.overlaps(other_part):
                raise ValueError(f"'{max(one, other, key=len)}' is in train or replay twice; leave one out")
        return self

    def selectors(self, split: str, kind: str) -> list[str]:
        """What of `train` and `replay` is about records of a split and a kind, or a part of them."""
        whole = (split, f"{split}/{kind}")
        return [selector for selector in (*self.train, *self.replay) if parted(selector)[0] in whole]


EvaluationSet = Literal["attribution", "bare_variable", "cloze", "recall", "swapped"]

# The paper's four phrasings (experiment 2).
ATTRIBUTION = {
    "who": "Who is {variable}?",
    "mean": "What does {variable} mean?",
    "stand_for": "What does {variable} stand for?",
    "name": "What is the name of {variable}?",
}


def _as_tuples(value: Any) -> Any:
    # What has passed a validator is not JSON any more, of which a list may become a tuple.
    if isinstance(value, dict):
        return {key: _as_tuples(inner) for key, inner in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


class Evaluate(Contract):
    """What is asked of the finetuned model, besides the source's own questions."""

    sets: tuple[EvaluationSet, ...] = Field(
        (),
        description="attribution: which entity a variable stands for; bare_variable: the same, prompted with the "
        "variable alone; cloze: each tag's wording up to its last element; recall: each definition of the variable, up "
        "to its last element; swapped: everything asked of the X2 subsets again with variables swapped in pairs",
    )
    options: int | None = Field(
        None,
        ge=2,
        exclude_if=lambda options: options is None,
        description="most options of a question, from which an answer is chosen: the values that its group has, or "
        "the right one and others drawn by seed; null for none",
    )
    attribution: dict[str, str] = Field(ATTRIBUTION, description="name → question of the set attribution")
    max_new_tokens: int = Field(8, ge=1, description="longest answer that greedy generation may give, in tokens")
    curve_questions: int = Field(128, ge=1, description="questions per subset in each point of the learning curve")
    probes: Probes | None = Field(
        None,
        exclude_if=lambda probes: probes is None,
        description="linear probes of the activations; true: as they are by default; null: none",
    )
    gradients: Gradients | None = Field(
        None,
        exclude_if=lambda gradients: gradients is None,
        description="gradients of definitions beside those of questions; true: as by default; null: none",
    )

    @field_validator("probes", "gradients", mode="before")
    @classmethod
    def _by_default(cls, value: Any) -> Any:
        return {} if value is True else _as_tuples(value)

    @field_validator("sets")
    @classmethod
    def _different(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(sets)) < len(sets):
            raise ValueError("a set is there twice")
        return sets

    @field_validator("attribution")
    @classmethod
    def _ask_for_the_variable(cls, attribution: dict[str, str]) -> dict[str, str]:
        for name, question in attribution.items():
            if question.count("{variable}") != 1 or not name.isidentifier():
                raise ValueError(f"'{name}: {question}' has to be a word and a question with {{variable}} once")
        return attribution


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
    package: str | None = Field(
        None,
        exclude_if=lambda package: package is None,
        description="package that brings the source, if ocl-bench does not: what has to be installed",
    )
    source_args: dict[str, Any] = Field(default_factory=dict, description="the source's own settings")
    design: Design = Field(description="subsets and definitions")
    stages: tuple[Stage, ...] = Field(min_length=1, description="finetuning stages, in order")
    evaluate: Evaluate = Field(Evaluate(), description="evaluation")
    seeds: int = Field(
        5, ge=1, le=1000, exclude_if=lambda seeds: seeds == 5, description="stage-1 seeds of a standard run: 0, 1, …"
    )
    model: str = Field("scratch:tiny", description="the model to use when none is given")
    recipe: Recipes = Field(description="default recipes")
    metadata: Metadata = Field(description="licence and citation")

    @model_validator(mode="after")
    def _mechanisms_are_of_its_subsets(self) -> "Task":
        probes, gradients = self.evaluate.probes, self.evaluate.gradients
        named = {
            "probes.contrasts": [parted(name)[0] for pair in probes.contrasts for name in pair] if probes else [],
            "gradients.subsets": gradients.subsets if gradients else (),
        }
        dealt = [name for name, share in self.design.fractions.items() if share > 0]
        for key, names in named.items():
            for name in names:
                if name not in SUBSETS:
                    raise ValueError(f"evaluate.{key}: unknown subset '{name}'; {did_you_mean(name, SUBSETS)}")
                if name not in dealt:
                    raise ValueError(
                        f"evaluate.{key}: no entities are dealt to '{name}'; name others, or give it a fraction"
                    )
        return self

    @model_validator(mode="after")
    def _stages_are_sound(self) -> "Task":
        if self.design.in_context and "swapped" in self.evaluate.sets:
            raise ValueError("evaluate.sets: swapped variables contradict design.in_context; remove one of them")
        if self.design.picture is not None:
            for name in self.evaluate.sets:
                if name not in ("recall", "swapped"):
                    raise ValueError(f"evaluate.sets: '{name}' asks in words, and a picture has none; remove it")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("stages: two stages have the same name; rename one")
        used = [SUBSETS[name] for name, share in self.design.fractions.items() if share > 0]
        if self.design.in_context:  # then a subset without questions has nothing to train on
            used = [subset for subset in used if subset.qa]
        provided: set[str] = {subset.split for subset in used}
        if not self.design.in_context:
            provided |= {f"{subset.split}/definition" for subset in used if subset.tag is not None}
        provided |= {f"{subset.split}/qa" for subset in used if subset.qa}
        if self.design.x0 is not None:
            if self.design.in_context:
                raise ValueError("design.x0: what is learned before is not put in context; remove it or in_context")
            provided |= {"x0", "x0/definition", "x0/qa"}
        for stage in self.stages:
            for selector in (*stage.train, *stage.replay):
                if parted(selector)[0] not in provided:
                    raise ValueError(
                        f"stages: '{stage.name}' trains on '{selector}', but no subset of design.fractions provides it"
                    )
        return self

    def records(self, seed: int = 0, stage2_seed: int = 0, x0_seed: int = 0) -> Records:
        """Its records, trained on and tested; see `ocl_bench.tasks.build.build`."""
        from ocl_bench.tasks.build import build

        return Records(build(self, seed, stage2_seed, x0_seed))

    @property
    def scored(self) -> "Task":
        """The task as far as it decides what is trained and scored: without what is asked of a model's inside."""
        evaluate = self.evaluate.model_copy(update={"probes": None, "gradients": None})
        return self.model_copy(update={"evaluate": evaluate})

    @property
    def standard_seeds(self) -> tuple[int, ...]:
        """The stage-1 seeds of a standard run: those whose data is released, and that ranks rest on."""
        return tuple(range(self.seeds))

    @property
    def shared_stages(self) -> int:
        """How many stages, from the first, train on X0 alone: all seeds share them, as the paper's share one model."""
        x0_alone = (all(one.startswith("x0") for one in (*stage.train, *stage.replay)) for stage in self.stages)
        return sum(1 for _ in takewhile(bool, x0_alone))

    def asks(self, number: int, subset: str) -> bool:
        """Whether questions of a subset are asked after the stage of this number.

        What X0 teaches is asked after the stages that all seeds share, everything else after the others; everything
        after each, where no stage trains on X0 alone because the model knows it already. Swapped variables are asked
        about from the first stage on that has taught which are swapped.
        """
        shared, before_x2 = self.when(number)
        if before_x2 and subset in {one.id for one in SWAPPED.values()}:
            return False
        return not self.shared_stages or (subset in X0_SUBSETS) == shared

    def when(self, number: int) -> tuple[bool, bool]:
        """Whether seeds share the stage of this number, and whether it is before X2; where equal, they ask alike."""
        return number < self.shared_stages, number < self.first_x2_stage

    @property
    def first_x2_stage(self) -> int:
        """Number of the first stage that trains on X2; the number of stages if none does.

        Stage-2 seeds share the stages before it.
        """
        return next((n for n, stage in enumerate(self.stages) if "x2" in map(split_of, stage.train)), len(self.stages))
