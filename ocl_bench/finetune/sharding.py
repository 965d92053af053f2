"""One model over the processes of this group: sharded by torch's FSDP2, and made whole again.

transformers' own way (`DistributedConfig`) shards while it loads from a folder, by a plan that names other layers than
GPT-2 or T5 have, and neither gives a model back whole nor a state to go on from. Ours are in memory already, so each
layer that a model declares as one that must not be split (`_no_split_modules`, which all families have) is sharded by
itself, and the rest, embeddings and output layer, together.

What gathers has to be called by all processes.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ocl_bench.models.group import processes


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: all of it, if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Number of the first row that this process has of a tensor, in the order of `torch.chunk`, as FSDP2 has it."""
    if not isinstance(tensor, DTensor):
        return 0
    mesh = tensor.device_mesh
    return min(len(tensor), mesh.get_local_rank() * -(-len(tensor) // mesh.size()))


class Sharded:
    """A model whose parameters, gradients and optimizer state are spread over the processes.

    Args:
        model: the same whole model in every process; is sharded in place, onto the device.
        device: cpu or cuda.

    Attributes:
        model: the sharded model.
        layers: class of layers that are sharded one by one → how many there are. None of them leaves the whole model in
            the memory of each device during a step.
    """

    def __init__(self, model: Any, device: str) -> None:
        self._shell = _without_weights(model)
        mesh = init_device_mesh(device, (processes(),))
        layers = layers_of(model)
        self.layers = Counter(type(layer).__name__ for layer in layers)
        for layer in reversed(layers):  # one may be inside another
            fully_shard(layer, mesh=mesh)
        self.model = fully_shard(model, mesh=mesh)
        # What makes transformers' Trainer leave placement and gradients to the model.
        model._is_distributed_loading_by_transformers = True
        if not all(isinstance(parameter, DTensor) for parameter in model.parameters()):
            raise AssertionError("parameters of a sharded model that are not sharded")

    def whole(self) -> Any:
        """The model with all weights, on the CPU, in every process."""
        self.model.reshard()  # after evaluation, the root has all of its own
        made: dict[int, nn.Parameter] = {}  # one for all names of tied weights

        def gathered(parameter: nn.Parameter) -> nn.Parameter:
            if id(parameter) not in made:
                whole = whole_tensor(parameter.detach())
                made[id(parameter)] = nn.Parameter(whole, requires_grad=parameter.requires_grad)
            return made[id(parameter)]

        model = _without_weights(self._shell)
        named = self.model.named_parameters(remove_duplicate=False)
        state: dict[str, Tensor] = {name: gathered(parameter) for name, parameter in named}
        state |= {name: buffer.cpu() for name, buffer in self.model.named_buffers(remove_duplicate=False)}
        model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
        return model


def layers_of(model: Any) -> list[nn.Module]:
    """The layers of a model that are sharded one by one, each after what it is in."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def whole_tensor(tensor: Tensor) -> Tensor:
    """A copy of all of a tensor, on the CPU."""
    # What is gathered may be a view of something larger.
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).to("cpu", copy=True)


def _without_weights(model: Any) -> Any:
    """A copy of a model whose parameters take no memory."""
    empty = {
        id(one): nn.Parameter(torch.empty_like(one, device="meta"), one.requires_grad) for one in model.parameters()
    }
    return copy.deepcopy(model, {**empty, id(model.config): model.config})


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of an optimizer, as that of an optimizer of the whole model would be."""
    state = optimizer.state_dict()
    of_each = {
        number: {name: whole_tensor(value) if isinstance(value, Tensor) else value for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return state | {"state": of_each}


def set_whole_state(optimizer: torch.optim.Optimizer, whole: dict[str, Any]) -> None:
    """Give an optimizer of a sharded model its part of a state that `whole_state` gave, in the dtypes that it has."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    optimizer.load_state_dict(whole | {"state": {}})  # all but the state of each parameter
    for number, values in whole["state"].items():
        parameter = parameters[number]
        optimizer.state[parameter] = {
            name: _part(value, parameter) if isinstance(value, Tensor) else value for name, value in values.items()
        }


def _part(value: Tensor, parameter: DTensor) -> Tensor:
    """What is as large as a parameter is spread as it is; what is smaller, every process has."""
    value = value.to(parameter.device) if value.dim() else value  # step counts stay where optimizers have them
    if value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
