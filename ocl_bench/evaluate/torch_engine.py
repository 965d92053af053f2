"""The torch engine: answers questions with a transformers model in this process."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ocl_bench.errors import RunFailed
from ocl_bench.evaluate.cached import CachedBatch, keeps_plain_cache, shared_length
from ocl_bench.finetune.batches import Collator, datapoint
from ocl_bench.finetune.stage import decoder_start
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.labelled_positions import LabelledPositions

# A batch may hold this many tokens, and this many logits (32 MiB of them in float32, about a cache).
MAX_TOKENS = {"cpu": 4096, "cuda": 16384}
MAX_LOGITS = 2**23
# A batch smaller than this is not ended early for the sake of a longer shared beginning.
MIN_BATCH = 16


@dataclass(frozen=True)
class Forced:
    """Outcome of teacher forcing.

    Attributes:
        logprob: natural log-probability of the completion.
        greedy: whether each token of the completion is the argmax.
        begins: what greedy decoding begins with, as far as the completion shows it: the completion's tokens up to the
            first that is not the argmax, and the argmax in its place.
    """

    logprob: float
    greedy: bool
    begins: tuple[int, ...]


class TorchEngine:
    """Scores and generates answers with `model`, which it leaves as it is.

    Args:
        model: a causal or seq2seq language model, already on its device, in eval mode.
        encoder: the model's encoder.
        bf16: compute under bf16 autocast.
    """

    def __init__(self, model: Any, encoder: Encoder, bf16: bool = False) -> None:
        self.model = model
        self.encoder = encoder
        self.bf16 = bf16
        self.device = model.device
        self.max_tokens = MAX_TOKENS["cuda" if self.device.type == "cuda" else "cpu"]
        self.collate = Collator(encoder.pad_id, decoder_start(model.config))
        self._stops = frozenset(encoder.stop_ids)
        self._caches = keeps_plain_cache(model)

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
                answers[number] = self._until_stop(found[best].begins, max_new_tokens[number])
                if not self._ended(answers[number], max_new_tokens[number]):
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
                        self._stops,
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
    def _passes(
        self, questions: Sequence[Sequence[Encoded]]
    ) -> Iterator[tuple[list[int], tuple[list[list[Forced]], CachedBatch | None]]]:
        """Batches of questions, with what one forward pass says of their answers, and its cache if there is one."""
        labelled = LabelledPositions(self.model)
        try:
            for numbers in self._batches(questions):
                rows = [one for number in numbers for one in questions[number]]
                with self._autocast():
                    batch = self._cached(rows) if self._caches else None
                    logits = self._plain_logits(labelled, rows) if batch is None else batch.logits(labelled)
                    flat = iter(self._score(logits, rows))
                yield numbers, ([[next(flat) for _ in questions[number]] for number in numbers], batch)
        finally:
            labelled.close()

    def _cached(self, rows: Sequence[Encoded]) -> CachedBatch:
        sequences = [one.prompt + one.completion for one in rows]
        return CachedBatch(self.model, sequences, [len(one.prompt) for one in rows], self.encoder.pad_id)

    def _plain_logits(self, labelled: LabelledPositions, rows: Sequence[Encoded]) -> torch.Tensor:
        batch = [datapoint(one, self.encoder.seq2seq, "completion") for one in rows]
        inputs = {name: tensor.to(self.device) for name, tensor in self.collate(batch).items()}
        positions, _ = inputs.pop("positions"), inputs.pop("targets")
        return labelled.logits(self.model, inputs, positions)

    def _score(self, logits: torch.Tensor, rows: Sequence[Encoded]) -> list[Forced]:
        targets = torch.tensor([token for one in rows for token in one.completion], device=logits.device)
        logprobs = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
        best = logits.argmax(dim=-1)
        counts = [len(one.completion) for one in rows]
        results = []
        columns = [torch.split(tensor.cpu(), counts) for tensor in (logprobs, best == targets, best)]
        for scores, right, tokens in zip(*columns, strict=True):
            total = float(scores.sum())
            if not math.isfinite(total):
                raise RunFailed(
                    "the model's outputs are no longer numbers: training diverged; lower recipe.learning_rate."
                )
            hits = right.tolist()
            shown = hits.index(False) + 1 if False in hits else len(hits)
            # Rounding may put a sure answer a hair above probability 1.
            results.append(Forced(min(0.0, total), False not in hits, tuple(tokens[:shown].tolist())))
        return results

    def _batches(self, questions: Sequence[Sequence[Encoded]]) -> Iterator[list[int]]:
        """Numbers of questions, as many at a time as the limits allow, in an order that leaves little to compute.

        With a cache, prompts that begin alike are together, else sequences of like length.
        """
        if self._caches:
            order = sorted(range(len(questions)), key=lambda n: questions[n][0].prompt)
        else:
            order = sorted(range(len(questions)), key=lambda n: _longest(questions[n], self.encoder.seq2seq))
        vocabulary = self.model.config.get_text_config().vocab_size
        numbers: list[int] = []
        rows = longest = labels = 0
        for number in order:
            answers = questions[number]
            new_labels = sum(len(one.completion) for one in answers)
            new_longest = max(longest, _longest(answers, self.encoder.seq2seq))
            too_long = (rows + len(answers)) * new_longest > self.max_tokens
            too_many = (labels + new_labels) * vocabulary > MAX_LOGITS
            if numbers and (too_long or too_many or self._begins_otherwise(questions, numbers, number)):
                yield numbers
                numbers, rows, labels, new_longest = [], 0, 0, _longest(answers, self.encoder.seq2seq)
            numbers.append(number)
            rows, labels, longest = rows + len(answers), labels + new_labels, new_longest
        if numbers:
            yield numbers

    def _begins_otherwise(self, questions: Sequence[Sequence[Encoded]], numbers: list[int], number: int) -> bool:
        """Whether a batch of some size would share much less of its beginning with one more question."""
        if not self._caches or len(numbers) < MIN_BATCH:
            return False
        first, last, new = (questions[n][0].prompt for n in (numbers[0], numbers[-1], number))
        return 2 * shared_length(first, new) < shared_length(first, last)

    @torch.no_grad()
    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]] | None = None,
        on_answered: Callable[[int], None] = lambda count: None,
    ) -> list[list[int]]:
        """Greedy answers to the prompts of `encoded`: token ids up to and with the first that ends an answer.

        Prompts of one length form a batch, so nothing is padded: recurrent models and models with absolute positions
        answer as they would alone.

        Args:
            encoded: the prompts; their completions are not looked at.
            max_new_tokens: longest answer to each, in tokens.
            known: the tokens that each answer begins with, where a forced pass has shown them (`Forced.begins`). An
                answer that has ended within them is not generated, another is continued from there.
            on_answered: called with the number of further answers.
        """
        answers = [
            self._until_stop(one, limit)
            for one, limit in zip(known or [()] * len(encoded), max_new_tokens, strict=True)
        ]
        unfinished: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (one, answer) in enumerate(zip(encoded, answers, strict=True)):
            if not self._ended(answer, max_new_tokens[number]):
                unfinished[len(one.prompt), len(answer)].append(number)
        on_answered(len(encoded) - sum(map(len, unfinished.values())))
        with self._autocast(), _without_own_generation_config(self.model):
            for (length, begun), numbers in sorted(unfinished.items()):
                longest = max(max_new_tokens[n] for n in numbers)
                size = max(1, self.max_tokens // (length + longest))
                for start in range(0, len(numbers), size):
                    batch = numbers[start : start + size]
                    outputs = self._continue(
                        [encoded[n].prompt for n in batch], [answers[n] for n in batch], longest - begun
                    )
                    for number, ids in zip(batch, outputs, strict=True):
                        answers[number] = self._until_stop(ids, max_new_tokens[number])
                    on_answered(len(batch))
        return answers

    def _ended(self, answer: Sequence[int], limit: int) -> bool:
        return len(answer) >= limit or (len(answer) > 0 and answer[-1] in self._stops)

    def _until_stop(self, ids: Sequence[int], limit: int) -> list[int]:
        end = next((place for place, token in enumerate(ids, start=1) if token in self._stops), limit)
        return list(ids[: min(end, limit)])

    def _continue(
        self, prompts: Sequence[Sequence[int]], begins: Sequence[Sequence[int]], new_tokens: int
    ) -> list[list[int]]:
        """Greedy answers to prompts of one length that begin with as many known tokens, with these."""
        from transformers import GenerationConfig

        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=new_tokens,
            eos_token_id=self.encoder.stop_ids,
            pad_token_id=self.encoder.pad_id,
            decoder_start_token_id=decoder_start(self.model.config),
        )
        if self.encoder.seq2seq:
            inputs = torch.tensor(list(prompts), device=self.device)
            first = config.decoder_start_token_id
            decoded = torch.tensor([[first, *one] for one in begins], device=self.device)
            output = self.model.generate(
                inputs, attention_mask=torch.ones_like(inputs), decoder_input_ids=decoded, generation_config=config
            )
            answers = output[:, 1:]
        else:
            inputs = torch.tensor([[*prompt, *one] for prompt, one in zip(prompts, begins, strict=True)])
            inputs = inputs.to(self.device)
            output = self.model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
            answers = output[:, len(prompts[0]) :]
        return list(answers.tolist())

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _longest(answers: Sequence[Encoded], seq2seq: bool) -> int:
    """Tokens of the longest sequence that the model reads or writes for a question."""
    if seq2seq:
        return max(max(len(one.prompt), len(one.completion)) for one in answers)
    return max(len(one.prompt) + len(one.completion) for one in answers)


@contextlib.contextmanager
def _without_own_generation_config(model: Any) -> Iterator[None]:
    """Generation fills what it is not told from the model's own settings, and a repetition penalty is not greedy."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
