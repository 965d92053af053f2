"""What a task asks of a model's inside, to find out why it answers as it does: probes and gradients.

None of it changes what is trained or scored, so that a run with it is the run that it would be without.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from ocl_bench.contract import Contract
from ocl_bench.tasks.parts import parted

# Where in a text a model is looked at: at the last token of the tag, variable or entity of a definition, of the
# variable in a question, and at the last token of the question, after which the answer comes. What stands for the tag
# in natural language is the source, or else the phrase. A picture is looked at as a whole.
TextPosition = Literal[
    "definition/tag", "definition/variable", "definition/entity", "question/variable", "question/end"
]
PicturePosition = Literal["definition/picture", "question/picture"]
Position = Literal[TextPosition, PicturePosition]
TEXT_POSITIONS: tuple[Position, ...] = get_args(TextPosition)
PICTURE_POSITIONS: tuple[Position, ...] = get_args(PicturePosition)
Pair = tuple[str, str]


class Probes(Contract):
    """Linear probes: can it be read from the activations which of two subsets a variable is in?"""

    contrasts: Annotated[tuple[Pair, ...], Field(min_length=1)] = Field(
        (("d1_cons_qa", "d2_incons_qa"), ("d1_cons", "d2_cons")),
        description="pairs of subsets to tell apart, or of parts of them",
    )
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = Field(
        None, description="which: 0 is what the first layer is given; null: all"
    )
    positions: Annotated[tuple[Position, ...], Field(min_length=1)] | None = Field(
        None, description="where in a text or picture; null: everywhere that both subsets have"
    )
    c: float = Field(0.01, gt=0, description="inverse strength of the L2 penalty; the paper's")
    folds: int = Field(5, ge=2, le=100, description="folds of the entities, each of which is predicted from the others")
    shuffles: int = Field(3, ge=1, le=1000, description="control tasks: the same with labels shuffled")

    @model_validator(mode="after")
    def _different(self) -> "Probes":
        _once(self.contrasts, "contrasts")
        _once(self.layers or (), "layers")
        _once(self.positions or (), "positions")
        for first, second in self.contrasts:
            (one, part), (other, other_part) = parted(first), parted(second)
            if one == other and part.overlaps(other_part):
                raise ValueError(f"contrasts: '{first}' cannot be told from itself; give two subsets, or two parts")
        return self


class Gradients(Contract):
    """Gradient alignment: do definitions pull the weights where the questions about their variables do?"""

    subsets: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("d1_cons_qa", "d2_incons_qa", "d1_cons", "d2_cons"), description="subsets with definitions and questions"
    )
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="epochs of a stage after which it is looked at too, and not only after the stage"
    )
    variables: int = Field(100, ge=2, description="most variables of each subset, drawn by seed")
    batch: int = Field(64, ge=2, description="datapoints whose gradients are compared with their mean and each other")

    @model_validator(mode="after")
    def _different(self) -> "Gradients":
        _once(self.subsets, "subsets")
        _once(self.epochs, "epochs")
        return self


def _once(values: Sequence[object], name: str) -> None:
    for one in values:
        if values.count(one) > 1:
            raise ValueError(f"{name}: {one!r} is there twice; leave one out")
