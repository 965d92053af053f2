"""The toy world is as it says, its learners have their closed forms, and its command says what it did."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from sklearn.metrics.pairwise import rbf_kernel

from ocl_bench.toy.data import CIRCLE, NOTHING, SQUARE, TRIANGLE, Points, ToySettings, World, build_world, piecewise
from ocl_bench.toy.learners import RIDGE, WIDTH, AdaptiveRidge, Forest, Mlp, Neighbours, Ridge, leave_one_out
from ocl_bench.toy.run import ToyResults, run_toy

SMALL = ToySettings(clusters=10, anchors=12, dimensions=2, epochs=20, trees=3)
NAN = float("nan")


def with_other_values_in_x1(world: World) -> World:
    """The same points, of which those of X1 show values that have nothing to do with anything."""
    noise = np.random.default_rng(9).standard_normal(world.shown.y.shape)
    y = np.where(world.in_middle[:, None] | np.isnan(world.shown.y), world.shown.y, noise)
    return replace(world, shown=replace(world.shown, y=y))


def test_y_is_that_of_the_nearest_anchor() -> None:
    anchors, values = np.array([0.5, 0.1, 0.9]), np.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    x = np.array([0.0, 0.29, 0.31, 0.69, 0.71, 1.0])
    assert piecewise(anchors, values, x).tolist() == [[2, -2], [2, -2], [1, -1], [1, -1], [3, -3], [3, -3]]


def test_triangles_tell_y_and_squares_the_other_function_except_in_the_middle_where_both_tell_y() -> None:
    world = build_world(ToySettings(anchors=1), seed=0)  # y is the same everywhere, and so is the other function
    shown = world.shown
    y = world.questions.y[world.questions.asked == 0][0, 0]
    told = {
        (kind, middle): set(shown.y[(shown.kind == kind) & (world.in_middle == middle), 0].tolist())
        for kind in (TRIANGLE, SQUARE)
        for middle in (False, True)
    }
    assert told[TRIANGLE, False] == told[TRIANGLE, True] == told[SQUARE, True] == {y}
    assert told[SQUARE, False] == {world.other[world.questions.asked == 0][0]} != {y}
    assert not np.any((shown.kind == CIRCLE) & world.in_middle)


def test_a_circle_shows_one_dimension_and_the_one_held_back_in_x1_is_asked() -> None:
    world = build_world(SMALL, seed=1)
    circles = world.shown.kind == CIRCLE
    assert np.array_equal((~np.isnan(world.shown.y)).sum(axis=1), np.where(circles, 1, SMALL.dimensions))
    cluster = lambda points: np.floor(points.x * SMALL.clusters).astype(int)  # noqa: E731
    seen = set(zip(cluster(world.shown)[circles], world.shown.asked[circles], strict=True))
    asked = set(zip(cluster(world.questions), world.questions.asked, strict=True))
    assert not seen & asked and len(seen | asked) == SMALL.clusters * SMALL.dimensions
    assert {TRIANGLE, SQUARE, NOTHING, CIRCLE} == set(world.told_by.tolist())


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 1.0), (0.75, 0.75), (0.5, 0.5), (0.0, 0.0)])
def test_alpha_is_the_share_of_x1_clusters_whose_triangles_tell_y(alpha: float, share: float) -> None:
    world = build_world(ToySettings(anchors=1, alpha=alpha), seed=0)
    y = world.questions.y[world.questions.asked == 0][0, 0]
    of_x1 = world.shown.y[~world.in_middle & (world.shown.kind == TRIANGLE), 0]
    assert np.mean(of_x1 == y) == pytest.approx(share)
    of_x1 = world.shown.y[~world.in_middle & (world.shown.kind == SQUARE), 0]
    assert np.mean(of_x1 == y) == pytest.approx(1 - share)


def test_an_exchanged_world_differs_in_what_told_the_middle_alone() -> None:
    world = build_world(SMALL, seed=2)
    other = world.exchanged()
    assert np.array_equal(other.shown.kind != world.shown.kind, world.in_middle)
    assert np.array_equal(world.told_by == TRIANGLE, other.told_by == SQUARE)
    assert np.array_equal(other.exchanged().shown.kind, world.shown.kind)


def test_a_question_has_its_code_in_inputs_of_its_own_if_so_set() -> None:
    points = Points(np.array([CIRCLE, SQUARE]), np.array([1, -1]), np.array([0.5, 0.5]), np.full((2, 2), NAN))
    settings = ToySettings(dimensions=2, frequencies=2)
    kind, asked, code = points.encoded(settings)
    assert kind.tolist() == [[1, 0, 0], [0, 0, 1]] and asked.tolist() == [[0, 1], [0, 0]]
    assert code == pytest.approx(np.array([[1, 0, 0, -1]] * 2))
    own = points.encoded(settings.model_copy(update={"own_channel": True}))[2]
    assert own == pytest.approx(np.array([[0, 0, 0, 0, 1, 0, 0, -1], [1, 0, 0, -1, 0, 0, 0, 0]]))


def test_one_neighbour_gives_the_value_of_the_nearest_point() -> None:
    shown = Points(
        kind=np.array([TRIANGLE, SQUARE, CIRCLE]),
        asked=np.array([-1, -1, 0]),
        x=np.array([0.2, 0.8, 0.81]),
        y=np.array([[1.0, 10.0], [2.0, 20.0], [3.0, NAN]]),
    )
    asked = Points(np.array([CIRCLE, CIRCLE]), np.array([0, 1]), np.array([0.21, 0.82]), np.full((2, 2), NAN))
    learner = Neighbours(ToySettings(dimensions=2, frequencies=1, neighbours=1), seed=0)
    learner.fit(shown)
    # By hand: .82 is nearest to the circle at .81, which shows the first dimension alone; the second is the square's.
    # .21 is a cosine of .06 away from the triangle, and 1 by its kind; further from all others.
    assert learner.predict(asked).tolist() == [[1, 10], [3, 20]]


def test_kernel_ridge_is_the_solution_of_its_equations() -> None:
    world = build_world(SMALL, seed=3)
    learner = Ridge(SMALL, seed=0)
    learner.fit(world.shown)
    predicted = learner.predict(world.questions)
    inputs, asked = learner.inputs(world.shown), learner.inputs(world.questions)
    for dimension, y in enumerate(world.shown.y.T):
        rows = ~np.isnan(y)
        kernel = np.exp(-((inputs[rows][:, None] - inputs[rows]) ** 2).sum(axis=2) / (2 * WIDTH**2))
        solved = np.linalg.solve(kernel + RIDGE * np.eye(rows.sum()), y[rows])
        to_asked = np.exp(-((asked[:, None] - inputs[rows]) ** 2).sum(axis=2) / (2 * WIDTH**2))
        assert predicted[:, dimension] == pytest.approx(to_asked @ solved, abs=1e-8)


def test_the_closed_form_of_leaving_one_out_is_that_of_leaving_each_out() -> None:
    rng = np.random.default_rng(0)
    inputs, y = rng.standard_normal((12, 3)), rng.standard_normal(12)
    kernel = rbf_kernel(inputs, gamma=1 / (2 * WIDTH**2))
    expected = []
    for one in range(12):
        rest = np.arange(12) != one
        solved = np.linalg.solve(kernel[rest][:, rest] + RIDGE * np.eye(11), y[rest])
        expected.append(y[one] - kernel[one, rest] @ solved)
    assert leave_one_out(inputs, y) == pytest.approx(np.array(expected), abs=1e-10)


@pytest.mark.parametrize("learner", [Neighbours, Ridge])
def test_a_linear_smoother_weighs_definitions_without_looking_at_their_values(
    learner: type[Neighbours] | type[Ridge],
) -> None:
    """Its predictions are the sum of those that it makes of X1's values and of the middle's, whichever X1's are."""
    world = build_world(SMALL, seed=4)
    moved = []
    for one in (world, with_other_values_in_x1(world)):
        with_middle, without = learner(SMALL, seed=0), learner(SMALL, seed=0)
        with_middle.fit(one.shown)
        without.fit(replace(one.shown, y=np.where(one.in_middle[:, None], one.shown.y * 0, one.shown.y)))
        moved.append(with_middle.predict(one.questions) - without.predict(one.questions))
    assert moved[0] == pytest.approx(moved[1], abs=1e-8) and np.abs(moved[0]).max() > 0.1


