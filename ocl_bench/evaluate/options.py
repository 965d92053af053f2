"""What a model says of the options of a question: the log-probability of each, from one pass over the prompt."""

import math
from collections.abc import Mapping, Sequence

from ocl_bench.evaluate.cached import CachedBatch
from ocl_bench.evaluate.forced import Forced, score
from ocl_bench.models.encoding import Encoded


def cached_option_logprobs(
    batch: CachedBatch,
    rows: Sequence[int],
    options: Sequence[Sequence[Encoded]],
    firsts: Sequence[float],
    known: Sequence[Mapping[tuple[int, ...], float]],
) -> tuple[list[list[float]], dict[int, tuple[int, ...]]]:
    """Natural log-probability of each option and its end, of the questions of a batch, as far as it decides.

    What a question's prompt left in the cache is repeated for options. An option whose first token alone is less likely
    than another option as a whole is not gone on with: its number is that of its first token, and still the smaller
    one. After training that leaves an option or none a question, besides the right one.

    Args:
        batch: the batch, whose prompts were read.
        rows: a sequence of the batch for each question.
        options: of each question, perhaps none.
        firsts: log-probability of the first token of each option, one question's after the other's.
        known: completion → its log-probability, of each question, where there is one already.

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

    def go_on(chosen: Sequence[tuple[int, int]]) -> list[Forced]:
        """Add what follows the first token, of these options, each by its question and its own number."""
        completions = [options[number][n].completion for number, n in chosen]
        forced: list[Forced] = []
        for logits, part in batch.continued([rows[number] for number, _ in chosen], completions):
            forced += score(logits, part)[0]
        for (number, n), one in zip(chosen, forced, strict=True):
            found[number][n] += one.logprob
            whole[number].add(n)
        return forced

    first = [(number, left[0]) for number in range(len(options)) if (left := undecided(number))]
    shown = {
        number: (options[number][n].completion[0], *one.begins)
        for (number, n), one in zip(first, go_on(first), strict=True)
    }
    go_on([(number, n) for number in range(len(options)) for n in undecided(number)])
    return found, shown


def choose(logprobs: Sequence[float], right: int) -> int:
    """The number of the most likely option; of several equally likely ones, not the right one."""
    return max(range(len(logprobs)), key=lambda n: (logprobs[n], n != right))
