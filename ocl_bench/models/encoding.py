"""From text to token ids, for any tokenizer: a prompt's ids are always a prefix of prompt + completion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ocl_bench.errors import OclBenchError


@dataclass(frozen=True)
class Encoded:
    """Token ids of one datapoint.

    Attributes:
        prompt: ids that the model is given (with what the tokenizer puts in front, such as a bos token).
        completion: ids that it has to produce, the terminator included.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class Encoder:
    """Encodes prompts and completions for one model.

    Args:
        tokenizer: a transformers tokenizer.
        seq2seq: whether prompt and completion go to an encoder and a decoder, instead of forming one sequence.
    """

    def __init__(self, tokenizer: Any, seq2seq: bool) -> None:
        self.tokenizer = tokenizer
        self.seq2seq = seq2seq
        # Some tokenizers drop newlines or have no token for them; there the end-of-text token ends an answer.
        ends_in_newline = "\n" in tokenizer.decode(self._ids(["a\n"])[0]) and not seq2seq
        if not ends_in_newline and tokenizer.eos_token_id is None:
            raise OclBenchError(
                "the tokenizer has neither a newline nor an end-of-text token, so that no answer can end; "
                "give another with --model_args tokenizer=…"
            )
        self.terminator: tuple[int, ...] = () if ends_in_newline else (tokenizer.eos_token_id,)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Encode (prompt, completion) pairs."""
        if not pairs:
            return []
        return self._encode_seq2seq(pairs) if self.seq2seq else self._encode_causal(pairs)

    def _encode_seq2seq(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        prompts = self.tokenizer([prompt for prompt, _ in pairs]).input_ids
        completions = self._ids([completion.strip() for _, completion in pairs])
        return [
            Encoded(tuple(prompt), tuple(completion) + self.terminator)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _encode_causal(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        if self.terminator:
            pairs = [(prompt, completion.rstrip("\n")) for prompt, completion in pairs]
        prompts = self._ids([prompt for prompt, _ in pairs])
        wholes = self._ids([prompt + completion for prompt, completion in pairs])
        encoded = []
        for (_, text), prompt, whole in zip(pairs, prompts, wholes, strict=True):
            joins = whole[: len(prompt)] == prompt and len(whole) > len(prompt)
            completion = whole[len(prompt) :] if joins else self._alone(text, prompt, whole)
            encoded.append(Encoded((*self.prefix, *prompt), (*completion, *self.terminator)))
        return encoded

    def _alone(self, text: str, prompt: list[int], whole: list[int]) -> list[int]:
        """Ids of a completion where the tokenizer merges it with the prompt: encoded by itself, after the prompt.

        A tokenizer that puts a space in front of every text would double the one that is there.
        """
        wanted = self.tokenizer.decode(whole)
        candidates = self._ids([text, text.lstrip(" ")])
        fitting = (ids for ids in candidates if self.tokenizer.decode(prompt + ids) == wanted)
        return next(fitting, candidates[0])

    def _ids(self, texts: list[str]) -> list[list[int]]:
        # What is not asked for takes as long as the ids.
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )
        ids: list[list[int]] = encoded.input_ids
        return ids

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """Ids that the tokenizer puts in front of every text (bos, for most that have one)."""
        bare, full = self._ids(["a"])[0], self.tokenizer(["a"]).input_ids[0]
        starts = [n for n in range(len(full)) if full[n : n + len(bare)] == bare]
        return tuple(full[: starts[0]]) if starts else ()

    @cached_property
    def stop_ids(self) -> list[int]:
        """Every id at which an answer has ended: those whose text holds a newline, and the end-of-text token."""
        eos = self.tokenizer.eos_token_id
        stops = set() if eos is None else {eos}
        if not self.terminator:
            texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
            stops |= {token for token, text in enumerate(texts) if "\n" in text}
        return sorted(stops)

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Text of generated ids, cut at the first newline."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.partition("\n")[0].strip()

    @property
    def pad_id(self) -> int:
        """Id that fills up a batch; never seen by the model, since padding is masked and carries no loss."""
        if self.tokenizer.pad_token_id is not None:
            return int(self.tokenizer.pad_token_id)
        return int(self.tokenizer.eos_token_id or 0)
