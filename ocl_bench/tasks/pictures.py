"""The picture of a record: how it is made, never its pixels. They are made where a model reads them."""

from typing import Literal

from pydantic import Field, model_validator

from ocl_bench.contract import Contract

Scans = Literal["digits", "mnist"]
# Scans of handwritten digits → pixels of a side, and of a cell's, which leaves room for a border around small ones.
SCAN: dict[Scans, int] = {"digits": 8, "mnist": 28}
CELL: dict[Scans, int] = {"digits": 10, "mnist": 28}
SQUARE = 2  # pixels of a side of a tag's squares


class DigitGrid(Contract):
    """A grid of handwritten digits, below a row of black and white squares that is a define tag."""

    maker: Literal["digit_grid"] = Field(description="what makes the picture")
    scans: Scans = Field(
        description="digits: 1797 scans of 8 × 8 pixels, which come with scikit-learn; mnist: 70,000 of 28 × 28, which "
        "have to be fetched"
    )
    rows: int = Field(ge=1, le=10, description="rows of digits")
    columns: int = Field(ge=1, le=10, description="digits of a row")

    @property
    def cells(self) -> int:
        """Digits of a grid."""
        return self.rows * self.columns

    @property
    def squares(self) -> int:
        """Squares of a tag: as many as fit above the digits."""
        return self.size[1] // SQUARE

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return SQUARE + self.rows * CELL[self.scans], self.columns * CELL[self.scans]


class Picture(DigitGrid):
    """One picture."""

    digits: str = Field(pattern=r"^[0-9]+$", description="the digits, row after row")
    tag: str = Field("", pattern=r"^[01]*$", description="the squares above them, 1 for white; empty for none")
    cell: int | None = Field(None, ge=0, description="the digit with a border: the one that is asked about, from 0")
    seed: int | None = Field(
        None,
        ge=0,
        description="which scans of the digits, from those kept for tests; null: others at each training step",
    )

    @model_validator(mode="after")
    def _fits_its_grid(self) -> "Picture":
        if len(self.digits) != self.cells:
            raise ValueError(f"digits: there are {len(self.digits)}, and {self.cells} cells")
        if len(self.tag) not in (0, self.squares):
            raise ValueError(f"tag: there are {len(self.tag)} squares; give {self.squares}")
        if self.cell is not None and self.cell >= self.cells:
            raise ValueError(f"cell: is {self.cell}; there are {self.cells} cells")
        return self
