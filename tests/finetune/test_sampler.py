"""Which datapoints share a step is random and complete; lengths decide micro-batches only; epochs can be skipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocl_bench.finetune.epoch import Pool
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.sampler import EpochSampler


def every(count: int) -> list[Pool]:
    return [Pool(tuple(range(count)), count)]


def mixed(definitions: int, questions: int, per_epoch: int) -> list[Pool]:
    numbers = tuple(range(definitions + questions))
    return [Pool(numbers[definitions:], questions), Pool(numbers[:definitions], per_epoch)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 16), st.integers(0, 99))
def test_an_epoch_has_every_datapoint_once_and_sorts_only_inside_an_effective_batch(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    sampler = EpochSampler(lengths, batch_size, every(len(lengths)), seed)
    epoch = list(sampler)
    assert sorted(epoch) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)
    for start in range(0, len(epoch), batch_size):
        batch = [lengths[number] for number in epoch[start : start + batch_size]]
        assert batch == sorted(batch)


def test_which_datapoints_share_a_step_does_not_depend_on_their_length() -> None:
    # Half short, half long: with length buckets over the epoch a step would hold one kind only.
    lengths = [5] * 500 + [20] * 500
    epoch = list(EpochSampler(lengths, 50, every(1000), seed=0))
    shares = [sum(lengths[n] == 20 for n in epoch[start : start + 50]) / 50 for start in range(0, 1000, 50)]
    assert all(0.2 < share < 0.8 for share in shares)


def test_definition_share_is_met_and_definitions_are_used_equally_often() -> None:
    recipe = load_recipe("tiny", ["definition_share=0.1"])
    sampler = EpochSampler([1] * 120, 10, mixed(30, 90, recipe.definitions_per_epoch(30, 90)), seed=0)
    epochs = [list(sampler) for _ in range(12)]
    uses = [sum(epoch.count(number) for epoch in epochs) for number in range(30)]
    assert all(len(epoch) == len(sampler) == 100 for epoch in epochs)
    assert all(sorted(n for n in epoch if n >= 30) == list(range(30, 120)) for epoch in epochs)
    assert sum(uses) == 120 and set(uses) == {4}


def test_definition_share_does_not_matter_where_there_is_nothing_to_mix() -> None:
    recipe = load_recipe("tiny", ["definition_share=0.1"])
    assert (recipe.definitions_per_epoch(5, 0), recipe.definitions_per_epoch(0, 5)) == (5, 0)
    assert sorted(EpochSampler([1] * 5, 2, every(5), seed=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", [0, 1])
def test_order_is_decided_by_the_seed_and_differs_between_epochs(seed: int) -> None:
    first, second = (EpochSampler([1] * 40, 8, every(40), seed) for _ in range(2))
    assert list(first) == list(second)
    assert list(first) != list(second)[::-1] and list(first) != list(EpochSampler([1] * 40, 8, every(40), seed))


@pytest.mark.parametrize("definitions_per_epoch", [3, 7, 10, 25])
@pytest.mark.parametrize("skipped", [0, 1, 3])
def test_the_epoch_after_skipped_ones_is_the_one_that_training_on_them_would_have_led_to(
    definitions_per_epoch: int, skipped: int
) -> None:
    # Ten definitions: less than the deck, a deck that is left half used, all of them, and more than one deck.
    fresh, resumed = (EpochSampler([1] * 40, 8, mixed(10, 30, definitions_per_epoch), seed=0) for _ in range(2))
    epochs = [list(fresh) for _ in range(skipped + 3)]
    resumed.skip(skipped)
    assert [list(resumed) for _ in range(3)] == epochs[skipped:]
