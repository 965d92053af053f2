"""The data subsets of the experiment, and how entities are dealt to them.

Names and properties follow the paper's Table 1 and its later versions.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ocl_bench.errors import OclBenchError

Split = Literal["x0", "x1", "x2", "test"]


@dataclass(frozen=True)
class Subset:
    """What the training data says about the entities of one subset.

    Attributes:
        id: the suite's name.
        split: where its training records go; `test` means that nothing about it is trained on.
        tag: which define tag introduces its definitions: 1, 2, 3, `random` (one tag each; in X0, one of a few), or None
            for no definition.
        consistent: whether a definition names the entity that the questions are about.
        qa: whether questions about its variables are trained on (all but one, which is the test).
        replaced: whether the variable stands for the entity in the questions.
    """

    id: str
    split: Split
    tag: Literal[1, 2, 3, "random"] | None = None
    consistent: bool = True
    qa: bool = False
    replaced: bool = True


SUBSETS: dict[str, Subset] = {
    subset.id: subset
    for subset in (
        Subset("d1_cons_qa", "x1", tag=1, qa=True),
        Subset("d1_incons_qa", "x1", tag=1, consistent=False, qa=True),
        Subset("d2_incons_qa", "x1", tag=2, consistent=False, qa=True),
        Subset("d2_cons_qa", "x1", tag=2, qa=True),
        Subset("random_tag_qa", "x1", tag="random", qa=True),
        Subset("qa_only", "x1", qa=True),
        Subset("qa_unreplaced", "x1", qa=True, replaced=False),
        Subset("d1_cons", "x2", tag=1),
        Subset("d2_cons", "x2", tag=2),
        Subset("d3_cons", "x2", tag=3),
        Subset("unseen", "test"),
    )
}

# What X0 teaches before: the source's entities under their own names, and under aliases, each defined behind one of a
# few tags. Their questions about aliases that are not trained on ask for two steps: alias to name, name to fact.
X0_SUBSETS: dict[str, Subset] = {
    subset.id: subset
    for subset in (
        Subset("x0_facts", "x0", qa=True, replaced=False),
        Subset("x0_aliases", "x0", tag="random", qa=True),
    )
}

# Controls: the left subset is asked again with the variables of its members swapped. They have no data of their own.
SWAPPED: dict[str, Subset] = {
    "d1_cons": Subset("d1_swapped", "x2", tag=1),
    "d2_cons": Subset("d2_swapped", "x2", tag=2),
    "d3_cons": Subset("d3_swapped", "x2", tag=3),
}

# Everything that a question may be of.
ASKED: dict[str, Subset] = X0_SUBSETS | SUBSETS | {control.id: control for control in SWAPPED.values()}

# With correlation alpha, a share 1 - alpha of the left subset moves to the right one: same tag, crossed consistency.
CROSSED = {"d1_cons_qa": "d1_incons_qa", "d2_incons_qa": "d2_cons_qa"}


def subset_sizes(fractions: Mapping[str, float], alpha: float, num_entities: int) -> dict[str, int]:
    """Turn fractions into entity counts that sum to `num_entities`, by largest remainder, in the order of SUBSETS.

    Raises:
        OclBenchError: if a subset that has a share would be empty, or an inconsistent one could not be deranged.
    """
    shares = {name: fractions.get(name, 0.0) for name in SUBSETS}
    sizes = _largest_remainder(shares, num_entities)
    for source, target in CROSSED.items():
        if alpha < 1:
            moved = round((1 - alpha) * sizes[source])
            sizes[source] -= moved
            sizes[target] += moved
            shares[target] = shares[source] * (1 - alpha)
            shares[source] *= alpha
    for name, share in shares.items():
        least = 1 if SUBSETS[name].consistent else 2
        if share > 0 and sizes[name] < least:
            key = "alpha" if alpha < 1 and name in (*CROSSED, *CROSSED.values()) else f"fractions.{name}"
            raise OclBenchError(
                f"subset '{name}' gets {sizes[name]} of {num_entities} entities and needs {least}; "
                f"give more entities (source_args.num_entities) or change design.{key}."
            )
    return {name: size for name, size in sizes.items() if shares[name] > 0}


def _largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    # Nine decimals, so that .29 * 100 is 29 and not 28.999….
    exact = {name: round(share * total, 9) for name, share in shares.items()}
    sizes = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: sizes[name] - exact[name])
    for name in by_remainder[: total - sum(sizes.values())]:
        sizes[name] += 1
    return sizes


def deal(sizes: Mapping[str, int], seed: int, stage2_seed: int) -> dict[str, list[int]]:
    """Deal entity indices to subsets at random.

    Args:
        sizes: entities per subset, as `subset_sizes` gives them.
        seed: decides every subset's entities, and which entities form the X2 pool.
        stage2_seed: re-deals the X2 pool alone, so that all stage-2 seeds share one stage-1 model.
    """
    entities = list(range(sum(sizes.values())))
    random.Random(f"deal {seed}").shuffle(entities)
    x2 = [name for name in sizes if SUBSETS[name].split == "x2"]
    pool_size = sum(sizes[name] for name in x2)
    pool, rest = entities[:pool_size], entities[pool_size:]
    random.Random(f"deal x2 {seed} {stage2_seed}").shuffle(pool)
    dealt: dict[str, list[int]] = {}
    for name, size in sizes.items():
        cards = pool if name in x2 else rest
        dealt[name], cards[:size] = cards[:size], []
    return dealt


def derangement(items: Sequence[int], labels: Sequence[str], rng: random.Random) -> list[int]:
    """A random order of `items` in which none is replaced by one of the same label.

    Args:
        items: what is put in another order.
        labels: each item's label; items of one label are as good as the same.
        rng: source of randomness.

    Raises:
        OclBenchError: if one label makes up more than half of the items.
    """
    label_of = dict(zip(items, labels, strict=True))
    if 2 * max(Counter(labels).values()) > len(items):
        raise OclBenchError(
            f"no definitions can all be inconsistent: '{Counter(labels).most_common(1)[0][0]}' is more than half of "
            "a subset's entities; raise source_args.num_entities."
        )
    if len(set(labels)) == len(labels):
        while True:  # a random permutation is a derangement with probability about 1/e
            shuffled = list(items)
            rng.shuffle(shuffled)
            if all(a != b for a, b in zip(items, shuffled, strict=True)):
                return shuffled
    # With repeated labels a random permutation almost never is one: swap each clash with a random place that fits.
    shuffled = list(items)
    rng.shuffle(shuffled)
    for place, item in enumerate(items):
        while label_of[item] == label_of[shuffled[place]]:
            other = rng.randrange(len(items))
            here, there = label_of[shuffled[place]], label_of[shuffled[other]]
            if there != label_of[item] and here != label_of[items[other]]:
                shuffled[place], shuffled[other] = shuffled[other], shuffled[place]
    return shuffled
