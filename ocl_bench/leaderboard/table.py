"""The table: accepted submissions, ranked no finer than comparing all of them at once allows."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tabulate import tabulate

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.checks.data import suite_task
from ocl_bench.leaderboard.checks.reading import SHOWN, Checked, read_all
from ocl_bench.leaderboard.names import misplaced
from ocl_bench.leaderboard.records import Level, Revocation, Verification, level_of
from ocl_bench.leaderboard.submission import Submission
from ocl_bench.leaderboard.untrusted import Problem, loggable
from ocl_bench.leaderboard.validate import check, check_all, find_submissions
from ocl_bench.leaderboard.verify import command_again
from ocl_bench.report.tables import RECALL, detectable, number, with_interval
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.comparisons import Standing, standings
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.metrics import FORM, main_metric
from ocl_bench.score.result import Gap, Results
from ocl_bench.score.score import below_bars
from ocl_bench.text import spelled_out

RANKED_BY = "meta_ocl_gap"
MAX_LINES = 50  # of the problems of one submission
SHOWN_GAPS = ("meta_ocl_gap", "ocl_gap", "fresh_tag_gap", "internalisation")


@dataclass(frozen=True)
class Entry:
    """An accepted submission.

    Attributes:
        submission, manifest: its files.
        results: what ranks rest on: in the standard division those of the standard seeds.
        level: how far it was verified.
        verification, revocation: what the board's records say of it; None where there is none.
        checked: all that was read and derived.
        family: its architecture, as transformers calls it.
        standings: (gap, metric) → where it stands among the ranked entries of its task, version and division; empty if
            it is not ranked.
    """

    submission: Submission
    manifest: Manifest
    results: Results
    level: Level
    verification: Verification | None
    revocation: Revocation | None
    checked: Checked
    family: str
    standings: Mapping[tuple[str, str], Standing] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """Name of its page."""
        return self.submission.place.replace("/", "-")

    @property
    def name(self) -> str:
        """The model's name."""
        return self.submission.name

    @property
    def competition(self) -> tuple[str, int, str]:
        """What it is ranked within; results of different versions of a task are never mixed."""
        return self.submission.task, self.results.task_version, self.submission.division

    @property
    def metric(self) -> str:
        """What it is ranked in: choice where its task has options, else em."""
        return main_metric(self.results.gaps.get(RANKED_BY, {})).name

    @property
    def gap(self) -> Gap | None:
        """The gap that entries are ranked by."""
        return self.results.gaps.get(RANKED_BY, {}).get(self.metric)

    @property
    def controls(self) -> dict[str, str]:
        """What else could make that gap, where it was measured: form and recall, of the upper and the lower subset."""
        recall = self.results.sets.get(RECALL)
        form = [self.results.metrics.get(subset, {}).get(FORM.name) for subset in GAPS[RANKED_BY]]
        own = [recall.metrics.get(subset) if recall else None for subset in GAPS[RANKED_BY]]
        recalled = [metrics and metrics[main_metric(metrics).name] for metrics in own]
        return {
            name: " / ".join(number(value.mean) for value in values if value)
            for name, values in ((FORM.name, form), (RECALL, recalled))
        }

    @property
    def unranked(self) -> str:
        """Why it has no rank; empty if others are ranked against it.

        In the standard division it has to be verified by somebody. In both it needs the task's standard seeds: those
        that were left out may be the ones that gave less. One seed says nothing of another training.
        """
        config = self.manifest.config
        standard = (suite_task(config.task.task) or config.task).standard_seeds
        if self.revocation is not None:
            return "revoked"
        if self.submission.division == "standard" and self.level == "checked":
            return "checked only: nobody trained it again"
        if missing := sorted(set(standard) - set(config.seeds)):
            return f"lacks {len(missing)} of its task's {len(standard)} seeds"
        if self.gap is None:
            return f"has no {RANKED_BY}"
        return "" if self.gap.interval == "seeds" else "has a single seed"

    @property
    def counts(self) -> bool:
        """Whether others are ranked against it."""
        return not self.unranked

    @property
    def standing(self) -> Standing | None:
        """Where it stands by the gap that entries are ranked by; None if it is not ranked."""
        return self.standings.get((RANKED_BY, self.metric))

    @property
    def rank_text(self) -> str:
        """Such as 1, or 2–4 where others do not clearly differ."""
        return "" if self.standing is None else self.standing.place

    @property
    def learned(self) -> bool:
        """Whether the model learned what it was taught, in every stage of every seed."""
        results = self.results
        return not (results.unlearned or below_bars(results.metrics, results.sets, self.manifest.config.task))

    @property
    def mark(self) -> str:
        """‡ if the model did not learn what it was taught."""
        return "" if self.learned else " ‡"

    @property
    def shown(self) -> dict[str, Any]:
        """What table, site and data files show of it besides its gaps; `data.COLUMNS` says what each is."""
        config, engine = self.manifest.config, self.results.engine
        return {
            "entry": self.slug,
            "rank": self.rank_text,
            "unranked": self.unranked,
            "model": self.name,
            "revision": self.submission.revision,
            "task": self.submission.task,
            "task_version": self.results.task_version,
            "division": self.submission.division,
            "level": self.level if self.revocation is None else "revoked",
            "learned": self.learned,
            "family": self.family,
            "parameters": self.manifest.parameters,
            "recipe": config.recipe.recipe,
            "seeds": len(self.results.seeds),
            **self.controls,
            "engine": f"{engine.name} {engine.version}",
            "date": self.manifest.started[:10],
            "main_metric": self.metric,
        }

    @property
    def command(self) -> str | None:
        """What runs it again, from the top of the repository; None if others lack a file for it."""
        return command_again(Path("leaderboard/results", self.submission.place), self.manifest)


