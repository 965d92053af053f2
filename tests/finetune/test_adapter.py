"""An adapter is trained in place of a model's weights and ends in them, so that nothing else knows of it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoModel

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.finetune.adapter import Adapted
from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import Adapter, load_recipe
from ocl_bench.finetune.stage import Trained, train_stage
from ocl_bench.models.batches import Collator, Datapoint, datapoints, decoder_start
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import checkpoint_spec, load_model, load_tokenizer, weights_sha256
from ocl_bench.models.spec import parse_model
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, texts

# What tells them apart: one matrix for queries, keys and values; tied embeddings and transposed weights; gated layers;
# two stacks; projections that kernels read past a layer; experts in one parameter; convolutions beside linear layers.
KINDS = ("gpt_neox", "gpt2", "llama", "t5", "mamba", "mixtral", "convnextv2")
CONVNEXT = {"patch_size": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}


class Case:
    """A tiny model of a kind, with 24 datapoints."""

    def __init__(self, kind: str, model_folder: Callable[[str], Path], records: Sequence[Record], folder: Path) -> None:
        if kind == "convnextv2":
            place = folder / kind
            torch.manual_seed(0)
            AutoModel.from_config(AutoConfig.for_model(kind, **CONVNEXT)).save_pretrained(place)
            records = build(load_task("digit_grid", ["source_args.num_entities=20"]), 0)
        else:
            place = model_folder(kind)
        self.spec = parse_model(str(place))
        self.tokenizer = load_tokenizer(self.spec, texts(records))
        self.encoder = Encoder(self.tokenizer, self.new().config.is_encoder_decoder)
        few = [one for one in records if one.split != "test"][:24]
        encoded = self.encoder([(one.given, one.completion) for one in few])
        self.points: list[Datapoint] = datapoints(encoded, self.encoder.seq2seq, "completion")
        self.batch = Collator(self.encoder.pad_id, decoder_start(self.new().config))(self.points[:8])

    def new(self) -> Any:
        return load_model(self.spec, self.tokenizer, seed=0).eval()

    @torch.no_grad()
    def logits(self, model: Any) -> Tensor:
        inputs = {name: value for name, value in self.batch.items() if name not in ("positions", "targets")}
        found: Tensor = model(**inputs, use_cache=False).logits
        return found

    def train(self, folder: Path, on_epoch: Callable[[Any], None], *overrides: str) -> Trained:
        def shown(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
            on_epoch(model)
            return [{"loss": loss}]

        recipe = load_recipe(
            "lora",
            [
                "epochs=[6]",
                "effective_batch_size=8",
                "learning_rate=1e-2",
                "precision=fp32",
                "adapter.rank=4",
                *overrides,
            ],
        ).of_stage(0)
        return train_stage(
            self.new, self.points, everything(len(self.points)), recipe=recipe, seed=0, pad_id=self.encoder.pad_id,
            device="cpu", bf16=False, batch_size=None, report_to=(), run_name="test", folder=folder / "checkpoints",
            log_folder=folder / "logs", checkpoint_seconds=math.inf, on_epoch=shown,
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_adapter_learned_ends_in_the_plain_model(
    kind: str, model_folder: Any, small_records: list[Record], tmp_path: Path
) -> None:
    case = Case(kind, model_folder, small_records, tmp_path)
    before, seen = case.new(), []

    def look(model: Any) -> None:
        assert type(model) is type(before)
        seen.append(case.logits(model))

    trained = case.train(tmp_path, look)
    model = trained.model.eval()
    assert trained.rows[-1]["loss"] < trained.rows[0]["loss"]
    torch.testing.assert_close(case.logits(model), seen[-1], atol=1e-5, rtol=1e-5)
    assert (case.logits(model) - case.logits(before)).abs().max() > 0.1

    # The model is what it was but for the numbers in its linear layers.
    names = {name: parameter.requires_grad for name, parameter in before.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == names
    assert [(name, type(one)) for name, one in model.named_modules()] == [
        (name, type(one)) for name, one in before.named_modules()
    ]
    own, old = model.state_dict(), before.state_dict()
    changed = {name for name in old if not torch.equal(own[name], old[name])}
    assert changed and all(old[name].dim() >= 2 for name in changed)
    if kind != "convnextv2":
        assert model.get_input_embeddings().weight.equal(before.get_input_embeddings().weight)
        assert model.get_output_embeddings().weight.equal(before.get_output_embeddings().weight)
    model.save_pretrained(tmp_path / "kept")
    case.tokenizer.save_pretrained(tmp_path / "kept")
    again = load_model(checkpoint_spec(tmp_path / "kept", case.spec), case.tokenizer, seed=9)
    assert weights_sha256(again) == weights_sha256(model)

    # What is kept beside gives the same model on top of what it was.
    assert trained.adapter is not None
    trained.adapter.save(tmp_path / "adapter")
    on_top = PeftModel.from_pretrained(case.new(), tmp_path / "adapter").eval()
    torch.testing.assert_close(case.logits(on_top), case.logits(model), atol=1e-5, rtol=1e-5)


def test_experts_are_adapted_too(model_folder: Any, small_records: list[Record], tmp_path: Path) -> None:
    model = Case("mixtral", model_folder, small_records, tmp_path).new()
    Adapted(model, Adapter(rank=2, alpha=4), seed=0)
    adapted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("experts" in name for name in adapted) and any("q_proj" in name for name in adapted)
    assert all("lora" in name for name in adapted)


def test_an_adapter_begins_at_the_model_and_its_seed_decides_where_it_goes(
    model_folder: Any, small_records: list[Record], tmp_path: Path
) -> None:
    case = Case("gpt2", model_folder, small_records, tmp_path)

    def first_values(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        model = case.new()
        adapted = Adapted(model, Adapter(rank=2, alpha=4), seed)
        return case.logits(model), adapted.merge().weights

    plain = case.logits(case.new())
    (logits, values), (_, same), (_, other) = first_values(0), first_values(0), first_values(1)
    assert torch.equal(logits, plain)
    assert all(torch.equal(value, same[name]) for name, value in values.items())
    assert not all(torch.equal(value, other[name]) for name, value in values.items())


def test_words_that_a_model_has_not_seen_are_learned_where_the_input_embedding_is_its_own(
    model_folder: Any, small_records: list[Record], tmp_path: Path
) -> None:
    adapter = Adapter(rank=2, alpha=4, embeddings=True)
    case = Case("llama", model_folder, small_records, tmp_path)
    trained = case.train(tmp_path, lambda model: None, "adapter.embeddings=true")
    weight = trained.model.get_input_embeddings().weight
    assert not weight.equal(case.new().get_input_embeddings().weight)
    assert trained.model.get_output_embeddings().weight.equal(case.new().get_output_embeddings().weight)
    assert trained.adapter is not None
    trained.adapter.save(tmp_path / "adapter")
    on_top = PeftModel.from_pretrained(case.new(), tmp_path / "adapter").eval()
    torch.testing.assert_close(case.logits(on_top), case.logits(trained.model.eval()), atol=1e-5, rtol=1e-5)
    for kind in ("gpt2", "t5", "convnextv2"):
        model = Case(kind, model_folder, small_records, tmp_path).new()
        with pytest.raises(OclBenchError, match=r"recipe\.adapter\.embeddings: .* leave embeddings out"):
            Adapted(model, adapter, seed=0)


def test_a_model_without_anything_to_adapt_is_refused_before_training(tmp_path: Path) -> None:
    AutoConfig.for_model("gpt2", n_embd=16, n_layer=0, n_head=2, n_positions=64).save_pretrained(tmp_path / "bare")
    with pytest.raises(OclBenchError, match=r"--model .*bare has no linear layer .* --set recipe\.adapter=null"):
        ocl_bench.run(
            f"scratch:{tmp_path / 'bare'}",
            task="attributes",
            seeds=1,
            overrides=["source_args.num_entities=60", "recipe.adapter={rank: 2, alpha: 4}"],
            output_path=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
