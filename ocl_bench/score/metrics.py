"""The metrics, each registered once: results, tables, checks, pages and lm-eval's tasks read them from here.

A further metric is one call of `register`, or an entry point of another package. If it is of the generated text alone,
lm-eval computes it too: its function travels with exported tasks, and so may use nothing but Python's builtins, what it
imports itself, and `score/text.py`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import Said
from ocl_bench.plugins import Plugins
from ocl_bench.score.text import exact_match, exact_match_first, f1, normalize
from ocl_bench.tasks.records import Record

TextFunction = Callable[[str, Sequence[str]], float]
Values = Collection[str]
PAIRS = 2**14  # of which a text metric's values are kept; a seed of `attributes` has a fourth of that


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is measured of one answered question.

    Attributes:
        name: as results call it.
        description: one line.
        measure: an answer, its question and the values that answers of its group have → the value; None where the
            metric does not apply.
        low, high: bounds of the value and so of every interval of its mean; None where there is none.
        accuracy: whether it counts right answers, so that chance stands beside it.
        chance: share of right answers of the best guess that does not look at the entity, and a question → the same
            for this metric; None if it is the same.
        better: which values are.
        shown: whether tables have a column of it.
        needs: whether a question gives reason to report it; it is reported where any question of a set does.
        text: the generated answer and the accepted ones → the value, if that is all it is computed from, whenever it
            is. `measure` then gives the same; of answers that have both in common it is computed once. What a metric
            without it gives may depend on all that it is given: it is computed for each answer.
    """

    name: str
    description: str
    measure: Callable[[Said, Record, Values], float | None]
    low: float | None = None
    high: float | None = None
    accuracy: bool = False
    chance: Callable[[float, Record], float] | None = None
    better: Literal["higher", "lower"] = "higher"
    shown: bool = True
    needs: Callable[[Record], bool] = lambda record: True
    text: TextFunction | None = None

    def of(self, answer: Said, record: Record, values: Values = frozenset()) -> float | None:
        """The value for one answer; `values` are those of `group_values`, normalised."""
        return self.measure(answer, record, values)

    def of_each(
        self, answers: Iterable[Said], records: Iterable[Record], values: Iterable[Values]
    ) -> Iterator[float | None]:
        """What `of` gives for each of many answers."""
        if self._of_pair is None:
            return map(self.measure, answers, records, values)
        return map(self._of_pair, [one.generated for one in answers], [one.answers for one in records])

    @cached_property
    def _of_pair(self) -> Callable[[str, tuple[str, ...]], float] | None:
        return self.text and lru_cache(maxsize=PAIRS)(self.text)

    @classmethod
    def of_text(cls, text: TextFunction, **fields: Any) -> "Metric":
        """A metric of the generated text alone."""
        return cls(measure=lambda answer, record, _: text(answer.generated, record.answers), text=text, **fields)

    def chance_of(self, guess: float, record: Record) -> float:
        """The chance level of a question for this metric; `guess` as in `chance`."""
        return guess if self.chance is None else self.chance(guess, record)

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
PLUGINS = Plugins("metric", lambda: _REGISTERED, needs=("name", "measure"))


class _Metrics(Mapping[str, Metric]):
    """The metrics in the order of registration, then those of other packages that can be used."""

    def __getitem__(self, name: str) -> Metric:
        if name in _REGISTERED:
            return _REGISTERED[name]
        metric: Metric = PLUGINS.load(name)
        return metric

    def __iter__(self) -> Iterator[str]:
        return iter([*_REGISTERED, *PLUGINS.working()])

    def __len__(self) -> int:
        return len(_REGISTERED) + len(PLUGINS.working())


METRICS: Mapping[str, Metric] = _Metrics()


def register(metric: Metric) -> Metric:
    """Add a metric. Raises OclBenchError if the name is taken."""
    if metric.name in _REGISTERED:
        raise OclBenchError(f"metric '{metric.name}' is registered twice; choose another name.")
    _REGISTERED[metric.name] = metric
    return metric


def unregister(name: str) -> None:
    """Take a metric out again."""
    del _REGISTERED[name]


def _choice(answer: Said, record: Record, values: Values) -> float | None:
    if answer.choice is None or answer.choice >= len(record.options):  # what was submitted may be any number
        return None
    return float(record.options[answer.choice] == record.answers[0])


def _form(answer: Said, record: Record, values: Values) -> float | None:
    return float(normalize(answer.generated) in values) if record.options else None


def group_values(records: Iterable[Record]) -> dict[str, frozenset[str]]:
    """Group of a question with options → all that answers to it may be, normalised: what `form` looks at."""
    found: dict[str, set[str]] = {}
    for record in records:
        if record.options:
            found.setdefault(record.group, set()).update(record.options, record.answers)
    return {group: frozenset(map(normalize, values)) for group, values in found.items()}


def main_metric(reported: Collection[str]) -> Metric:
    """What ranks, notes and curves go by, of the metrics that a result has: choice, or em where nothing is chosen."""
    return CHOICE if CHOICE.name in reported else EM


CHOICE = register(
    Metric(
        name="choice",
        description="the right answer, with its end, is the most likely of the question's options",
        measure=_choice,
        needs=lambda record: bool(record.options),
        low=0.0,
        high=1.0,
        accuracy=True,
        chance=lambda guess, record: max(guess, 1 / len(record.options)) if record.options else guess,
    )
)
EM_FORCED = register(
    Metric(
        name="em_forced",
        description="an accepted answer, and its end, is what greedy decoding gives, by teacher forcing",
        measure=lambda answer, record, _: float(answer.em_forced),
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
        exact_match_first,
        name="em_first",
        description="exact match with the first accepted answer, the one trained on; where questions have several",
        needs=lambda record: len(record.answers) > 1,
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
        measure=lambda answer, record, _: answer.logprob,
        high=0.0,
    )
)
FORM = register(
    Metric(
        name="form",
        description="the generated answer is a value of the question's group, right or wrong",
        measure=_form,
        needs=lambda record: bool(record.options),
        low=0.0,
        high=1.0,
    )
)
