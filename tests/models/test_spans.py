"""A marked text is found among the token ids of a datapoint, whatever the tokenizer."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import SMALL
from test_encoding import COMPLETION, CROSSING, PROMPT, any_kind, trained

from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record

RECORDS = build(load_task("attributes", (*SMALL, "evaluate.sets=[]")), seed=0)
PAIRS = [(record.prompt, record.completion) for record in RECORDS]


def marks(record: Record) -> dict[str, str]:
    """What is marked in a definition or a question."""
    first = {"tag": record.prompt.split()[0]} if record.kind == "definition" else {"asked": record.group}
    return first | {"variable": record.variable, "answer": record.answers[0]}


def text_of(encoder: Encoder, one: Encoded, name: str) -> str:
    start, end = one.spans[name]
    text: str = encoder.tokenizer.decode((*one.prompt, *one.completion)[start:end])
    return text.strip()


@any_kind
def test_a_span_decodes_to_the_text_that_was_marked(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    marked = [marks(record) for record in RECORDS]
    assert {name for one in marked for name in one} == {"tag", "variable", "asked", "answer"}
    for one, named in zip(encoder(PAIRS, marked), marked, strict=True):
        assert {name: text_of(encoder, one, name) for name in one.spans} == named


@any_kind
def test_spans_lie_in_the_prompt_or_the_completion_as_their_texts_do(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    for one in encoder(PAIRS, [marks(record) for record in RECORDS]):
        start, end = one.spans["variable"]
        assert 0 <= start < end <= len(one.prompt)
        start, end = one.spans["answer"]
        assert len(one.prompt) <= start < end <= len(one.prompt) + len(one.completion)


@any_kind
def test_marks_change_nothing_but_spans(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    plain = encoder(PAIRS[:50])
    assert all(one.spans == {} for one in plain)
    marked = encoder(PAIRS[:50], [marks(record) for record in RECORDS[:50]])
    assert [(one.prompt, one.completion) for one in marked] == [(one.prompt, one.completion) for one in plain]


@pytest.mark.parametrize("make", CROSSING)
def test_spans_are_right_where_the_tokenizer_would_merge_prompt_and_completion(make: Callable[[], Any]) -> None:
    encoder = Encoder(make(), seq2seq=False)
    named = {"asked": "colour", "variable": "<|abcde|>", "answer": "blue", "over the boundary": "A: blue"}
    (one,) = encoder([(PROMPT, COMPLETION)], [named])
    assert {name: text_of(encoder, one, name) for name in named} == named
    assert one.spans["answer"][0] >= len(one.prompt) > one.spans["over the boundary"][0]


@any_kind
def test_the_first_of_several_occurrences_is_taken(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    (one,) = encoder([("Q: colour <|vasno|> colour\nA:", " colour\n")], [{"asked": "colour"}])
    assert text_of(encoder, one, "asked") == "colour"
    assert one.spans["asked"][1] < len(one.prompt) / 2


def test_all_tokens_of_a_character_that_takes_several_are_in_its_span() -> None:
    encoder = Encoder(trained("byte_bpe"), seq2seq=False)
    (one,) = encoder([(PROMPT, " bluéé\n")], [{"answer": "éé"}])
    start, end = one.spans["answer"]
    assert (end - start, text_of(encoder, one, "answer")) == (4, "éé")


def test_a_text_that_is_in_no_token_has_no_span() -> None:
    words = Encoder(trained("word_level"), seq2seq=False)  # drops spaces
    (one,) = words([(PROMPT, COMPLETION)], [{"space": " ", "answer": "blue"}])
    assert set(one.spans) == {"answer"}
    ends = Encoder(trained("unigram_with_eos"), seq2seq=False)  # ends in end-of-text instead of a newline
    (one,) = ends([("Q: colour A:", COMPLETION)], [{"newline": "\n", "answer": "blue"}])
    assert set(one.spans) == {"answer"}


def test_without_offsets_a_text_that_begins_inside_a_token_has_no_span() -> None:
    from transformers import ByT5Tokenizer

    class Joining(ByT5Tokenizer):  # type: ignore[misc]
        """A slow tokenizer with a token of more than one letter."""

        def _tokenize(self, text: str) -> list[str]:
            return list(text.replace("bl", "B"))

    encoder = Encoder(Joining(extra_ids=0), seq2seq=True)
    (one,) = encoder([(PROMPT, COMPLETION)], [{"answer": "blue", "inside": "lue", "end": "ue"}])
    assert one.spans == {
        "answer": (len(one.prompt), len(one.prompt) + 3),
        "end": (len(one.prompt) + 1, len(one.prompt) + 3),
    }
