"""From text to token ids, for any tokenizer: a prompt's ids are always a prefix of prompt + completion."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec import structs

from ocl_bench.collection import without_collection
from ocl_bench.errors import OclBenchError
from ocl_bench.models.spans import Piece, SpanFinder
from ocl_bench.models.word_level import splits_at_spaces, splits_before_spaces
from ocl_bench.tasks.pictures import Picture


class Encoded(msgspec.Struct, frozen=True, gc=False):  # there are millions, in no cycle
    """What a model is given of one datapoint, and what it has to say.

    Attributes:
        prompt: ids that the model is given (with what the tokenizer puts in front, such as a bos token).
        completion: ids that it has to produce, the terminator included.
        media: what it sees besides tokens.
        spans: name of a marked text → its range [start, end) of tokens in prompt + completion.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    media: tuple[Picture, ...] = ()
    spans: Mapping[str, tuple[int, int]] = msgspec.field(default_factory=dict)

    @property
    def prefix_key(self) -> tuple[Hashable, ...]:
        """The media, then each id of the prompt: a cached beginning may be shared as far as two keys are equal.

        So prompts that come with different media share nothing, whatever their ids.
        """
        return (self.media, *self.prompt)


class Encoder:
    """Encodes prompts and completions for one model.

    Args:
        tokenizer: a transformers tokenizer.
        seq2seq: whether prompt and completion go to an encoder and a decoder, instead of forming one sequence.
    """

    def __init__(self, tokenizer: Any, seq2seq: bool) -> None:
        self.tokenizer = tokenizer
        self.seq2seq = seq2seq
        self._by_piece = splits_at_spaces(tokenizer)
        self._parts = self._by_piece or splits_before_spaces(tokenizer)
        # Some tokenizers drop newlines or have no token for them; there the end-of-text token ends an answer.
        ends_in_newline = "\n" in tokenizer.decode(self._ids(["a\n"])[0]) and not seq2seq
        if not ends_in_newline and tokenizer.eos_token_id is None:
            raise OclBenchError(
                "the tokenizer has neither a newline nor an end-of-text token, so that no answer can end; "
                "give another with --model_args tokenizer=…"
            )
        self.terminator: tuple[int, ...] = () if ends_in_newline else (tokenizer.eos_token_id,)

    @without_collection()
    def __call__(
        self, pairs: Sequence[tuple[str | Picture, str]], marks: Sequence[Mapping[str, str]] | None = None
    ) -> list[Encoded]:
        """Encode (prompt, completion) pairs.

        Args:
            pairs: the texts; or a picture in place of each prompt.
            marks: for each pair, name → a part of prompt + completion; the tokens that hold its first occurrence become
                `Encoded.spans`. A name is left out where the tokenizer drops the text or does not show its place.
        """
        if not pairs:
            return []
        pictures = [given for given, _ in pairs if isinstance(given, Picture)]
        if pictures:
            completions = self._ids([completion.strip(" ") for _, completion in pairs])
            return [
                Encoded((), (*ids, *self.terminator), media=(one,))
                for one, ids in zip(pictures, completions, strict=True)
            ]
        read = [(given, completion) for given, completion in pairs if isinstance(given, str)]
        if marks is None and not self.seq2seq and (apart := self._encode_apart(read)):
            return apart
        encoded = self._encode_seq2seq(read) if self.seq2seq else self._encode_causal(read)
        if marks is None:
            return [one for one, _ in encoded]
        finder = SpanFinder(self.tokenizer, [piece for _, pieces in encoded for piece in pieces])
        return [
            structs.replace(one, spans=_spans(finder, prompt + completion, pieces, named))
            for (prompt, completion), (one, pieces), named in zip(read, encoded, marks, strict=True)
        ]

    def _encode_seq2seq(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Encoded, list[Piece]]]:
        prompts = self.tokenizer([prompt for prompt, _ in pairs]).input_ids
        completions = self._ids([completion.strip() for _, completion in pairs])
        encoded = []
        for (text, answer), prompt, completion in zip(pairs, prompts, completions, strict=True):
            alone = answer.strip()
            pieces = [
                Piece(text, 0, len(self.prefix)),
                Piece(alone, len(text) + answer.index(alone), len(prompt)),
            ]
            encoded.append((Encoded(tuple(prompt), tuple(completion) + self.terminator), pieces))
        return encoded

    def _encode_causal(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Encoded, list[Piece]]]:
        if self.terminator:
            pairs = [(prompt, completion.rstrip("\n")) for prompt, completion in pairs]
        distinct = list(dict.fromkeys(prompt for prompt, _ in pairs))  # a question's options share theirs
        ids_of = dict(zip(distinct, self._ids(distinct), strict=True))
        prompts = [ids_of[prompt] for prompt, _ in pairs]
        wholes = self._ids([prompt + completion for prompt, completion in pairs])
        encoded = []
        for (text, answer), prompt, whole in zip(pairs, prompts, wholes, strict=True):
            begin = (*self.prefix, *prompt)
            if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
                completion, pieces = whole[len(prompt) :], [Piece(text + answer, 0, len(self.prefix))]
            else:
                alone, completion = self._alone(answer, prompt, whole)
                pieces = [
                    Piece(text, 0, len(self.prefix)),
                    Piece(alone, len(text) + answer.index(alone), len(begin)),
                ]
            encoded.append((Encoded(begin, (*completion, *self.terminator)), pieces))
        return encoded

    def _encode_apart(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """As `_encode_causal`, with each prompt and each completion encoded once, if none is known to meet in a token.

        A question's options share its prompt, and questions share options. Gives none where some may meet.
        """
        if not self._parts:
            return []
        if self.terminator:
            pairs = [(prompt, completion.rstrip("\n")) for prompt, completion in pairs]
        prompts, completions = (list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True))
        if any(text[-1:].isspace() for text in prompts) or any(
            text[:1] != " " or text[1:2].isspace() for text in completions
        ):
            return []
        begins = {text: (*self.prefix, *ids) for text, ids in zip(prompts, self._ids(prompts), strict=True)}
        ends = {text: tuple(ids) for text, ids in zip(completions, self._ids(completions), strict=True)}
        if not all(ends.values()):
            return []
        ends = {text: (*ids, *self.terminator) for text, ids in ends.items()}
        return [Encoded(begins[prompt], ends[completion]) for prompt, completion in pairs]

    def _alone(self, text: str, prompt: list[int], whole: list[int]) -> tuple[str, list[int]]:
        """A completion that the tokenizer merges with the prompt, as it is encoded by itself, and its ids.

        A tokenizer that puts a space in front of every text would double the one that is there.
        """
        wanted = self.tokenizer.decode(whole)
        texts = [text, text.lstrip(" ")]
        candidates = list(zip(texts, self._ids(texts), strict=True))
        fitting = ((alone, ids) for alone, ids in candidates if self.tokenizer.decode(prompt + ids) == wanted)
        return next(fitting, candidates[0])

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not self._by_piece:
            return self._ids_of(texts)
        # Texts are made of few pieces: looking these up takes a fifth of the time.
        pieces = list({piece for text in texts for piece in text.split(" ")})
        known = dict(zip(pieces, self._ids_of(pieces), strict=True))
        return [[token for piece in text.split(" ") for token in known[piece]] for text in texts]

    def _ids_of(self, texts: list[str]) -> list[list[int]]:
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


def _spans(
    finder: SpanFinder, text: str, pieces: Sequence[Piece], named: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    spans = {}
    for name, marked in named.items():
        start = text.index(marked)
        found = finder.span(pieces, start, start + len(marked))
        if found is not None:
            spans[name] = found
    return spans
