"""Gradients of single examples are those of a loop, of any model; what is made of them; and a run that looks."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, WHOLE, Heard
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.gradient_checks import check_epochs, check_memory, check_variables
from ocl_bench.evaluate.gradients import batch_gradients, controls, drawn_variables
from ocl_bench.evaluate.per_example import PerExample, alignments, all_products
from ocl_bench.evaluate.questions import within_memory
from ocl_bench.files import read_json_lines
from ocl_bench.models.batches import Collator, Datapoint, datapoints, decoder_start
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer, weights_sha256
from ocl_bench.models.spec import parse_model
from ocl_bench.report.tables import result_table
from ocl_bench.runner.folder import score_run
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import EpochDone
from ocl_bench.runner.workers import Workers
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.mechanisms import Gradients
from ocl_bench.tasks.records import texts

VOCABULARY = 60
PICTURES = {
    "convnextv2": {"patch_size": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}
Variables = list[tuple[list[Datapoint], list[Datapoint]]]


def text_model(architecture: str) -> Any:
    sizes = ARCHITECTURES[architecture][1]
    config = AutoConfig.for_model(architecture, **sizes, vocab_size=VOCABULARY, pad_token_id=0)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 0
    set_seed(0)
    return (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config).eval()


def text_variables(seq2seq: bool) -> Variables:
    """Three, with other numbers of questions, of other lengths."""
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(count))

    def point(length: int) -> Datapoint:
        whole = ids(length)
        return Datapoint(whole, ids(1 + length % 3), 0) if seq2seq else Datapoint(whole, whole, length - 1 - length % 2)

    return [([point(4)], [point(5), point(8)]), ([point(6), point(5)], [point(7)]), ([point(3)], [point(6), point(4)])]


def picture_model(kind: str, folder: Path) -> tuple[Any, Variables]:
    set_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **PICTURES[kind])).save_pretrained(folder)
    records = build(load_task("digit_grid", ["source_args.num_entities=20"]), 0)
    spec = parse_model(str(folder))
    tokenizer = load_tokenizer(spec, texts(records))
    shown = [(one.given, one.completion) for one in records[:6]]
    points = datapoints(Encoder(tokenizer, seq2seq=False)(shown), False, "completion")
    return load_model(spec, tokenizer, seed=0).eval(), [
        ([points[0]], points[1:3]), ([points[3]], [points[2]]), ([points[4]], [points[5], points[1]])
    ]  # fmt: skip


def looped(model: Any, points: Sequence[Datapoint]) -> Tensor:
    """The mean gradient of texts, one at a time."""
    collate, found = Collator(0, decoder_start(model.config)), []
    for one in points:
        model.zero_grad()
        inputs = collate([one])
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[positions]
        nn.functional.cross_entropy(logits, targets).backward()
        parts = [torch.zeros_like(own) if own.grad is None else own.grad for own in model.parameters()]
        found.append(torch.cat([own.flatten() for own in parts]).double())
    model.zero_grad()
    return torch.stack(found).mean(0)


def assert_as_looped(model: Any, variables: Variables) -> PerExample:
    """All products are those of a loop, to 1e-5 of the norms."""
    gradients = PerExample(model, 0, [variables[0][0][0], variables[0][1][0]])
    definitions, questions = zip(*[(looped(model, a), looped(model, b)) for a, b in variables], strict=True)
    for number, found in enumerate(alignments(gradients, variables, [1, 2, 0])):
        d, q, o = definitions[number], questions[number], questions[(number + 1) % 3]
        scale = torch.stack([d @ d, q @ q, o @ o, d.norm() * q.norm(), d.norm() * o.norm()])
        true = torch.stack([d @ d, q @ q, o @ o, d @ q, d @ o])
        torch.testing.assert_close(torch.tensor(found) / scale, true / scale, atol=1e-5, rtol=0, check_dtype=False)
    points = [one for own in variables for part in own for one in part]
    each = torch.stack([looped(model, [one]) for one in points])
    true = each @ each.mT
    assert np.abs(all_products(gradients, points) - true.numpy()).max() <= 1e-5 * true.max()
    return gradients


# With tied weights, learned positions, a scan, experts, relative positions: what no layer explains, vmap does.
@pytest.mark.parametrize(
    ("architecture", "slow"),
    [("gpt_neox", 0), ("llama", 0), ("gpt2", 0), ("opt", 1), ("mamba", 12), ("mixtral", 6), ("t5", 2)],
)
def test_products_are_those_of_a_loop(architecture: str, slow: int) -> None:
    model = text_model(architecture)
    gradients = assert_as_looped(model, text_variables(model.config.is_encoder_decoder))
    assert len(gradients.slow) == slow and not gradients.looped


@pytest.mark.parametrize("kind", PICTURES)
def test_so_they_are_of_models_that_look_at_pictures(kind: str, tmp_path: Path) -> None:
    assert_as_looped(*picture_model(kind, tmp_path))


class Unigram(nn.Module):
    """The same distribution at every position: a bias alone, used in no layer."""

    config = SimpleNamespace(is_encoder_decoder=False)
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError

    def get_output_embeddings(self) -> None: ...

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        return SimpleNamespace(logits=self.bias.expand(*input_ids.shape, VOCABULARY))


def saying(token: int, length: int = 3) -> Datapoint:
    ids = (*range(1, length), token)
    return Datapoint(ids, ids, length - 1)


def test_of_a_bias_alone_cosines_are_known() -> None:
    """Its gradient is 1/V - onehot: the cosine of two answers is 1, or -1/(V - 1)."""
    variables = [([saying(5)], [saying(5), saying(5, 6)]), ([saying(7)], [saying(7)])]
    (own, _) = alignments(PerExample(Unigram(), 0, [saying(5), saying(7)]), variables, [1, 0])
    norm = 1 - 1 / VOCABULARY
    assert own == pytest.approx([norm, norm, norm, norm, -1 / VOCABULARY], rel=1e-5)


class Looking(Unigram):
    """One that decides by numbers, as vmap cannot."""

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        assert float(input_ids.float().mean()) > 0
        return super().forward(input_ids)


def test_a_model_that_vmap_cannot_do_is_done_in_a_loop() -> None:
    assert assert_as_looped(Looking(), text_variables(seq2seq=False)).looped


def test_padding_memory_and_company_change_nothing() -> None:
    model, variables = text_model("llama"), text_variables(seq2seq=False)
    gradients = PerExample(model, 0, [variables[0][0][0], variables[0][1][0]])
    together = alignments(gradients, variables, [1, 2, 0])
    long = tuple(range(1, 40))
    beside = gradients.rows([variables[0][0], [Datapoint(long, long, 1)]])
    assert beside.products(beside)[0].item() == pytest.approx(together[0][0], rel=1e-5)
    sizes: list[int] = []
    gradients.max_tokens = 64

    def out_of_memory(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        sizes.append(given[0].numel())
        if given[0].numel() > 32:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = model.get_input_embeddings().register_forward_pre_hook(out_of_memory)
    alone = within_memory(gradients, lambda: alignments(gradients, variables, [1, 2, 0]))
    hook.remove()
    assert max(sizes) > 32 and gradients.max_tokens < 42
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model, variables = text_model("gpt2"), text_variables(seq2seq=False)
    model.transformer.wpe.weight.requires_grad_(False)
    before, state = weights_sha256(model), torch.get_rng_state()
    alignments(PerExample(model, 0, [variables[0][0][0], variables[0][1][0]]), variables, [1, 2, 0])
    assert weights_sha256(model) == before and torch.equal(torch.get_rng_state(), state)
    assert all(own.grad is None for own in model.parameters()) and not model.training
    assert [name for name, own in model.named_parameters() if not own.requires_grad] == ["transformer.wpe.weight"]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_a_batch_is_what_its_gradients_say() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 40)) + 0.3
    found = batch_gradients(rows @ rows.T)
    mean, units = rows.mean(axis=0), rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert found.squared_norm == pytest.approx(mean @ mean)
    assert found.variance == pytest.approx(((rows - mean) ** 2).sum(axis=1).mean())
    assert found.mean_cosine == pytest.approx((units @ mean).mean() / np.linalg.norm(mean))
    assert found.pairwise_cosine == pytest.approx(np.mean([a @ b for n, a in enumerate(units) for b in units[:n]]))


def test_the_control_is_of_another_entity_and_of_the_same_questions() -> None:
    records = build(load_task("world"), 0)  # four variables an entity
    for subset, count in (("d1_cons_qa", 50), ("d1_cons", 80)):
        variables = drawn_variables(records, subset, 100 if count == 80 else 50, seed=0)
        assert len(variables) == count and {one.name for one in variables}.isdisjoint({""})
        assert all(len(one.definitions) == 1 and len(one.questions) == 6 for one in variables)
        for own, other in zip(variables, controls(variables), strict=True):
            assert variables[other].entity != own.entity and variables[other].asked == own.asked
    again = drawn_variables(records, "d1_cons_qa", 50, seed=0)
    assert again == drawn_variables(records, "d1_cons_qa", 50, seed=0) != drawn_variables(records, "d1_cons_qa", 50, 1)


LOOKING = "evaluate.gradients={epochs: [1, 2], variables: 5, batch: 8}"


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seed of `whole_run`, but that it looked at gradients, and was interrupted in between."""
    options = {
        **WHOLE, "seeds": 1, "stage2_seeds": 1, "overrides": (*WHOLE["overrides"], LOOKING), "checkpoint_seconds": 0,
        "output_path": tmp_path_factory.mktemp("looking"),
    }  # fmt: skip

    def interrupt(message: Any) -> None:
        if isinstance(message, EpochDone) and message.epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, Workers() as workers:
        patch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)  # threads as those of two seeds
        with pytest.raises(KeyboardInterrupt):
            ocl_bench.run(**options, workers=workers, progress=Heard(interrupt).shown)
        return ocl_bench.run(**options, workers=workers).folder


