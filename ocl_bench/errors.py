"""The errors a user can cause. Each is one sentence: what is wrong, where, what to do."""

import difflib
from collections.abc import Iterable


class OclBenchError(Exception):
    """A mistake in the input that one sentence explains; the command line prints it and exits with code 2."""

    exit_code = 2


class RunFailed(OclBenchError):
    """Training or evaluation failed although the input was right, and can be continued; exit code 3."""

    exit_code = 3


class Diverged(RunFailed):
    """A model's outputs are no longer numbers."""


# What other libraries call it → what it is called here.
CALLED_ELSEWHERE = {
    "batch": "effective_batch_size",
    "batch_size": "effective_batch_size",
    "gradient_clipping": "max_grad_norm",
    "lora": "adapter",
    "lora_alpha": "alpha",
    "lora_r": "rank",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "optimizer": "optim",
    "peft": "adapter",
    "per_device_train_batch_size": "effective_batch_size",
    "r": "rank",
    "scheduler": "lr_scheduler_type",
    "set": "overrides",
    "train_batch_size": "effective_batch_size",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known names are nearest to `name`, or list them when none is near."""
    known = sorted(known)
    elsewhere = CALLED_ELSEWHERE.get(name)
    if elsewhere in known:
        return f"did you mean {elsewhere!r}?"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(match) for match in near)}?"
    return f"known: {', '.join(known)}" if known else "none is known"


def counted(count: int, thing: str) -> str:
    """Such as `1 seed` and `2 seeds`."""
    return f"{count} {thing}{'s' * (count != 1)}"


def first_line(said: Exception | str) -> str:
    """The first line of an error or of its text, with the next where it only announces that one by a colon.

    An error that says nothing is told by its type.
    """
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    if not lines:
        return "no reason given" if isinstance(said, str) else type(said).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def first_clause(said: Exception | str) -> str:
    """The same without a full stop, to go on from or to put into brackets."""
    return first_line(said).rstrip(".")