@pytest.mark.parametrize("learner", [Mlp, Forest, AdaptiveRidge])
def test_the_others_weigh_definitions_by_what_x1_showed(
    learner: type[Mlp] | type[Forest] | type[AdaptiveRidge],
) -> None:
    world = build_world(SMALL, seed=4)
    predicted = []
    for one in (world, with_other_values_in_x1(world)):
        with_middle, without = learner(SMALL, seed=0), learner(SMALL, seed=0)
        with_middle.fit(one.shown)
        without.fit(replace(one.shown, y=np.where(one.in_middle[:, None], one.shown.y * 0, one.shown.y)))
        predicted.append(with_middle.predict(one.questions) - without.predict(one.questions))
    assert np.abs(predicted[0] - predicted[1]).max() > 0.1


def test_an_mlp_learns_what_it_is_shown_and_the_same_again() -> None:
    world = build_world(SMALL, seed=5)
    found = []
    for _ in range(2):
        learner = Mlp(SMALL.model_copy(update={"epochs": 150}), seed=1)
        learner.fit(world.shown)
        found.append(learner.predict(world.shown))
    assert np.nanmean((found[0] - world.shown.y) ** 2) < 0.05 * np.nanvar(world.shown.y)
    assert np.array_equal(*found)


def test_chance_is_the_variance_of_y_and_the_gap_is_paired_within_a_seed() -> None:
    results = run_toy(["neighbours"], 3, SMALL)
    for seed in range(3):
        world = build_world(SMALL, seed)
        truth = world.truth[world.told_by != CIRCLE]
        constants = [np.mean((truth - constant) ** 2) for constant in np.linspace(-2, 2, 401)]
        assert results.chance.per_seed[str(seed)] == pytest.approx(min(constants), abs=1e-4)
    one = results.learners["neighbours"]
    for seed, gap in one.meta_ocl_gap.per_seed.items():
        assert gap == pytest.approx(one.after_square.per_seed[seed] - one.after_triangle.per_seed[seed])


