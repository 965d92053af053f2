"""What stands beside the benchmarks' figures: FLOP, bytes and the split of time; and the page shows what was kept."""

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from machine import cache_bytes, slug, slug_of
from roofline import GROUPS, Split, Work, count, row, split
from tables import BELOW, PAGE, PLACE, Shares, filled, places, whole_percents

WORDS = 211  # a size that nothing else in the model has


@pytest.fixture(scope="module")
def found() -> Split:
    """Of a model that answers by tokens, one after another, and is trained for a step."""
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    network = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(
            vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters())
    ids = torch.arange(12).reshape(2, 6)

    def work() -> None:
        network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0)
        network(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    work()
    return split(work, WORDS)


def test_the_split_sums_to_100_and_has_all_that_was_done(found: Split) -> None:
    assert set(found.shares) == set(GROUPS)
    assert sum(found.shares.values()) == pytest.approx(100)
    done = {name for name, share in found.shares.items() if share > 0}
    assert done >= {"head", "matmul", "attention", "softmax", "copies", "other operators", "optimizer", "Python"}
    assert not done & {"tokenizer", "collation"}
    assert 0 < found.one_token < 100


def test_whole_percents_sum_to_100_too(found: Split) -> None:
    for shares in (found.shares, {"a": 33.4, "b": 33.3, "c": 33.3}, {"a": 99.5, "b": 0.5}):
        whole = whole_percents(shares)
        assert sum(whole.values()) == 100
        assert all(abs(whole[name] - share) < 1 for name, share in shares.items())
    assert places({"a": 33.4, "b": 65.3, "c": 1.3}) == "b 65, a 34, else 1"


def test_files_are_named_after_the_machine() -> None:
    assert slug_of("AMD EPYC", ["avx2", "avx512f", "avx512_bf16"]) == "amd-epyc-avx512bf16"
    assert slug_of("AMD EPYC", ["avx2"]) == "amd-epyc-avx2"
    assert slug_of("Intel(R) Xeon(R) Processor @ 2.50GHz", []) == "intel-xeon"
    assert slug_of("AMD EPYC 9R14 96-Core Processor", ["avx512f"]) == "amd-epyc-9r14-avx512"
    assert slug() == slug().lower() and set(slug()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_work_is_counted_and_what_a_cache_holds_moves_once() -> None:
    left, right = torch.ones(64, 128), torch.ones(128, 32)
    bytes_of_one = 4 * (64 * 128 + 128 * 32 + 64 * 32)
    assert count(lambda: left @ right, 0) == Work(2 * 64 * 128 * 32, bytes_of_one)
    assert count(lambda: [left @ right for _ in range(3)], 0).bytes == 3 * bytes_of_one
    again = count(lambda: [left @ right for _ in range(3)], cache_bytes()).bytes
    assert bytes_of_one <= again <= bytes_of_one + 2 * 4 * 64 * 32  # a result may lie at another place


def test_a_row_says_which_limit_it_is_near(found: Split) -> None:
    machine = {"bandwidth": 10.0, "peak": {"fp32": 100.0}}

    def shares(flops: float, moved: float) -> Shares:
        return Shares.of(row(Work(flops, moved), found, "fp32"), 1.0, machine)

    assert shares(80.0, 1.0) == Shares(of_peak=0.8, of_bandwidth=0.1, at_most=1.25)
    assert shares(80.0, 1.0).limit(found.shares) == "compute"
    assert shares(1.0, 9.0).limit(found.shares) == "memory"
    largest = max(found.shares, key=found.shares.__getitem__)
    assert shares(1.0, 10 * BELOW / 2).limit(found.shares) == f"neither: {largest}"


def test_the_page_shows_what_was_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page
    assert "training" in {name for name, _ in PLACE.findall(page)}
    changed = re.sub(r"(?<=\| )\d+(?= +\|)", "0", page)
    assert changed != page and filled(changed) != changed
