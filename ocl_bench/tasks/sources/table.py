"""Entities of one's own: a table with a row for each, whose columns are what can be asked about it.

A task file names the table. What it holds when the task is loaded becomes part of the task, as rows: a changed table is
another run, and what was run needs no file any more.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity, Question
from ocl_bench.tasks.sources.read_table import KINDS, read_columns

MAX_ROWS = 100_000  # they travel with the task, into each manifest
PLACEHOLDER = re.compile(r"\{(\w+)\}")

Cell = Annotated[str, Field(min_length=1)]
Cells = Annotated[tuple[Cell, ...], Field(min_length=1)]


class TableSource:
    """Entities such as `Helium`, questions such as `What is the symbol of Helium?`."""

    class Args(Contract):
        path: str | None = Field(None, description=f"the table, relative to the task file: {KINDS}")
        name: str = Field(description="column with what definitions call an entity")
        questions: dict[str, str] = Field(
            min_length=1, description="column → the question that it answers, with {entity} in it"
        )
        num_entities: int | None = Field(None, ge=2, description="how many rows, from the first; null: all")
        rows: tuple[tuple[Cell | Cells, ...], ...] | None = Field(
            None,
            description="what was read from path: of each row the name, then the answer to each of the questions, or "
            "several that are accepted",
        )

        @field_validator("questions")
        @classmethod
        def _name_the_entity(cls, questions: dict[str, str]) -> dict[str, str]:
            for column, template in questions.items():
                other = [name for name in PLACEHOLDER.findall(template) if name != "entity"]
                if other:
                    raise ValueError(f"'{column}: {template}' has {{{other[0]}}}; a question knows {{entity}} alone")
                if template.count("{entity}") != 1:
                    raise ValueError(f"'{column}: {template}' needs {{entity}} exactly once")
            return questions

        @model_validator(mode="after")
        def _whole(self) -> "TableSource.Args":
            if (self.path is None) == (self.rows is None):
                raise ValueError("give path, the table that entities are read from")
            if any(len(row) != 1 + len(self.questions) for row in self.rows or ()):
                raise ValueError("rows: each needs a name and an answer to each of the questions")
            if self.rows is not None and not 2 <= (self.num_entities or len(self.rows)) <= len(self.rows):
                raise ValueError(f"rows: there are {len(self.rows)}; give 2 at least, and as many as num_entities says")
            return self

    def read(self, args: Args) -> Args:
        """The arguments with what the table holds in place of its path.

        Raises:
            OclBenchError: if it cannot be read, lacks a column, or has an empty cell or a name twice.
        """
        if args.rows is not None:
            count = args.num_entities or len(args.rows)
            return args.model_copy(update={"num_entities": count, "rows": args.rows[:count]})
        assert args.path is not None, "one of the two is there"
        path = Path(args.path)
        columns = read_columns(path, (args.name, *args.questions), args.num_entities)
        rows = tuple(zip(columns[args.name], *(columns[column] for column in args.questions), strict=True))
        if len(rows) > MAX_ROWS:
            raise OclBenchError(f"{path}: at most {MAX_ROWS} rows are taken; say how many by source_args.num_entities.")
        found: dict[str, int] = {}
        for number, name in enumerate(columns[args.name], start=1):
            if not isinstance(name, str):
                raise OclBenchError(f"{path} row {number}: column '{args.name}' is a list; a name is one text.")
            if found.setdefault(name, number) != number:
                both = f"{found[name]} and {number}"
                raise OclBenchError(f"{path}: rows {both} are both called '{name}'; give each a name of its own.")
        return args.model_copy(update={"path": None, "num_entities": len(rows), "rows": rows})

    def entities(self, args: Args) -> list[Entity]:
        """A row each, in the table's order. Chance is the share of a question's most common answer."""
        if args.rows is None:
            raise OclBenchError("source_args.path: the table has not been read; load the task from its file.")
        rows = args.rows[: args.num_entities]
        answers = [[_accepted(row[number]) for row in rows] for number in range(1, 1 + len(args.questions))]
        chance = [max(Counter(one[0] for one in own).values()) / len(rows) for own in answers]
        return [
            Entity(
                str(row[0]),
                tuple(
                    Question(column, template, answers[which][number], chance[which])
                    for which, (column, template) in enumerate(args.questions.items())
                ),
            )
            for number, row in enumerate(rows)
        ]


def _accepted(cell: str | tuple[str, ...]) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else tuple(cell)