def test_with_alpha_0_squares_are_believed() -> None:
    settings = ToySettings(clusters=20, anchors=30, dimensions=2)
    gaps = [
        run_toy(["adaptive_ridge"], 3, settings.at(alpha)).learners["adaptive_ridge"].meta_ocl_gap.mean
        for alpha in (1.0, 0.0)
    ]
    assert gaps[0] > 0.2 and gaps[1] < -0.2


def test_the_effect_is_there_in_those_who_learn_whom_to_trust_and_not_in_those_who_cannot() -> None:
    settings = ToySettings(clusters=24, anchors=36, dimensions=2)
    results = run_toy(["mlp", "adaptive_ridge", "neighbours", "ridge"], 3, settings)
    gaps = {name: one.meta_ocl_gap.mean for name, one in results.learners.items()}
    assert gaps["mlp"] > 0.2 and gaps["adaptive_ridge"] > 0.2
    assert abs(gaps["neighbours"]) < 1e-9 and abs(gaps["ridge"]) < 0.05
    assert all(one.use.mean > 0.2 for one in results.learners.values())


def test_the_command_writes_results_and_a_figure_and_prints_a_table(tmp_path: Path) -> None:
    small = [word for pair in ("clusters=10", "dimensions=2", "epochs=2") for word in ("--set", pair)]
    done = call("toy", "--learners", "mlp,neighbours", "--seeds", "2", *small, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {"toy.json", "toy.png"}
    results = ToyResults.model_validate_json((tmp_path / "toy" / "toy.json").read_text())
    assert list(results.learners) == ["mlp", "neighbours"] and results.settings.clusters == 10
    assert "meta_ocl_gap [95 %]" in done.stdout and "best constant" in done.stdout
    alone = call("toy", "--learners", "ridge", "--seeds", "7,", *small, "--output_path", "one", folder=tmp_path)
    assert alone.returncode == 0 and "–" in alone.stdout  # no interval and no p for a single seed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "mpl"], "--learners: unknown learner 'mpl'; did you mean 'mlp'"),
        (["--learners", ","], "name at least one of mlp"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "x"], "--seeds: 'x' is not a number"),
        (["--set", "dimensions=0"], "dimensions: input should be greater than or equal to 2, got 0"),
        (["--set", "dimension=3"], "did you mean 'dimensions'"),
        (["--set", "alpha"], "write it as key=value"),
        (["--output_path", "/proc/none"], "choose another with --output_path"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = call("toy", *arguments, folder=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and list(tmp_path.iterdir()) == []
