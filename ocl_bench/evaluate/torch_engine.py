"""The torch engine: answers questions with a transformers model in this process."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ocl_bench.evaluate.batching import CPU, GPU, Batching
from ocl_bench.evaluate.cached import CachedBatch, keeps_plain_cache
from ocl_bench.evaluate.forced import Forced, plain_logits, score
from ocl_bench.evaluate.generation import Greedy
from ocl_bench.evaluate.options import cached_option_logprobs, option_logprobs_at_once
from ocl_bench.models.batches import Collator, decoder_start
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.labelled_positions import LabelledPositions

# model → tokens of a batch that there was memory for, where it ran out before; for later engines of this model
_FITTING: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


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
        results: dict[int, Forced] = {}
        for numbers, (scored, _) in self._passes([[one] for one in encoded]):
            results |= zip(numbers, (one for (one,) in scored), strict=True)
        return [results[number] for number in range(len(encoded))]

    def answer(
        self,
        questions: Sequence[Sequence[Encoded]],
        max_new_tokens: Sequence[int],
        on_answered: Callable[[int], None] = lambda count: None,
    ) -> tuple[list[list[Forced]], list[list[int]]]:
        """Score the accepted answers of questions, and answer them greedily as far as the scores leave that open.

        Args:
            questions: each a prompt with its accepted answers.
            max_new_tokens: longest generated answer to each, in tokens.
            on_answered: called with the number of further answers.

        Returns:
            What teacher forcing found of each accepted answer, and each question's generated token ids.
        """
        forced: list[list[Forced]] = [[] for _ in questions]
        answers: list[list[int]] = [[] for _ in questions]
        later: list[int] = []
        for numbers, (scored, batch) in self._passes(questions):
            open_rows, row = {}, 0
            for number, found in zip(numbers, scored, strict=True):
                forced[number] = found
                # Greedy decoding begins the same whatever answer was forced: take the pass that shows most of it.
                best = max(range(len(found)), key=lambda n: len(found[n].begins))
                answers[number] = self._greedy.until_stop(found[best].begins, max_new_tokens[number])
                if not self._greedy.ended(answers[number], max_new_tokens[number]):
                    open_rows[number] = row + best
                row += len(found)
            if batch is None:
                later += open_rows
            elif open_rows:
                with torch.no_grad(), self._autocast():
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
        return forced, answers

    @torch.no_grad()
    def option_logprobs(self, questions: Sequence[Sequence[Encoded]]) -> list[list[float]]:
        """Natural log-probability of each option of questions, with its end, as far as it decides which is chosen.

        An option that cannot be the most likely may have a larger number than its own, smaller than that of the most
        likely one.

        Args:
            questions: each a prompt with every option.

        Raises:
            Diverged: if the logits are not numbers.
        """
        found: list[list[float]] = [[] for _ in questions]
        if questions and questions[0][0].media:
            return self._at_once(questions)
        if not self._caches:
            for numbers, (scored, _) in self._passes(questions):
                for number, forced in zip(numbers, scored, strict=True):
                    found[number] = [one.logprob for one in forced]
            return found
        labelled = LabelledPositions(self.model)
        try:
            for numbers in self._batching.batches(questions, self.max_tokens):
                batch = [questions[number] for number in numbers]
                with self._autocast():
                    logprobs = cached_option_logprobs(self.model, labelled, batch, self.encoder.pad_id)
                for number, own in zip(numbers, logprobs, strict=True):
                    found[number] = own
        finally:
            labelled.close()
        return found

    def _at_once(self, questions: Sequence[Sequence[Encoded]]) -> list[list[float]]:
        """Of questions about pictures: one pass each, whatever their options."""
        labelled, found = LabelledPositions(self.model), []
        size = max(1, self.max_tokens // len(questions[0][0].completion))
        for start in range(0, len(questions), size):
            batch = questions[start : start + size]
            with self._autocast():
                logits = plain_logits(self.model, labelled, self._collate, [options[0] for options in batch])
            found += option_logprobs_at_once(logits.reshape(len(batch), -1, logits.shape[-1]), batch)
        return found

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

    @torch.no_grad()
    def _passes(
        self, questions: Sequence[Sequence[Encoded]]
    ) -> Iterator[tuple[list[int], tuple[list[list[Forced]], CachedBatch | None]]]:
        """Batches of questions, with what one forward pass says of their answers, and its cache if there is one."""
        labelled = LabelledPositions(self.model)
        try:
            for numbers in self._batching.batches(questions, self.max_tokens):
                rows = [one for number in numbers for one in questions[number]]
                with self._autocast():
                    batch = CachedBatch(self.model, rows, self.encoder.pad_id) if self._caches else None
                    logits = (
                        plain_logits(self.model, labelled, self._collate, rows)
                        if batch is None
                        else batch.logits(labelled)
                    )
                    flat = iter(score(logits, rows))
                yield numbers, ([[next(flat) for _ in questions[number]] for number in numbers], batch)
        finally:
            labelled.close()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bf16)
