"""Pixels of pictures, a batch at a time, by indexing: which scan of a digit stands where is a hash of seed and cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from ocl_bench.tasks.pictures import CELL, SCAN, SQUARE, DigitGrid, Picture, Scans

KEPT = 5  # every fifth of the embedded scans of a digit is kept for tests


class Album:
    """What pictures show, as tensors: pixels of any of them need no Python for each.

    Args:
        pictures: at least one, all of one grid.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        grid = self.grid = DigitGrid(**{name: getattr(pictures[0], name) for name in DigitGrid.model_fields})
        self.digits = torch.tensor([[int(digit) for digit in one.digits] for one in pictures])
        none = "0" * grid.squares
        self.tags = torch.tensor([[float(square) for square in one.tag or none] for one in pictures])
        self.cells = torch.tensor([-1 if one.cell is None else one.cell for one in pictures])
        self.seeds = torch.tensor([-1 if one.seed is None else one.seed for one in pictures])

    def pixels(self, numbers: Tensor, draws: Tensor) -> Tensor:
        """Pixels from 0 to 1, shape (pictures, 1, height, width), float32.

        Args:
            numbers: which of the pictures, shape (pictures,).
            draws: seeds of those that have none of their own, which show scans for training; shape (pictures,).
        """
        grid, digits, own = self.grid, self.digits[numbers], self.seeds[numbers]
        seeds = torch.where(own < 0, draws, own)
        hashed = _hashed(seeds[:, None] * grid.cells + torch.arange(grid.cells))
        trained, kept = (scans(grid.scans, test).of(digits, hashed) for test in (False, True))
        found = torch.where((own < 0)[:, None, None, None], trained, kept)
        side, gap = CELL[grid.scans], (CELL[grid.scans] - SCAN[grid.scans]) // 2
        cells = torch.nn.functional.pad(found, [gap] * 4)
        asked = self.cells[numbers][:, None] == torch.arange(grid.cells)
        border = torch.ones(side, side)
        border[1:-1, 1:-1] = 0
        cells = torch.maximum(cells, asked[:, :, None, None] * border)
        rows = cells.reshape(-1, grid.rows, grid.columns, side, side).transpose(2, 3)  # (pictures, row, y, column, x)
        tags = self.tags[numbers].repeat_interleave(SQUARE, dim=1)[:, None].expand(-1, SQUARE, -1)
        return torch.cat([tags, rows.flatten(3).flatten(1, 2)], dim=1)[:, None]


@dataclass(frozen=True)
class Shown:
    """A picture of an album.

    Attributes:
        album, number: which.
        draw: seed of its scans, where it has none of its own.
    """

    album: Album
    number: int
    draw: int = 0


def pixels(shown: Sequence[Shown]) -> Tensor:
    """Pixels of pictures of one album; see `Album.pixels`."""
    numbers, draws = torch.tensor([one.number for one in shown]), torch.tensor([one.draw for one in shown])
    return shown[0].album.pixels(numbers, draws)


class ScanPool:
    """Scans of handwritten digits, sorted by digit.

    Args:
        images: shape (scans, side, side), from 0 to 1.
        digits: of each, shape (scans,).
    """

    def __init__(self, images: Tensor, digits: Tensor) -> None:
        order = torch.argsort(digits, stable=True)
        self.images = images[order]
        self.counts = torch.bincount(digits, minlength=10)
        self.starts = torch.cumsum(self.counts, 0) - self.counts

    def of(self, digits: Tensor, hashed: Tensor) -> Tensor:
        """A scan of each digit, as a hash decides; shape of `digits` and (side, side)."""
        return self.images[self.starts[digits] + hashed % self.counts[digits]]


@cache
def scans(name: Scans, test: bool) -> ScanPool:
    """The scans that are trained on, or those kept for tests; no scan is in both.

    Raises:
        OclBenchError: if they have not been fetched.
    """
    return _mnist(test) if name == "mnist" else _embedded(test)


def _embedded(test: bool) -> ScanPool:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, digits = torch.tensor(bunch.images / 16, dtype=torch.float32), torch.tensor(bunch.target)
    places = torch.zeros_like(digits)
    for digit in range(10):  # the how-manieth of its digit each is
        own = digits == digit
        places[own] = torch.arange(int(own.sum()))
    kept = places % KEPT == 0
    return ScanPool(images[kept == test], digits[kept == test])


def _mnist(test: bool) -> ScanPool:
    from ocl_bench.tasks.sources.mnist import SIDE, Mnist

    table = Mnist().table()
    own = table.filter(table["test"] if test else pc.invert(table["test"])).combine_chunks()
    pixels = np.frombuffer(own["pixels"].chunk(0).buffers()[1], np.uint8)[: own.num_rows * SIDE * SIDE]
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, SIDE, SIDE) / 255
    return ScanPool(images, torch.tensor(own["digit"].to_numpy().astype(np.int64)))


def _hashed(numbers: Tensor) -> Tensor:
    """A number from 0 to 2⁶² for each, the same on every machine (splitmix64; Steele, Lea and Flood 2014)."""
    mixed = numbers.to(torch.int64) * _signed(0x9E3779B97F4A7C15) + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return _shifted(mixed ^ _shifted(mixed, 31), 2)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shifted to the right, with zeros coming in: torch's own shift brings in the sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
