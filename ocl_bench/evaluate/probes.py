"""The evaluator that asks a model's inside which subset a variable is in: its rows are what linear probes read.

A probe is a logistic regression from the activations at one layer and position to which of two subsets a variable is
in: `d1_cons_qa` against `d2_incons_qa` asks which tag introduced it, `d1_cons` against `d2_cons` the same where
definitions of both are true. Whoever reads them should know what a position shows. `definition/tag` sees the tag
itself, and is a check that 1 is reached. What comes behind the tag in a definition may be a copy of it, whatever a
model knows of the variable. `question/variable` and `question/end` show no tag: what is read there was learned.

Each variable is shown in one definition, its first, and in one question. That is the same for all, so that it says
nothing of the subset; the paper has one too. Folds keep an entity together: the one that a definition names, or the one
that a question is about, so that no probe profits from knowing whom it has seen.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Wanted
from ocl_bench.tasks.mechanisms import PICTURE_POSITIONS, TEXT_POSITIONS, Pair, Position, Probes
from ocl_bench.tasks.parts import members_of, parted
from ocl_bench.tasks.records import Record, dataset_sha256
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.subsets import SUBSETS, Subset

Text = Literal["definition", "qa"]


class Reading(Contract):
    """What a probe read at one layer and position."""

    contrast: Pair = Field(description="the subsets that it told apart")
    position: Position = Field(description="where in a text")
    layer: int = Field(
        ge=0, description="0: what the first layer is given; the last is, with most models, behind the final norm"
    )
    accuracy: float = Field(ge=0, le=1, description="balanced accuracy on the folds that it was not fitted to")
    stderr: float = Field(ge=0, description="its standard error over entities")
    controls: tuple[float, ...] = Field(min_length=1, description="the same of probes for shuffled labels")
    n: int = Field(ge=1, description="variables")
    entities: int = Field(ge=1, description="entities that the texts are about")


@dataclass(frozen=True)
class Shown:
    """A text that shows a variable.

    Attributes:
        record: the definition or question.
        first: whether the variable is in the contrast's first subset.
        about: the entity that it names, or asks about.
    """

    record: Record
    first: bool
    about: str


class ProbesEvaluator:
    """Probes a model after each stage but those that all seeds share; before X2 the X2 subsets are a control.

    Args:
        wanted: what the run asks.
        probes: which probes.
    """

    name = "probes"
    row = Reading
    summary = "ocl_bench.score.probes:summarise"

    def __init__(self, wanted: Wanted, probes: Probes) -> None:
        self.wanted = wanted
        self.probes = probes

    @classmethod
    def of(cls, wanted: Wanted) -> "ProbesEvaluator | None":
        """Nothing if the task asks for none."""
        probes = wanted.task.evaluate.probes
        return None if probes is None else cls(wanted, probes)

    def asks(self, moment: Moment) -> bool:
        """After each stage that is a seed's own."""
        task = self.wanted.task
        number = [stage.name for stage in task.stages].index(moment.stage)
        return moment.when == "after" and number >= task.shared_stages

    def settings(self, moment: Moment) -> dict[str, Any]:
        """The probes, their texts, the seed of folds and shuffles, and what activations are computed in."""
        return self._settings

    @cached_property
    def shown(self) -> dict[Pair, dict[Text, list[Shown]]]:
        """Contrast → kind → its texts."""
        return shown_texts(self.probes.contrasts, self.wanted.records)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        records = [one.record for kinds in self.shown.values() for texts in kinds.values() for one in texts]
        return {
            "probes": self.probes.model_dump(mode="json"),
            "texts": dataset_sha256(records),
            "seed": self.wanted.seed,
            "tokenizer": self.wanted.tokenizer,
            "precision": self.wanted.precision,
        }

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """Look at every text once, then fit every probe."""
        from ocl_bench.evaluate.probing import read_all
        from ocl_bench.models.group import rank

        if rank() > 0:
            return Found(())  # the first process does it, and the others have nothing to add
        return Found(read_all(loaded, self.wanted.task, self.probes, self.shown, self.wanted.seed))


def shown_texts(contrasts: Iterable[Pair], records: Sequence[Record]) -> dict[Pair, dict[Text, list[Shown]]]:
    """The texts of contrasts: contrast → kind → one of each variable, in an order that says nothing of its subset.

    A question is of the group that most variables of the contrast have, the first in the alphabet of several; a
    variable without it is left out.
    """
    found: dict[Pair, dict[Text, list[Shown]]] = {}
    for pair in contrasts:
        of = {variable: name for name in pair for variable in members_of(records, name)}
        subsets = {parted(name)[0] for name in pair}
        own = [one for one in records if one.subset in subsets and one.variable in of]
        found[pair] = {"definition": [], "qa": []}
        for kind, texts in found[pair].items():
            each = _one_each([one for one in own if one.kind == kind])
            texts += [Shown(one, of[one.variable] == pair[0], _about(one)) for one in each]
            # Texts of like length are looked at together, in this order, and those of one batch are rounded alike.
            random.Random(f"probed {pair}").shuffle(texts)
    return found


def _one_each(records: Sequence[Record]) -> list[Record]:
    """The first record of each variable that has one of the group that most have."""
    groups = Counter(group for group, _ in {(one.group, one.variable) for one in records})
    most = min(groups, key=lambda name: (-groups[name], name), default="")
    of: dict[str, Record] = {}
    for one in records:
        if one.group == most:
            of.setdefault(one.variable, one)
    return list(of.values())


def _about(record: Record) -> str:
    return record.answers[0] if record.kind == "definition" else record.entity


def kind_of(position: Position) -> Text:
    """The texts that a position is in."""
    return "definition" if position.startswith("definition/") else "qa"


def positions_of(
    task: Task, pair: Pair, shown: Mapping[Text, Sequence[Shown]], among: Sequence[Position] | None = None
) -> list[Position]:
    """Where both subsets of a contrast can be looked at, of the positions that are asked for; None asks for all."""
    found: list[Position] = []
    for position in TEXT_POSITIONS if task.design.picture is None else PICTURE_POSITIONS:
        kind = kind_of(position)
        there = {one.first for one in shown[kind]} == {True, False}
        if position == "definition/tag":
            there = there and all(_introduced(task, name) for name in pair)
        if position == "question/variable":
            there = there and all(_subset(name).replaced for name in pair)
        if there and (among is None or position in among):
            found.append(position)
    return found


def _subset(name: str) -> Subset:
    return SUBSETS[parted(name)[0]]


def _introduced(task: Task, name: str) -> bool:
    tag = _subset(name).tag
    return tag is not None and task.design.wording_of(tag).introduces


def marked(task: Task, record: Record) -> dict[str, str]:
    """Name of a position → the part of a record's text that ends there; without `question/end`, which is the prompt's.

    Nothing of a picture is marked.
    """
    if record.picture is not None:
        return {}
    subset = SUBSETS[record.subset]
    if record.kind == "qa":
        return {"question/variable": record.variable} if subset.replaced else {}
    found = {"definition/variable": record.variable, "definition/entity": record.answers[0]}
    if subset.tag is not None and (wording := task.design.wording_of(subset.tag)).introduces:
        text = record.prompt + record.completion
        found["definition/tag"] = wording.introduction(text, record.variable, record.answers[0])
    return found
