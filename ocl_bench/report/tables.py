"""Tables of a result, as text for the terminal and as Markdown or LaTeX (any format of tabulate)."""

from tabulate import tabulate

from ocl_bench.score.result import Gap, Metric, Results

SHOWN = ("em_forced", "em", "logprob")


def subset_table(results: Results, format: str = "simple") -> str:
    """Subsets with em_forced, em and logprob (mean and 95 % interval), chance, stage and number of questions."""
    rows = [
        [
            subset,
            metrics["em"].stage,
            *(_with_interval(metrics[name]) for name in SHOWN),
            _chance(metrics["em"]),
            metrics["em"].n,
        ]
        for subset, metrics in results.metrics.items()
    ]
    headers = ["subset", "after", *(f"{name} [95 %]" for name in SHOWN), "chance", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def gap_table(results: Results, format: str = "simple") -> str:
    """Gaps with their interval on em_forced, em and logprob, p and number of seeds."""
    rows = [
        [
            gap,
            *(_with_interval(metrics[name], sign=True) for name in SHOWN),
            _p(metrics["em_forced"]),
            metrics["em"].seeds,
            metrics["em"].n,
        ]
        for gap, metrics in results.gaps.items()
    ]
    headers = ["gap", *(f"{name} [95 %]" for name in SHOWN), "p (em_forced)", "seeds", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def result_table(results: Results, format: str = "simple") -> str:
    """Both tables, what they are about, and the notes without which they should not be read."""
    seeds = f"{len(results.seeds)} stage-1 seed{'s' if len(results.seeds) > 1 else ''}"
    stage2 = f" × {len(results.stage2_seeds)} stage-2 seeds" if len(results.stage2_seeds) > 1 else ""
    title = (
        f"{results.task} (version {results.task_version}) · {results.model} · recipe {results.recipe} · {seeds}{stage2}"
    )
    share = results.disagreement.differing / results.disagreement.n
    notes = [
        *results.notes,
        f"em and em_forced differ on {results.disagreement.differing} of {results.disagreement.n} ({share:.1%})",
    ]
    parts = [
        title,
        subset_table(results, format),
        gap_table(results, format),
        "\n".join(f"note: {note}" for note in notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _with_interval(value: Metric | Gap, sign: bool = False) -> str:
    low, high = value.ci95
    return f"{_number(value.mean, sign)} [{_number(low, sign)}, {_number(high, sign)}]"


def _number(value: float, sign: bool) -> str:
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _chance(metric: Metric) -> str:
    return "" if metric.chance is None else _number(metric.chance, sign=False)


def _p(gap: Gap) -> str:
    return "–" if gap.p is None else f"{gap.p:.3g}"
