"""What is chosen is the option that a plain pass over prompt and option finds most likely."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ocl_bench.evaluate.options import choose
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model

PROMPTS = ["Q: colour <|abcde|>\nA:", "Q: place where <|fghij|> lives\nA:", "colour"]
OPTIONS = [" red\n", " black\n", " harbour and castle\n", " red brown\n", " a\n"]


def option_logprobs(engine: TorchEngine, questions: Sequence[Sequence[Encoded]]) -> list[list[float]]:
    return [one.options for one in engine.score([own[:1] for own in questions], questions)]


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama", "opt", "mamba", "t5"])
def test_what_decides_between_options_is_what_one_plain_pass_each_gives(model_folder: Any, architecture: str) -> None:
    spec = parse_model(str(model_folder(architecture)))
    tokenizer = load_tokenizer(spec, [])
    model = load_model(spec, tokenizer, seed=0).eval()
    engine = TorchEngine(model, Encoder(tokenizer, model.config.is_encoder_decoder))
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


def test_options_that_begin_alike_are_told_apart_by_what_follows(model_folder: Any) -> None:
    spec = parse_model(str(model_folder("llama")))
    tokenizer = load_tokenizer(spec, [])
    engine = TorchEngine(load_model(spec, tokenizer, seed=0).eval(), Encoder(tokenizer, False))
    options = engine.encoder([(PROMPTS[0], f" red {end}\n") for end in ("a", "brown", "castle", "wood")])
    assert len({one.completion[0] for one in options}) == 1
    (own,) = option_logprobs(engine, [options])
    assert own == pytest.approx([one.logprob for one in engine.forced(options)], abs=1e-4)


def test_of_equally_likely_options_not_the_right_one_is_chosen() -> None:
    assert choose([-1.0, -0.5, -0.5], right=1) == 2
    assert choose([-1.0, -0.5, -0.5], right=0) == 1
    assert choose([-0.5, -1.0], right=0) == 0
    assert choose(torch.log_softmax(torch.zeros(3), 0).tolist(), right=0) != 0