class Invalid(OclBenchError):
    """Submissions that do not pass the checks, one line for each problem."""

    exit_code = 1

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("these submissions do not pass the checks:\n" + "\n".join(problems))


Watched = Callable[[Iterable[Checked], int], Iterable[Checked]]


def load_entries(results: Path, watched: Watched = lambda found, of: found) -> list[Entry]:
    """All submissions below a folder, checked and ranked.

    Args:
        results: the folder.
        watched: gives what it is given, one after the other as they are checked, of so many.

    Raises:
        Invalid: if any does not pass the checks.
    """
    there = results.is_dir()
    checked = list(watched(check_all([results]), sum(1 for _ in find_submissions(results)))) if there else []
    for one in checked:
        if one.submission is not None and (wrong := misplaced(results, one.folder, one.submission.place)) is not None:
            one.add("", "", wrong)
    problems = [line for one in checked for line in problem_lines(one.folder, one.problems)]
    if problems:
        raise Invalid(problems)
    return ranked(checked)


def read_entries(results: Path) -> list[Entry]:
    """All accepted submissions below a folder, ranked. They were checked when they were accepted, and are only read.

    Raises:
        Invalid: if any cannot be read, or its files are not those that it lists.
    """
    checked = [_read(folder) for folder in find_submissions(results)]
    problems = [line for one in checked for line in problem_lines(one.folder, one.problems)]
    if problems:
        raise Invalid(problems)
    return ranked(checked)


def _read(folder: Path) -> Checked:
    checked = Checked(folder)
    read_all(checked)
    if checked.problems or checked.manifest is None or checked.submission is None:
        return checked
    config = checked.manifest.config
    standard = config.seeds == config.task.standard_seeds and config.stage2_seeds == (0,)
    # Of more seeds than the standard ones, ranks rest on these alone: that takes the answers.
    return checked if standard or checked.submission.division == "open" else check(folder)


def problem_lines(folder: Path, problems: Iterable[Problem]) -> list[str]:
    """One line for each problem, with the file's path: a few of each kind, and few in all. They can be logged as is."""
    lines: list[str] = []
    hidden = 0
    kinds: Counter[str] = Counter()
    for problem in problems:
        kind = re.sub(r"'.*'|\d+", "", problem.message)
        kinds[kind] += 1
        if kinds[kind] > SHOWN or len(lines) == MAX_LINES:
            hidden += 1
        else:
            lines.append(loggable(f"{folder / problem.file}: {Problem('', problem.field, problem.message)}"))
    return [*lines, loggable(f"{folder}: and {hidden} more")] if hidden else lines


