"""What can be wrong with the gradients that a run asks for, found before anything is trained. Needs no torch."""

from collections.abc import Sequence

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.gradients import drawn_variables
from ocl_bench.tasks.mechanisms import Gradients
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.subsets import SUBSETS

OFF = "set evaluate.gradients=null"
# Of a parameter: as the model has it, in a copy of it, and two gradients.
BYTES_PER_PARAMETER = 4 * 4


def check_variables(gradients: Gradients, task: Task, records: Sequence[Record]) -> None:
    """Refuse subsets of a dataset that leave nothing to compare.

    Raises:
        OclBenchError: for a subset without definitions, without questions, or of one entity.
    """
    key = "evaluate.gradients.subsets"
    if task.design.in_context:
        raise OclBenchError(f"{key}: design.in_context trains no definition by itself, so none has a gradient; {OFF}.")
    for subset in gradients.subsets:
        if SUBSETS[subset].tag is None:
            raise OclBenchError(f"{key}: '{subset}' has no definitions; leave it out, or {OFF}.")
        variables = drawn_variables(records, subset, len(records), seed=0)
        if len({one.entity for one in variables}) < 2:
            raise OclBenchError(
                f"{key}: '{subset}' has no two entities with a definition and questions, and another's questions are "
                f"the control; raise source_args.num_entities, leave it out, or {OFF}."
            )


def check_epochs(gradients: Gradients, epochs: dict[str, int], adapted: bool, processes: int) -> None:
    """Refuse epochs that no stage has, or in which there is no gradient to look at.

    Args:
        gradients: which gradients.
        epochs: of each stage that is looked at.
        adapted: whether adapters are trained in place of the weights.
        processes: that train one model together.

    Raises:
        OclBenchError: for either.
    """
    key = "evaluate.gradients.epochs"
    for epoch in gradients.epochs:
        if epoch > max(epochs.values(), default=0):
            has = " and ".join(f"{stage} has {count}" for stage, count in epochs.items()) or "no stage is looked at"
            raise OclBenchError(f"{key}: no stage has an epoch {epoch} ({has}); leave it out.")
    if gradients.epochs and processes > 1:
        raise OclBenchError(
            f"{key}: with --shard {processes} no process has the whole model in an epoch; leave epochs out, and "
            "gradients are looked at after each stage."
        )
    if gradients.epochs and adapted:
        raise OclBenchError(
            f"{key}: the recipe trains adapters in an epoch, and gradients are of the weights; leave epochs out, and "
            "they are looked at after each stage."
        )


def check_memory(parameters: int, beside: int, memory: int) -> None:
    """Refuse models of which two gradients do not fit.

    Args:
        parameters: of the model.
        beside: bytes for each of them that training holds meanwhile; 0 if none goes on.
        memory: bytes of the device.

    Raises:
        OclBenchError: if they do not.
    """
    needed = (BYTES_PER_PARAMETER + beside) * parameters
    if needed > memory:
        raise OclBenchError(
            f"evaluate.gradients: two gradients and what is beside them may need {needed / 1e9:.3g} GB, and the device "
            f"has {memory / 1e9:.3g} GB; take a smaller model, or {OFF}."
        )
