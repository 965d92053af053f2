"""Heat maps of what probes read, layer by position."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.probes import kind_of
from ocl_bench.report.figures import PAGE, SEQUENTIAL, figure
from ocl_bench.runner.folder import read_results
from ocl_bench.score.probes import CHANCE, ORDER, ProbeScore
from ocl_bench.score.result import Results
from ocl_bench.tasks.mechanisms import Position

ROW = 1.6  # inches, so that letters can be read
MOST_TICKS = 9


def plot_probes(folder: Path, path: Path | None = None) -> Path:
    """Draw what a run's probes read; see `draw_probes`.

    Args:
        folder: a run folder.
        path: the picture, `probes.png` in the run folder if None; its ending decides the format.

    Raises:
        OclBenchError: if the run has no probes.
    """
    results = read_results(folder)
    if not results.probes:
        raise OclBenchError(f"{folder}: the run has no probes; run it with --set evaluate.probes=true.")
    return draw_probes(results, path or folder / "probes.png")


def draw_probes(results: Results, path: Path) -> Path:
    """Draw what probes read: a panel for each contrast and stage, accuracy by layer and position.

    A dot is in cells whose 95 % interval lies outside the chance band.

    Args:
        results: with probes.
        path: the picture; its ending decides the format.

    Raises:
        OclBenchError: if it cannot be written.
    """
    contrasts = list(dict.fromkeys(one.contrast for one in results.probes))
    stages = list(dict.fromkeys(one.stage for one in results.probes))
    positions = [one for one in ORDER if any(one == score.position for score in results.probes)]
    with figure(path, PAGE, ROW * len(contrasts) + 1.0, _rows(results)) as drawn:
        axes = drawn.subplots(len(contrasts), len(stages), squeeze=False, sharex=True, sharey=True)
        for row, contrast in zip(axes, contrasts, strict=True):
            for axis, stage in zip(row, stages, strict=True):
                own = [one for one in results.probes if (one.contrast, one.stage) == (contrast, stage)]
                image = _draw(axis, own, positions)
                axis.set_title(f"{' | '.join(contrast)}\nafter {stage}, chance {_chance(own)}")
            row[0].set_ylabel("layer")
        for axis in axes[-1]:
            _name_texts(axis, positions)
        bar = drawn.colorbar(image, ax=axes, extend="min", shrink=0.8, aspect=30)
        bar.set_label("balanced accuracy")
        bar.outline.set_visible(False)
        count = results.probes[0].seeds
        seeds = f"{count} seed{'s' if count > 1 else ''}"
        drawn.suptitle(f"{results.task} · {results.model} · {seeds}; dots: outside chance")
    return path


def _rows(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "contrast": " | ".join(one.contrast),
            "stage": one.stage,
            "position": one.position,
            "layer": one.layer,
            "mean": one.mean,
            "low": one.ci95[0],
            "high": one.ci95[1],
            "chance_low": one.chance_band[0],
            "chance_high": one.chance_band[1],
            "seeds": one.seeds,
        }
        for one in results.probes
    ]


def _chance(scores: Sequence[ProbeScore]) -> str:
    """The widest chance band of a panel."""
    return f"{CHANCE:.2f} ± {max(one.chance_band[1] for one in scores) - CHANCE:.2f}".replace("0.", ".")


def _draw(axis: Any, scores: Sequence[ProbeScore], positions: Sequence[Position]) -> Any:
    import numpy as np

    layers = sorted({one.layer for one in scores})
    means = np.full((len(layers), len(positions)), np.nan)
    for one in scores:
        row, column = layers.index(one.layer), positions.index(one.position)
        means[row, column] = one.mean
        if one.apart:
            axis.plot(column, row, "o", color="black" if one.mean > 0.75 else "white", markersize=2.5)
    image = axis.imshow(means, cmap=SEQUENTIAL, vmin=CHANCE, vmax=1, origin="lower", aspect="auto")
    every = -(-len(layers) // MOST_TICKS)
    axis.set_yticks(range(0, len(layers), every), layers[::every])
    axis.set_xticks(range(len(positions)), [one.partition("/")[2] for one in positions], rotation=40, ha="right")
    axis.tick_params(length=2, pad=1)
    axis.spines[:].set_visible(False)
    for column in range(1, len(positions)):
        if kind_of(positions[column]) != kind_of(positions[column - 1]):
            axis.axvline(column - 0.5, color="white", linewidth=1.5)
    return image


def _name_texts(axis: Any, positions: Sequence[Position]) -> None:
    """Below the positions, say what they are in."""
    texts = [one.partition("/")[0] for one in positions]
    for text in dict.fromkeys(texts):
        middle = texts.index(text) + (texts.count(text) - 1) / 2
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axis.annotate(text, (middle, 0), (0, -33), ha="center", va="top", **place)
