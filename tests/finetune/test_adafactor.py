"""Our Adafactor takes many parameters at once, and does what transformers' does."""

import copy
from typing import Any

import pytest
import torch
from transformers.optimization import Adafactor

from ocl_bench.finetune import adafactor
from ocl_bench.finetune.adafactor import ForeachAdafactor

SETTINGS: dict[str, Any] = {"lr": 1e-2, "scale_parameter": False, "relative_step": False}
SHAPES = [(7, 5), (3,), (2, 4, 6), (), (1, 9), (5, 7), (11,)]  # a mixture of experts has matrices of three dimensions


def weights(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]


def steps(optimizer: Any, parameters: list[torch.nn.Parameter], seeds: range) -> None:
    """Steps with gradients of all sizes; every third without one for the second matrix."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for one in parameters:
            size = 10.0 ** torch.randint(-6, 3, (), generator=generator)
            one.grad = (size * torch.randn(one.shape, generator=generator)).to(one.dtype)
        if seed % 3 == 0:
            parameters[5].grad = None
        optimizer.step()


@pytest.mark.parametrize("chunk", [adafactor.CHUNK, 40])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3)])
def test_it_ends_where_that_of_transformers_does(
    dtype: torch.dtype, tolerance: float, decay: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adafactor, "CHUNK", chunk)
    theirs, ours = weights(dtype), weights(dtype)
    steps(Adafactor(theirs, weight_decay=decay, **SETTINGS), theirs, range(30))
    steps(ForeachAdafactor(ours, weight_decay=decay, **SETTINGS), ours, range(30))
    for one, other, before in zip(ours, theirs, weights(dtype), strict=True):
        assert not torch.equal(other, before)
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3)])
def test_one_goes_on_from_a_checkpoint_of_the_other(dtype: torch.dtype, tolerance: float) -> None:
    parameters = weights(dtype)
    first = Adafactor(parameters, **SETTINGS)
    steps(first, parameters, range(5))
    going_on = copy.deepcopy(parameters)
    second = ForeachAdafactor(going_on, **SETTINGS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(first, parameters, range(5, 10))
    steps(second, going_on, range(5, 10))
    for one, other in zip(going_on, parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        assert second.state[one]["step"] == first.state[other]["step"]
    assert {value.dtype for state in second.state.values() for value in state.values() if torch.is_tensor(value)} == {
        torch.float32
    }


def test_what_the_trainer_never_asks_for_is_refused() -> None:
    (parameter,) = weights(torch.float32)[:1]
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(NotImplementedError):
        ForeachAdafactor([parameter], lr=None).step()
