"""The tokenizer of models trained from scratch: each word of the task's data, each variable too, is one token."""

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import chain
from typing import Any

# A newline takes the mark behind it along ("\nA:"); a bracketed name stands alone even where punctuation touches it.
WORD = r"\n\S*|<\|\w+\|>|(?:(?!<\|)\S)+"
PAD, UNKNOWN, END = "<pad>", "<unk>", "</s>"
SHORT = 64  # characters of a piece whose words are kept: a submitted task may have any, and long ones fill memory


def word_level_tokenizer(texts: Iterable[str]) -> Any:
    """Make a `PreTrainedTokenizerFast` whose vocabulary is the words of `texts`, sorted.

    A causal model never sees the end-of-text token: its answers end with their newline, which is a token of its own.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(vocabulary(texts))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = _splitter()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END)


def vocabulary(texts: Iterable[str]) -> list[str]:
    """What the tokenizer of these texts has tokens for, in the order of their ids. Imports no transformers."""
    # A word never spans a space, so that the few different pieces between spaces are all that has to be split.
    pieces = {piece for text in texts for piece in text.split(" ")}
    words = set(chain.from_iterable(map(_words, pieces)))
    return [PAD, UNKNOWN, END, *sorted(words)]


def _words(piece: str) -> tuple[str, ...]:
    return _kept_words(piece) if len(piece) <= SHORT else _kept_words.__wrapped__(piece)


@lru_cache(maxsize=2**16)  # most pieces of a seed's data are in the next seed's too
def _kept_words(piece: str) -> tuple[str, ...]:
    return tuple(word for word, _ in _splitter().pre_tokenize_str(piece))


@lru_cache(maxsize=2**14)  # the same few answers come again and again
def count_tokens(text: str) -> int:
    """Tokens of a text, special ones not included. Imports no transformers."""
    return len(re.findall(WORD, text))


def splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a tokenizer is one of these, so that what stands between two spaces has the same ids in any text."""
    from tokenizers import models

    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        backend is not None
        and isinstance(backend.model, models.WordLevel)
        and backend.normalizer is None
        and backend.pre_tokenizer is not None
        and backend.pre_tokenizer.__getstate__() == _splitter().__getstate__()
    )


def splits_before_spaces(tokenizer: Any) -> bool:
    """Whether no token holds a space and what stands before it, unless that is a space too, as with GPT-2's and OPT's.

    Then the ids of two texts one after the other are those of each, if the second begins with a single space.
    """
    from tokenizers import pre_tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        backend is not None
        and backend.normalizer is None
        and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
        and backend.pre_tokenizer.use_regex
        and not backend.pre_tokenizer.add_prefix_space
        # Those are found before anything is split, and some take the space behind them along.
        and not any(" " in one.content or one.rstrip for one in backend.get_added_tokens_decoder().values())
    )


@cache
def _splitter() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
