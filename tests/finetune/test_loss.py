"""Where logits are many their loss is taken a few rows at a time: the same gradient, of any model."""

import copy
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    CohereConfig,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
    set_seed,
)

from ocl_bench.finetune import loss
from ocl_bench.finetune.loss import LabelledLoss

SIZE = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
SIZE |= {"num_attention_heads": 2, "num_key_value_heads": 2}
PLAIN = [
    LlamaConfig(**SIZE),
    LlamaConfig(**SIZE, tie_word_embeddings=True),
    GPTNeoXConfig(**SIZE),
    T5Config(vocab_size=300, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2, dropout_rate=0.0),
]
# They bound, or scale, what their output layer gives.
OTHERS = [Gemma2Config(**SIZE, head_dim=8, final_logit_softcapping=0.1), CohereConfig(**SIZE, logit_scale=0.5)]


def gradients(model: Any, precision: str, times: float = 1.0) -> tuple[str, list[torch.Tensor]]:
    """What took the loss, and the gradient of each parameter after two passes."""
    own = copy.deepcopy(model)
    labelled = LabelledLoss(own)
    AcceleratorState._reset_state(reset_partial_state=True)
    prepared = Accelerator(cpu=True, mixed_precision=precision).prepare_model(own)
    ids = torch.arange(60).view(3, 20)
    inputs = {"input_ids": ids, "decoder_input_ids": ids} if model.config.is_encoder_decoder else {"input_ids": ids}
    positions = torch.arange(5, 55)
    for _ in range(2):
        found = labelled.loss(prepared, inputs, positions, positions % 7, torch.tensor(40))
        (found * times).backward()  # type: ignore[no-untyped-call]
    labelled.close()
    assert not own.get_output_embeddings()._forward_hooks
    return found.grad_fn.name(), [one.grad for one in own.parameters()]  # type: ignore[union-attr]


def made(config: PreTrainedConfig) -> Any:
    set_seed(0)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config).train()


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("config", [*PLAIN, *OTHERS], ids=lambda config: config.model_type)
def test_a_few_rows_at_a_time_give_the_same_bits(
    config: PreTrainedConfig, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(config)
    name, whole = gradients(model, precision)
    assert name == "DivBackward0"
    monkeypatch.setattr(loss, "MANY", 1000)
    monkeypatch.setattr(loss, "AT_ONCE", 7 * 300)
    name, parts = gradients(model, precision)
    assert name == ("DivBackward0" if config in OTHERS else "_InPlaceBackward")
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_loss_that_is_scaled_has_a_scaled_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(PLAIN[0])
    _, whole = gradients(model, "no", times=4.0)
    monkeypatch.setattr(loss, "MANY", 1000)
    name, parts = gradients(model, "no", times=4.0)
    assert name == "_InPlaceBackward"
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(whole, parts, strict=True))
