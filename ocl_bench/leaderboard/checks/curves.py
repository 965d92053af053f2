"""Learning curves are of the questions that a run shows, and end where the samples are."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from ocl_bench.evaluate.curve import CurvePoint, curve_epochs
from ocl_bench.leaderboard.checks.consistency import ends_at_samples, is_possible, wrong_losses
from ocl_bench.leaderboard.checks.data import Dataset
from ocl_bench.leaderboard.checks.reading import Checked, few
from ocl_bench.leaderboard.submission import CURVES
from ocl_bench.leaderboard.untrusted import Problem, Unreadable, parse_json_lines, printable
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.samples import Sample
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

MAX_POINTS = 20_000  # of all cells together; `attributes` has 1225


def check_curves(
    checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset], contents: Mapping[str, bytes]
) -> None:
    """Curves are of the questions that a run shows, and end where the samples are."""
    left, task = MAX_POINTS, manifest.config.task
    wanted = {cell: _shown(datasets[cell], task, cell) for cell in manifest.config.cells}
    by_cell = _at_ends(checked.samples, wanted)
    for cell, shown in wanted.items():
        name = f"{cell.name}/{CURVES}"
        if name not in contents:
            if manifest.config.curves and not any(problem.file == name for problem in checked.problems):
                checked.add(name, "", "is missing, though the run recorded curves")
            continue
        points = _points(checked, name, contents[name], left)
        left -= len(points)
        checked.curves[cell] = points
        _check_cell_curves(checked, name, points, shown, manifest, cell, by_cell[cell.seed, cell.stage2_seed])


def _shown(dataset: Dataset, task: Task, cell: Cell) -> dict[str, Sequence[Record]]:
    """Stage → the questions that its curve is of."""
    per_subset = task.evaluate.curve_questions
    asked = {stage.name: dataset.asked_after(task, stage.name, None, cell.seed) for stage in cell.owned(task)}
    return {stage: questions.in_curves(per_subset) for stage, questions in asked.items()}


def _at_ends(
    samples: Iterable[Sample], wanted: Mapping[Cell, Mapping[str, Sequence[Record]]]
) -> dict[tuple[int, int], dict[tuple[str, str], Sample]]:
    """Seeds → stage and question → its sample, of the questions that curves are of."""
    ids = {one.id for shown in wanted.values() for records in shown.values() for one in records}
    found: dict[tuple[int, int], dict[tuple[str, str], Sample]] = defaultdict(dict)
    for sample in samples:
        if sample.record.id in ids:
            found[sample.seed, sample.stage2_seed][sample.stage, sample.record.id] = sample
    return found


def _points(checked: Checked, name: str, content: bytes, most: int) -> list[CurvePoint]:
    points = []
    try:
        for number, row in parse_json_lines(content, most):
            try:
                points.append(CurvePoint.model_validate(row, strict=True))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                checked.add(name, f"line {number}: {printable('.'.join(map(str, first['loc'])))}", first["msg"])
                break
    except Unreadable as error:
        checked.add(name, "", str(error))
    return points


def _check_cell_curves(
    checked: Checked,
    name: str,
    points: Sequence[CurvePoint],
    shown: Mapping[str, Sequence[Record]],
    manifest: Manifest,
    cell: Cell,
    samples: Mapping[tuple[str, str], Sample],
) -> None:
    asked: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for stage, records in shown.items():
        for record in records:
            asked[stage, record.subset, record.set].append(record)
    wrong: list[Problem] = []
    seen = Counter((point.stage, point.epoch, point.subset, point.set) for point in points)
    epochs = dict(
        zip((stage.name for stage in manifest.config.task.stages), manifest.config.recipe.epochs, strict=False)
    )
    for point in points:
        where = printable(f"{point.stage} epoch {point.epoch} {point.subset}")
        own = asked.get((point.stage, point.subset, point.set), [])
        fits = point.stage in shown and point.epoch in curve_epochs(epochs.get(point.stage, 1)) and point.n == len(own)
        if not fits or seen[point.stage, point.epoch, point.subset, point.set] > 1:
            wrong.append(Problem(name, where, "is not a point of this run's learning curves"))
        elif not is_possible(point):
            wrong.append(Problem(name, where, "no model has this em_forced with this logprob"))
        elif point.epoch == epochs[point.stage]:
            at_end = [samples[point.stage, record.id] for record in own if (point.stage, record.id) in samples]
            if len(at_end) == len(own) and not ends_at_samples(point, at_end, manifest, cell):
                wrong.append(Problem(name, where, "the curve does not end where the samples are"))
    expected = {(stage, epoch) for stage in shown for epoch in curve_epochs(epochs.get(stage, 1))}
    for stage, epoch in sorted(expected):
        for subset, of in dict.fromkeys((record.subset, record.set) for record in shown[stage]):
            if (stage, epoch, subset, of) not in seen:
                wrong.append(Problem(name, f"{stage} epoch {epoch} {subset}", "is missing from the learning curve"))
    wrong += wrong_losses(name, points, manifest, cell)
    checked.problems += few(name, wrong)
