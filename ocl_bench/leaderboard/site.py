"""The site: static pages that need no server and no network, made of the accepted submissions."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from ocl_bench.files import folder_atomic, write_atomic
from ocl_bench.leaderboard.agreement import comparison_table
from ocl_bench.leaderboard.data import COLUMNS, measured, write_data
from ocl_bench.leaderboard.table import Entry, markdown, parameters
from ocl_bench.report.examples import data_uri
from ocl_bench.report.figures import FORMATS as PICTURES
from ocl_bench.report.figures import ON_BLACK, PALETTE, SUBSETS
from ocl_bench.report.gradients import draw_gradients
from ocl_bench.report.probes import draw_probes
from ocl_bench.report.tables import gap_table, gradient_table, probe_table, reading_notes, subset_table
from ocl_bench.score.comparisons import Standing
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.metrics import CHOICE, EM, EM_FORCED, METRICS
from ocl_bench.score.statistics import over_seeds
from ocl_bench.text import spelled_out

PAGE = Path(__file__).parent / "page"


def publish(entries: Sequence[Entry], leaderboard: Path) -> tuple[Path, Path]:
    """Write README.md and the site of a leaderboard folder; whatever fails, both are whole, old or new.

    Returns:
        README.md and the site's first page.
    """
    table, readme = markdown(entries), leaderboard / "README.md"
    index = write_site(entries, leaderboard / "site")
    write_atomic(readme, table)
    return readme, index


def write_site(entries: Sequence[Entry], folder: Path) -> Path:
    """Write index.html, a page for each entry, and what they need beside them; a whole new site replaces a former one.

    Args:
        entries: what to show.
        folder: of the site.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        finalize=_as_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with folder_replaced(folder) as inside:
        for name in ("style.css", "charts.js", "compare.js", "table.js", "examples.js"):
            shutil.copy(PAGE / name, inside)
        write_atomic(inside / "palette.js", palette())
        shutil.copytree(PAGE / "vendor", inside / "vendor")
        index = environment.get_template("index.html")
        files = [path.name for path in write_data(entries, inside)]
        shown = {"gaps": list(GAPS), "metrics": list(METRICS), "files": files}
        write_atomic(inside / "index.html", index.render(rows=embedded(page_rows(entries)), **shown))
        write_atomic(inside / "data.html", environment.get_template("data.html").render(columns=COLUMNS, files=files))
        page = environment.get_template("submission.html")
        names = {entry.slug: entry.name for entry in entries}
        for entry in entries:
            found = {"names": names, "mechanisms": _mechanisms(entry, inside)}
            write_atomic(inside / f"{entry.slug}.html", page.render(**found, **_details(entry)))
    return folder / "index.html"


def palette() -> str:
    """The colours of the suite's figures, as the charts' script reads them."""
    both = {
        "PALETTE": {"light": PALETTE, "dark": [ON_BLACK[colour] for colour in PALETTE]},
        "SUBSETS": {name: {"light": colour, "dark": ON_BLACK[colour]} for name, colour in SUBSETS.items()},
    }
    return "".join(f"const {name} = {json.dumps(value)};\n" for name, value in both.items())


def _mechanisms(entry: Entry, folder: Path) -> list[dict[str, Any]]:
    """What an entry says of its model's inside, nothing for most: probes and gradients, drawn in the site's folder."""
    results = entry.results
    shown: list[dict[str, Any]] = []
    if results.probes:
        about = "Balanced accuracy of linear probes by layer and position, a panel for each contrast and stage"
        table = _markup(probe_table(results, "html"))
        shown.append({"what": "probes", "about": about, "table": table})
        for path in _pictures(entry, folder, "probes"):
            draw_probes(results, path)
    if results.gradients:
        about = (
            "Alignment of definitions' gradients with those of their questions, by subset and epoch, a panel a stage"
        )
        table = _markup(gradient_table(results, "html"))
        shown.append({"what": "gradients", "about": about, "table": table})
        for path in _pictures(entry, folder, "gradients"):
            draw_gradients(results, entry.manifest.config, path)
    for one in shown:
        pictures = _pictures(entry, folder, str(one["what"]))
        files = [path.name for path in (*pictures[1:], pictures[0].with_suffix(".csv"))]
        one |= {"picture": pictures[0].name, "files": files}
    return shown


def _pictures(entry: Entry, folder: Path, what: str) -> list[Path]:
    """A picture in each format, the one that the page shows first."""
    return [folder / f"{entry.slug}-{what}{ending}" for ending in PICTURES]


