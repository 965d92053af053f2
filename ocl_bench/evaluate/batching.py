"""Which questions share a forward pass, in what order, within which limits."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from ocl_bench.evaluate.cached import shared_length
from ocl_bench.models.encoding import Encoded


@dataclass(frozen=True)
class Limits:
    """How large batches are on a kind of device.

    Attributes:
        tokens: that a batch may hold.
        logits: that it may hold, where they are not those of fewer than `labels` positions.
        labels: positions whose logits it may hold in any case, however large the vocabulary is.
        smallest: questions of a batch that is not ended early for the sake of a longer shared beginning.
    """

    tokens: int
    logits: int
    labels: int
    smallest: int


# A CPU reads logits several times, from its cache if they are a few MiB; and fewer positions would not be worth reading
# a large output layer for. A GPU is idle between small batches, and has gigabytes.
CPU = Limits(tokens=4096, logits=2**20, labels=256, smallest=16)
GPU = Limits(tokens=32768, logits=2**27, labels=256, smallest=512)


@dataclass(frozen=True)
class Batching:
    """How questions are put together for one model.

    Attributes:
        seq2seq: whether prompt and completion are sequences of their own.
        vocabulary: logits of a position.
        caches: whether what prompts share at their beginning is computed once a batch.
        limits: of the device.
    """

    seq2seq: bool
    vocabulary: int
    caches: bool
    limits: Limits = CPU

    def batches(self, questions: Sequence[Sequence[Encoded]], max_tokens: int) -> Iterator[list[int]]:
        """Numbers of questions, as many at a time as the limits allow, in an order that leaves little to compute.

        With a cache, prompts that begin alike are together, else sequences of like length.

        Args:
            questions: each a prompt with its accepted answers, which are never parted.
            max_tokens: tokens of a batch, padding included; a question that has more is a batch of its own.
        """
        # Fewer tokens because memory ran out are fewer logits, too, which may be what filled it.
        most = max(self.limits.logits, self.limits.labels * self.vocabulary)
        logits = min(most, most * max_tokens // self.limits.tokens)
        numbers: list[int] = []
        rows = longest = labels = shared = 0
        for number in self._order(questions):
            answers = questions[number]
            new_labels = sum(len(one.completion) for one in answers)
            new_longest = max(longest, self._longest(answers))
            too_long = (rows + len(answers)) * new_longest > max_tokens
            too_many = (labels + new_labels) * self.vocabulary > logits
            alike = shared_length(questions[numbers[0]][0], answers[0]) if self.caches and numbers else 0
            # A batch of some size would share much less of its beginning with one more question.
            begins_otherwise = len(numbers) >= self.limits.smallest and 2 * alike < shared
            if numbers and (too_long or too_many or begins_otherwise):
                yield numbers
                numbers, rows, labels, new_longest = [], 0, 0, self._longest(answers)
            shared = alike if numbers else len(answers[0].prompt)
            numbers.append(number)
            rows, labels, longest = rows + len(answers), labels + new_labels, new_longest
        if numbers:
            yield numbers

    def _order(self, questions: Sequence[Sequence[Encoded]]) -> list[int]:
        if not self.caches:
            return sorted(range(len(questions)), key=lambda n: self._longest(questions[n]))
        # Identities of media need have no order of their own.
        ranks: dict[Hashable, int] = {}
        keys = []
        for answers in questions:
            media, *prompt = answers[0].prefix_key
            keys.append((ranks.setdefault(media, len(ranks)), prompt))
        return sorted(range(len(questions)), key=keys.__getitem__)

    def _longest(self, answers: Sequence[Encoded]) -> int:
        """Tokens of the longest sequence that the model reads or writes for a question."""
        if self.seq2seq:
            return max(max(len(one.prompt), len(one.completion)) for one in answers)
        return max(len(one.prompt) + len(one.completion) for one in answers)
