"""General ability: what a model scores on tasks of lm-eval, before and after finetuning."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError, did_you_mean, first_clause
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Wanted

BATCH_SIZE = 32
# Draws for the standard error of metrics that are no mean.
BOOTSTRAP_DRAWS = 1000


class AbilityScore(Contract):
    """One metric of one task of lm-eval."""

    when: Literal["before", "after"] = Field(description="before the first stage, or after the last")
    task: str = Field(description="lm-eval's name of the task")
    version: str = Field(description="the task's version")
    metric: str = Field(description="the metric, and after a comma its filter, as lm-eval names them")
    value: float = Field(description="the score")
    stderr: float | None = Field(description="its standard error over questions; null where lm-eval gives none")
    n: int = Field(description="questions")


class LmEvalEvaluator:
    """Asks tasks of lm-eval before the first stage and after the last: its rows are scores.

    Args:
        wanted: what the run asks.
    """

    name = "lm_eval"
    row = AbilityScore
    summary = "ocl_bench.score.ability:summarise"

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    @classmethod
    def of(cls, wanted: Wanted) -> "LmEvalEvaluator | None":
        """Nothing if no task is named."""
        return cls(wanted) if wanted.lm_eval_tasks else None

    def asks(self, moment: Moment) -> bool:
        """Before the first stage and after the last."""
        return moment.when == "before" or (moment.when == "after" and moment.last)

    def settings(self, moment: Moment) -> dict[str, Any]:
        """The tasks, how many questions, and the tokenizer that reads them."""
        wanted = self.wanted
        return {
            "tasks": list(wanted.lm_eval_tasks),
            "limit": wanted.limit,
            "tokenizer": wanted.tokenizer,
            "when": moment.when,
        }

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """Score the model."""
        when: Literal["before", "after"] = "before" if moment.when == "before" else "after"
        names, folders = self.wanted.lm_eval_tasks, self.wanted.lm_eval_path
        return Found(measure_ability(loaded.model, loaded.tokenizer, when, names, folders, self.wanted.limit))


def _index(folders: list[str], defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folders, include_defaults=defaults, verbosity="ERROR")


@cache
def _own_index(defaults: bool) -> Any:
    return _index([], defaults)


def task_manager(names: Sequence[str], include_path: Sequence[Path]) -> Any:
    """lm-eval's index of tasks. Its own thousands are read only if a name is not in `include_path`.

    Raises:
        OclBenchError: for a name that is nowhere.
    """
    folders = [str(folder) for folder in include_path]
    for defaults in (False, True):
        manager = _index(folders, defaults) if folders else _own_index(defaults)
        unknown = [name for name in names if not manager.match_tasks([name])]
        if not unknown:
            return manager
    near = did_you_mean(unknown[0], manager.all_tasks)
    raise OclBenchError(f"--also_tasks: lm-eval has no task '{unknown[0]}'; {near}")


def require_tasks(names: Sequence[str], include_path: Sequence[Path]) -> None:
    """Load what tasks ask, which is kept for later.

    Raises:
        OclBenchError: for a name that is nowhere, or data that cannot be had.
    """
    from ocl_bench.models.hub import cache_if_unreachable

    manager = task_manager(names, include_path)
    with cache_if_unreachable() as unreachable:
        for name in names:
            try:
                manager.load([name])
            except Exception as error:  # a task may be made of anything
                reason = unreachable or first_clause(error)
                raise OclBenchError(
                    f"--also_tasks: what lm-eval's '{name}' asks cannot be loaded ({reason})."
                ) from None


def measure_ability(
    model: Any,
    tokenizer: Any,
    when: Literal["before", "after"],
    names: Sequence[str],
    include_path: Sequence[Path],
    limit: int | None,
) -> list[AbilityScore]:
    """Score a transformers model, where it is and in its dtype, on tasks of lm-eval.

    Args:
        model: a causal or seq2seq model in eval mode.
        names: tasks, groups and tags of lm-eval.
        include_path: folders with further ones.
        limit: questions per task.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE)
    found = simple_evaluate(
        wrapped,
        tasks=list(names),
        task_manager=task_manager(names, include_path),
        limit=limit,
        bootstrap_iters=BOOTSTRAP_DRAWS,
        log_samples=False,
        # Seeds are training's: a run is the same with and without these tasks.
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
    )
    assert found is not None
    scores = []
    for task, counts in found["n-samples"].items():
        values = found["results"][task]
        for metric, value in values.items():
            if not isinstance(value, float) or "_stderr," in metric:
                continue
            stderr = values.get(metric.replace(",", "_stderr,", 1))
            scores.append(
                AbilityScore(
                    when=when,
                    task=task,
                    version=str(found["versions"].get(task)),
                    metric=metric.removesuffix(",none"),
                    value=value,
                    stderr=stderr if isinstance(stderr, float) else None,
                    n=counts["effective"],
                )
            )
    return scores
