"""Greedy generation of prompts of one length at a time, until an answer has ended."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ocl_bench.models.batches import decoder_start
from ocl_bench.models.encoding import Encoded, Encoder


class Greedy:
    """Generates with a model.

    Args:
        model: a causal or seq2seq language model, already on its device, in eval mode.
        encoder: the model's encoder.
    """

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder
        self.stops = frozenset(encoder.stop_ids)

    def ended(self, answer: Sequence[int], limit: int) -> bool:
        """Whether an answer has as many tokens as it may, or its last is one that ends answers."""
        return len(answer) >= limit or (len(answer) > 0 and answer[-1] in self.stops)

    def until_stop(self, ids: Sequence[int], limit: int) -> list[int]:
        """The first `limit` ids, up to and with the first that ends an answer."""
        end = next((place for place, token in enumerate(ids, start=1) if token in self.stops), limit)
        return list(ids[: min(end, limit)])

    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]],
        max_tokens: int,
        on_answered: Callable[[int], None],
    ) -> list[list[int]]:
        """Greedy answers to the prompts of `encoded`: token ids up to and with the first that ends an answer.

        Prompts of one length form a batch, so nothing is padded: recurrent models and models with absolute positions
        answer as they would alone.

        Args:
            encoded: the prompts; their completions are not looked at.
            max_new_tokens: longest answer to each, in tokens.
            known: the tokens that each answer begins with. An answer that has ended within them is not generated,
                another is continued from there.
            max_tokens: tokens of a batch, answers included.
            on_answered: called with the number of further answers.
        """
        answers = [self.until_stop(one, limit) for one, limit in zip(known, max_new_tokens, strict=True)]
        unfinished: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, (one, answer) in enumerate(zip(encoded, answers, strict=True)):
            # A model that sees a picture has said all that it says.
            if not one.media and not self.ended(answer, max_new_tokens[number]):
                unfinished[len(one.prompt), len(answer)].append(number)
        on_answered(len(encoded) - sum(map(len, unfinished.values())))
        if not unfinished:
            return answers
        with _without_own_generation_config(self.model):
            for (length, begun), numbers in sorted(unfinished.items()):
                longest = max(max_new_tokens[n] for n in numbers)
                size = max(1, max_tokens // (length + longest))
                for start in range(0, len(numbers), size):
                    batch = numbers[start : start + size]
                    outputs = self._continue(
                        [encoded[n].prompt for n in batch], [answers[n] for n in batch], longest - begun
                    )
                    for number, ids in zip(batch, outputs, strict=True):
                        answers[number] = self.until_stop(ids, max_new_tokens[number])
                    on_answered(len(batch))
        return answers

    def _continue(
        self, prompts: Sequence[Sequence[int]], begins: Sequence[Sequence[int]], new_tokens: int
    ) -> list[list[int]]:
        """Greedy answers to prompts of one length that begin with as many known tokens, with these."""
        from transformers import GenerationConfig

        device = self.model.device
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=new_tokens,
            eos_token_id=self.encoder.stop_ids,
            pad_token_id=self.encoder.pad_id,
            decoder_start_token_id=decoder_start(self.model.config),
        )
        if self.encoder.seq2seq:
            inputs = torch.tensor(list(prompts), device=device)
            first = config.decoder_start_token_id
            decoded = torch.tensor([[first, *one] for one in begins], device=device)
            output = self.model.generate(
                inputs, attention_mask=torch.ones_like(inputs), decoder_input_ids=decoded, generation_config=config
            )
            answers = output[:, 1:]
        else:
            inputs = torch.tensor([[*prompt, *one] for prompt, one in zip(prompts, begins, strict=True)], device=device)
            output = self.model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
            answers = output[:, len(prompts[0]) :]
        return list(answers.tolist())


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