def test_a_run_that_looks_trains_and_answers_as_one_that_does_not(looking: Path, whole_run: Path) -> None:
    looked, plain = (read_manifest(folder).stages["seed-0"] for folder in (looking, whole_run))
    for stage in ("x1", "x2"):
        assert looked[stage].weights_after == plain[stage].weights_after
        for name in ("curve.jsonl", "answers.jsonl"):
            one, other = (folder / "seed-0" / stage / name for folder in (looking, whole_run))
            assert one.read_bytes() == other.read_bytes()
    texts_of = [(folder / "results.json").read_text() for folder in (looking, whole_run)]
    assert ["gradients" in json.loads(text) for text in texts_of] == [True, False]


def test_what_it_saw_comes_back_after_an_interruption_and_is_summarised(looking: Path) -> None:
    assert read_manifest(looking).stages["seed-0"]["x1"].resumed > 0
    looks = list(read_json_lines(looking / "seed-0" / "x1" / "gradients-epochs.jsonl"))
    assert [look["epoch"] for look in looks] == [1, 2]
    (after,) = read_json_lines(looking / "seed-0" / "x1" / "gradients.jsonl")
    assert after["epoch"] is None and after["subsets"] == looks[1]["subsets"] and after["batch"] == looks[1]["batch"]
    found = score_run(looking).gradients
    assert [(at.stage, at.epoch) for at in found] == [
        (stage, epoch) for stage in ("x1", "x2") for epoch in (1, 2, None)
    ]
    own = after["subsets"]["d1_cons"]
    at = found[2].subsets["d1_cons"]
    assert at["alignment"].mean == pytest.approx(np.mean([one["cosine"] - one["cosine_other"] for one in own]))
    assert at["alignment"].interval == "entities" and at["alignment"].n == len(own) == 5
    low, high = found[2].gaps["meta_ocl_gap"]["alignment"].ci95
    assert low < found[2].gaps["meta_ocl_gap"]["alignment"].mean < high
    assert found[2].batch["variance"].mean == after["batch"]["variance"] and found[2].batch["variance"].ci95 is None
    assert (looking / "gradients.png").stat().st_size > 10_000
    assert "pairs in a batch" in result_table(score_run(looking))


