"""Prompts and completions become token ids that decode to the same text, for any kind of tokenizer."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from ocl_bench.errors import OclBenchError
from ocl_bench.models import word_level
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.word_level import splits_at_spaces, word_level_tokenizer
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task

PAIRS = [(record.prompt, record.completion) for record in build(load_task("attributes", SMALL), seed=0)]
PROMPT, COMPLETION = "Q: colour <|abcde|>\nA:", " blue\n"


@cache
def trained(kind: str) -> Any:
    """A tokenizer trained on the small dataset."""
    texts = [prompt + completion for prompt, completion in PAIRS]
    return word_level_tokenizer(texts) if kind == "word_level" else make_tokenizer(kind, texts)


def fast(model: Any, eos: bool = True, normalizer: Any = None, decoder: Any = None) -> Any:
    """A tokenizer around `model`, whose token 0 is end-of-text if it has one."""
    from tokenizers import Tokenizer, decoders
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoder or decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>" if eos else None)


def characters(text: str) -> list[str]:
    return ["<eos>", *sorted({*text})]


def bpe_that_joins_colon_and_space() -> Any:
    from tokenizers import models

    tokens = [*characters(PROMPT + COMPLETION), ": "]
    return fast(models.BPE({token: number for number, token in enumerate(tokens)}, [(":", " ")]))


def unigram_with_a_token_over_the_boundary() -> Any:
    from tokenizers import models

    scores = dict.fromkeys(characters(PROMPT + COMPLETION), -10.0) | {"A: bl": -1.0}
    return fast(models.Unigram(list(scores.items())))


def llama2_with_a_token_over_the_boundary() -> Any:
    """As Llama 2: a space is put in front of every text, so that ` blue` by itself would begin with two."""
    from tokenizers import decoders, models, normalizers

    scores = dict.fromkeys(characters((PROMPT + COMPLETION).replace(" ", "▁")), -10.0)
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    model = models.Unigram([*scores.items(), (":▁b", -1.0), ("▁blue", -25.0)])
    return fast(model, normalizer=normalizer, decoder=decoder)


CAUSAL = ["byte_bpe", "byte_bpe_with_bos", "unigram_with_bos", "word_level"]
SEQ2SEQ = ["unigram_with_eos", "bytes", "byte_bpe_with_bos"]
KINDS = [
    *((kind, False) for kind in [*CAUSAL, "unigram_with_eos"]),
    *((kind, True) for kind in SEQ2SEQ),
]
any_kind = pytest.mark.parametrize(("kind", "seq2seq"), KINDS)
CROSSING = [
    bpe_that_joins_colon_and_space,
    unigram_with_a_token_over_the_boundary,
    llama2_with_a_token_over_the_boundary,
]


@any_kind
def test_completions_decode_to_the_answers(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    decoded = [encoder.decode_answer(one.completion) for one in encoder(PAIRS)]
    assert decoded == [completion.strip() for _, completion in PAIRS]


@any_kind
def test_prompt_is_what_the_tokenizer_gives_for_it_alone(kind: str, seq2seq: bool) -> None:
    tokenizer = trained(kind)
    for (prompt, _), one in zip(PAIRS[:50], Encoder(tokenizer, seq2seq)(PAIRS[:50]), strict=True):
        expected = tokenizer(prompt).input_ids
        if kind == "unigram_with_eos" and not seq2seq:
            expected = expected[:-1]  # an end-of-text token before the answer would end it
        assert list(one.prompt) == expected


@pytest.mark.parametrize("kind", ["byte_bpe", "byte_bpe_with_bos", "unigram_with_bos"])
def test_prompt_and_completion_together_are_the_whole_text(kind: str) -> None:
    tokenizer = trained(kind)
    for (prompt, completion), one in zip(PAIRS, Encoder(tokenizer, seq2seq=False)(PAIRS), strict=True):
        ids = [*one.prompt, *one.completion]
        assert ids == tokenizer(prompt + completion).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt + completion


@any_kind
def test_bos_comes_once_and_in_front_where_the_tokenizer_puts_one(kind: str, seq2seq: bool) -> None:
    tokenizer = trained(kind)
    bos = tokenizer.bos_token_id
    assert (bos is not None) == kind.endswith("with_bos")
    for one in Encoder(tokenizer, seq2seq)(PAIRS[:50]):
        found = [place for place, token in enumerate((*one.prompt, *one.completion)) if token == bos]
        assert found == ([] if bos is None else [0])


@any_kind
def test_a_completion_ends_at_its_first_stop_token(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    for one in encoder(PAIRS):
        assert [token in encoder.stop_ids for token in one.completion] == [False] * (len(one.completion) - 1) + [True]


@pytest.mark.parametrize(("kind", "newline"), [("byte_bpe", "Ċ"), ("unigram_with_bos", "\n"), ("word_level", "\n")])
def test_answers_stop_at_every_token_with_a_newline_and_at_end_of_text(kind: str, newline: str) -> None:
    tokenizer = trained(kind)
    encoder = Encoder(tokenizer, seq2seq=False)
    with_newline = {number for token, number in tokenizer.get_vocab().items() if newline in token}
    assert encoder.terminator == ()
    assert with_newline
    assert encoder.stop_ids == sorted(with_newline | ({tokenizer.eos_token_id} - {None}))


def test_newline_inside_a_longer_token_stops_an_answer() -> None:
    tokenizer = trained("word_level")
    mark = tokenizer.convert_tokens_to_ids("\nA:")
    assert mark != tokenizer.unk_token_id
    assert mark in Encoder(tokenizer, seq2seq=False).stop_ids


@pytest.mark.parametrize(("kind", "seq2seq"), [("unigram_with_eos", False), *((kind, True) for kind in SEQ2SEQ)])
def test_end_of_text_ends_an_answer_where_newlines_cannot(kind: str, seq2seq: bool) -> None:
    tokenizer = trained(kind)
    encoder = Encoder(tokenizer, seq2seq)
    assert encoder.terminator == (tokenizer.eos_token_id,)
    assert encoder.stop_ids == [tokenizer.eos_token_id]
    for one in encoder(PAIRS[:50]):
        assert one.completion.index(tokenizer.eos_token_id) == len(one.completion) - 1


@pytest.mark.parametrize("make", CROSSING)
def test_tokens_that_would_span_the_boundary_are_split_there(make: Callable[[], Any]) -> None:
    tokenizer = make()
    alone = tokenizer(PROMPT).input_ids
    assert tokenizer(PROMPT + COMPLETION).input_ids[: len(alone)] != alone  # the tokenizer does merge over it
    encoder = Encoder(tokenizer, seq2seq=False)
    (one,) = encoder([(PROMPT, COMPLETION)])
    assert list(one.prompt) == alone
    assert tokenizer.decode([*one.prompt, *one.completion]) == PROMPT + COMPLETION
    assert encoder.decode_answer(one.completion) == "blue"
    assert one.completion[-1] in encoder.stop_ids


@pytest.mark.parametrize("make", CROSSING)
def test_prompt_does_not_depend_on_the_answer(make: Callable[[], Any]) -> None:
    answers = Encoder(make(), seq2seq=False)([(PROMPT, f" {answer}\n") for answer in ("blue", "colour", "be", "Q")])
    assert len({one.prompt for one in answers}) == 1
    assert len({one.completion for one in answers}) == 4


@pytest.mark.parametrize("seq2seq", [False, True])
def test_tokenizer_in_which_no_answer_can_end_is_refused_with_the_fix(seq2seq: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(OclBenchError, match=r"neither a newline nor an end-of-text token.*--model_args tokenizer="):
        Encoder(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"), seq2seq)


def test_seq2seq_without_end_of_text_is_refused_even_if_newlines_exist() -> None:
    tokenizer = copy.deepcopy(trained("word_level"))
    tokenizer.eos_token = None
    with pytest.raises(OclBenchError, match="end-of-text"):
        Encoder(tokenizer, seq2seq=True)


@any_kind
def test_no_pairs_give_no_encodings(kind: str, seq2seq: bool) -> None:
    assert Encoder(trained(kind), seq2seq)([]) == []


@any_kind
def test_encoding_does_not_depend_on_the_rest_of_the_batch(kind: str, seq2seq: bool) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    assert encoder(PAIRS[:20]) == [one for pair in PAIRS[:20] for one in encoder([pair])]


def test_generated_text_is_cut_at_the_first_newline_and_stripped() -> None:
    tokenizer = trained("byte_bpe")
    ids = tokenizer("  red square\nQ: colour").input_ids
    assert Encoder(tokenizer, seq2seq=False).decode_answer([*ids, tokenizer.eos_token_id]) == "red square"
    assert Encoder(tokenizer, seq2seq=False).decode_answer([]) == ""


def test_padding_is_the_pad_token_or_else_end_of_text_or_else_zero() -> None:
    for kind, token in [("word_level", "<pad>"), ("byte_bpe", "<|endoftext|>")]:
        tokenizer = trained(kind)
        assert tokenizer.convert_ids_to_tokens(Encoder(tokenizer, seq2seq=False).pad_id) == token
    from tokenizers import models

    bare = fast(models.BPE({token: number for number, token in enumerate(["<eos>", "a", "\n"])}, []), eos=False)
    assert Encoder(bare, seq2seq=False).pad_id == 0


# Any text but newlines, which end an answer, spaces around it, and the brackets of special tokens.
ANSWERS = st.text(st.characters(codec="utf-8", exclude_characters="\n<"), min_size=1, max_size=30).filter(
    lambda text: text == text.strip()
)


@pytest.mark.parametrize(("kind", "seq2seq"), [("byte_bpe", False), ("byte_bpe_with_bos", True), ("bytes", True)])
@settings(deadline=None, max_examples=100)
@given(answer=ANSWERS)
def test_byte_level_tokenizers_encode_any_answer(kind: str, seq2seq: bool, answer: str) -> None:
    encoder = Encoder(trained(kind), seq2seq)
    (one,) = encoder([(PROMPT, f" {answer}\n")])
    assert encoder.decode_answer(one.completion) == answer


WORDS = ["<|ab|>", "Who", "is", "\n", "\nA:", "red", "blue.", "x<|cd|>,", "</s>", "<unk>", "\t", "", "new"]


@cache
def small_words() -> Any:
    return word_level_tokenizer(["<|ab|> Who is <|cd|> red\n", "\nA: blue. x ,"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1).map(" ".join), min_size=1))
def test_texts_of_pieces_that_were_looked_up_have_the_tokenizers_ids(texts: list[str]) -> None:
    tokenizer = small_words()
    encoder = Encoder(tokenizer, seq2seq=False)
    assert encoder._by_piece and encoder._ids(texts) == tokenizer(texts, add_special_tokens=False).input_ids


def test_only_the_suites_own_tokenizer_is_looked_up_also_when_it_was_saved(tmp_path: Path) -> None:
    small_words().save_pretrained(tmp_path)
    assert splits_at_spaces(AutoTokenizer.from_pretrained(tmp_path))
    other = copy.deepcopy(small_words())
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert not any(map(splits_at_spaces, (other, *map(trained, ("byte_bpe", "bytes")))))


@pytest.mark.parametrize("task", ["world", "attributes"])
def test_a_tasks_texts_have_the_ids_that_its_tokenizer_gives(task: str) -> None:
    records = build(load_task(task, ["source_args.num_entities=60"]), seed=0)
    texts = [record.prompt + record.completion for record in records] + [record.prompt for record in records]
    tokenizer = word_level_tokenizer(texts)
    assert Encoder(tokenizer, seq2seq=False)._ids(texts) == tokenizer(texts, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", ["byte_bpe", "byte_bpe_with_bos", "word_level"])
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(st.text(" \n\t:A'<|abé\u00a01s"), st.text(" \n:'abé\u00a01s<|")), min_size=1, max_size=4)
)
def test_texts_that_are_encoded_apart_have_the_ids_of_the_whole(kind: str, texts: list[tuple[str, str]]) -> None:
    encoder = Encoder(trained(kind), seq2seq=False)
    for pairs in [texts, [(prompt.rstrip() + ":", " " + answer.strip() + "a\n") for prompt, answer in texts]]:
        if apart := encoder._encode_apart(pairs):
            assert apart == [one for one, _ in encoder._encode_causal(pairs)]
    assert encoder._encode_apart(PAIRS) == [one for one, _ in encoder._encode_causal(PAIRS)]


def test_what_may_meet_in_a_token_is_not_encoded_apart() -> None:
    for kind in ("unigram_with_bos", "unigram_with_eos"):
        assert not Encoder(trained(kind), seq2seq=False)._encode_apart([(PROMPT, COMPLETION)])
    encoder = Encoder(trained("byte_bpe"), seq2seq=False)
    assert encoder._encode_apart([(PROMPT, COMPLETION)])
    for pair in [(PROMPT, "blue\n"), (PROMPT, "  blue\n"), (PROMPT + " ", COMPLETION)]:
        assert not encoder._encode_apart([(PROMPT, COMPLETION), pair])


def test_words_of_long_pieces_are_found_and_not_kept() -> None:
    long = "x" * 100_000
    before = word_level._kept_words.cache_info().currsize
    assert long in word_level.vocabulary([f"{long} {long[1:]}?"])
    assert word_level._kept_words.cache_info().currsize == before
    assert "unseen-piece" in word_level.vocabulary(["an unseen-piece"])
    assert word_level._kept_words.cache_info().currsize > before
