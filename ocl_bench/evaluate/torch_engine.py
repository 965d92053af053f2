"""The torch engine: answers questions with a transformers model in this process."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.batches import Collator, Datapoint, datapoint
from ocl_bench.finetune.stage import decoder_start
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.labelled_positions import LabelledPositions

# A batch may hold this many tokens, and this many logits (32 MiB of them in float32, about a cache).
MAX_TOKENS = {"cpu": 4096, "cuda": 65536}
MAX_LOGITS = 2**23


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

    @torch.no_grad()
    def forced(self, encoded: Sequence[Encoded]) -> list[Forced]:
        """Score completions by one forward pass each, batched by length. The order of the results is that of `encoded`.

        A completion whose tokens are all the argmax is what greedy decoding would produce, token for token, because
        greedy decoding sees the same prefix at each step.
        """
        results: list[Forced | None] = [None] * len(encoded)
        labelled = LabelledPositions(self.model)
        try:
            with self._autocast():
                for numbers, batch in self._batches(encoded):
                    for number, forced in zip(numbers, self._forced_batch(labelled, batch), strict=True):
                        results[number] = forced
        finally:
            labelled.close()
        return [result for result in results if result is not None]

    def _forced_batch(self, labelled: LabelledPositions, batch: list[Datapoint]) -> list[Forced]:
        inputs = {name: tensor.to(self.device) for name, tensor in self.collate(batch).items()}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = labelled.logits(self.model, inputs, positions)
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None]).squeeze(1)
        rows = [len(one.target) - one.label_start for one in batch]
        results = []
        columns = [torch.split(tensor.cpu(), rows) for tensor in (logprobs, targets, logits.argmax(dim=-1))]
        for scores, right, best in zip(*columns, strict=True):
            total = float(scores.sum())
            if not math.isfinite(total):
                raise RunFailed(
                    "the model's outputs are no longer numbers: training diverged; lower recipe.learning_rate."
                )
            hits = (best == right).tolist()
            shown = hits.index(False) + 1 if False in hits else len(hits)
            results.append(Forced(total, False not in hits, tuple(best[:shown].tolist())))
        return results

    def _batches(self, encoded: Sequence[Encoded]) -> Iterator[tuple[list[int], list[Datapoint]]]:
        """Datapoints in order of length, as many at a time as the limits allow."""
        points = [datapoint(one, self.encoder.seq2seq, "completion") for one in encoded]
        vocabulary = self.model.config.get_text_config().vocab_size
        numbers: list[int] = []
        labels = 0
        for number in sorted(range(len(points)), key=lambda n: points[n].length):
            new_labels = len(encoded[number].completion)
            too_long = (len(numbers) + 1) * points[number].length > self.max_tokens
            if numbers and (too_long or (labels + new_labels) * vocabulary > MAX_LOGITS):
                yield numbers, [points[n] for n in numbers]
                numbers, labels = [], 0
            numbers.append(number)
            labels += new_labels
        if numbers:
            yield numbers, [points[n] for n in numbers]

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
            if len(answer) < max_new_tokens[number] and not (answer and answer[-1] in self._stops):
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
