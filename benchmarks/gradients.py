"""Gradients of definitions beside those of questions: a naive loop against the suite's factors, on one thread.

Variables have one definition and six questions, as long as those of `world`, or about three times as long. The loop is
what one would write first: `zero_grad`, forward, backward and a copy of every gradient for each text. Both give the
products of every variable's definition with its own questions and with another variable's, and the norms. JSON under
results/, named after the processor.
"""

import random
import time
from typing import Any

import click
import torch
from common import save
from machine import slug
from numpy.testing import assert_allclose
from tabulate import tabulate
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPTNeoXConfig, LlamaConfig, T5Config, set_seed

from ocl_bench.evaluate.per_example import PerExample, alignments
from ocl_bench.models.batches import Collator, Datapoint, decoder_start

VOCABULARY, QUESTIONS = 2680, 6
SHORT, LONG = (4, 6, 2), (12, 18, 3)  # tokens of a definition and of a question, and how many of them carry loss
WORLD = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": VOCABULARY}
WIDE = {"hidden_size": 112, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": VOCABULARY}
SEQ2SEQ = {"d_model": 112, "d_kv": 28, "d_ff": 224, "num_layers": 3, "num_heads": 4, "vocab_size": VOCABULARY}
CASES: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "llama, as world's": (LlamaConfig(**WORLD, intermediate_size=256), SHORT),
    "llama": (LlamaConfig(**WIDE, intermediate_size=224), SHORT),
    "gpt_neox": (GPTNeoXConfig(**WIDE, intermediate_size=448), SHORT),
    "gpt_neox, long texts": (GPTNeoXConfig(**WIDE, intermediate_size=448), LONG),
    "t5": (T5Config(**SEQ2SEQ, decoder_start_token_id=0), SHORT),
}


def variables(count: int, seq2seq: bool, sizes: tuple[int, int, int]) -> list[tuple[list[Datapoint], list[Datapoint]]]:
    """A definition and questions of each, of random tokens, of about the same length."""
    draw, (definition, question, labels) = random.Random(0), sizes

    def point(tokens: int) -> Datapoint:
        ids = tuple(draw.randrange(1, VOCABULARY) for _ in range(tokens + draw.randrange(2)))
        return Datapoint(ids[:-labels], ids[-labels:], 0) if seq2seq else Datapoint(ids, ids, len(ids) - labels)

    return [([point(definition)], [point(question) for _ in range(QUESTIONS)]) for _ in range(count)]


def gradient(model: Any, collate: Collator, points: list[Datapoint]) -> Tensor:
    """The mean gradient of texts, one at a time."""
    found = 0
    for one in points:
        model.zero_grad()
        inputs = collate([one])
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[positions]
        torch.nn.functional.cross_entropy(logits, targets).backward()
        found = found + torch.cat([parameter.grad.flatten() for parameter in model.parameters()]) / len(points)
    return found


def looped(model: Any, drawn: list[Any], controls: list[int]) -> list[list[float]]:
    """What `alignments` gives, by a loop that makes each gradient once."""
    collate = Collator(0, decoder_start(model.config))
    found, questions = [], [gradient(model, collate, own) for _, own in drawn]
    for number, (own, _) in enumerate(drawn):
        one, two, other = gradient(model, collate, own), questions[number], questions[controls[number]]
        found.append(
            [float((a * b).sum()) for a, b in ((one, one), (two, two), (other, other), (one, two), (one, other))]
        )
    return found


def compare(name: str, count: int) -> dict[str, Any]:
    """A row: seconds of both, for each variable."""
    config, sizes = CASES[name]
    set_seed(0)
    seq2seq = config.is_encoder_decoder
    model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_config(config).eval()
    drawn = variables(count, seq2seq, sizes)
    controls = [(number + 1) % count for number in range(count)]
    start = time.perf_counter()
    gradients = PerExample(model, 0, [drawn[0][0][0], drawn[0][1][0]])
    looked = time.perf_counter() - start
    found = alignments(gradients, drawn, controls)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    true = looped(model, drawn, controls)
    loop = time.perf_counter() - start
    assert_allclose(found, true, rtol=1e-5, atol=1e-5 * max(map(max, true)))
    row = {
        "name": name, "parameters": sum(one.numel() for one in model.parameters()), "variables": count,
        "texts": count * (1 + QUESTIONS), "loop_seconds": loop, "seconds": ours, "look_at_model_seconds": looked,
        "slow_parameters": len(gradients.slow), "ratio": loop / ours,
    }  # fmt: skip
    click.echo(f"{name}: {ours:.2f} s, the loop {loop:.2f} s")
    return row


@click.command()
@click.option("--count", default=100, show_default=True, help="Variables.")
def main(count: int) -> None:
    """Print seconds of the loop and of the suite."""
    torch.set_num_threads(1)
    rows = [compare(name, count) for name in CASES]
    table = [
        [row["name"], f"{row['parameters'] / 1e6:.2f} M", f"{row['loop_seconds']:.1f}", f"{row['seconds']:.1f}",
         f"{row['ratio']:.1f}×"]
        for row in rows
    ]  # fmt: skip
    click.echo(tabulate(table, headers=["model", "parameters", "s loop", "s ours", "faster"], tablefmt="github"))
    click.echo(f"saved {save(f'gradients-{slug()}', rows)}")


if __name__ == "__main__":
    main()
