"""The toy world of the paper's authors: points on a line, and definitions and questions about a function of them.

y(x) is piecewise constant between random anchors, and so is a second function, which false definitions tell. A *circle*
is a question: it shows one dimension of y at x. A *triangle* (definition 1) and a *square* (definition 2) show all of
them. Points lie in clusters. In X1, the outer clusters, circles show y, triangles tell y too, and squares tell the
other function. In X2, the middle ones, there are no circles, and whatever is there tells y.

Two things differ from the authors' toy. A middle cluster has triangles, or squares, or nothing, so that a question
there was told by one kind or by none. And each X1 cluster holds one dimension back, whose circles are asked only later.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ocl_bench.contract import Contract

CIRCLE, TRIANGLE, SQUARE, NOTHING = range(4)
KINDS = 3  # that are shown
INSIDE = 0.6  # the part of a cluster's share of the line that holds its points; the rest is the way to the next
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ToySettings(Contract):
    """The world, and the sizes of those who learn it."""

    clusters: int = Field(40, ge=10, le=1000, description="clusters of points on the line")
    middle: float = Field(0.3, ge=0.1, le=0.9, description="share of clusters, in the middle, that are X2")
    anchors: int = Field(60, ge=1, le=100_000, description="places between which y is constant")
    dimensions: int = Field(3, ge=2, le=100, description="dimensions of y; each X1 cluster holds one of them back")
    definitions: int = Field(6, ge=1, le=100, description="triangles, and squares, of a cluster that has them")
    circles: int = Field(2, ge=1, le=100, description="circles of each dimension that a cluster shows")
    asked: int = Field(4, ge=1, le=100, description="circles of each dimension that are asked afterwards")
    alpha: float = Field(1.0, ge=0, le=1, description="share of X1 clusters whose triangles tell y; else squares do")
    frequencies: int = Field(8, ge=1, le=20, description="sines and cosines that encode x, each of twice the frequency")
    own_channel: bool = Field(False, description="whether questions have their code of x in inputs of their own")
    width: int = Field(128, ge=1, le=4096, description="MLP: units of a hidden layer")
    layers: int = Field(2, ge=1, le=8, description="MLP: hidden layers")
    epochs: int = Field(40, ge=1, le=10_000, description="MLP: times that it sees every point")
    batch_size: int = Field(128, ge=1, le=100_000, description="MLP: points of a step")
    learning_rate: float = Field(5e-3, gt=0, description="MLP: AdamW's")
    trees: int = Field(10, ge=1, le=1000, description="forest: trees of each dimension")
    neighbours: int = Field(3, ge=1, le=100, description="k nearest neighbours: k")

    def at(self, alpha: float) -> Self:
        """The same with another alpha."""
        return self.model_copy(update={"alpha": alpha})


@dataclass(frozen=True)
class Points:
    """Points as a learner sees them.

    Attributes:
        kind: CIRCLE, TRIANGLE or SQUARE, of shape (n,).
        asked: dimension that a circle asks about, -1 for a definition, of shape (n,).
        x: place on the line, within 0 and 1, of shape (n,).
        y: what is shown, of shape (n, dimensions): NaN in the dimensions that a circle does not ask about.
    """

    kind: Ints
    asked: Ints
    x: Floats
    y: Floats

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """Those points that are chosen, by a mask of shape (n,)."""
        return type(self)(self.kind[chosen], self.asked[chosen], self.x[chosen], self.y[chosen])

    def encoded(self, settings: ToySettings) -> tuple[Floats, Floats, Floats]:
        """One-hot kind (n, 3), one-hot dimension asked (n, dimensions), sinusoidal code of x (n, 2 × frequencies).

        With `own_channel`, questions have their code in a second such block, and definitions in the first; the other is
        zero.
        """
        kind = np.eye(KINDS)[self.kind]
        asked = np.eye(settings.dimensions + 1)[self.asked][:, :-1]  # -1 is the last, which is left out
        angles = np.pi * self.x[:, None] * 2.0 ** np.arange(settings.frequencies)
        code = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        if settings.own_channel:
            question = kind[:, [CIRCLE]]
            code = np.concatenate([code * (1 - question), code * question], axis=1)
        return kind, asked, code


@dataclass(frozen=True)
class World:
    """One draw of the world.

    Attributes:
        shown: what is learned.
        questions: circles that are asked afterwards; their `y` is true, in all dimensions.
        other: what the other function has in that dimension, of shape (questions,).
        told_by: which kind told a question's cluster: TRIANGLE, SQUARE or NOTHING in the middle, CIRCLE for those of X1
            (whose clusters have all kinds), of shape (questions,).
        in_middle: whether a shown point is in X2, of shape (shown,).
    """

    shown: Points
    questions: Points
    other: Floats
    told_by: Ints
    in_middle: NDArray[np.bool_]

    @property
    def truth(self) -> Floats:
        """The value that each question asks for, of shape (questions,)."""
        return of_asked(self.questions.y, self.questions)

    def exchanged(self) -> Self:
        """The same world with triangles as squares and squares as triangles in the middle, and nowhere else."""
        swap = np.array([CIRCLE, SQUARE, TRIANGLE, NOTHING])
        kind = np.where(self.in_middle, swap[self.shown.kind], self.shown.kind)
        return replace(self, shown=replace(self.shown, kind=kind), told_by=swap[self.told_by])


def of_asked(values: Floats, questions: Points) -> Floats:
    """Of values (n, dimensions), those of the dimension that each question asks about, of shape (n,)."""
    found: Floats = values[np.arange(len(values)), questions.asked]
    return found


def piecewise(anchors: Floats, values: Floats, x: Floats) -> Floats:
    """The values (anchors, dimensions) of the anchor nearest to each x, of shape (x, dimensions)."""
    order = np.argsort(anchors)
    ends = (anchors[order][1:] + anchors[order][:-1]) / 2
    found: Floats = values[order][np.searchsorted(ends, x)]
    return found


def build_world(settings: ToySettings, seed: int) -> World:
    """Draw a world. Worlds of one seed that differ in `alpha` differ in nothing else."""
    rng = np.random.default_rng(seed)
    count, dimensions = settings.clusters, settings.dimensions
    middle = _middle(settings)
    outer = np.setdiff1d(np.arange(count), middle)
    told = np.full(count, CIRCLE)
    told[rng.permutation(middle)] = np.resize([TRIANGLE, SQUARE, NOTHING], len(middle))
    swapped = np.zeros(count, bool)  # clusters whose triangles tell the other function, and squares y
    swapped[rng.permutation(outer)[round(settings.alpha * len(outer)) :]] = True
    held_back = rng.integers(dimensions, size=count)
    anchors = rng.uniform(size=settings.anchors)
    true, false = (rng.standard_normal((settings.anchors, dimensions)) for _ in range(2))

    def drawn(kind: Ints, asked: Ints) -> tuple[Points, Floats, Ints]:
        """Such points in every cluster, with y, with the other function there, and with their clusters."""
        cluster = np.repeat(np.arange(count), len(kind))
        x = (cluster + 0.5 + INSIDE * rng.uniform(-0.5, 0.5, size=len(cluster))) / count
        points = Points(np.tile(kind, count), np.tile(asked, count), x, piecewise(anchors, true, x))
        return points, piecewise(anchors, false, x), cluster

    definitions = np.repeat([TRIANGLE, SQUARE], settings.definitions)
    asked = np.repeat(np.arange(dimensions), settings.circles)
    points, other, cluster = drawn(
        np.concatenate([definitions, np.full(len(asked), CIRCLE)]),
        np.concatenate([np.full(len(definitions), -1), asked]),
    )
    in_middle, circle = told[cluster] != CIRCLE, points.kind == CIRCLE
    tells_other = ~in_middle & ~circle & ((points.kind == SQUARE) != swapped[cluster])
    hidden = circle[:, None] & (points.asked[:, None] != np.arange(dimensions))
    y = np.where(hidden, np.nan, np.where(tells_other[:, None], other, points.y))
    is_shown = np.where(in_middle, points.kind == told[cluster], points.asked != held_back[cluster])

    asked = np.repeat(np.arange(dimensions), settings.asked)
    questions, other, cluster = drawn(np.full(len(asked), CIRCLE), asked)
    is_asked = (told[cluster] != CIRCLE) | (questions.asked == held_back[cluster])
    return World(
        shown=replace(points, y=y).where(is_shown),
        questions=questions.where(is_asked),
        other=of_asked(other, questions)[is_asked],
        told_by=told[cluster][is_asked],
        in_middle=in_middle[is_shown],
    )


def _middle(settings: ToySettings) -> Ints:
    """The clusters of X2: at least three, for the three things that may have told them."""
    many = max(3, round(settings.middle * settings.clusters))
    return np.arange(many) + (settings.clusters - many) // 2
