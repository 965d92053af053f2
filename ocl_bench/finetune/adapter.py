"""Low-rank adapters (LoRA, arXiv 2106.09685): trained in place of a model's own weights, and merged into them.

The layers are peft's, put into the model itself, so that whoever looks at it in training sees the model that it is.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.pytorch_utils import Conv1D

from ocl_bench.errors import OclBenchError
from ocl_bench.finetune.recipe import Adapter

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class LowRank:
    """A trained adapter, apart from the model that it was merged into.

    Attributes:
        config: peft's LoraConfig.
        weights: peft's name → tensor, on the CPU.
    """

    config: Any
    weights: dict[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write what `peft.PeftModel.from_pretrained` puts onto the weights that the stage started from."""
        folder.mkdir()
        self.config.save_pretrained(folder)
        safetensors.torch.save_file(self.weights, folder / WEIGHTS, metadata={"format": "pt"})


class Adapted:
    """A model that trains adapters and nothing else, until they are merged.

    Args:
        model: the model, which is changed in place: to call, to evaluate and to train it goes on as before.
        adapter: which adapters.
        seed: decides their first values; None where these do not matter.

    Raises:
        OclBenchError: as `adaptable`.
    """

    def __init__(self, model: Any, adapter: Adapter, seed: int | None) -> None:
        from peft import LoraConfig, get_peft_model

        layers, stacks = adaptable(model, adapter, type(model).__name__)
        self._model = model
        self._trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=layers, target_parameters=stacks)
        if seed is not None:
            set_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers with transposed weights, which peft takes as they are
            self._peft = get_peft_model(model, config)

    def merge(self) -> LowRank:
        """Add what was learned to the model's own weights, and leave the model as it was but for that."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}
        config = self._peft.peft_config["default"]
        # The weights below are the stage's parent's, whatever the model was loaded from first.
        config.base_model_name_or_path, config.inference_mode = None, True
        # Sets have another order in each process.
        config.target_modules = sorted(config.target_modules)
        config.target_parameters = sorted(config.target_parameters)
        self._peft.merge_and_unload()
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name in self._trainable)
        return LowRank(config, weights)


def adaptable(model: Any, adapter: Adapter, name: str) -> tuple[list[str], list[str]]:
    """What of a model an adapter is for: names of layers, and of parameters that are several matrices in one.

    Args:
        model: the model, with or without memory for its weights.
        adapter: the adapter.
        name: what the user calls the model.

    Raises:
        OclBenchError: if there is nothing to adapt, or the embedding cannot be.
    """
    layers, stacks = list(_linear_layers(model)), list(_stacked_matrices(model))
    if not layers and not stacks:
        raise OclBenchError(
            f"recipe.adapter: {name} has no linear layer besides its output layer, so there is nothing to adapt; "
            "finetune it in full with --set recipe.adapter=null."
        )
    return [*([_embedding(model, name)] if adapter.embeddings else []), *layers], stacks


def _embedding(model: Any, name: str) -> str:
    """Name of the input embedding, if it is nothing else besides."""
    try:
        weight = model.get_input_embeddings().weight
    except (NotImplementedError, AttributeError):  # it looks at pictures
        weight = None
    names: list[str] = [own for own, one in model.named_parameters(remove_duplicate=False) if one is weight]
    if len(names) != 1:
        raise OclBenchError(
            f"recipe.adapter.embeddings: {name} has no input embedding that is not its output layer or another layer "
            "too, so that it cannot be adapted alone; leave embeddings out."
        )
    return names[0].removesuffix(".weight")


def _linear_layers(model: Any) -> Iterator[str]:
    """Names of all linear layers that are called in training, but for the output layer."""
    output = model.get_output_embeddings()
    # The fused kernels of state-space layers, which hold a convolution over time, are given the weights of all
    # projections but the first: an adapter there is passed by, and peft refuses some.
    mixers = {name for name, module in model.named_modules() if isinstance(getattr(module, "conv1d", None), nn.Conv1d)}
    for name, module in model.named_modules():
        parent, _, own = name.rpartition(".")
        passed_by = parent in mixers and not own.startswith("in_proj")
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output and not passed_by:
            yield name


def _stacked_matrices(model: Any) -> Iterator[str]:
    """Names of parameters as those of experts are."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.conv._ConvNd):
            for own, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 3 and len(parameter) > 1:
                    yield f"{name}.{own}"