def ranked(checked: Sequence[Checked]) -> list[Entry]:
    """Entries, the largest gap first within each task, version and division."""
    entries = [_entry(one) for one in checked]
    by_competition: dict[tuple[str, int, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_competition[entry.competition].append(entry)
    found = []
    for _, own in sorted(by_competition.items(), key=lambda pair: (pair[0][2] != "standard", pair[0])):
        compared = _compared([entry for entry in own if entry.counts])
        placed = [replace(entry, standings=compared.get(entry.slug, {})) for entry in own]
        found += sorted(placed, key=_order)
    return found


def _order(entry: Entry) -> tuple[bool, bool, float]:
    """Those that are ranked first, then those that are not yet, then those that were revoked."""
    return entry.revocation is not None, not entry.counts, -entry.gap.mean if entry.gap else float("inf")


def _compared(entries: Sequence[Entry]) -> dict[str, dict[tuple[str, str], Standing]]:
    """Slug → (gap, metric) → where it stands; each gap in each metric is a family of comparisons of its own."""
    per_seed: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
    for entry in entries:
        for gap, metrics in entry.results.gaps.items():
            for metric, one in metrics.items():
                if one.interval == "seeds":
                    per_seed[gap, metric][entry.slug] = list(one.per_seed.values())
    found: dict[str, dict[tuple[str, str], Standing]] = defaultdict(dict)
    for which, results in per_seed.items():
        for slug, standing in standings(results).items():
            found[slug][which] = standing
    return found


def _entry(checked: Checked) -> Entry:
    submission, manifest, results = checked.submission, checked.manifest, checked.ranked or checked.results
    assert submission and manifest and results, "a checked submission without problems has all"
    level, verification, revocation = level_of(checked.folder, manifest)
    family, inner = str(checked.config["model_type"]), checked.config.get("backbone_config")
    if family == "picture_reader" and isinstance(inner, dict):  # a head, and a backbone of some family
        family = str(inner.get("model_type", family))
    return Entry(submission, manifest, results, level, verification, revocation, checked, family)


def markdown(entries: Sequence[Entry]) -> str:
    """The leaderboard as Markdown: a table for each task, version and division."""
    parts = [HEADER]
    for competition in dict.fromkeys(entry.competition for entry in entries):
        task, version, division = competition
        own = [entry for entry in entries if entry.competition == competition]
        rows = [
            [
                shown["rank"],
                _linked(entry),
                shown["level"],
                escaped(shown["family"]),
                parameters(shown["parameters"]),
                *(_gap(entry, gap) for gap in SHOWN_GAPS),
                detectable(entry.gap) if entry.gap else "",
                shown[FORM.name],
                shown[RECALL],
                entry.gap.n if entry.gap else 0,
                shown["seeds"],
                escaped(shown["engine"]),
                escaped(shown["date"]),
            ]
            for entry, shown in ((entry, entry.shown) for entry in own)
        ]
        headers = [
            "rank",
            "model",
            "level",
            "family",
            "parameters",
            *SHOWN_GAPS,
            "detectable",
            FORM.name,
            RECALL,
            "n",
            "seeds",
            "engine",
            "date",
        ]
        table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
        parts.append(f"## {task} (version {version}), {division} division: gaps in {own[0].metric}\n\n{table}\n")
        parts += [
            f"- {escaped(entry.name)}: revoked on {entry.revocation.date[:10]}: {escaped(entry.revocation.reason)}\n"
            for entry in own
            if entry.revocation is not None
        ]
    if not entries:
        parts.append("There are no submissions yet.\n")
    return "\n".join(parts)


def _linked(entry: Entry) -> str:
    """The model's name, with a link to its submission; struck out if it was revoked."""
    link = f"[{escaped(entry.name)}](results/{quote(entry.submission.place)}){entry.mark}"
    return link if entry.revocation is None else f"~~{link}~~"


def escaped(text: str) -> str:
    """Text as Markdown shows it, whatever it holds: in one line, with no table, link, emphasis or address in it."""
    plain = spelled_out(" ".join(text.split()))
    marked = re.sub(r"[\\`*\[\]<>|~&!#$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", plain)
    # A bare address becomes a link.
    return re.sub(r"(?<=www)\.|:(?=//)|@|(?<=mailto):|(?<=xmpp):", r"\\\g<0>", marked, flags=re.IGNORECASE)


HEADER = """# Leaderboard

Made by `ocl-bench leaderboard build` from `results/`; do not edit. Gaps are differences of choice (accuracy among the
options of a question; of exact match, em, where a task has none) with their 95 % interval over seeds; [what they
mean](../docs/results.md#what-the-numbers-mean) and [can show](../docs/validity.md). A rank is the range of places that
is left when all ranked entries are compared at once by `meta_ocl_gap` (Welch's t-test of each pair, Holm's correction
at 5 %); whether two intervals overlap does not decide it. detectable: the true `meta_ocl_gap` that an entry's seeds
would tell from 0 in 80 % of runs. n: questions behind `meta_ocl_gap`. Of its two subsets, `d1_cons` / `d2_cons`, form:
the share of answers that are a value of the attribute asked for; recall: of definitions that the model completes. Where
recall differs, a gap may be one of memory. ‡: a stage did not learn its own training data, or X0 is below the task's
bars, so that a small gap says nothing.
Level: *checked* (what can be computed again was), *replayed* (X2 was trained again from the submitted weights, with
seeds that nobody could know), *re-run* (all of it was); [what each proves](../docs/leaderboard.md). In the standard
division only entries that were replayed or re-run are ranked.
"""


def parameters(count: int) -> str:
    """Such as 315 k or 1.01 B."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _gap(entry: Entry, gap: str) -> str:
    found = entry.results.gaps.get(gap, {}).get(entry.metric)
    return "" if found is None else with_interval(found, sign=True)
