"""The leaderboard's part of the command line: parses, calls, prints."""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ocl_bench.errors import OclBenchError
from ocl_bench.plugins import own_parts_only

FOLDER = click.Path(path_type=Path)
LEADERBOARD = click.option(
    "--leaderboard",
    "leaderboard",
    type=FOLDER,
    default="leaderboard",
    show_default=True,
    help="The leaderboard's folder.",
)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--division", type=click.Choice(["standard", "open"]), default="standard", show_default=True)
@click.option("--name", help="org/model of a model that is not from the hub.")
@click.option("--by", "submitted_by", required=True, help="Who submits.")
@click.option("--contact", required=True, help="Where questions go: an address or a page.")
@click.option("--license", "license", default="CC-BY-4.0", show_default=True, help="SPDX name of the model's licence.")
@click.option("--notes", default="", help="What a reader should know; in the open division, what differs.")
@LEADERBOARD
@click.option("--to", "target", metavar="hf:ORG/DATASET", help="Open a pull request on a dataset of the hub instead.")
def submit(run: Path, division: Any, name: str | None, leaderboard: Path, target: str | None, **said: str) -> None:
    """Submit a finished run to the leaderboard.

    It is checked first, with all that the leaderboard's maintainers check.
    """
    from pydantic import ValidationError

    from ocl_bench.leaderboard import submit as submitting
    from ocl_bench.leaderboard.submission import Card

    try:
        card = Card(**said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, message = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
        option = {"submitted_by": "by"}.get(name, name)
        raise OclBenchError(f"--{option}: {message} ({Card.model_fields[name].description}).") from None
    if target is not None:
        done = submitting.submit_to_hub(run, target, division, name, card)
        click.echo(f"pull request  {done.where}")
        return
    done = submitting.submit(run, leaderboard, division, name, card)
    click.echo(f"{'submission  ' if done.new else 'already there  '}{done.where}")
    if done.branch is None and not done.new:
        return
    if done.branch is None:
        click.echo("next  copy the folder into a checkout of the leaderboard, commit it, and open a pull request")
    else:
        click.echo(f"branch      {done.branch}")
        click.echo(f"next        git push --set-upstream origin {done.branch}, then open a pull request")


@click.group()
@click.pass_context
def leaderboard(ctx: click.Context) -> None:
    """Check, verify and publish submissions."""
    ctx.with_resource(own_parts_only())


@leaderboard.command()
@click.argument("paths", type=FOLDER, nargs=-1)
def validate(paths: tuple[Path, ...]) -> None:
    """Check submissions, or all below folders (leaderboard/results if none is named); exit code 1 if any fails."""
    from ocl_bench.leaderboard.table import problem_lines
    from ocl_bench.leaderboard.untrusted import loggable
    from ocl_bench.leaderboard.validate import check_all, is_revoked

    failed = 0
    for one in check_all(paths or (Path("leaderboard/results"),)):
        failed += bool(one.problems)
        said = "revoked" if is_revoked(one) else "ok"
        for line in problem_lines(one.folder, one.problems) or [f"{loggable(str(one.folder))}: {said}"]:
            click.echo(line)
    if failed:
        click.echo(f"{failed} submission{'s' if failed > 1 else ''} did not pass", err=True)
        sys.exit(1)


@leaderboard.command()
@click.argument("submission", type=FOLDER)
@click.option("--seeds", "count", type=click.IntRange(1, 5), default=3, show_default=True, help="How many seeds.")
@click.option("--by", required=True, help="Who draws them.")
def challenge(submission: Path, count: int, by: str) -> None:
    """Draw the seeds whose weights before X2 a submitter hands over, and record them."""
    from ocl_bench.leaderboard import records, replay
    from ocl_bench.leaderboard.verify import passed

    by = _line("--by", by)
    manifest = passed(submission).manifest
    assert manifest is not None
    records.require_none(submission)
    drawn = records.draw(manifest, count, by)
    click.echo(f"challenge  {records.write_record(submission, drawn)}")
    click.echo("to hand over, in a folder or a repository of the hub, but not in git:")
    for _, _, place in replay.places(manifest, drawn):
        click.echo(f"  {place}/*.safetensors")


@leaderboard.command()
@click.argument("submission", type=FOLDER)
@click.option("--replay", "weights", metavar="FOLDER|hf:ORG/NAME", help="Go on from the weights handed over there.")
@click.option("--seeds", type=click.IntRange(1), help="How many seeds; as many as were submitted if not given.")
@click.option("--private_seed", type=click.IntRange(5, 2**31), help="First of seeds that the submitter did not know.")
@click.option("--by", help="Who verifies; then what agrees is recorded beside the leaderboard's results.")
@click.option("--device", help="cpu, cuda, cuda:N or mps; the best there is if not given.")
@click.option("--engine", default="auto", show_default=True, help="What generates answers: auto, torch or vllm.")
@click.option("--output_path", type=FOLDER, default="runs", show_default=True, help="For the run folder.")
def verify(
    submission: Path,
    weights: str | None,
    seeds: int | None,
    private_seed: int | None,
    by: str | None,
    output_path: Path,
    **options: Any,
) -> None:
    """Run a submission again, or with --replay its X2, and say whether intervals agree; exit code 1 if not.

    Its level rises to re-run if all of its seeds, or as many new ones, were run again, or to replayed.
    """
    from ocl_bench.leaderboard import records, replay
    from ocl_bench.leaderboard import verify as verifying
    from ocl_bench.leaderboard.agreement import comparison_table
    from ocl_bench.runner.progress import RunProgress

    if by is not None:
        by = _line("--by", by)
        records.records_of(submission)
    if weights is None:
        done = verifying.verify(submission, seeds, private_seed, output_path, by, progress=RunProgress, **options)
    elif seeds is not None or private_seed is not None:
        raise OclBenchError("--replay draws its own seeds; leave out --seeds and --private_seed.")
    else:
        done = replay.replay(submission, weights, output_path, by, progress=RunProgress, **options)
    click.echo(comparison_table(done.comparisons))
    if done.equal_answers is not None:
        click.echo(f"\nanswers before X2 that the handed weights give as submitted  {done.equal_answers:.1%}")
    click.echo(f"\nrun folder  {done.folder}")
    if done.command is not None:
        click.echo(f"by hand     {done.command}")
    if done.record is not None:
        click.echo(f"record      {records.write_record(submission, done.record)}")
    if not done.agrees:
        click.echo("the new run does not agree with the submission", err=True)
        sys.exit(1)


@leaderboard.command()
@click.argument("submission", type=FOLDER)
@click.option("--reason", required=True, help="Why it counts no more.")
@click.option("--by", required=True, help="Who decides it.")
def revoke(submission: Path, reason: str, by: str) -> None:
    """Strike a submission out of the table, where it stays with the reason."""
    from ocl_bench.leaderboard import records
    from ocl_bench.leaderboard.validate import check

    by, reason = _line("--by", by), _line("--reason", reason)
    manifest = check(submission).manifest  # whether or not it passes: that may be the reason
    if manifest is None:
        raise OclBenchError(f"{submission}: there is no submission with a manifest that can be read; remove it.")
    said = records.Revocation(content=records.content_of(manifest), by=by, date=records.now(), reason=reason)
    click.echo(f"revoked  {records.write_record(submission, said)}")


def _line(option: str, text: str) -> str:
    """A text that the board shows. Raises OclBenchError if it is none."""
    from pydantic import TypeAdapter, ValidationError

    from ocl_bench.text import Line

    try:
        return TypeAdapter(Line).validate_python(text)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise OclBenchError(f"{option}: {message}.") from None


@leaderboard.command()
@LEADERBOARD
def build(leaderboard: Path) -> None:
    """Make README.md and the site of the accepted results, and the changelog from git."""
    from rich.console import Console
    from rich.progress import track

    from ocl_bench.leaderboard.changelog import write_changelog
    from ocl_bench.leaderboard.site import publish
    from ocl_bench.leaderboard.table import load_entries

    if not (leaderboard / "results").is_dir():
        raise OclBenchError(f"{leaderboard}: there is no folder 'results' in it; name another with --leaderboard.")
    console = Console(stderr=True, highlight=False)

    def watched(found: Any, of: int) -> Any:
        return track(found, "check", of, console=console, transient=True, disable=not console.is_terminal)

    entries = load_entries(leaderboard / "results", watched)
    with console.status("draw the site") if console.is_terminal else nullcontext():
        made = publish(entries, leaderboard)
    for path in made:
        click.echo(path)
    if reason := write_changelog(leaderboard):
        click.echo(f"the changelog stays as it was: {reason}", err=True)


@leaderboard.command()
@LEADERBOARD
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
def serve(leaderboard: Path, port: int) -> None:
    """Show the built site in a browser on this machine; Ctrl-C ends it."""
    from ocl_bench.leaderboard.preview import serve as preview

    if not (leaderboard / "site" / "index.html").is_file():
        build = shlex.join(["ocl-bench", "leaderboard", "build", "--leaderboard", str(leaderboard)])
        raise OclBenchError(f"{leaderboard}/site: there is no site; make it with `{build}`.")
    try:
        server = preview(leaderboard / "site", port)
    except OSError as error:
        raise OclBenchError(f"--port {port}: {error.strerror}; take another.") from None
    with server:
        click.echo(f"http://127.0.0.1:{server.server_port}/", nl=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("")


@leaderboard.command()
@click.argument("repository", type=FOLDER, default=".")
@click.option("--base", required=True, help="The commit that it would be merged into, such as origin/main.")
@click.option("--head", default="HEAD", show_default=True, help="The last commit of the pull request.")
@click.option("--to", "folder", type=FOLDER, help="Leave the submission in this new folder.")
def review(repository: Path, base: str, head: str, folder: Path | None) -> None:
    """Say whether a pull request adds one submission that passes the checks, and nothing else; exit code 1 if not."""
    from ocl_bench.leaderboard import pull_request

    found = pull_request.review(repository, base, head, folder)
    for line in found.problems:
        click.echo(line)
    if found.problems:
        click.echo("the pull request cannot be merged as it is", err=True)
        sys.exit(1)
    click.echo("leaves the leaderboard alone" if found.place is None else f"{pull_request.RESULTS}{found.place}: ok")
