"""Tables of a result, as text for the terminal and as Markdown or LaTeX (any format of tabulate)."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from tabulate import tabulate

from ocl_bench.score.differences import Difference
from ocl_bench.score.gradients import ALIGNMENT
from ocl_bench.score.metrics import CHOICE, EM, EM_FORCED, METRICS, main_metric
from ocl_bench.score.probes import ProbeScore, Selectivity
from ocl_bench.score.result import Change, Disagreement, Gap, Measured, Results, Value
from ocl_bench.score.statistics import least_detectable
from ocl_bench.tasks.subsets import ASKED
from ocl_bench.text import spelled_out

if TYPE_CHECKING:
    from pathlib import Path

    from ocl_bench.runner.cache import Cached
    from ocl_bench.study.run import StudyResults
    from ocl_bench.study.sweep import Point, Swept


RECALL = "recall"  # the evaluation set that is a column of the tables


def subset_table(results: Results, format: str = "simple") -> str:
    """Subsets with the metrics that tables show (mean and 95 % interval), recall, chance, stage and questions."""
    shown, recall = _shown(results.metrics), results.sets.get(RECALL)
    own = {} if recall is None else recall.metrics  # some subsets are asked again what they taught, and nothing else
    rows = []
    for subset in sorted({**own, **results.metrics}, key=list(ASKED).index):
        metrics = results.metrics.get(subset, {})
        shown_by = metrics or own[subset]
        first = shown_by[main_metric(shown_by).name]
        rows.append(
            [
                subset,
                first.stage,
                *(with_interval(metrics[name]) if metrics else "" for name in shown),
                *([] if recall is None else [_of_recall(own.get(subset))]),
                _chance(first),
                first.n,
            ]
        )
    asked = [*shown, *([] if recall is None else [RECALL])]
    headers = ["subset", "after", *(f"{name} [95 %]" for name in asked), "chance", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def gap_table(results: Results, format: str = "simple") -> str:
    """Gaps on the metrics that tables show, with their intervals; p and least detectable effect of the first; seeds."""
    shown, recall = _shown(results.gaps), results.sets.get(RECALL)
    rows = [
        [
            gap,
            *(with_interval(metrics[name], sign=True) for name in shown),
            *([] if recall is None else [_of_recall(recall.gaps.get(gap), sign=True)]),
            _p(metrics[shown[0]]),
            detectable(metrics[shown[0]]),
            metrics[EM.name].seeds,
            metrics[EM.name].n,
        ]
        for gap, metrics in results.gaps.items()
    ]
    asked = [*shown, *([] if recall is None else [RECALL])]
    headers = ["gap", *(f"{name} [95 %]" for name in asked), f"p ({shown[0]})", "detectable", "seeds", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def _shown(rows: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The metrics that tables show, as far as the result has them, the one that counts first.

    Where answers are chosen, em_forced is left out: a note says how often it differs from em.
    """
    found = [one.name for one in METRICS.values() if one.shown and all(one.name in row for row in rows.values())]
    return [name for name in found if name != EM_FORCED.name or CHOICE.name not in found]


def _of_recall(row: Mapping[str, Value] | Mapping[str, Gap] | None, sign: bool = False) -> str:
    """What was trained on, asked again: by choice where its answers have options, else by em."""
    return "" if row is None else with_interval(row[main_metric(row).name], sign)


def set_tables(results: Results, format: str = "simple") -> list[str]:
    """For each kind of evaluation set, choice or else em_forced of its sets (mean, 95 % interval), by subset and gap.

    `attribution` has a second row for subsets with inconsistent definitions: scored against the entity that the
    variable's questions are about, instead of the one that its definition names.
    """
    kinds: dict[str, list[str]] = {}
    for name in (name for name in results.sets if name != RECALL):  # that is a column of the others
        kinds.setdefault(name.partition("/")[0].removesuffix("_qa"), []).append(name)
    tables = []
    for kind, names in kinds.items():
        columns = list(dict.fromkeys(name.partition("/")[2] for name in names))
        chosen = all(CHOICE.name in row for name in names for row in results.sets[name].metrics.values())
        metric = CHOICE.name if chosen else EM_FORCED.name
        rows: dict[str, dict[str, str]] = {}
        for name in names:
            scored, _, column = name.partition("/")
            scores = results.sets[name]
            note = " (its questions' entity)" if scored.endswith("_qa") else ""
            for subset, metrics in scores.metrics.items():
                rows.setdefault(subset + note, {})[column] = with_interval(metrics[metric])
            for gap, gaps in scores.gaps.items():
                rows.setdefault(gap, {})[column] = with_interval(gaps[metric], sign=True)
        body = [[row, *(cells.get(column, "") for column in columns)] for row, cells in rows.items()]
        headers = [f"{kind}: {metric} [95 %]", *columns]
        tables.append(tabulate(body, headers=headers, tablefmt=format, disable_numparse=True))
    return tables


