"""The metrics, each registered once: results, tables, checks, pages and lm-eval's tasks read them from here.

A further metric is one call of `register`. If it is of the generated text alone, lm-eval computes it too: its function
travels with exported tasks, and so may use nothing but Python's builtins, what it imports itself, and `score/text.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import Answer
from ocl_bench.score.text import exact_match, f1
from ocl_bench.tasks.records import Record

TextFunction = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is measured of one answered question.

    Attributes:
        name: as results call it.
        description: one line.
        of: an answer and its question → the value.
        low, high: bounds of the value and so of every interval of its mean; None where there is none.
        accuracy: whether it counts right answers, so that chance stands beside it.
        better: which values are.
        shown: whether tables have a column of it.
        text: the generated answer and the accepted ones → the value, if that is all it is computed from.
    """

    name: str
    description: str
    of: Callable[[Answer, Record], float]
    low: float | None = None
    high: float | None = None
    accuracy: bool = False
    better: Literal["higher", "lower"] = "higher"
    shown: bool = True
    text: TextFunction | None = None

    @classmethod
    def of_text(cls, text: TextFunction, **fields: Any) -> "Metric":
        """A metric of the generated text alone."""
        return cls(of=lambda answer, record: text(answer.generated, record.answers), text=text, **fields)

    @property
    def text_only(self) -> bool:
        """Whether it is computed from the generated text alone, so that lm-eval can compute it."""
        return self.text is not None

    def within(self, interval: tuple[float, float]) -> tuple[float, float]:
        """An interval of its mean, cut at its bounds."""
        low, high = interval
        return (
            low if self.low is None else max(self.low, low),
            high if self.high is None else min(self.high, high),
        )


_REGISTERED: dict[str, Metric] = {}
METRICS: Mapping[str, Metric] = MappingProxyType(_REGISTERED)  # in the order of registration


def register(metric: Metric) -> Metric:
    """Add a metric. Raises OclBenchError if the name is taken."""
    if metric.name in _REGISTERED:
        raise OclBenchError(f"metric '{metric.name}' is registered twice; choose another name.")
    _REGISTERED[metric.name] = metric
    return metric


def unregister(name: str) -> None:
    """Take a metric out again."""
    del _REGISTERED[name]


EM_FORCED = register(
    Metric(
        name="em_forced",
        description="an accepted answer, and its end, is what greedy decoding gives, by teacher forcing",
        of=lambda answer, record: float(answer.em_forced),
        low=0.0,
        high=1.0,
        accuracy=True,
    )
)
EM = register(
    Metric.of_text(
        exact_match,
        name="em",
        description="exact match of the generated answer with an accepted one, normalised",
        low=0.0,
        high=1.0,
        accuracy=True,
    )
)
register(
    Metric.of_text(
        f1,
        name="f1",
        description="word F1 of the generated answer, the best over the accepted ones, normalised",
        low=0.0,
        high=1.0,
        accuracy=True,
        shown=False,
    )
)
register(
    Metric(
        name="logprob",
        description="natural log-probability of the first accepted answer and its end",
        of=lambda answer, record: answer.logprob,
        high=0.0,
    )
)
