"""Parts of a subset: `d1_cons_qa@2/6` is the second sixth of its variables, and `x1@2/6` that of each subset of X1.

The variables of a subset are dealt in turn, in the order of the alphabet, so that parts have as many, give or take one,
and records alone say which part a variable is in.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ocl_bench.tasks.records import Record


@dataclass(frozen=True)
class Part:
    """One of so many equal parts, from 1."""

    number: int
    of: int

    def overlaps(self, other: "Part") -> bool:
        """Whether a place in the deal may be in both."""
        return (self.number - other.number) % math.gcd(self.of, other.of) == 0


WHOLE = Part(1, 1)


def parted(name: str) -> tuple[str, Part]:
    """What a name such as `x1@2/6` names, and which part of it. Raises ValueError if there is no such part."""
    whole, at, part = name.partition("@")
    if not at:
        return whole, WHOLE
    number, _, of = part.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"'{name}' names no part; write @1/6 for the first sixth, up to @6/6")
    return whole, Part(int(number), int(of))


def members_of(records: Iterable[Record], name: str) -> frozenset[str]:
    """The variables of a subset, or of a part of it.

    Args:
        records: all of a dataset, because what is left out is not dealt.
        name: such as `d1_cons_qa`, or `d1_cons_qa@2/6`.

    Raises:
        ValueError: if there is no such part.
    """
    subset, part = parted(name)
    variables = sorted({record.variable for record in records if record.subset == subset})
    return frozenset(variables[part.number - 1 :: part.of])
