"""How often intervals of a few seeds cover the truth, how wide they are, and how often ranks of equal models differ.

    python benchmarks/coverage.py

Seeds are drawn from distributions of mean .2 and standard deviation .1 (a gap's), normal or not: two groups (a share
of the seeds learned something else, groups ten times as far apart as seeds within one differ), skewed, flat. What
`ocl_bench` uses is called as it is; its rivals are scipy's or written from their papers.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from tabulate import tabulate

from ocl_bench.score.comparisons import standings
from ocl_bench.score.statistics import over_seeds

SIMULATIONS, RESAMPLES, BATCH = 2000, 999, 250
SEEDS = (3, 5, 10, 20)
MEAN, SPREAD, LEVEL = 0.2, 0.1, 0.05
MODELS, BOARDS = 10, 1000

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Interval = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def two_groups(share: float) -> Draw:
    """Seeds of which a share lies one above the others, with noise of a tenth of that."""
    scale = (share * (1 - share) + 0.01) ** 0.5
    return lambda rng, shape: ((rng.random(shape) < share) - share + 0.1 * rng.standard_normal(shape)) / scale


def lognormal(sigma: float) -> Draw:
    """Skewed to the right."""
    mean, spread = np.exp(sigma**2 / 2), np.exp(sigma**2 / 2) * (np.exp(sigma**2) - 1) ** 0.5
    return lambda rng, shape: (rng.lognormal(0, sigma, shape) - mean) / spread


# name → draws of mean 0 and standard deviation 1
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-(3**0.5), 3**0.5, shape),
    "two groups, .5": two_groups(0.5),
    "two groups, .2": two_groups(0.2),
    "lognormal, σ = .5": lognormal(0.5),
    "lognormal, σ = 1": lognormal(1.0),
}


def ours(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Student's t without the sample's skewness (Hall 1992), as results have it."""
    low, high = zip(*(over_seeds(own).ci95 for own in values.tolist()), strict=True)
    return np.array(low), np.array(high)


