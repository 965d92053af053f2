"""Which datapoints share a step is random and complete; padding carries no loss; lengths decide micro-batches only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocl_bench.finetune.batches import Collator, EpochSampler, datapoint
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.models.encoding import Encoded

SHORT, LONG = Encoded((5, 6), (7,)), Encoded((1, 2, 3), (4, 8))


def test_loss_on_all_tokens_leaves_out_padding_and_the_first_token() -> None:
    batch = Collator(pad_id=0, decoder_start=None)([datapoint(one, False, "all") for one in (SHORT, LONG)])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0, 0], [1, 2, 3, 4, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    # position t predicts token t + 1; rows are five wide
    assert batch["positions"].tolist() == [0, 1, 5, 6, 7, 8]
    assert batch["targets"].tolist() == [6, 7, 2, 3, 4, 8]


def test_loss_on_completions_leaves_out_prompts() -> None:
    batch = Collator(pad_id=0, decoder_start=None)([datapoint(one, False, "completion") for one in (SHORT, LONG)])
    assert batch["positions"].tolist() == [1, 7, 8]
    assert batch["targets"].tolist() == [7, 4, 8]


def test_a_seq2seq_decoder_starts_from_its_start_token_and_predicts_the_completion() -> None:
    batch = Collator(pad_id=0, decoder_start=9)([datapoint(one, True, "all") for one in (SHORT, LONG)])
    assert batch["input_ids"].tolist() == [[5, 6, 0], [1, 2, 3]]
    assert batch["decoder_input_ids"].tolist() == [[9, 0], [9, 4]]
    assert batch["positions"].tolist() == [0, 2, 3]
    assert batch["targets"].tolist() == [7, 4, 8]


def test_nothing_is_masked_where_nothing_is_padded() -> None:
    assert "attention_mask" not in Collator(0, None)([datapoint(SHORT, False, "all")] * 3)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 16), st.integers(0, 99))
def test_an_epoch_has_every_datapoint_once_and_sorts_only_inside_an_effective_batch(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    sampler = EpochSampler(lengths, batch_size, [False] * len(lengths), 0, seed)
    epoch = list(sampler)
    assert sorted(epoch) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)
    for start in range(0, len(epoch), batch_size):
        batch = [lengths[number] for number in epoch[start : start + batch_size]]
        assert batch == sorted(batch)


def test_which_datapoints_share_a_step_does_not_depend_on_their_length() -> None:
    # Half short, half long: with length buckets over the epoch a step would hold one kind only.
    lengths = [5] * 500 + [20] * 500
    epoch = list(EpochSampler(lengths, 50, [False] * 1000, 0, seed=0))
    shares = [sum(lengths[n] == 20 for n in epoch[start : start + 50]) / 50 for start in range(0, 1000, 50)]
    assert all(0.2 < share < 0.8 for share in shares)


def test_definition_share_is_met_and_definitions_are_used_equally_often() -> None:
    flags = [True] * 30 + [False] * 90
    recipe = load_recipe("tiny", ["definition_share=0.1"])
    sampler = EpochSampler([1] * 120, 10, flags, recipe.definitions_per_epoch(30, 90), seed=0)
    epochs = [list(sampler) for _ in range(12)]
    uses = [sum(epoch.count(number) for epoch in epochs) for number in range(30)]
    assert all(len(epoch) == len(sampler) == 100 for epoch in epochs)
    assert all(sorted(n for n in epoch if n >= 30) == list(range(30, 120)) for epoch in epochs)
    assert sum(uses) == 120 and set(uses) == {4}


def test_definition_share_does_not_matter_where_there_is_nothing_to_mix() -> None:
    recipe = load_recipe("tiny", ["definition_share=0.1"])
    assert (recipe.definitions_per_epoch(5, 0), recipe.definitions_per_epoch(0, 5)) == (5, 0)
    assert sorted(EpochSampler([1] * 5, 2, [True] * 5, 5, seed=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", [0, 1])
def test_order_is_decided_by_the_seed_and_differs_between_epochs(seed: int) -> None:
    first, second = (EpochSampler([1] * 40, 8, [False] * 40, 0, seed) for _ in range(2))
    assert list(first) == list(second)
    assert list(first) != list(second)[::-1] and list(first) != list(EpochSampler([1] * 40, 8, [False] * 40, 0, seed))
