"""What a model says of the options of a question: the log-probability of each, as far as it decides which is chosen."""

import math
from collections.abc import Callable, Mapping, Sequence

from ocl_bench.models.encoding import Encoded

# Of some options, each by its question's number and its own, and the log-probability of its first token: the
# log-probability of all of it, and what greedy decoding begins with if it begins as the option does.
Whole = Callable[[Sequence[tuple[int, int]], Sequence[float]], list[tuple[float, tuple[int, ...]]]]


def option_logprobs(
    options: Sequence[Sequence[Encoded]],
    firsts: Sequence[float],
    known: Sequence[Mapping[tuple[int, ...], float]],
    whole_of: Whole,
) -> tuple[list[list[float]], dict[int, tuple[int, ...]]]:
    """Natural log-probability of each option and its end, of the questions of a batch, as far as it decides.

    An option whose first token alone is less likely than another option as a whole is not gone on with: its number is
    that of its first token, and still the smaller one. After training that leaves an option or none a question, besides
    the right one.

    Args:
        options: of each question, perhaps none.
        firsts: log-probability of the first token of each option, one question's after the other's.
        known: completion → its log-probability, of each question, where there is one already.
        whole_of: goes on with options.

    Returns:
        The log-probabilities; and of some questions, by number, how an answer goes on greedily that begins as its most
        likely option does, as far as that shows it.
    """
    flat = iter(firsts)
    found = [[next(flat) for _ in own] for own in options]
    whole: list[set[int]] = [set() for _ in options]
    for number, own in enumerate(options):
        for n, one in enumerate(own):
            if one.completion in known[number] or len(one.completion) == 1:
                whole[number].add(n)
                found[number][n] = known[number].get(one.completion, found[number][n])

    def undecided(number: int) -> list[int]:
        """Options of a question that may be more likely than those known as a whole, the most likely one first."""
        best = max((found[number][n] for n in whole[number]), default=-math.inf)
        left = [n for n in range(len(options[number])) if n not in whole[number] and found[number][n] >= best]
        return sorted(left, key=lambda n: -found[number][n])

    def go_on(chosen: Sequence[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
        """Find out the whole of these options."""
        shown = {}
        seen = whole_of(chosen, [found[number][n] for number, n in chosen]) if chosen else []
        for (number, n), (logprob, begins) in zip(chosen, seen, strict=True):
            found[number][n] = logprob
            whole[number].add(n)
            shown[number] = begins
        return shown

    shown = go_on([(number, left[0]) for number in range(len(options)) if (left := undecided(number))])
    go_on([(number, n) for number in range(len(options)) for n in undecided(number)])
    return found, shown


def choose(logprobs: Sequence[float], right: int) -> int:
    """The number of the most likely option; of several equally likely ones, not the right one."""
    return max(range(len(logprobs)), key=lambda n: (logprobs[n], n != right))
