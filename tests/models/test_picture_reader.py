"""Any vision backbone of transformers gets the head, without code for its family, and comes back from its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ocl_bench.finetune.trainer import StageDataset, StageTrainer
from ocl_bench.models.batches import Collator, datapoints
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import checkpoint_spec, load_model, load_tokenizer, weights_sha256
from ocl_bench.models.spec import parse_model
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, texts

SMALL = ("source_args.num_entities=20",)
# Tiny ones, at a size that holds a picture of 22 × 20 pixels.
BACKBONES: dict[str, dict[str, Any]] = {
    "convnextv2": {"patch_size": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "vit": {"image_size": 24, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32},
    "dinov2": {"image_size": 24, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "swin": {"image_size": 24, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
             "window_size": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return build(load_task("digit_grid", SMALL), 0)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_from_a_folder_gets_a_head_and_its_checkpoint_is_the_same_model(
    kind: str, records: list[Record], tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    backbone = AutoModel.from_config(AutoConfig.for_model(kind, **BACKBONES[kind])).eval()
    backbone.save_pretrained(tmp_path / "backbone")
    spec = parse_model(str(tmp_path / "backbone"))
    tokenizer = load_tokenizer(spec, texts(records))
    model = load_model(spec, tokenizer, seed=3).eval()
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in model.backbone.state_dict().items())
    encoder = Encoder(tokenizer, seq2seq=False)
    encoded = encoder([(one.given, one.completion) for one in records[:8]])
    batch = Collator(encoder.pad_id, None)(datapoints(encoded, False, "completion"))
    with torch.no_grad():
        logits = model(pixel_values=batch["pixel_values"], use_cache=False).logits
    assert logits.shape == (8, len(encoded[0].completion), len(tokenizer))
    model.save_pretrained(tmp_path / "kept")
    tokenizer.save_pretrained(tmp_path / "kept")
    again_spec = checkpoint_spec(tmp_path / "kept", spec)
    again = load_model(again_spec, load_tokenizer(again_spec, ()), seed=9)
    assert weights_sha256(again) == weights_sha256(model)


def test_weight_decay_leaves_biases_and_the_scales_of_norms_alone(records: list[Record]) -> None:
    spec = parse_model("scratch:digits")
    model = load_model(spec, load_tokenizer(spec, texts(records)), seed=0)
    decayed = set(StageTrainer.get_decay_parameter_names(StageTrainer.__new__(StageTrainer), model))
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert norms and decayed == {
        name
        for name, _ in model.named_parameters()
        if name.rpartition(".")[0] not in norms and not name.endswith(".bias")
    }


def test_training_shows_other_scans_each_time_and_for_each_seed_and_goes_on_where_it_was(records: list[Record]) -> None:
    encoder = Encoder(load_tokenizer(parse_model("scratch:digits"), texts(records)), seq2seq=False)
    points = datapoints(encoder([(records[0].given, records[0].completion)]), False, "completion")

    def draws(count: int, seed: int, drawn: int = 0) -> list[int]:
        dataset = StageDataset(points, seed, drawn)
        return [shown.draw for shown in (dataset[0].shown for _ in range(count)) if shown is not None]

    assert len({*draws(4, seed=0), *draws(4, seed=1)}) == 8
    assert draws(4, seed=1) == [*draws(2, seed=1), *draws(2, seed=1, drawn=2)]


def test_convolutions_are_laid_out_with_channels_last_also_those_of_one_channel(records: list[Record]) -> None:
    spec = parse_model("scratch:digits")
    model = load_model(spec, load_tokenizer(spec, texts(records)), seed=0)
    assert {one.stride(1) for one in model.parameters() if one.dim() == 4} == {1}
