"""An attack: a name, what it does through which door of the board, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from settling import Forgery, read
from tampering import Copy

from corpus.outcome import Outcome


@dataclass
class Bench:
    """What an attack works with.

    Attributes:
        folder: of this attack alone; empty.
        honest: a submission that passes; never changed.
        run: the run that it was made of; never changed.
        accepted: a submission of the standard division, whose questions were all asked; never changed.
        small: another, of a small task.
    """

    folder: Path
    honest: Path
    run: Path
    accepted: Path
    small: Path

    @property
    def board(self) -> Path:
        """A leaderboard folder."""
        return self.folder / "leaderboard"

    @property
    def results(self) -> Path:
        """Where its submissions lie."""
        return self.board / "results"

    def copy(self) -> Copy:
        """The honest submission in the board, as files to tamper with."""
        return Copy(self.honest, self.results)

    def forgery(self) -> Forgery:
        """The honest submission in memory, to be written with all that is derived made to fit."""
        return read(self.honest)


@dataclass(frozen=True)
class Attack:
    """One hostile input.

    Attributes:
        kind, name: what the table calls it.
        act: makes it and brings it through a door of the board.
        said: what a refusal has to say, as a regular expression.
        refused: whether it has to be refused; otherwise it may also be accepted, and then does nothing.
        allowed: seconds of processor time.
    """

    kind: str
    name: str
    act: Callable[[Bench], Outcome]
    said: str
    refused: bool = True
    allowed: float = field(default=3.0)

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"
