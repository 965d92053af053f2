"""Text metrics of an answer, as SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250) and the paper use them.

This file needs nothing else of the suite: it travels with tasks that are exported to lm-eval.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=2**16)  # the same few answers come again and again
def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(generated: str, answers: Sequence[str]) -> float:
    """1.0 if the generated text equals one of the accepted answers after normalisation, else 0.0."""
    return float(generated in answers or normalize(generated) in map(normalize, answers))


def exact_match_first(generated: str, answers: Sequence[str]) -> float:
    """1.0 if the generated text equals the first of the accepted answers after normalisation, else 0.0."""
    return exact_match(generated, answers[:1])


def f1(generated: str, answers: Sequence[str]) -> float:
    """Harmonic mean of word precision and recall, the best over the accepted answers."""
    return max([_f1(generated, answer) for answer in answers])


def _f1(generated: str, answer: str) -> float:
    said, wanted = normalize(generated).split(), normalize(answer).split()
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted))
