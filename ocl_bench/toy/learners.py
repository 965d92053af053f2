"""Those who learn the toy world: by gradient descent, by splitting, by distance.

A kernel machine with a fixed kernel and nearest neighbours are *linear smoothers*: a prediction is a weighted sum of
the values shown, and the weights depend on where points are, and not on their values. Which kind is reliable is in the
values alone. So neither can trust one kind more than another, whatever X1 shows: they are the null of this study.
`adaptive_ridge` is the same kernel machine with two numbers fitted to values: how near triangles and squares are to
circles.
"""

from typing import Any, Protocol

import numpy as np

from ocl_bench.registry import Registry
from ocl_bench.toy.data import CIRCLE, SQUARE, TRIANGLE, Floats, Points, ToySettings

WIDTH = 1.0  # of the kernel, in units of the code of x
RIDGE = 0.1  # λ
APART = 1.0  # how far a definition is from a circle at the same x, in the same units
TRIED = [
    (triangle, square) for triangle in (0.25, 1.0, 4.0) for square in (0.25, 1.0, 4.0)
]  # of which adaptive_ridge chooses


class Learner(Protocol):
    """Learns points and predicts."""

    def __init__(self, settings: ToySettings, seed: int) -> None: ...

    def fit(self, points: Points) -> None:
        """Learn from `points`, whose `y` is NaN where it is not shown."""

    def predict(self, points: Points) -> Floats:
        """All dimensions of y, of shape (n, dimensions)."""


LEARNERS = Registry(
    "learner",
    {
        "mlp": "ocl_bench.toy.learners:Mlp",
        "forest": "ocl_bench.toy.learners:Forest",
        "neighbours": "ocl_bench.toy.learners:Neighbours",
        "ridge": "ocl_bench.toy.learners:Ridge",
        "adaptive_ridge": "ocl_bench.toy.learners:AdaptiveRidge",
    },
)


class Mlp:
    """A multilayer perceptron with an output for each dimension, by AdamW on the squared error of what is shown."""

    def __init__(self, settings: ToySettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def fit(self, points: Points) -> None:
        import torch
        from torch import nn

        settings = self.settings
        inputs = self._inputs(points)
        shown = torch.from_numpy(~np.isnan(points.y)).float()
        targets = torch.from_numpy(np.nan_to_num(points.y)).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layers: list[nn.Module] = []
            width = inputs.shape[1]
            for _ in range(settings.layers):
                layers += [nn.Linear(width, settings.width), nn.ReLU()]
                width = settings.width
            self.network = nn.Sequential(*layers, nn.Linear(width, settings.dimensions))
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate, fused=True)
            for _ in range(settings.epochs):
                order = torch.randperm(len(inputs))
                for begin in range(0, len(order), settings.batch_size):
                    batch = order[begin : begin + settings.batch_size]
                    errors = (self.network(inputs[batch]) - targets[batch]).square() * shown[batch]
                    optimizer.zero_grad()
                    (errors.sum() / shown[batch].sum()).backward()
                    optimizer.step()

    def predict(self, points: Points) -> Floats:
        import torch

        with torch.no_grad():
            found: Floats = self.network(self._inputs(points)).double().numpy()
        return found

    def _inputs(self, points: Points) -> Any:
        import torch

        return torch.from_numpy(np.concatenate(points.encoded(self.settings), axis=1)).float()


class _EachDimension:
    """A regression for each dimension, of all points that show it. Which one a circle asks about is then no input."""

    def __init__(self, settings: ToySettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def regression(self) -> Any:
        """A regression of one value, as scikit-learn has them."""
        raise NotImplementedError

    def inputs(self, points: Points) -> Floats:
        """Kind and code of x, of shape (n, features)."""
        kind, _, code = points.encoded(self.settings)
        return np.concatenate([kind[:, [TRIANGLE, SQUARE]] * APART, code], axis=1)

    def fit(self, points: Points) -> None:
        inputs = self.inputs(points)
        self.regressions = []
        for y in points.y.T:
            shown = ~np.isnan(y)
            self.regressions.append(self.regression().fit(inputs[shown], y[shown]))

    def predict(self, points: Points) -> Floats:
        inputs = self.inputs(points)
        return np.stack([one.predict(inputs) for one in self.regressions], axis=1)


class Forest(_EachDimension):
    """A random forest for each dimension."""

    def regression(self) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(self.settings.trees, random_state=self.seed)


class Neighbours(_EachDimension):
    """The mean of the k nearest points, for each dimension."""

    def regression(self) -> Any:
        from sklearn.neighbors import KNeighborsRegressor

        return KNeighborsRegressor(self.settings.neighbours)


class Ridge(_EachDimension):
    """Kernel ridge regression with a Gaussian kernel, for each dimension."""

    def regression(self) -> Any:
        from sklearn.kernel_ridge import KernelRidge

        return KernelRidge(alpha=RIDGE, kernel="rbf", gamma=1 / (2 * WIDTH**2))


class AdaptiveRidge(Ridge):
    """The same, but the distances of triangles and of squares from circles are chosen by the circles shown.

    Of a grid, those with the least leave-one-out error of circles. No test question is looked at.
    """

    apart = (APART, APART)

    def inputs(self, points: Points) -> Floats:
        kind, _, code = points.encoded(self.settings)
        return np.concatenate([kind[:, [TRIANGLE, SQUARE]] * self.apart, code], axis=1)

    def fit(self, points: Points) -> None:
        self.apart = min(TRIED, key=lambda apart: self._error(points, apart))
        super().fit(points)

    def _error(self, points: Points, apart: tuple[float, float]) -> float:
        self.apart = apart
        inputs, squares = self.inputs(points), []
        for y in points.y.T:
            shown = ~np.isnan(y)
            errors = leave_one_out(inputs[shown], y[shown])
            squares.append(errors[points.kind[shown] == CIRCLE] ** 2)
        return float(np.mean(np.concatenate(squares)))


def leave_one_out(inputs: Floats, y: Floats) -> Floats:
    """Error of kernel ridge on each point when it alone is left out, of shape (n,).

    In closed form: with A = K + λI and α = A⁻¹y, that of point i is αᵢ / (A⁻¹)ᵢᵢ.
    """
    from scipy.linalg.lapack import dtrtri
    from sklearn.metrics.pairwise import rbf_kernel

    kernel = rbf_kernel(inputs, gamma=1 / (2 * WIDTH**2)) + RIDGE * np.eye(len(inputs))
    root = dtrtri(np.linalg.cholesky(kernel), lower=1)[0]  # A⁻¹ = rootᵀ root, whose diagonal needs no product
    errors: Floats = root.T @ (root @ y) / np.einsum("ij,ij->j", root, root)
    return errors
