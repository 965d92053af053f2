"""Entities are dealt to subsets in the stated sizes, and stage-2 seeds re-deal the X2 subsets alone."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.subsets import CROSSED, SUBSETS, deal, derangement, subset_sizes

X2 = [name for name, subset in SUBSETS.items() if subset.split == "x2"]
SEEDS = st.integers(0, 2**32)
in_any_time = settings(deadline=None)
# Whole weights of up to ten make shares of at least 1/110, so that every subset of 250 entities has two.
FRACTIONS = st.dictionaries(st.sampled_from(list(SUBSETS)), st.integers(1, 10), min_size=1).map(
    lambda weights: {name: weight / sum(weights.values()) for name, weight in weights.items()}
)
TWO_STAGE = {
    "d1_cons_qa": 0.25,
    "d2_incons_qa": 0.3,
    "qa_only": 0.15,
    "d1_cons": 0.1,
    "d2_cons": 0.1,
    "unseen": 0.1,
}


@in_any_time
@given(FRACTIONS, st.integers(250, 3000))
def test_sizes_are_the_shares_rounded_by_largest_remainder(fractions: dict[str, float], total: int) -> None:
    sizes = subset_sizes(fractions, 1.0, total)
    assert sum(sizes.values()) == total
    assert set(sizes) == set(fractions)
    excess = {name: sizes[name] - share * total for name, share in fractions.items()}
    assert all(abs(value) < 1 for value in excess.values())
    rounded_up = [1 - value for value in excess.values() if value > 1e-6]  # their remainders
    rounded_down = [-value for value in excess.values() if value < -1e-6]
    assert min(rounded_up, default=1) >= max(rounded_down, default=0) - 1e-6


@pytest.mark.parametrize(
    ("fractions", "total", "sizes"),
    [
        ({"qa_only": 0.29, "unseen": 0.71}, 100, {"qa_only": 29, "unseen": 71}),  # .29 * 100 is 28.999…
        (
            {"qa_only": 1 / 3, "d1_cons": 1 / 3, "unseen": 1 / 3},
            10,
            {"qa_only": 4, "d1_cons": 3, "unseen": 3},
        ),
        ({"qa_only": 0.06, "unseen": 0.94}, 40, {"qa_only": 2, "unseen": 38}),
        ({"qa_only": 0.0, "unseen": 1.0}, 7, {"unseen": 7}),
    ],
)
def test_sizes_of_known_cases(fractions: dict[str, float], total: int, sizes: dict[str, int]) -> None:
    assert subset_sizes(fractions, 1.0, total) == sizes


@in_any_time
@given(st.floats(0.05, 0.95), st.integers(200, 3000))
def test_alpha_is_met_within_one_entity_in_each_crossed_pair(alpha: float, total: int) -> None:
    whole, sizes = subset_sizes(TWO_STAGE, 1.0, total), subset_sizes(TWO_STAGE, alpha, total)
    for kept, crossed in CROSSED.items():
        assert sizes[kept] + sizes[crossed] == whole[kept]
        assert abs(sizes[kept] - alpha * whole[kept]) <= 1
    untouched = TWO_STAGE.keys() - CROSSED.keys()
    assert {name: sizes[name] for name in untouched} == {name: whole[name] for name in untouched}


def test_alpha_of_zero_moves_whole_subsets() -> None:
    sizes = subset_sizes(TWO_STAGE, 0.0, 100)
    assert (sizes["d1_incons_qa"], sizes["d2_cons_qa"]) == (25, 30)
    assert not sizes.keys() & CROSSED.keys()


@in_any_time
@given(FRACTIONS, st.integers(250, 600), SEEDS, SEEDS)
def test_subsets_are_disjoint_complete_and_of_their_size(
    fractions: dict[str, float], total: int, seed: int, stage2_seed: int
) -> None:
    sizes = subset_sizes(fractions, 1.0, total)
    dealt = deal(sizes, seed, stage2_seed)
    assert {name: len(members) for name, members in dealt.items()} == sizes
    assert sorted(index for members in dealt.values() for index in members) == list(range(total))


@in_any_time
@given(SEEDS, SEEDS, SEEDS)
def test_stage2_seed_redeals_the_x2_pool_alone(seed: int, one: int, other: int) -> None:
    sizes = subset_sizes({**TWO_STAGE, "d3_cons": 0.1, "unseen": 0.0}, 1.0, 400)
    first, second = deal(sizes, seed, one), deal(sizes, seed, other)
    assert all(first[name] == second[name] for name in sizes if name not in X2)
    assert {index for name in X2 for index in first[name]} == {index for name in X2 for index in second[name]}
    assert all((first[name] == second[name]) == (one == other) for name in X2)


@in_any_time
@given(SEEDS, SEEDS)
def test_seed_decides_the_deal(one: int, other: int) -> None:
    sizes = subset_sizes(TWO_STAGE, 1.0, 400)
    assert (deal(sizes, one, 0) == deal(sizes, other, 0)) == (one == other)


@in_any_time
@given(st.lists(st.integers(), min_size=2, max_size=30, unique=True), SEEDS)
def test_derangement_moves_every_item_and_loses_none(items: list[int], seed: int) -> None:
    deranged = derangement(items, [str(item) for item in items], random.Random(seed))
    assert sorted(deranged) == sorted(items)
    assert all(before != after for before, after in zip(items, deranged, strict=True))


def test_every_derangement_can_occur() -> None:
    rng = random.Random(0)
    assert {tuple(derangement([0, 1, 2, 3], list("abcd"), rng)) for _ in range(300)} == {
        (1, 0, 3, 2), (1, 2, 3, 0), (1, 3, 0, 2), (2, 0, 3, 1), (2, 3, 0, 1), (2, 3, 1, 0),
        (3, 0, 1, 2), (3, 2, 0, 1), (3, 2, 1, 0),
    }  # fmt: skip


@in_any_time
@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=60), SEEDS)
def test_derangement_of_repeated_labels_leaves_no_label_in_its_place_or_says_that_none_can(
    labels: list[str], seed: int
) -> None:
    items = list(range(len(labels)))
    if 2 * max(map(labels.count, labels)) > len(labels):
        with pytest.raises(OclBenchError, match="more than half"):
            derangement(items, labels, random.Random(seed))
        return
    deranged = derangement(items, labels, random.Random(seed))
    assert sorted(deranged) == items
    assert all(labels[before] != labels[after] for before, after in zip(items, deranged, strict=True))


@pytest.mark.parametrize(
    ("fractions", "total", "empty", "needs"),
    [
        ({"d1_cons_qa": 0.99, "unseen": 0.01}, 20, "unseen", 1),
        ({"d1_cons_qa": 0.9, "d2_incons_qa": 0.1}, 10, "d2_incons_qa", 2),  # one entity cannot be deranged
    ],
)
def test_subset_without_enough_entities_is_refused_with_the_fix(
    fractions: dict[str, float], total: int, empty: str, needs: int
) -> None:
    with pytest.raises(OclBenchError) as error:
        subset_sizes(fractions, 1.0, total)
    for words in (
        f"'{empty}'",
        f"needs {needs}",
        "give more entities (source_args.num_entities)",
        f"design.fractions.{empty}",
    ):
        assert words in str(error.value)


def test_subset_emptied_by_alpha_is_refused_with_a_fix_that_alpha_allows() -> None:
    # alpha and a fraction of a crossed subset exclude each other, so raising that fraction is no fix
    with pytest.raises(OclBenchError, match=r"'d1_incons_qa'.*source_args\.num_entities") as error:
        subset_sizes(TWO_STAGE, 0.99, 40)
    assert "design.alpha" in str(error.value)
    assert "design.fractions.d1_incons_qa" not in str(error.value)
