"""Commands that go on from a run: what to run next, and what runs the same again from a manifest alone."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ocl_bench.finetune.recipe import load_recipe, recipe_files
from ocl_bench.runner.manifest import RunConfig
from ocl_bench.runner.plan import default_recipe
from ocl_bench.runner.request import MAX_SEEDS, RunRequest, command_line
from ocl_bench.tasks.load import load_task, task_files

PRETRAINED, PRETRAINED_TASK = "EleutherAI/pythia-70m-deduped", "cvdb"


def next_run(request: RunRequest, config: RunConfig) -> tuple[str, str]:
    """What to run next, and why.

    A limited run is asked all questions, whose training is there; one of few seeds is given the standard ones; from
    random weights one goes on to trained ones, and else to twice as many seeds. All else stays as it was given, but
    that nothing is trained anew, and that a task's or recipe's own keys are no other's.

    Args:
        request: of the run.
        config: what was made of it.
    """
    kept = {name: getattr(request, name) for name in request.model_fields_set - {"fresh", "limit"}}

    def again(**changed: Any) -> str:
        return command_line(RunRequest.from_options(**{**kept, **changed}))

    standard, seeds = config.task.standard_seeds, config.seeds
    if request.limit is not None:
        return again(), "all questions; what is trained is there"
    if len(seeds) < len(standard):
        return again(seeds=standard), "the task's standard seeds"
    if config.model.source == "scratch" and not config.modified and config.task.design.picture is None:
        other = {"model": PRETRAINED, "task": PRETRAINED_TASK, "output_path": kept.get("output_path")}
        if len(load_task(PRETRAINED_TASK).standard_seeds) < len(seeds):
            other["seeds"] = seeds
        given = {name: value for name, value in other.items() if value is not None}
        return command_line(RunRequest.from_options(**given)), "a pretrained model"
    return again(seeds=_twice(seeds)), "narrower intervals"


def _twice(seeds: Sequence[int]) -> list[int]:
    """The same seeds, and as many further ones."""
    further = (number for number in range(2 * MAX_SEEDS) if number not in seeds)
    count = min(len(seeds), MAX_SEEDS - len(seeds))
    return [*seeds, *(next(further) for _ in range(count))]


def same_run(config: RunConfig, model: str, revision: str | None) -> str | None:
    """The command that runs the same, whatever files it was given; None if its task or recipe is not the suite's now.

    Args:
        config: of the run.
        model: what to pass as `--model`.
        revision: of a hub model.
    """
    task, recipe = config.task, config.recipe
    if task.task not in task_files() or recipe.recipe not in recipe_files():
        return None
    suites = load_task(task.task)
    if suites.version != task.version:
        return None
    sets = [*_differences(suites.model_dump(mode="json"), task.model_dump(mode="json"))]
    own = load_recipe(recipe.recipe).model_dump(mode="json")
    sets += [f"recipe.{one}" for one in _differences(own, recipe.model_dump(mode="json"))]
    args = config.model.args.model_copy(update={"revision": revision} if revision else {})
    fields: dict[str, Any] = {"model": model, "task": task.task, "seeds": config.seeds}
    if recipe.recipe != default_recipe(config.model, task):
        fields["recipe"] = recipe.recipe
    given = {
        "model_args": args if args.model_dump(exclude_defaults=True) else None,
        "overrides": sets,
        "stage2_seeds": config.stage2_seeds if config.stage2_seeds != (0,) else None,
        "own_x0": config.own_x0,
        "limit": config.limit,
    }
    return command_line(RunRequest.from_options(**fields, **{name: value for name, value in given.items() if value}))


def _differences(own: dict[str, Any], other: dict[str, Any], before: str = "") -> Iterator[str]:
    """What `--set` makes the other of the suite's own, of what JSON holds."""
    for key in {**own, **other}:
        old, new = own.get(key), other.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{before}{key}.")
        elif old != new:
            yield f"{before}{key}={json.dumps(new)}"
