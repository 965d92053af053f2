"""Random names: the variables that stand for entities, and the define tags."""

import random
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ocl_bench.contract import read_yaml
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.pictures import DigitGrid

VariableStyle = Literal["brackets", "letters", "names", "digits"]
TagStyle = Literal["brackets", "define", "squares"]

PEOPLE = Path(__file__).parent / "sources" / "people.yaml"
# After so many draws in a row that found nothing new, there is nothing new to be found.
PATIENCE = 100_000
BRACKET = "<|"


@dataclass(frozen=True)
class Names:
    """The random names of one dataset, all different: a variable and a spare tag for each entity, and three tags."""

    variables: list[str]
    tags: list[str]
    random_tags: list[str]


def draw_names(
    seed: int,
    count: int,
    variable_style: VariableStyle = "brackets",
    tag_style: TagStyle = "brackets",
    texts: Iterable[str] = (),
    picture: DigitGrid | None = None,
) -> Names:
    """Draw variables and tags for `count` entities.

    Args:
        seed: decides every name.
        count: entities.
        variable_style: the paper's `<|` + 5 letters + `|>` (brackets), 3 `letters` (the set-inclusion experiment),
            `names` of fictitious people, or the `digits` of a grid.
        tag_style: the paper's `<|` + 6 letters + `|>` (brackets), `define1`, `define2`, …, or the `squares` above a
            grid.
        texts: what a name must not occur in: no word of a name is part of a word of these.
        picture: the grid that digits and squares have to fill; needed for these two styles.

    Raises:
        OclBenchError: if there are fewer such names than entities.
    """
    rng = random.Random(f"names {seed}")
    words = dict.fromkeys(word for text in texts for word in text.split())
    # A name in brackets can only be in a word that has one: to look in all would take the square of entities.
    bracketed = [word for word in words if BRACKET in word]
    if tag_style == "define":
        tags = [f"define{number}" for number in range(1, 4 + count)]
        words["define"] = None
    variables = _unique(
        _variable(variable_style, rng, picture),
        count,
        bracketed if variable_style == "brackets" else words,
        f"design.variable_style {variable_style}",
    )
    if tag_style == "brackets":
        tags = _unique(lambda: _bracketed(rng, 6), 3 + count, bracketed, "design.tag_style brackets")
    if tag_style == "squares":
        assert picture is not None, "the schema asks for a picture"
        squares = picture.squares
        tags = _unique(lambda: "".join(rng.choices("01", k=squares)), 3, words, "design.tag_style squares")
    return Names(variables, tags[:3], tags[3:])


def _variable(style: VariableStyle, rng: random.Random, picture: DigitGrid | None) -> Callable[[], str]:
    """What draws a variable."""
    match style:
        case "digits":
            assert picture is not None, "the schema asks for a picture"
            cells = picture.cells
            return lambda: "".join(rng.choices(string.digits, k=cells))
        case "brackets":
            return lambda: _bracketed(rng, 5)
        case "letters":
            return lambda: "".join(rng.choices(string.ascii_lowercase, k=3))
        case "names":
            lists = read_yaml(PEOPLE)
            return lambda: f"{rng.choice(lists['first_names'])} {rng.choice(lists['last_names'])}"


def _bracketed(rng: random.Random, letters: int) -> str:
    # The brackets keep a name from occurring inside another name or inside a word of a text.
    return f"{BRACKET}{''.join(rng.choices(string.ascii_lowercase, k=letters))}|>"


def _unique(draw: Callable[[], str], count: int, words: Iterable[str], key: str) -> list[str]:
    taken = "\n".join(words)
    names: dict[str, None] = {}  # a dict keeps the order, so that the result does not depend on hashing
    failed = 0
    while len(names) < count:
        name = draw()
        if name in names or any(word in taken for word in name.split()):
            failed += 1
            if failed > PATIENCE:
                raise OclBenchError(f"{key} gives no more than about {len(names)} names, and {count} are needed.")
            continue
        names[name] = None
        failed = 0
    return list(names)