def ability_table(results: Results, format: str = "simple") -> str:
    """What finetuning did to tasks of lm-eval: before, after and the difference with its interval."""
    rows = [
        [task, metric, number(one.before), number(one.after), _difference(one), one.n]
        for task, metrics in results.also.items()
        for metric, one in metrics.items()
    ]
    headers = ["also asked (lm-eval)", "metric", "before", "after", "difference [95 %]", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def probe_table(results: Results, format: str = "simple") -> str:
    """Of each contrast, stage and position the layer at which a probe read most, beside chance and shuffled labels."""
    best: dict[tuple[str, str, str], ProbeScore] = {}
    for one in results.probes:
        place = " | ".join(one.contrast), one.stage, one.position
        if place not in best or one.mean > best[place].mean:
            best[place] = one
    rows = [
        [
            *place,
            one.layer,
            with_interval(one),
            f"{number(one.chance_band[0])}–{number(one.chance_band[1])}",
            f"{with_interval(one.selectivity, sign=True)}",
            one.n,
        ]
        for place, one in best.items()
    ]
    headers = ["probe", "after", "position", "best layer", "accuracy [95 %]", "chance", "selectivity [95 %]", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def gradient_table(results: Results, format: str = "simple") -> str:
    """After each stage, the alignment of definitions with questions of each subset and its gaps, and of a batch."""
    rows = []
    for at in (one for one in results.gradients if one.epoch is None):
        for subset, found in at.subsets.items():
            own, other, less = found["cosine"], found["cosine_other"], found[ALIGNMENT]
            rows.append([at.stage, subset, with_interval(own), number(other.mean), with_interval(less), "", own.n])
        for gap, compared in at.gaps.items():
            cosine, alignment = (with_interval(compared[name], sign=True) for name in ("cosine", ALIGNMENT))
            rows.append([at.stage, gap, cosine, "", alignment, _p(compared[ALIGNMENT]), compared[ALIGNMENT].n])
        pairs = at.batch["pairwise_cosine"]
        rows.append([at.stage, "pairs in a batch", with_interval(pairs), "", "", "", pairs.n])
    headers = ["gradients after", "of", "cosine [95 %]", "of others", "alignment [95 %]", "p", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def result_table(results: Results, format: str = "simple") -> str:
    """All tables, what they are about, and the notes without which they should not be read."""
    notes = "\n".join(f"note: {note}" for note in reading_notes(results))
    parts = [
        _text(title(results), format),
        subset_table(results, format) if results.metrics else "",
        gap_table(results, format) if results.gaps else "",
        *set_tables(results, format),
        ability_table(results, format) if results.also else "",
        probe_table(results, format) if results.probes else "",
        gradient_table(results, format) if results.gradients else "",
        _text(notes, format),
    ]
    return "\n\n".join(part for part in parts if part)


def title(results: Results) -> str:
    """What a result is of, in a line."""
    seeds = f"{len(results.seeds)} stage-1 seed{'s' if len(results.seeds) > 1 else ''}"
    stage2 = f" × {len(results.stage2_seeds)} stage-2 seeds" if len(results.stage2_seeds) > 1 else ""
    recipe = "a checkpoint" if results.recipe is None else f"recipe {results.recipe}"
    return f"{results.task} (version {results.task_version}) · {results.model} · {recipe} · {seeds}{stage2}"


def short_table(results: Results, format: str = "simple") -> str:
    """What a result is of, and its gaps on the metric that counts; its subsets where it has no gaps."""
    scored: Mapping[str, Mapping[str, Value | Gap]] = results.gaps or results.metrics
    shown = _shown(scored)[0] if scored else ""
    sign = bool(results.gaps)
    rows = [
        [name, with_interval(own[shown], sign=sign), own[shown].seeds, own[shown].n] for name, own in scored.items()
    ]
    headers = ["gap" if sign else "subset", f"{shown} [95 %]", "seeds", "n"]
    table = tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True) if rows else ""
    return f"{_text(title(results), format)}\n\n{table}".strip()


def _text(text: str, format: str) -> str:
    return html_text(text) if format == "html" else text


def html_text(text: str) -> str:
    """Lines as a paragraph of HTML."""
    return "<p>" + escape(spelled_out(text, keep="\n")).replace("\n", "<br>") + "</p>"


def reading_notes(results: Results) -> list[str]:
    """What a reader has to know beside the tables: the result's own notes, and what its numbers give away."""
    engine, check = results.engine, results.engine_check
    notes = [
        *results.notes,
        f"{EM.name} and {EM_FORCED.name} differ on {_of(results.disagreement)}",
        f"answers generated by {engine.name} {engine.version} in {engine.dtype}",
    ]
    if check is not None:
        notes.append(f"its first tokens differ from what teacher forcing showed on {_of(check)}")
    if any(one.seeds > 1 for gap in results.gaps.values() for one in gap.values()):
        notes.append(
            f"detectable: the true gap in {_shown(results.gaps)[0]} that a paired t-test over as many seeds, as far "
            "apart as these, finds in 80 % of runs"
        )
    if results.probes:
        notes.append(
            "probes: the best layer is chosen by its accuracy, which makes that too high; chance is where 95 % of means"
            " are where there is nothing to read, and selectivity what is above probes for shuffled labels"
        )
    if results.gradients:
        notes.append(
            "gradients: cosine of a variable's definition with the mean of its questions; of others: with another "
            "variable's questions; alignment: the difference"
        )
    for stage in dict.fromkeys(one.stage for one in results.unlearned):
        own = [one for one in results.unlearned if one.stage == stage]
        seeds, worst = sorted({one.seed for one in own}), max(one.train_loss for one in own)
        notes.append(
            f"{stage} of seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} did not learn its own data "
            f"(loss up to {worst:.2f}, expected below {own[0].learned_below:g}): a small gap says nothing there"
        )
    if control := results.below_chance:
        notes.append(
            f"{EM.name} of unseen, {with_interval(control)}, is below chance, {_chance(control)}: after "
            f"{control.stage} the model does worse than a guess, perhaps by answers of another form, which hides gaps; "
            "look at its answers"
        )
    return notes


def study_table(results: "StudyResults", format: str = "simple") -> str:
    """A study's points with the OCL and meta-OCL gap (mean, 95 % interval, p), questions and sets.

    On choice, or on em_forced where nothing is chosen.
    """
    rows = []
    for point in results.points:
        scored = {"questions": point.results.gaps} | {name: one.gaps for name, one in point.results.sets.items()}
        for name, gaps in scored.items():
            shown = [_counting(gaps, gap) for gap in ("ocl_gap", "meta_ocl_gap")]
            cells = ["" if gap is None else f"{with_interval(gap, sign=True)} p {_p(gap)}" for gap in shown]
            if any(cells):
                rows.append([point.run.label, name, *cells, len(point.seeds)])
    headers = [results.study.axis or "run", "asked", "ocl_gap [95 %]", "meta_ocl_gap [95 %]", "seeds"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def sweep_table(points: "Sequence[Point]", swept: "Sequence[Swept]", format: str = "simple") -> str:
    """A sweep's points, in its order: seeds done, meta-OCL gap (mean, 95 % interval, p), questions, run folder."""
    by_point = {one.point.label: one for one in swept}
    rows = []
    for point in points:
        found = by_point[point.label]
        gap = _counting(found.results.gaps, "meta_ocl_gap") if found.results else None
        rows.append(
            [
                point.label,
                f"{'?' if found.seeds is None else found.seeds} of {point.seeds}",
                "" if gap is None else with_interval(gap, sign=True),
                "" if gap is None else _p(gap),
                "" if gap is None else gap.n,
                found.folder if found.results else "failed",
            ]
        )
    headers = ["run", "seeds", "meta_ocl_gap [95 %]", "p", "n", "run folder"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def _counting(gaps: Mapping[str, Mapping[str, Gap]], name: str) -> Gap | None:
    """A gap on choice, or on em_forced where nothing is chosen; None if the task has no such gap."""
    return gaps[name].get(CHOICE.name, gaps[name][EM_FORCED.name]) if name in gaps else None


def cache_table(cached: "Sequence[Cached]", root: "Path") -> str:
    """What lies in a store: kind, key, size, weights, what it is, and the runs that use it."""
    rows = [
        [
            one.kind, one.path.name.strip(".")[:12], _size(one.size), _size(one.weights) if one.weights else "",
            one.what, len(one.used_by), ", ".join(str(run.relative_to(root)) for run in one.used_by[:1]),
        ]
        for one in cached
    ]  # fmt: skip
    table = tabulate(rows, headers=["", "key", "size", "weights", "what", "runs", "first of them"], tablefmt="simple")
    total = f"{len(cached)} in all, {_size(sum(one.size for one in cached))}"
    return f"{table}\n\n{total}" if rows else "nothing"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _difference(change: Change) -> str:
    interval = "no interval" if change.ci95 is None else ", ".join(number(one, sign=True) for one in change.ci95)
    return f"{number(change.difference, sign=True)} [{interval}]"


def _of(disagreement: Disagreement) -> str:
    return f"{disagreement.differing} of {disagreement.n} ({disagreement.differing / disagreement.n:.1%})"


def with_interval(value: Value | Gap | ProbeScore | Selectivity | Measured | Difference, sign: bool = False) -> str:
    """Such as .714 [.627, .800]; with its sign for a gap; without an interval where there is none."""
    if value.ci95 is None:
        return number(value.mean, sign)
    low, high = value.ci95
    return f"{number(value.mean, sign)} [{number(low, sign)}, {number(high, sign)}]"


def detectable(gap: Gap) -> str:
    """A gap's least detectable effect; a dash where seeds show no spread."""
    least = least_detectable(list(gap.per_seed.values()))
    return "–" if least is None else number(least)


def number(value: float, sign: bool = False) -> str:
    """Three digits after the point, without a zero before it."""
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _chance(value: Value) -> str:
    return "" if value.chance is None else number(value.chance)


def _p(gap: Gap) -> str:
    return "–" if gap.p is None else f"{gap.p:.3g}"
