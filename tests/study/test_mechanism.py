"""A study of mechanisms says what goes before the gap, and beside it: real runs, and numbers known by hand."""

from pathlib import Path
from typing import Any

import pytest
from conftest import call

from ocl_bench.study.mechanism import AtPoint, findings, within_points
from ocl_bench.study.run import StudyResults, read_study_results

OWN = """
study: inside
description: two batch sizes
paper: nothing
axis: batch
scratch:
  task: attributes
  model: "scratch:tiny-16"
  set:
    - source_args.num_entities=120
    - recipe.epochs=[2, 2]
    - 'evaluate.probes={positions: [definition/variable, question/variable], folds: 2, shuffles: 1}'
    - 'evaluate.gradients={variables: 4, batch: 4}'
points:
  - {label: "64"}
  - {label: "32", set: [recipe.effective_batch_size=32]}
figure: mechanism
"""
ALIGNMENT, X1_PROBE, X2_PROBE = (
    "alignment before X2, d1 - d2",
    "probe, d1_cons_qa / d2_incons_qa",
    "probe, d1_cons / d2_cons",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: Any) -> tuple[StudyResults, str, Path]:
    """A study that was run, what it printed, and its figure."""
    folder: Path = tmp_path_factory.mktemp("inside")
    (folder / "studies").mkdir()
    (folder / "studies" / "inside.yaml").write_text(OWN)
    paths = ["--include_path", folder, "--output_path", folder / "out", "--runs_path", folder / "runs"]
    done = call("study", "inside", "--seeds", "3", *paths, folder=folder)
    assert done.returncode == 0, done.stderr
    return read_study_results(folder / "out" / "inside.json"), done.stdout, folder / "out" / "inside.png"


def test_alignment_is_taken_before_x2_and_probes_at_the_end_where_no_tag_is_in_sight(
    study: tuple[StudyResults, str, Path],
) -> None:
    results = study[0]
    found = {one.predictor.name: one for one in findings(results)}
    assert list(found) == [ALIGNMENT, X1_PROBE, X2_PROBE]
    for place, point in enumerate(results.points):
        before = next(one for one in point.results.gradients if one.stage == "x1")
        assert found[ALIGNMENT].points[place].per_seed == before.gaps["meta_ocl_gap"]["alignment"].per_seed
        assert found[ALIGNMENT].points[place].gap == point.results.gaps["meta_ocl_gap"]["choice"].per_seed
        layers = [
            one.per_seed["1"]
            for one in point.results.probes
            if (one.stage, one.position) == ("x2", "question/variable") and one.contrast == ("d1_cons", "d2_cons")
        ]
        assert len(layers) == 2
        assert found[X2_PROBE].points[place].per_seed["1"] == pytest.approx(sum(layers) / 2)


def test_the_study_prints_what_goes_before_the_gap_and_draws_it(study: tuple[StudyResults, str, Path]) -> None:
    _, printed, figure = study
    for name in (ALIGNMENT, X1_PROBE, X2_PROBE):
        lines = [line for line in printed.splitlines() if line.startswith(name)]
        assert len(lines) == 4, "two points, the last less the first, and the correlation"
    assert "r with the gap" in printed and "last - first" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_points_without_an_order_have_no_first_and_last(study: tuple[StudyResults, str, Path]) -> None:
    results = study[0]
    unordered = results.model_copy(update={"study": results.study.model_copy(update={"ordered": False})})
    assert all(one.change is not None for one in findings(results))
    assert all(one.change is None for one in findings(unordered))


def _points(*rows: tuple[list[float], list[float]]) -> list[AtPoint]:
    return [
        AtPoint(str(number), None, None, dict(zip("abcdef", x, strict=False)), dict(zip("abcdef", y, strict=False)))
        for number, (x, y) in enumerate(rows)
    ]


def test_the_correlation_is_of_seeds_within_points() -> None:
    # Over all six the two fall together; within each point one rises where the other falls.
    falling = _points(([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]), ([11.0, 12.0, 13.0], [13.0, 12.0, 11.0]))
    found = within_points(falling)
    assert found is not None and found[0] == pytest.approx(-1)
    mixed = within_points(_points(([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])))
    assert mixed is not None and mixed[0] == pytest.approx(0)


def test_the_interval_of_the_correlation_is_over_seeds() -> None:
    x, y = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.9, 2.3, 2.8, 4.1, 5.2]
    once, thrice = within_points(_points((x, y))), within_points(_points((x, y), (x, y), (x, y)))
    assert once is not None and thrice is not None
    assert once[0] == pytest.approx(thrice[0])
    assert once[1] == pytest.approx(thrice[1]), "the same seeds at more points are no more seeds"
    assert once[1][0] < once[0] <= once[1][1]


def test_what_does_not_vary_or_is_of_two_seeds_has_no_correlation() -> None:
    assert within_points(_points(([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))) is None
    assert within_points(_points(([1.0, 2.0], [1.0, 2.0]))) is None
