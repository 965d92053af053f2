"""Where a marked text, such as a tag, a variable or an entity, stands among the token ids of a datapoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any


@dataclass(frozen=True)
class Piece:
    """A part of prompt + completion that the tokenizer encoded by itself.

    Attributes:
        text: the part.
        first_character: where it begins in prompt + completion.
        first_token: where its ids begin among those of the datapoint.
    """

    text: str
    first_character: int
    first_token: int


class SpanFinder:
    """Finds the tokens of characters in pieces, for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer; one that gives no offsets is asked for the ids of a piece's beginnings.
        pieces: every piece that is looked at.
    """

    def __init__(self, tokenizer: Any, pieces: Sequence[Piece]) -> None:
        self._tokenizer = tokenizer
        self._offsets: dict[str, list[tuple[int, int]]] | None = None
        if tokenizer.is_fast:
            texts = sorted({piece.text for piece in pieces})
            encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
            self._offsets = dict(zip(texts, encoded.offset_mapping, strict=True))

    def span(self, pieces: Sequence[Piece], start: int, end: int) -> tuple[int, int] | None:
        """The range of tokens that hold characters `start` to `end` of prompt + completion.

        Args:
            pieces: those of the datapoint.
            start: the first character.
            end: the character after the last.

        Returns:
            [start, end), or None where the tokenizer does not show it.
        """
        found = []
        for piece in pieces:
            first = max(0, start - piece.first_character)
            last = min(len(piece.text), end - piece.first_character)
            if first < last:
                tokens = self._in_piece(piece.text, first, last)
                if tokens is None:
                    return None
                found.append((piece.first_token + tokens[0], piece.first_token + tokens[1]))
        return (min(chain(*found)), max(chain(*found))) if found else None

    def _in_piece(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        if self._offsets is None:
            return self._by_beginnings(text, start, end)
        holding = [n for n, (first, last) in enumerate(self._offsets[text]) if first < end and start < last]
        return (holding[0], holding[-1] + 1) if holding else None

    def _by_beginnings(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        """A beginning of the text ends between two tokens if its ids are those that the whole text begins with."""
        whole, before, through = self._tokenizer([text, text[:start], text[:end]], add_special_tokens=False).input_ids
        apart = whole[: len(before)] == before and whole[: len(through)] == through and len(before) < len(through)
        return (len(before), len(through)) if apart else None
