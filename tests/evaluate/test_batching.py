"""What is computed once for several prompts is what they share: the same media, then the same tokens."""

import copy
from itertools import product
from typing import Any

import pytest
import torch

from ocl_bench.evaluate.batching import CPU, Batching
from ocl_bench.evaluate.cached import CachedBatch, shared_length
from ocl_bench.evaluate.questions import within_memory
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.labelled_positions import LabelledPositions
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model

CACHES = Batching(seq2seq=False, vocabulary=100, caches=True)


@pytest.fixture(scope="module")
def loaded(model_folder: Any) -> tuple[Any, Encoder]:
    spec = parse_model(str(model_folder("gpt_neox")))
    tokenizer = load_tokenizer(spec, [])
    return load_model(spec, tokenizer, seed=0).eval(), Encoder(tokenizer, seq2seq=False)


def with_media(*media: Any) -> Encoded:
    return Encoded((5, 6, 7, 8), (9,), media=media)


def test_equal_ids_with_different_media_share_nothing() -> None:
    assert shared_length(with_media("cat"), with_media("cat")) == 4
    assert shared_length(with_media("cat"), Encoded((5, 6, 1), (9,), media=("cat",))) == 2
    assert shared_length(with_media("cat"), with_media("dog")) == 0
    assert shared_length(with_media("cat"), with_media()) == 0
    assert shared_length(with_media("cat"), with_media("cat", "dog")) == 0
    # An identity that is a number is no token.
    assert shared_length(with_media(5), Encoded((5, 5, 6, 7, 8), (9,))) == 0


@pytest.mark.parametrize("identities", [("cat", "dog"), (1, "dog"), (None, frozenset({3}))])
def test_prompts_with_the_same_media_are_together_and_a_batch_of_some_size_ends_where_they_change(
    identities: tuple[Any, Any],
) -> None:
    questions = [[with_media(identities[number % 2])] for number in range(4 * CPU.smallest)]
    evens, odds = CACHES.batches(questions, max_tokens=10_000)
    assert evens == list(range(0, 4 * CPU.smallest, 2))
    assert odds == list(range(1, 4 * CPU.smallest, 2))


def test_a_cached_batch_computes_beginnings_apart_where_media_differ(loaded: tuple[Any, Encoder]) -> None:
    model, encoder = loaded
    same = [Encoded(one.prompt, one.completion, ("cat",)) for one in encoder([("Q: colour\nA:", " red\n")] * 2)]
    other = Encoded(same[0].prompt, same[0].completion, ("dog",))
    labelled = LabelledPositions(model)
    logits = []
    for rows, shared in [(same, len(same[0].prompt) - 1), ([same[0], other], 0)]:
        batch = CachedBatch(model, labelled, rows, encoder.pad_id)
        assert batch.shared == shared
        logits.append(batch.logits().detach())
    labelled.close()
    # This model sees no media: only what is computed together differs.
    assert (logits[0] - logits[1]).abs().max() < 1e-4


@pytest.mark.parametrize("caches", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10_000])
def test_every_question_is_in_one_batch_and_batches_hold_the_tokens_they_may(caches: bool, max_tokens: int) -> None:
    questions = [[Encoded((1,) * a, (2,) * b)] * answers for a, b, answers in product(range(1, 9), (1, 4), (1, 3))]
    batches = list(Batching(False, 100, caches).batches(questions, max_tokens))
    assert sorted(number for batch in batches for number in batch) == list(range(len(questions)))
    for batch in batches:
        rows = [one for number in batch for one in questions[number]]
        padded = len(rows) * max(len(one.prompt) + len(one.completion) for one in rows)
        assert padded <= max_tokens or len(batch) == 1


def test_fewer_tokens_a_batch_give_the_same_answers_in_smaller_passes(loaded: tuple[Any, Encoder]) -> None:
    model, encoder = loaded
    names = ["".join(letters) for letters in product("abcd", repeat=3)]
    questions = [[one] for one in encoder([(f"Q: colour <|{name}|>\nA:", " red\n") for name in names])]
    engine = TorchEngine(model, encoder)
    assert engine.max_tokens == CPU.tokens
    seen: list[int] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0].numel()))
    found = []
    for max_tokens in (engine.max_tokens, 200):
        engine.max_tokens = max_tokens
        seen.clear()
        scored, answers = engine.answer(questions, [6] * len(questions))
        generated = engine.generate([one for (one,) in questions], [6] * len(questions))
        found.append(([one.begins for one in scored], answers, generated, max(seen)))
    handle.remove()
    assert found[0][:3] == found[1][:3]
    assert found[0][3] > 200 >= found[1][3]


def test_half_as_many_tokens_halve_a_batch_that_its_logits_ended() -> None:
    """Else memory that they have filled would run out again, as often as it takes to reach the tokens."""
    batching = Batching(seq2seq=False, vocabulary=2**20, caches=False)
    questions = [[with_media()] for _ in range(600)]  # a label each
    whole, half = (len(next(batching.batches(questions, tokens))) for tokens in (CPU.tokens, CPU.tokens // 2))
    assert (whole, half) == (CPU.labels, CPU.labels // 2)


def test_batches_that_memory_had_room_for_are_remembered_for_the_model(loaded: tuple[Any, Encoder]) -> None:
    model, encoder = copy.deepcopy(loaded[0]), loaded[1]
    questions = [[one] for one in encoder([(f"Q: colour <|{n}abcd|>\nA:", " red\n") for n in range(40)])]
    failures = 0

    def too_large(module: Any, arguments: Any) -> None:
        nonlocal failures
        if arguments[0].numel() > 300:
            failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = model.get_input_embeddings().register_forward_pre_hook(too_large)
    try:
        found = []
        for _ in range(2):
            engine = TorchEngine(model, encoder)
            found.append(
                (within_memory(engine, lambda own=engine: own.forced([one for (one,) in questions])), failures)
            )
    finally:
        handle.remove()
    (first, tried), (second, still) = found
    assert first == second and tried == still > 0