def refused(*overrides: str) -> str:
    with pytest.raises(OclBenchError) as error:
        ocl_bench.run(**{**WHOLE, "overrides": (*WHOLE["overrides"], *overrides)}, output_path=Path("nowhere"))
    sentence = str(error.value)
    assert sentence.count(". ") == 0
    return sentence


def test_what_cannot_be_looked_at_is_refused_in_a_sentence() -> None:
    assert "no stage has an epoch 9 (x1 has 2 and x2 has 2)" in refused("evaluate.gradients={epochs: [9]}")
    assert "'qa_only' has no definitions" in refused("evaluate.gradients={subsets: [qa_only]}")
    assert "'d1_con'" in refused("evaluate.gradients={subsets: [d1_con]}")
    gradients, task = Gradients(epochs=(1,)), load_task("attributes")
    with pytest.raises(OclBenchError, match="--shard 2"):
        check_epochs(gradients, {"x1": 3}, adapted=False, processes=2)
    with pytest.raises(OclBenchError, match="adapters"):
        check_epochs(gradients, {"x1": 3}, adapted=True, processes=1)
    with pytest.raises(OclBenchError, match="no two entities"):
        check_variables(gradients, task, [one for one in build(task, 0) if one.kind != "qa"])
    with pytest.raises(OclBenchError, match="may need 112 GB, and the device has 80 GB"):
        check_memory(7 * 10**9, 0, 80 * 10**9)
    check_memory(10**9, 16, 80 * 10**9)
