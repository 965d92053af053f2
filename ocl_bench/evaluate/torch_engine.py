"""The torch engine: answers questions with a transformers model in this process."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
import torch
from torch import Tensor

from ocl_bench.evaluate.batching import CPU, GPU, Batching
from ocl_bench.evaluate.cached import CachedBatch, keeps_plain_cache
from ocl_bench.evaluate.forced import Forced, plain_logits, score
from ocl_bench.evaluate.generation import Greedy
from ocl_bench.evaluate.options import option_logprobs
from ocl_bench.models.batches import Collator, decoder_start
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.labelled_positions import LabelledPositions

# model → tokens of a batch that there was memory for, where it ran out before; for later engines of this model
_FITTING: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


class Scored(msgspec.Struct, frozen=True, gc=False):
    """What scoring found of a question.

    Attributes:
        forced: of each accepted answer.
        options: natural log-probability of each option, with its end, as far as it decides which is chosen: an option
            that cannot be the most likely may have a larger number than its own, smaller than that of the most likely.
        begins: what greedy decoding begins with, as far as all that shows it.
    """

    forced: list[Forced]
    options: list[float]
    begins: tuple[int, ...]


class TorchEngine:
    """Scores and generates answers with `model`, which it leaves as it is.

    Args:
        model: a causal or seq2seq language model, already on its device, in eval mode.
        encoder: the model's encoder.
        bf16: compute under bf16 autocast.

    Attributes:
        max_tokens: tokens that a batch may hold. May be lowered between calls, as after one that ran out of memory;
            a single question is always asked.
    """

    def __init__(self, model: Any, encoder: Encoder, bf16: bool = False) -> None:
        self.model = model
        self.encoder = encoder
        self.bf16 = bf16
        self._caches = keeps_plain_cache(model)
        limits = GPU if model.device.type == "cuda" else CPU
        self.max_tokens = _FITTING.get(model, limits.tokens)
        self._batching = Batching(encoder.seq2seq, model.config.get_text_config().vocab_size, self._caches, limits)
        self._collate = Collator(encoder.pad_id, decoder_start(model.config))
        self._greedy = Greedy(model, encoder)

    def remember_limit(self) -> None:
        """Let later engines of this model begin with batches of as many tokens."""
        _FITTING[self.model] = self.max_tokens

    def forced(self, encoded: Sequence[Encoded]) -> list[Forced]:
        """Score completions by one forward pass each. The order of the results is that of `encoded`.

        A completion whose tokens are all the argmax is what greedy decoding would produce, token for token, because
        greedy decoding sees the same prefix at each step.
        """
        return [one.forced[0] for one in self.score([[one] for one in encoded])]

    def score(
        self, questions: Sequence[Sequence[Encoded]], options: Sequence[Sequence[Encoded]] | None = None
    ) -> list[Scored]:
        """Score the accepted answers of questions, and their options.

        Args:
            questions: each a prompt with its accepted answers.
            options: of each, the prompt with every option, if it has any; None where no question has.

        Raises:
            Diverged: if the logits are not numbers.
        """
        found: dict[int, Scored] = {}
        with torch.no_grad(), self._autocast():
            for numbers, scored, _ in self._passes(questions, options):
                found |= zip(numbers, scored, strict=True)
        return [found[number] for number in range(len(questions))]

    def answer(
        self,
        questions: Sequence[Sequence[Encoded]],
        max_new_tokens: Sequence[int],
        options: Sequence[Sequence[Encoded]] | None = None,
        on_answered: Callable[[int], None] = lambda count: None,
    ) -> tuple[list[Scored], list[list[int]]]:
        """Score the accepted answers and options of questions, and answer them greedily as far as that leaves open.

        Args:
            questions, options: see `score`.
            max_new_tokens: longest generated answer to each, in tokens.
            on_answered: called with the number of further answers.

        Returns:
            What scoring found of each question, and its generated token ids.
        """
        found: dict[int, Scored] = {}
        answers: list[list[int]] = [[] for _ in questions]
        later: list[int] = []
        with torch.no_grad(), self._autocast():
            for numbers, scored, batch in self._passes(questions, options):
                found |= zip(numbers, scored, strict=True)
                open_rows, row = {}, 0
                for number, one in zip(numbers, scored, strict=True):
                    answers[number] = self._greedy.until_stop(one.begins, max_new_tokens[number])
                    if not self._greedy.ended(answers[number], max_new_tokens[number]):
                        open_rows[number] = row
                    row += len(one.forced)
                if batch is None:
                    later += open_rows
                elif open_rows:
                    outputs = batch.go_on(
                        list(open_rows.values()),
                        [answers[number] for number in open_rows],
                        [max_new_tokens[number] for number in open_rows],
                        self._greedy.stops,
                    )
                    for number, ids in zip(open_rows, outputs, strict=True):
                        answers[number] = ids
                on_answered(len(numbers) - (len(open_rows) if batch is None else 0))
        generated = self.generate(
            [questions[number][0] for number in later],
            [max_new_tokens[number] for number in later],
            [answers[number] for number in later],
            on_answered,
        )
        for number, ids in zip(later, generated, strict=True):
            answers[number] = ids
        return [found[number] for number in range(len(questions))], answers

    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]] | None = None,
        on_answered: Callable[[int], None] = lambda count: None,
    ) -> list[list[int]]:
        """Greedy answers to prompts: token ids up to and with the first that ends an answer; see `Greedy.generate`.

        Args:
            encoded: the prompts; their completions are not looked at.
            max_new_tokens: longest answer to each, in tokens.
            known: the tokens that each answer begins with, where a forced pass has shown them (`Forced.begins`).
            on_answered: called with the number of further answers.
        """
        begins = [()] * len(encoded) if known is None else known
        with torch.no_grad(), self._autocast():
            return self._greedy.generate(encoded, max_new_tokens, begins, self.max_tokens, on_answered)

    def _passes(
        self, questions: Sequence[Sequence[Encoded]], options: Sequence[Sequence[Encoded]] | None
    ) -> Iterator[tuple[list[int], list[Scored], CachedBatch | None]]:
        """Batches of questions, what forward passes say of each, and their cache if there is one."""
        labelled = LabelledPositions(self.model)
        try:
            for numbers in self._batching.batches(questions, self.max_tokens):
                asked = [questions[number] for number in numbers]
                rows = [one for own in asked for one in own]
                batch = CachedBatch(self.model, labelled, rows, self.encoder.pad_id) if self._caches else None
                logits = plain_logits(self.model, labelled, self._collate, rows) if batch is None else batch.logits()
                own = [()] * len(asked) if options is None else [options[number] for number in numbers]
                yield numbers, self._scored(logits, batch, asked, own), batch
        finally:
            labelled.close()

    def _scored(
        self,
        logits: Tensor,
        batch: CachedBatch | None,
        asked: Sequence[Sequence[Encoded]],
        options: Sequence[Sequence[Encoded]],
    ) -> list[Scored]:
        """What logits, shape (labels, vocabulary), of the accepted answers of a batch say of them and its options."""
        rows, first_rows = [one for own in asked for one in own], np.cumsum([0, *map(len, asked[:-1])])
        first_labels = np.cumsum([0, *(len(one.completion) for one in rows)])[first_rows]
        # Of options this pass tells the first token; or all, where it says all of an answer whatever was forced.
        at_once = bool(rows[0].media)
        tells = len(rows[0].completion) if at_once else 1
        tokens = [token for own in options for one in own for token in one.completion[:tells]]
        labels = np.repeat(first_labels, list(map(len, options)))[:, None] + np.arange(tells)
        flat, told = score(logits, [one.completion for one in rows], (labels.flatten().tolist(), tokens), at_once)
        answers = iter(flat)
        forced = [[next(answers) for _ in own] for own in asked]
        found: list[list[float]] = [[] for _ in asked]
        shown: dict[int, tuple[int, ...]] = {}
        if at_once and told:
            sums = iter(torch.tensor(told).reshape(-1, tells).sum(dim=1).tolist())
            found = [[next(sums) for _ in own] for own in options]
        elif told:
            known = [
                {one.completion: of_one.logprob for one, of_one in zip(*both, strict=True)}
                for both in zip(asked, forced, strict=True)
            ]
            found, shown = option_logprobs(
                options,
                told,
                known,
                lambda chosen, firsts: self._whole(
                    batch,
                    [int(first_rows[number]) for number, _ in chosen],
                    [options[number][n] for number, n in chosen],
                    firsts,
                ),
            )
        return [
            Scored(answers, of_options, _longest_begin(answers, shown.get(number, ())))
            for number, (answers, of_options) in enumerate(zip(forced, found, strict=True))
        ]

    def _whole(
        self, batch: CachedBatch | None, rows: Sequence[int], completed: Sequence[Encoded], firsts: Sequence[float]
    ) -> list[tuple[float, tuple[int, ...]]]:
        """Log-probabilities of completions, and what greedy decoding begins with if it begins as they do.

        Args:
            batch: the cache of their prompts, if there is one.
            rows: the sequence of the batch whose prompt each completes.
            completed: prompts with the completions.
            firsts: log-probability of each completion's first token.
        """
        if batch is None:
            return [(one.logprob, one.begins) for one in self.forced(completed)]
        rests: list[Forced] = []
        for logits, completions in batch.continued(rows, [one.completion for one in completed]):
            rests += score(logits, completions)[0]
        return [
            (first + rest.logprob, (one.completion[0], *rest.begins))
            for one, first, rest in zip(completed, firsts, rests, strict=True)
        ]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _longest_begin(forced: Sequence[Forced], shown: tuple[int, ...]) -> tuple[int, ...]:
    """What greedy decoding begins with, which is the same whatever answer was forced, as far as anything shows it.

    Args:
        forced: of accepted answers.
        shown: how it goes on if its first token is the first of these.
    """
    begins = max((one.begins for one in forced), key=len)
    return max(begins, shown, key=len) if begins[:1] == shown[:1] else begins
