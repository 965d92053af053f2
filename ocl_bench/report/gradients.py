"""How gradients of definitions are aligned with those of questions, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.report.figures import PAGE, figure
from ocl_bench.report.figures import SUBSETS as SUBSET_COLOURS
from ocl_bench.report.plots import STYLES
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import RunConfig, read_manifest
from ocl_bench.score.gradients import ALIGNMENT
from ocl_bench.score.result import GradientsAt, Results
from ocl_bench.tasks.subsets import SUBSETS

MARKERS = {"x1": "^", "x2": "o"}
APART = 0.012  # of a panel's width: subsets side by side, so that intervals can be told apart


def plot_gradients(folder: Path, path: Path | None = None) -> Path:
    """Draw how gradients of a run are aligned; see `draw_gradients`.

    Args:
        folder: a run folder.
        path: the picture, `gradients.png` in the run folder if None; its ending decides the format.

    Raises:
        OclBenchError: if the run has no gradients.
    """
    results = read_results(folder)
    if not results.gradients:
        raise OclBenchError(f"{folder}: the run has no gradients; run it with --set evaluate.gradients=true.")
    return draw_gradients(results, read_manifest(folder).config, path or folder / "gradients.png")


def draw_gradients(results: Results, config: RunConfig, path: Path) -> Path:
    """Draw the alignment of definitions with their questions: a panel a stage, each subset by epoch, with intervals.

    Args:
        results: with gradients.
        config: of the run that they are of.
        path: the picture; its ending decides the format.

    Raises:
        OclBenchError: if it cannot be written.
    """
    stages = list(dict.fromkeys(one.stage for one in results.gradients))
    with figure(path, PAGE, 2.6, _rows(results)) as drawn:
        axes = drawn.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        for axis, stage in zip(axes, stages, strict=True):
            _draw(axis, [one for one in results.gradients if one.stage == stage], _epochs(config, stage))
            axis.set_title(f"stage {stage}")
        axes[0].set_ylabel("alignment: cosine with own questions\nless that with another variable's")
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
        count = next(iter(results.gradients[0].batch.values())).seeds
        seeds = f"{count} seed{'s' if count > 1 else ''}"
        drawn.suptitle(f"{results.task} · {results.model} · {seeds}, mean and 95 % interval")
    return path


def _rows(results: Results) -> list[dict[str, Any]]:
    """The alignment of each subset at each moment; no epoch is after the stage."""
    rows = []
    for at in results.gradients:
        for subset, measured in at.subsets.items():
            one = measured[ALIGNMENT]
            low, high = one.ci95 or (None, None)
            rows.append(
                {"stage": at.stage, "epoch": at.epoch, "subset": subset, "mean": one.mean, "low": low, "high": high}
            )
    return rows


def _epochs(config: RunConfig, stage: str) -> int:
    number = [one.name for one in config.task.stages].index(stage)
    return config.recipe.of_stage(number).epochs


def _draw(axis: Any, moments: Sequence[GradientsAt], epochs: int) -> None:
    """Of the end of the last epoch and after the stage, which show the same weights, the latter."""
    shown = [one for one in moments if one.epoch != epochs]
    subsets = list(shown[0].subsets)
    for place, subset in enumerate(subsets):
        measured = [one.subsets[subset][ALIGNMENT] for one in shown]
        shift = (place - (len(subsets) - 1) / 2) * APART * epochs
        ends = [(max(0, one.mean - one.ci95[0]), max(0, one.ci95[1] - one.mean)) for one in measured if one.ci95]
        split = SUBSETS[subset].split
        axis.errorbar(
            [(epochs if one.epoch is None else one.epoch) + shift for one in shown],
            [one.mean for one in measured],
            yerr=list(zip(*ends, strict=True)),
            fmt=f"{MARKERS[split]}{STYLES[split]}", color=SUBSET_COLOURS[subset], label=subset, capsize=2,
            )  # fmt: skip
    axis.axhline(0, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    if len(shown) == 1:  # no course to be seen: the subsets side by side
        axis.set(xticks=[epochs], xticklabels=["end"], xlim=(epochs * (1 - 4 * APART), epochs * (1 + 4 * APART)))
    else:
        axis.set(xlabel="epoch", xlim=(1 - 0.06 * epochs, epochs * 1.06))
        axis.xaxis.get_major_locator().set_params(integer=True)