def student(values: np.ndarray, confidence: float = 1 - LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Student's t of another confidence."""
    mean, sem = described(values)
    half = sem * stats.t.ppf((1 + confidence) / 2, values.shape[-1] - 1)
    return mean - half, mean + half


def bca(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated bootstrap (Efron 1987), scipy's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samples without spread among their resamples
        found = stats.bootstrap((values,), np.mean, axis=-1, n_resamples=RESAMPLES, batch=50, method="BCa", rng=rng)
    return found.confidence_interval.low, found.confidence_interval.high


def bootstrap_t(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Student's t with quantiles of the resampled t instead of the table's (Efron 1979)."""
    mean, sem = described(values)
    resampled = np.take_along_axis(
        values[:, None], rng.integers(values.shape[-1], size=(len(values), RESAMPLES, values.shape[-1])), axis=-1
    )
    means, sems = described(resampled)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num((means - mean[:, None]) / sems, nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = np.quantile(t, [LEVEL / 2, 1 - LEVEL / 2], axis=-1, method="inverted_cdf")
    return mean - high * sem, mean - low * sem


def johnson(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Student's t, moved by the sample's skewness (Johnson 1978)."""
    low, high = student(values)
    third = stats.moment(values, 3, axis=-1)
    moved = third / (6 * values.var(axis=-1, ddof=1) * values.shape[-1])
    return low + moved, high + moved


def betting(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What bets against each mean leave, of numbers that lie within −1 and 1 and are of any other kind.

    Waudby-Smith and Ramdas (2024), the hedged capital with predictable plug-in bets. It covers for any distribution.
    """
    scaled, n = (np.clip(values, -1, 1) + 1) / 2, values.shape[-1]
    candidates = np.linspace(0.001, 0.999, 400)
    before = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(scaled, axis=-1)) / (before + 1)
    spread = (0.25 + np.cumsum((scaled - means) ** 2, axis=-1)) / (before + 1)
    spread = np.concatenate([np.full((len(values), 1), 0.25), spread[:, :-1]], axis=-1)
    bets = np.sqrt(2 * np.log(2 / LEVEL) / (n * spread))
    up, down = np.ones((2, len(values), len(candidates)))
    kept = np.ones((len(values), len(candidates)), bool)
    for own, bet in zip(scaled.T[:, :, None], bets.T[:, :, None], strict=True):
        up = up * (1 + np.minimum(bet, 0.5 / candidates) * (own - candidates))
        down = down * (1 - np.minimum(bet, 0.5 / (1 - candidates)) * (own - candidates))
        kept &= np.maximum(up, down) / 2 < 1 / LEVEL
    low = candidates[kept.argmax(axis=-1)]
    high = candidates[len(candidates) - 1 - kept[:, ::-1].argmax(axis=-1)]
    return 2 * low - 1, 2 * high - 1


INTERVALS: dict[str, Interval] = {
    "Hall (ours)": ours,
    "t": lambda values, rng: student(values),
    "t, 99 %": lambda values, rng: student(values, 0.99),
    "BCa": bca,
    "bootstrap-t": bootstrap_t,
    "Johnson": johnson,
    "betting": betting,
}


def described(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error along the last axis."""
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / values.shape[-1] ** 0.5


def covered(draw: Draw, interval: Interval, seeds: int) -> str:
    """Share of intervals that hold the true mean, and their mean width."""
    rng, lows, highs = np.random.default_rng(seeds), [], []
    values = MEAN + SPREAD * draw(rng, (SIMULATIONS, seeds))
    for batch in np.split(values, SIMULATIONS // BATCH):
        low, high = interval(batch, rng)
        lows.append(low)
        highs.append(high)
    low, high = np.concatenate(lows), np.concatenate(highs)
    return f"{np.mean((low <= MEAN) & (high >= MEAN)):.1%} ({np.mean(high - low):.3f})"


def by_overlap(board: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether any two 95 % intervals do not overlap: what the board once ranked by."""
    low, high = ours(board, rng)
    return bool(low.max() > high.min())


def by_holm(board: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether the board calls any two of them different."""
    return any(one.above for one in standings({str(n): own for n, own in enumerate(board.tolist())}).values())


def by_normal_limit(board: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether rank confidence sets do, with the normal limit's critical value (Mogstad et al. 2024)."""
    mean, sem = described(board)
    first, second = np.triu_indices(len(board), 1)
    scale = np.hypot(sem[first], sem[second])
    drawn = sem * rng.standard_normal((RESAMPLES, len(board)))
    critical = np.quantile(np.max(np.abs(drawn[:, first] - drawn[:, second]) / scale, axis=-1), 1 - LEVEL)
    return bool(np.max(np.abs(mean[first] - mean[second]) / scale) > critical)


RANKINGS = {"Holm over Welch (ours)": by_holm, "normal limit": by_normal_limit, "no overlap": by_overlap}


def wrong(draw: Draw, ranking: Callable[[np.ndarray, np.random.Generator], bool], seeds: int, spreads: float) -> str:
    """Share of boards of equal models on which some pair is called different; spreads: the largest to the smallest."""
    rng = np.random.default_rng(seeds)
    scale = SPREAD * np.geomspace(1, 1 / spreads, MODELS)[:, None]
    return f"{np.mean([ranking(MEAN + scale * draw(rng, (MODELS, seeds)), rng) for _ in range(BOARDS)]):.1%}"


def main() -> None:
    """Print both tables."""
    print(f"Coverage of 95 % intervals (mean width); mean {MEAN}, sd {SPREAD}; {SIMULATIONS} simulations of each\n")
    rows = [
        [seeds, name, *(covered(draw, interval, seeds) for interval in INTERVALS.values())]
        for seeds in SEEDS
        for name, draw in DISTRIBUTIONS.items()
    ]
    print(tabulate(rows, headers=["seeds", "drawn from", *INTERVALS], tablefmt="github"))
    print(f"\nBoards of {MODELS} equal models on which any two are called different; {BOARDS} simulations of each\n")
    rows = [
        [seeds, name, f"1 to {spreads:g}", *(wrong(draw, ranking, seeds, spreads) for ranking in RANKINGS.values())]
        for seeds in (5, 10)
        for name, draw in DISTRIBUTIONS.items()
        for spreads in (1, 10)
    ]
    print(tabulate(rows, headers=["seeds", "drawn from", "spreads", *RANKINGS], tablefmt="github"))


if __name__ == "__main__":
    main()
