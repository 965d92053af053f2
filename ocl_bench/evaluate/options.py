"""What a model says of the options of a question: the log-probability of each, from one pass over the prompt."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ocl_bench.models.encoding import Encoded
from ocl_bench.models.labelled_positions import LabelledPositions


def cached_option_logprobs(
    model: Any, labelled: LabelledPositions, questions: Sequence[Sequence[Encoded]], pad_id: int
) -> list[list[float]]:
    """Natural log-probability of each option and its end, of a batch of questions, as far as it decides.

    The prompt of a question is computed once; what it left in the cache is repeated for options. An option whose first
    token alone is less likely than another option as a whole is not gone on with: its number is that of its first
    token, and still the smaller one. After training that leaves one or two options a question.

    Args:
        model: a causal model whose cache is a plain one (see `cached.keeps_plain_cache`).
        labelled: what sends only some positions through its output layer.
        questions: each its prompt with every option.
        pad_id: fills up the shorter ones.
    """
    from transformers.cache_utils import DynamicCache

    prompts = [list(options[0].prompt) for options in questions]
    ids, mask = _padded(prompts, pad_id, model.device)
    places = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    last = torch.tensor([row * ids.shape[1] + len(prompt) - 1 for row, prompt in enumerate(prompts)])
    cache = DynamicCache()
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    inputs |= {"past_key_values": cache, "use_cache": True}
    begins = torch.log_softmax(labelled.logits(model, inputs, last.to(model.device)), dim=-1).cpu()
    found = [[float(begins[row, one.completion[0]]) for one in options] for row, options in enumerate(questions)]

    def go_on(chosen: Sequence[tuple[int, int]], cache: Any) -> None:
        """Add what follows the first token, of these options, each by its question and its own number."""
        chosen = [(row, n) for row, n in chosen if len(questions[row][n].completion) > 1]
        if not chosen:
            return
        rows = torch.tensor([row for row, _ in chosen], device=model.device)
        cache.batch_select_indices(rows)
        rests = [list(questions[row][n].completion) for row, n in chosen]
        ids, own = _padded([rest[:-1] for rest in rests], pad_id, model.device)
        starts = torch.tensor([len(prompts[row]) for row, _ in chosen], device=model.device)
        positions = [place * ids.shape[1] + at for place, rest in enumerate(rests) for at in range(len(rest) - 1)]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.cat([mask[rows], own], dim=1),
            "position_ids": starts[:, None] + torch.arange(ids.shape[1], device=model.device),
            "past_key_values": cache,
            "use_cache": True,
        }
        logits = labelled.logits(model, inputs, torch.tensor(positions, device=model.device))
        targets = torch.tensor([token for rest in rests for token in rest[1:]], device=model.device)
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None]).squeeze(1).cpu()
        for (row, n), part in zip(chosen, torch.split(logprobs, [len(rest) - 1 for rest in rests]), strict=True):
            found[row][n] += float(part.sum())

    first = [(row, max(range(len(own)), key=own.__getitem__)) for row, own in enumerate(found)]
    go_on(first, copy.deepcopy(cache))
    best = [found[row][n] for row, n in first]
    go_on(
        [
            (row, n)
            for row, own in enumerate(found)
            for n in range(len(own))
            if n != first[row][1] and own[n] >= best[row]
        ],
        cache,
    )
    return found


def option_logprobs_at_once(logits: Tensor, questions: Sequence[Sequence[Encoded]]) -> list[list[float]]:
    """Natural log-probability of each option and its end, where a model says all tokens of an answer at once.

    Args:
        logits: of one batch, shape (questions, tokens of an answer, vocabulary).
        questions: each its picture with every option.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    found = []
    for own, options in zip(logprobs, questions, strict=True):
        ids = torch.tensor([one.completion for one in options], device=own.device)
        found.append(own[torch.arange(ids.shape[1], device=own.device), ids].sum(dim=1).tolist())
    return found


def _padded(rows: Sequence[list[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of rows, each filled up on the right."""
    width = max(map(len, rows))
    ids = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def choose(logprobs: Sequence[float], right: int) -> int:
    """The number of the most likely option; of several equally likely ones, not the right one."""
    return max(range(len(logprobs)), key=lambda n: (logprobs[n], n != right))
