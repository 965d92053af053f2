"""Learning curves of a run, as a picture."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ocl_bench.errors import OclBenchError, counted
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.files import read_json_lines
from ocl_bench.report.figures import PAGE, SUBSETS, figure
from ocl_bench.runner.cells import stage_folder
from ocl_bench.runner.manifest import RunConfig, read_manifest
from ocl_bench.score.statistics import over_seeds
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.subsets import ASKED, SWAPPED

# Subsets trained in X1 are dashed, those of X2 solid, those of X0 dash-dotted, those never trained on dotted, as
# questions about swapped variables are.
STYLES = {"x0": "-.", "x1": "--", "x2": "-", "test": ":"}


def plot_run(folder: Path, path: Path | None = None) -> Path:
    """Draw the run's learning curves: choice, or where nothing is chosen em_forced, of each subset by epoch.

    One panel a stage, mean and 95 % interval.

    Args:
        folder: a run folder.
        path: the picture, `curves.png` in the run folder if None; its ending decides the format.

    Raises:
        OclBenchError: if the run recorded no curves.
    """
    config = read_manifest(folder).config
    points = _read_points(folder, config)
    chosen = all(point.choice is not None for _, point in points)
    curves = _curves(points, chosen)
    path = path or folder / "curves.png"
    stages = [stage.name for stage in config.task.stages]
    shown = [name for name in ASKED if any((stage, name) in curves for stage in stages)]
    levels = chance_levels(config.task)
    least = 1 / (config.task.evaluate.options or 2) if chosen else 0.0
    chance = fmean([max(level, least) for (kind, _), level in levels.items() if kind == "qa"] or levels.values())
    with figure(path, PAGE, 2.4, _rows(curves)) as drawn:
        axes = drawn.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        for axis, stage in zip(axes, stages, strict=True):
            for subset in (name for name in shown if (stage, name) in curves):
                _draw(axis, subset, curves[stage, subset])
            axis.axhline(chance, color="black", linewidth=0.8, linestyle=(0, (1, 3)), label="chance")
            axis.set(title=f"stage {stage}", xlabel="epoch", ylim=(0, 1))
        axes[0].set_ylabel("choice" if chosen else "exact match (teacher-forced)")
        pairs = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes)
        handles = {label: handle for own in pairs for handle, label in own}
        order = sorted(handles, key=[*shown, "chance"].index)
        drawn.legend([handles[label] for label in order], order, loc="outside right center")
        seeds = counted(len(config.seeds), "seed")
        band = ", mean and 95 % interval" if len(config.seeds) > 1 else ""
        drawn.suptitle(f"{config.task.task} · {config.model.name} · {seeds}{band}")
    return path


# subset's curve: epoch → seed → values of its stage-2 seeds
Curve = dict[int, dict[int, list[float]]]


def _read_points(folder: Path, config: RunConfig) -> list[tuple[int, CurvePoint]]:
    """Every point with the seed that it is of."""
    points: list[tuple[int, CurvePoint]] = []
    for cell in config.cells:
        for stage in cell.owned(config.task):
            path = stage_folder(folder, cell, stage.name) / "curve.jsonl"
            for number, row in enumerate(read_json_lines(path) if path.is_file() else (), start=1):
                points.append((cell.seed, CurvePoint.parse(row, f"{path} line {number}")))
    if not points and (folder / "submission.json").is_file():
        raise OclBenchError(
            f"{folder}: a submission's curves are on its page; make it with `ocl-bench leaderboard build`."
        )
    if not points:
        why = "no stage is done yet" if config.curves else "it was run with --no_curves"
        raise OclBenchError(f"{folder}: there are no learning curves ({why}).")
    return points


def _curves(points: Sequence[tuple[int, CurvePoint]], chosen: bool) -> dict[tuple[str, str], Curve]:
    curves: dict[tuple[str, str], Curve] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for seed, point in points:
        value = point.choice if chosen else point.em_forced
        assert value is not None
        curves[point.stage, point.subset][point.epoch][seed].append(value)
    return curves


def _rows(curves: Mapping[tuple[str, str], Curve]) -> list[dict[str, Any]]:
    """Every point drawn."""
    rows = []
    for (stage, subset), curve in curves.items():
        for epoch, by_seed in sorted(curve.items()):
            means = [fmean(values) for values in by_seed.values()]
            low, high = over_seeds(means).ci95 if len(means) > 1 else (None, None)
            row = {"stage": stage, "subset": subset, "epoch": epoch, "mean": fmean(means), "low": low, "high": high}
            rows.append({**row, "seeds": len(means)})
    return rows


def _draw(axis: Any, subset: str, curve: Curve) -> None:
    epochs = sorted(curve)
    per_seed = [[fmean(values) for values in curve[epoch].values()] for epoch in epochs]
    control = subset in {one.id for one in SWAPPED.values()}
    style = STYLES["test" if control else ASKED[subset].split]
    axis.plot(epochs, [fmean(values) for values in per_seed], style, color=SUBSETS[subset], label=subset)
    if epochs and not control and all(len(values) > 1 for values in per_seed):  # three more bands would hide the others
        intervals = [over_seeds(values).ci95 for values in per_seed]
        axis.fill_between(epochs, *zip(*intervals, strict=True), color=SUBSETS[subset], alpha=0.15, linewidth=0)
