"""Gradients of many examples, kept as what they are products of, and their products with each other.

The gradient of a layer's matrix is a sum over positions of (gradient of the output) ⊗ (input). Two such sums have the
product Σ (output gradient · output gradient) (input · input) over pairs of positions, so that no gradient need be made:
the "ghost" norms of Goodfellow (arXiv 1510.01799) and Li et al. (arXiv 2110.05679), for products of different examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A gradient of a matrix for each of several rows: the sum over positions of left ⊗ right.

    Attributes:
        left: shape (rows, positions, height); or (rows, positions), integers: where in `height` the only 1 stands.
        right: shape (rows, positions, width).
        height: of the matrix.
    """

    left: Tensor
    right: Tensor
    height: int

    @property
    def size(self) -> int:
        """Numbers that it is made of, of each row."""
        return self.left[0].numel() + self.right[0].numel()

    @property
    def dense(self) -> Tensor:
        """The gradients, shape (rows, height × width)."""
        if self.left.is_floating_point():
            return (self.left.mT @ self.right).flatten(1)
        rows, _, width = self.right.shape
        made = self.right.new_zeros(rows, self.height, width)
        return made.scatter_add_(1, self.left[:, :, None].expand_as(self.right), self.right).flatten(1)

    def grouped(self, size: int) -> "Factors":
        """Of the sums of each `size` rows."""
        left, right = (one.reshape(-1, size * one.shape[1], *one.shape[2:]) for one in (self.left, self.right))
        return Factors(left, right, self.height)

    def of(self, numbers: slice | list[int]) -> "Factors":
        """Of some rows."""
        return Factors(self.left[numbers], self.right[numbers], self.height)

    def products(self, other: "Factors") -> Tensor:
        """⟨row i, row i of another⟩, shape (rows,), float64."""
        return _dots(self._lefts(other).flatten(1), (self.right @ other.right.mT).flatten(1))

    def all_products(self, other: "Factors") -> Tensor:
        """⟨row i, row j of another⟩, shape (rows, rows of the other), float64."""
        sizes = (*self.right.shape[:2], *other.right.shape[:2])
        one, two = self.grouped(sizes[0]), other.grouped(sizes[2])
        (pairs,) = one._lefts(two) * (one.right @ two.right.mT)
        found: Tensor = pairs.view(sizes).sum((1, 3)).double()
        return found

    def _lefts(self, other: "Factors") -> Tensor:
        dense, other_dense = self.left.is_floating_point(), other.left.is_floating_point()
        if dense and other_dense:
            return self.left @ other.left.mT
        if dense:
            return other._lefts(self).mT
        if other_dense:
            rows, positions = self.left.shape
            index = self.left[:, None].expand(rows, other.left.shape[1], positions)
            return other.left.gather(-1, index).mT
        return (self.left[:, :, None] == other.left[:, None]).to(self.right.dtype)


# Of one parameter: as factors, one for each use, or as gradients themselves, shape (rows, numbers).
Gradient = list[Factors] | Tensor


class Rows:
    """Gradients of several rows with respect to the parameters of one model.

    Args:
        of: each parameter's name → its gradients.
    """

    def __init__(self, of: Mapping[str, Gradient]) -> None:
        # Whichever is smaller is also the faster one to multiply.
        self.parts = {name: one if isinstance(one, Tensor) else _smaller(one) for name, one in of.items()}

    def grouped(self, size: int) -> "Rows":
        """The sums of each `size` rows."""
        return Rows(
            {
                name: part.reshape(-1, size, part.shape[1]).sum(1)
                if isinstance(part, Tensor)
                else [use.grouped(size) for use in part]
                for name, part in self.parts.items()
            }
        )

    def of(self, numbers: Sequence[int]) -> "Rows":
        """Some rows; those that follow each other are not copied."""
        first, last = numbers[0], numbers[-1] + 1
        chosen = slice(first, last) if list(numbers) == list(range(first, last)) else list(numbers)
        return Rows(
            {
                name: part[chosen] if isinstance(part, Tensor) else [use.of(chosen) for use in part]
                for name, part in self.parts.items()
            }
        )

    def products(self, other: "Rows") -> Tensor:
        """⟨row i, row i of another⟩, shape (rows,), float64."""
        found = []
        for own, others in self._pairs(other):
            if isinstance(own, Tensor) or isinstance(others, Tensor):
                found.append(_dots(dense(own), dense(others)))
            else:
                found += [a.products(b) for a in own for b in others]
        return torch.stack(found).sum(0)

    def all_products(self, other: "Rows") -> Tensor:
        """⟨row i, row j of another⟩, shape (rows, rows of the other), float64."""
        found = []
        for own, others in self._pairs(other):
            if isinstance(own, Tensor) or isinstance(others, Tensor):
                found.append((dense(own) @ dense(others).mT).double())
            else:
                found += [a.all_products(b) for a in own for b in others]
        return torch.stack(found).sum(0)

    def _pairs(self, other: "Rows") -> list[tuple[Gradient, Gradient]]:
        return [(part, other.parts[name]) for name, part in self.parts.items()]


def _dots(one: Tensor, two: Tensor) -> Tensor:
    # A matrix product adds up one after the other, which for a million numbers costs the fifth digit.
    return (one * two).sum(1).double()


def _smaller(uses: list[Factors]) -> Gradient:
    made = uses[0].height * uses[0].right.shape[-1]
    return uses if sum(use.size for use in uses) < made else dense(uses)


def dense(gradient: Gradient) -> Tensor:
    """Gradients themselves, shape (rows, numbers)."""
    if isinstance(gradient, Tensor):
        return gradient
    first, *others = gradient
    return sum((one.dense for one in others), first.dense)