def _as_shown(value: Any) -> Any:
    """Text of a page without characters that do not show; what is markup already was made here."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else spelled_out(value, keep="\n")


def _markup(table: str) -> Markup:
    """A table that tabulate made, which escapes what is in the cells."""
    return Markup(spelled_out(table, keep="\n"))


@contextmanager
def folder_replaced(path: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of `path` when the block ends; if anything fails, the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".aside.", ignore_cleanup_errors=True) as name:
        new, old = Path(name, "new"), Path(name, "old")
        with folder_atomic(new) as inside:
            yield inside
        there = path.is_symlink() or path.exists()
        if there:
            path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            if there:
                old.replace(path)
            raise


def embedded(value: Any) -> str:
    """JSON that can stand inside a script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What the page shows of each entry, as JSON."""
    positions = {entry.slug: position for position, entry in enumerate(entries)}
    return [
        {
            **entry.shown,
            "task": f"{entry.submission.task} v{entry.results.task_version}",
            "reason": "" if entry.revocation is None else spelled_out(entry.revocation.reason),
            "mark": entry.mark,
            "parameters_text": parameters(entry.manifest.parameters),
            "gaps": {
                gap: {
                    metric: {
                        **measured(one),
                        "seeds": len(one.per_seed),
                        "standing": _standing(entry.standings.get((gap, metric)), positions),
                    }
                    for metric, one in metrics.items()
                }
                for gap, metrics in entry.results.gaps.items()
            },
        }
        for entry in entries
    ]


def _standing(standing: Standing | None, positions: Mapping[str, int]) -> dict[str, Any] | None:
    """As JSON, where the others are named by their position: they are many."""
    if standing is None:
        return None
    return {
        "clear": standing.clear,
        "place": standing.place,
        "above": [positions[slug] for slug in standing.above if slug in positions],
        "below": [positions[slug] for slug in standing.below if slug in positions],
    }


def _details(entry: Entry) -> dict[str, Any]:
    config, results = entry.manifest.config, entry.results
    points = [point for own in entry.checked.curves.values() for point in own if point.set == "qa"]
    curve_metric = CHOICE.name if points and all(point.choice is not None for point in points) else EM_FORCED.name
    return {
        "entry": entry,
        "parameters": parameters(entry.manifest.parameters),
        "subsets": _markup(subset_table(results, "html")),
        "gaps": _markup(gap_table(results, "html")),
        "notes": reading_notes(results),
        "verification": _markup(comparison_table(entry.verification.comparisons, "html")) if entry.verification else "",
        "configuration": {
            "task": f"{results.task}, version {results.task_version}",
            "division": entry.submission.division,
            "model": f"{entry.name}, {entry.submission.revision}",
            "architecture": entry.family,
            "parameters": f"{entry.manifest.parameters:,}",
            "recipe": f"{config.recipe.recipe}: {config.recipe.description}",
            "seeds": ", ".join(map(str, config.seeds)),
            "stage-2 seeds": ", ".join(map(str, config.stage2_seeds)),
            "engine": f"{results.engine.name} {results.engine.version}, {results.engine.dtype}",
            "versions": ", ".join(f"{name} {version}" for name, version in entry.manifest.versions.items()),
            "hardware": ", ".join(entry.manifest.hardware.values()),
            "commit": entry.manifest.commit or "an installed package",
            "took": f"{entry.manifest.wall_seconds or 0:.0f} s",
            "run on": entry.manifest.started[:10],
            "submitted by": f"{entry.submission.submitted_by} ({entry.submission.contact})",
            "model's licence": entry.submission.license,
        },
        "model_config": json.dumps(entry.checked.config, indent=2, sort_keys=True),
        "examples": _examples(entry),
        "curve_metric": curve_metric,
        "charts": embedded(
            {
                "metric": entry.metric,
                "curve_metric": curve_metric,
                "curves": _curves(entry, curve_metric),
                "per_seed": _per_seed(entry),
            }
        ),
    }


def _examples(entry: Entry) -> list[dict[str, str]]:
    """Of each subset, some right and some wrong answers of the first seed, as they were scored."""
    shown: dict[tuple[str, bool], list[dict[str, str]]] = {}
    for sample in entry.checked.samples:
        record, answer = sample.record, sample.answer
        right = bool(EM.of(answer, record))
        shown.setdefault((record.subset, right), []).append(
            {
                "subset": record.subset,
                "prompt": record.prompt,
                "picture": data_uri(record.picture) if record.picture else "",
                "accepted": " or ".join(record.answers),
                "generated": answer.generated,
                "choice": "" if answer.choice is None else record.options[answer.choice],
                "logprob": f"{answer.logprob:.3f}".replace("-", "−"),
                "outcome": "right" if right else "wrong",
            }
        )
    return [one for group in shown.values() for one in group]


def _curves(entry: Entry, metric: str) -> list[dict[str, Any]]:
    """One of the two of each subset by stage and epoch: mean over seeds, and its interval where there are several."""
    values: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for cell, points in entry.checked.curves.items():
        for point in points:
            if point.set == "qa":
                seeds = values.setdefault((point.stage, point.epoch, point.subset), {})
                seeds.setdefault(cell.seed, []).append(getattr(point, metric))
    rows = []
    for (stage, epoch, subset), by_seed in values.items():
        means = [fmean(own) for own in by_seed.values()]
        low, high = over_seeds(means).ci95 if len(means) > 1 else (means[0], means[0])
        rows.append({"stage": stage, "epoch": epoch, "subset": subset, "mean": fmean(means), "low": low, "high": high})
    return rows


def _per_seed(entry: Entry) -> list[dict[str, Any]]:
    return [
        {"gap": gap, "seed": seed, "value": value}
        for gap, metrics in entry.results.gaps.items()
        for seed, value in metrics[entry.metric].per_seed.items()
    ]
