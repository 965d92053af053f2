"""Commands that look at what runs, evaluations and submissions found: they parse, call and print."""

import json
from pathlib import Path
from typing import Any

import click

RUNS = click.argument("runs", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command()
@RUNS
@click.option("--subset", metavar="SUBSET", help="Only of this subset, such as d1_cons.")
@click.option("--seed", type=click.IntRange(0), help="Only of this stage-1 seed; from the first on if not given.")
@click.option("--stage", help="Asked after this stage; the one at whose end a subset is scored if not given.")
@click.option("--kind", help="Questions of this kind: recall, attribution, …; the source's own, qa, if not given.")
@click.option("--question", metavar="TEXT", help="Only this question: an id, an entity, a variable, part of the text.")
@click.option("--wrong", is_flag=True, help="Only questions that were answered wrongly, at least once.")
@click.option("--limit", type=click.IntRange(1), help="Questions per subset; 2, or all of --question, if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, one for each answer, and no more.")
def samples(runs: tuple[Path, ...], as_json: bool, limit: int | None, **selected: Any) -> None:
    """Show questions with their accepted answers, what a model said and chose, and whether that is right.

    RUN is the folder of a run, an evaluation or a submission. Several of one task are shown side by side.
    """
    from ocl_bench import api
    from ocl_bench.report.samples import sample_lines, width_of_terminal

    if limit is None and selected["question"] is None:
        limit = 2
    found = api.samples(*runs, limit=limit, **selected)
    if as_json:
        for row in found.rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    for line in sample_lines(found, found.runs, width_of_terminal()):
        click.echo(line)
    right = sum(one.right for one in found)
    click.echo(f"{len(found)} answer{'s' * (len(found) != 1)} shown, {right} right" if found else "no such sample")


@click.command()
@RUNS
@click.option("--metric", help="choice, em, logprob, …; choice, or em where nothing is chosen, if not given.")
@click.option("--gap", "gaps", multiple=True, metavar="GAP", help="Only this gap; can be given several times.")
@click.option(
    "--format", "format", type=click.Choice(("simple", "github", "latex", "csv", "json")), default="simple",
    show_default=True, help="Of the table; csv and json have more columns.",
)  # fmt: skip
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw it there too: .svg, .pdf, .png.")
def compare(
    runs: tuple[Path, ...], metric: str | None, gaps: tuple[str, ...], format: str, picture: Path | None
) -> None:
    """Put gaps side by side, and say how each run's differ from the first's.

    RUN is the folder of a run, an evaluation or a submission, two or more of one task. A difference is paired by seed
    where the seeds and their data are the same; otherwise it is Welch's.
    """
    from ocl_bench import api
    from ocl_bench.report.figures import require_picture

    if picture is not None:
        require_picture(picture, "--plot")
    found = api.compare(*runs, metric=metric, gaps=gaps)
    click.echo(found.table(format))
    if format in ("csv", "json"):  # rows alone
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
    if picture is not None:
        where = found.plot(picture)
        click.echo(f"\nfigure   {where}", err=format in ("csv", "json"))
