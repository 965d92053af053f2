"""What is chosen is the option that a plain pass over prompt and option finds most likely."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES

from ocl_bench.evaluate.forced import Forced, likeliest
from ocl_bench.evaluate.options import choose
from ocl_bench.evaluate.torch_engine import TorchEngine, _longest_begin
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model

PROMPTS = ["Q: colour <|abcde|>\nA:", "Q: place where <|fghij|> lives\nA:", "colour"]
OPTIONS = [" red\n", " black\n", " harbour and castle\n", " red brown\n", " a\n"]


def load(folder: Path) -> tuple[Any, Encoder]:
    spec = parse_model(str(folder))
    tokenizer = load_tokenizer(spec, [])
    model = load_model(spec, tokenizer, seed=0).eval()
    return model, Encoder(tokenizer, model.config.is_encoder_decoder)


def option_logprobs(engine: TorchEngine, questions: Sequence[Sequence[Encoded]]) -> list[list[float]]:
    return [one.options for one in engine.score([own[:1] for own in questions], questions)]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_and_options_scored_together_have_the_numbers_of_plain_passes(
    model_folder: Any, architecture: str, bf16: bool
) -> None:
    model, encoder = load(model_folder(architecture))
    engine = TorchEngine(model, encoder, bf16)
    questions = [encoder([(prompt, option) for option in OPTIONS]) for prompt in PROMPTS]
    # Of the first question two answers are accepted, of the last there are no options.
    answers, options = [own[: 2 - (n > 0)] for n, own in enumerate(questions)], [*questions[:-1], []]
    near = 0.05 if bf16 else 1e-4
    for accepted, own, found in zip(answers, options, engine.score(answers, options), strict=True):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            plain = [plain_logprob(model, encoder, one) for one in own or accepted]
        assert [one.logprob for one in found.forced] == pytest.approx(plain[: len(accepted)], abs=near)
        assert len(found.options) == len(own)
        for one, value in zip(found.options, plain, strict=False):
            assert one == pytest.approx(value, abs=near) or value < one < max(plain) + near


def plain_logprob(model: Any, encoder: Encoder, one: Encoded) -> float:
    """What the model's own loss says of a completion."""
    whole, start = torch.tensor([one.prompt + one.completion]), len(one.prompt)
    if encoder.seq2seq:
        inputs, labels = {"input_ids": whole[:, :start]}, whole[:, start:]
    else:
        inputs = {"input_ids": whole}
        labels = torch.cat([torch.full((1, start), -100), whole[:, start:]], dim=1)
    return -float(model(**inputs, labels=labels, use_cache=False).loss) * len(one.completion)


def test_an_option_that_is_the_greedy_answer_is_read_at_once_and_a_prompt_but_once(model_folder: Any) -> None:
    model, encoder = load(model_folder("llama"))
    engine = TorchEngine(model, encoder)
    texts = [f"Q: {what} <|{name}|>\nA:" for what in ("colour", "place") for name in ("abcde", "fghij", "klmno")]
    answers = [[one] for one in encoder([(text, " red brown\n") for text in texts])]
    limits = [len(answers[0][0].completion)] * len(texts)
    greedy = engine.generate([one for (one,) in answers], limits)
    options = [[*own, Encoded(own[0].prompt, tuple(ids))] for own, ids in zip(answers, greedy, strict=True)]
    passes: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: passes.append(args[0].numel()))
    _, without = engine.answer(answers, limits)
    stepwise = len(passes)
    passes.clear()
    engine.score(answers)
    forced = len(passes), sum(passes)
    passes.clear()
    _, said = engine.answer(answers, limits, options)
    assert said == without == greedy
    # One pass more than forcing takes, over nothing but the options.
    assert len(passes) == forced[0] + 1 < stepwise
    assert sum(passes) <= forced[1] + sum(limits)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama", "opt", "mamba", "t5"])
def test_what_decides_between_options_is_what_one_plain_pass_each_gives(model_folder: Any, architecture: str) -> None:
    engine = TorchEngine(*load(model_folder(architecture)))
    # A question with one option, one with few and two with all: they share batches, and prompts differ in length.
    pairs = [[(prompt, option) for option in OPTIONS[: 5 - 2 * n]] for n, prompt in enumerate(PROMPTS)]
    questions = [engine.encoder(own) for own in pairs]
    found = option_logprobs(engine, questions)
    for options, own in zip(questions, found, strict=True):
        alone = [engine.forced([one])[0].logprob for one in options]
        assert max(own) == pytest.approx(max(alone), abs=1e-4)
        for one, value in zip(own, alone, strict=True):  # the others were perhaps not looked at to their end
            assert one == pytest.approx(value, abs=1e-4) or value < one < max(alone)
        assert [choose(own, n) for n in range(len(own))] == [choose(alone, n) for n in range(len(own))]
    engine.max_tokens = 1  # each question is a batch of its own
    assert [value for own in option_logprobs(engine, questions) for value in own] == pytest.approx(
        [value for own in found for value in own], abs=1e-4
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_logits_are_read_a_few_rows_at_a_time_with_the_same_bits(
    model_folder: Any, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(*load(model_folder("llama")), bf16)
    questions = [engine.encoder([(prompt, option) for option in OPTIONS]) for prompt in PROMPTS]
    at_once = engine.score(questions, questions)
    vocabulary = engine.model.config.vocab_size
    for rows in (1, 2, 5):
        monkeypatch.setattr("ocl_bench.evaluate.forced.AT_ONCE", rows * vocabulary)
        assert engine.score(questions, questions) == at_once


def test_of_equally_likely_tokens_the_first_is_the_likeliest_and_not_a_number_is_above_all() -> None:
    rows = [[1.0, 2.0, 2.0], [float("inf"), 0.0, float("inf")], [1.0, float("nan"), 5.0]]
    for dtype in (torch.float32, torch.bfloat16):
        assert likeliest(torch.tensor(rows, dtype=dtype)).tolist() == torch.tensor(rows).argmax(dim=1).tolist()


def test_options_that_begin_alike_are_told_apart_by_what_follows(model_folder: Any) -> None:
    engine = TorchEngine(*load(model_folder("llama")))
    options = engine.encoder([(PROMPTS[0], f" red {end}\n") for end in ("a", "brown", "castle", "wood")])
    assert len({one.completion[0] for one in options}) == 1
    (own,) = option_logprobs(engine, [options])
    assert own == pytest.approx([one.logprob for one in engine.forced(options)], abs=1e-4)


def test_of_equally_likely_options_not_the_right_one_is_chosen() -> None:
    assert choose([-1.0, -0.5, -0.5], right=1) == 2
    assert choose([-1.0, -0.5, -0.5], right=0) == 1
    assert choose([-0.5, -1.0], right=0) == 0
    assert choose(torch.log_softmax(torch.zeros(3), 0).tolist(), right=0) != 0


def test_an_option_shows_how_an_answer_goes_on_only_if_greedy_decoding_begins_as_it_does() -> None:
    forced = [Forced(-1.0, False, (5,)), Forced(-2.0, False, (5, 6))]
    assert _longest_begin(forced, (7, 8, 9)) == _longest_begin(forced, ()) == (5, 6)
    assert _longest_begin(forced, (5, 6, 9)) == (5, 6, 9)
