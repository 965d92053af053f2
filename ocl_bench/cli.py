"""The command line: parses, calls, prints."""

import errno
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ocl_bench.cli_results import compare, samples
from ocl_bench.errors import OclBenchError, counted, did_you_mean
from ocl_bench.forking import own_process
from ocl_bench.leaderboard.cli import leaderboard, submit

RESUMED = ("run", "study", "sweep")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # nothing is wrong but the disk


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, which is taken as Ctrl-C is."""


@contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Have SIGTERM end a command in order. Only a process's main thread can."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Group(click.Group):
    """Commands whose options may be spelled with hyphens or underscores, and whose mistakes are one sentence."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:
        if args is None:  # then they are the process's own
            own_process()
        try:
            sys.exit(super().main(args, *rest, **{**kwargs, "standalone_mode": False}) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            of = getattr(error, "ctx", None)
            help = f" See `{of.command_path} --help`." if of is not None else ""
            click.echo(f"ocl-bench: {error.format_message()}{help}", err=True)
            sys.exit(error.exit_code)
        except OclBenchError as error:
            from ocl_bench.text import spelled_out

            click.echo(f"ocl-bench: {spelled_out(str(error), keep=chr(10))}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:
            if error.errno not in FULL:
                raise
            where = f"{error.filename}: it" if error.filename else "a file"
            click.echo(f"ocl-bench: {where} cannot be written ({error.strerror}); make room and try again.", err=True)
            sys.exit(3)

    def invoke(self, ctx: click.Context) -> Any:
        with _terminated_by_signal():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                again = "; run the same command again to go on" if ctx.invoked_subcommand in RESUMED else ""
                click.echo(f"ocl-bench: interrupted{again}", err=True)
                sys.exit(143 if isinstance(interrupt, Terminated) else 130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = [*self.list_commands(ctx), *HELP]
            raise OclBenchError(f"unknown command '{args[0]}'; {did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


HELP = ("-h", "--help")
SPELLING = {"token_normalize_func": lambda name: name.replace("-", "_"), "help_option_names": list(HELP)}


@click.group(cls=Group, context_settings=SPELLING)
@click.version_option(package_name="ocl-bench")
def main() -> None:
    """Measure out-of-context learning (OCL) and meta-OCL of a language model.

    Try `ocl-bench run`: it trains tiny models from random weights and shows the effect within minutes.
    """


def _dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which dataset of a task is meant."""
    seed = click.IntRange(0, 2**32 - 1)
    folder = click.Path(path_type=Path)
    for option in (
        click.option("--include_path", type=folder, multiple=True, help="Folder with further task files."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a task key."),
        click.option("--stage2_seed", type=seed, default=0, show_default=True, help="Stage-2 seed."),
        click.option("--seed", type=seed, default=0, show_default=True, help="Stage-1 seed."),
    ):
        command = option(command)
    return command


def _read_config(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Options from a YAML file become defaults, so that those on the command line win."""
    if path is None:
        return
    from ocl_bench.contract import read_yaml
    from ocl_bench.tasks.load import as_overrides

    options = {
        name.removeprefix("--"): param for param in ctx.command.params for name in param.opts if name[:2] == "--"
    }
    defaults: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        param = options.get(key.replace("-", "_"))
        if param is None or param.name in ("config", "as_json"):
            raise OclBenchError(
                f"{path}: unknown option '{key}'; {did_you_mean(key, set(options) - {'config', 'json'})}"
            )
        if value is None:
            continue
        if param.name == "overrides":
            defaults[str(param.name)] = list(as_overrides(value))
        elif param.multiple:
            defaults[str(param.name)] = [str(item) for item in (value if isinstance(value, list) else [value])]
        elif isinstance(value, list):
            # [3] means seed 3, while 3 means three seeds
            defaults[str(param.name)] = ",".join(map(str, value)) + ("," if len(value) == 1 else "")
        else:
            if isinstance(value, bool) and isinstance(param, click.Option) and param.is_flag:
                value = value == param.flag_value  # no_curves: true is curves: false
            defaults[str(param.name)] = value if isinstance(value, bool) else str(value)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_read_config,
    help="YAML file with any of these options.",
)  # fmt: skip


def _run_options(*left_out: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option for each field of a request but those left out, with the field's description."""
    from ocl_bench.runner.request import RunRequest, option_of

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(RunRequest.model_fields.items()):
            if name in left_out:
                continue
            spelled = option_of(name)
            extra: dict[str, Any] = {}
            if spelled.flag is not None:
                extra = {"is_flag": True, "flag_value": spelled.flag, "default": not spelled.flag}
            elif spelled.multiple:
                extra = {"multiple": True}
            elif spelled.choices:
                extra = {"type": click.Choice(spelled.choices), "default": field.default, "show_default": True}
            elif spelled.shown is not None:
                extra = {"show_default": spelled.shown or False}
            elif field.default is not None:
                extra = {"default": str(field.default), "show_default": True}
            told = f"do not {field.description}" if spelled.flag is False else str(field.description)
            help = f"{told[0].upper()}{told[1:]}."
            names = spelled.names or (f"--{name}",)
            command = click.option(*names, name, metavar=spelled.metavar, help=help, **extra)(command)
        return command

    return add


def _request_fields(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """What was given on the command line or in --config, as fields of a request: its text is read here, once."""
    from ocl_bench.runner.request import option_of

    given = {
        name: value for name, value in options.items() if ctx.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    read = {name: option_of(name).read for name in given}
    return {
        name: call(value) if (call := read[name]) and isinstance(value, str) else value for name, value in given.items()
    }


@main.command()
@click.option(
    "--tasks", "--task", "-t", default="standard", show_default=True, help="Tasks, groups or files, by comma."
)
@_run_options("task")
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print results.json and nothing else; of several tasks, a list.")
@click.pass_context
def run(ctx: click.Context, /, as_json: bool, tasks: str, **options: Any) -> None:
    """Finetune a model on X1, then X2, evaluate it after each, and show the gaps.

    The same command again goes on where it was interrupted, and takes what is there already.
    """
    import ocl_bench.lean  # noqa: F401 # a second less until training begins
    from ocl_bench import api
    from ocl_bench.runner.progress import RunProgress
    from ocl_bench.runner.request import names

    chosen = names(tasks)
    if not chosen:
        raise OclBenchError("--tasks: name at least one task; `ocl-bench ls` lists them.")
    fields = _request_fields(ctx, options)
    done = []
    for result in api.run_tasks(tasks=chosen, progress=RunProgress, **fields):
        done.append(result)
        if not as_json:
            _show(result, fields)
    if as_json:
        click.echo(_json_of([result.results for result in done]))


def _echo_table(text: str, again: list[str] | None = None) -> None:
    """Print a table; where the terminal is narrower, say how to see whole lines.

    Args:
        text: the table.
        again: what prints the same; None: the command that was given.
    """
    click.echo(text)
    if sys.stdout.isatty() and (said := too_wide(text, shutil.get_terminal_size().columns)):
        click.echo(f"{said}: {shlex.join(['ocl-bench', *(again or sys.argv[1:])])} | less -S")


def too_wide(text: str, columns: int) -> str | None:
    """What lines of a text a terminal of so many columns breaks; None if none."""
    width = max(map(len, text.splitlines()), default=0)
    return f"lines of {width} columns, this terminal has {columns}" if width > columns else None


def _json_of(results: list[Any]) -> str:
    """One document: results.json of one task, a list of several."""
    texts = [one.model_dump_json(indent=2) for one in results]
    return texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]"


@main.command()
@click.option("--task", "-t", "task", default="world", show_default=True, help="Task name or file.")
@_run_options("task", "report_to", "fresh", "checkpoint_seconds")
@CONFIG
@click.option("--on", metavar="DEVICE", help="Plan for another device than this machine's: H100, A100, L4, …")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def plan(ctx: click.Context, /, as_json: bool, on: str | None, task: str, **options: Any) -> None:
    """Say what a run will take, without loading weights: parameters, memory, disk, steps, FLOPs and time."""
    from ocl_bench import api
    from ocl_bench.report.estimates import estimate_table
    from ocl_bench.runner.estimate import require_fit

    found = api.plan(task=task, on=on, **_request_fields(ctx, options))
    if as_json:
        click.echo(found.to_json())
    else:
        _echo_table(estimate_table(found))
    require_fit(found)


def _show(result: Any, fields: dict[str, Any]) -> None:
    from ocl_bench.runner.again import next_run
    from ocl_bench.runner.manifest import read_manifest
    from ocl_bench.runner.request import RunRequest

    manifest = read_manifest(result.folder)
    seconds, memory = manifest.wall_seconds or 0.0, (manifest.peak_memory_bytes or 0) / 2**30
    compute = manifest.config.compute
    workers, threads = counted(len(compute.slots), "worker"), counted(compute.threads, "thread")
    _echo_table(f"\n{result.table()}\n", ["score", str(result.folder)])
    click.echo(
        f"took             {seconds:.0f} s and at most {memory:.1f} GiB on {compute.device} ({workers} × {threads})"
    )
    click.echo(f"run folder       {result.folder}")
    if manifest.config.curves:
        click.echo(f"learning curves  {result.folder / 'curves.png'}")
    if result.results.probes:
        click.echo(f"probes           {result.folder / 'probes.png'}")
    if result.results.gradients:
        click.echo(f"gradients        {result.folder / 'gradients.png'}")
    task = manifest.passed.get("task", manifest.config.task.task)
    command, why = next_run(RunRequest.from_options(**{**fields, "task": task}), manifest.config)
    click.echo(f"next             {command}   ({why})")


LISTED = ("tasks", "groups", "studies", "recipes", "models", "plugins")


@main.command()
@click.argument("kind", required=False, metavar="[KIND]", type=click.Choice(LISTED))
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
def ls(kind: str | None, include_path: tuple[Path, ...]) -> None:
    """List tasks, groups, studies, recipes, models made from scratch, and what other packages bring.

    KIND leaves only tasks, groups, studies, recipes, models or plugins.
    """
    from ocl_bench.finetune.recipe import load_recipe, recipe_files
    from ocl_bench.models.spec import scratch_models
    from ocl_bench.report.listing import plugin_table, task_table
    from ocl_bench.study.schema import load_study, study_files
    from ocl_bench.tasks.groups import all_groups
    from ocl_bench.tasks.load import all_tasks

    described = {
        "groups": lambda: {name: group.description for name, group in all_groups(include_path).items()},
        "studies": lambda: {name: load_study(name, include_path).description for name in study_files(include_path)},
        "recipes": lambda: {
            name: load_recipe(name, include_path=include_path).description
            for name in sorted(recipe_files(include_path))
        },
        "models": lambda: {f"scratch:{name}": str(path / "config.json") for name, path in scratch_models().items()},
    }
    titles = {"models": "models from random weights (any other: a hub id or a folder)"}
    for one in LISTED if kind is None else (kind,):
        if one == "tasks":
            _echo_table(task_table(list(all_tasks(include_path))) + "\n" * (kind is None))
        elif one == "plugins":
            from ocl_bench.runner.parts import listed  # the most to import, and last

            if (plugins := listed()) or kind:
                click.echo("\n" * (kind is None) + (plugin_table(plugins) if plugins else "no package brings any part"))
        else:
            click.echo(titles.get(one, one))
            for name, description in described[one]().items():
                click.echo(f"  {name:22s} {description}")


@main.command()
@click.argument("task_file", type=click.Path(path_type=Path))
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
def validate(task_file: Path, include_path: tuple[Path, ...]) -> None:
    """Check a task file without running it."""
    from ocl_bench.runner.plan import validate_task

    task = validate_task(task_file, include_path)
    click.echo(f"{task_file}: task '{task.task}' version {task.version} is valid.")


@main.group()
def data() -> None:
    """Fetch, build, show or verify a task's data."""


@data.command("fetch")
@click.argument("task")
@click.option(
    "--from", "origin", metavar="FILE|FOLDER", help="A local copy, or another address, instead of the public home."
)
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
def data_fetch(task: str, origin: str | None, include_path: tuple[Path, ...]) -> None:
    """Fetch the published data that a task is made from, and keep what the task needs of it.

    An interrupted download goes on where it was. The cache folder is OCL_BENCH_CACHE, or the platform's.
    """
    from ocl_bench.runner.progress import FetchProgress
    from ocl_bench.tasks.load import load_task
    from ocl_bench.tasks.sources import published_data

    source = published_data(load_task(task, include_path=include_path))
    if source is None:
        click.echo(f"task '{task}' needs no data to be fetched.")
        return
    if source.state() == "present" and origin is None:
        click.echo(f"the data of '{task}' is already there: {source.table_path()}")
        return
    with FetchProgress(task) as progress:
        paths = source.fetch(origin, progress)
    for path in paths:
        click.echo(f"{path}  fetched")
    click.echo(f"{source.table_path()}  {source.table().num_rows} {source.rows}")


@data.command("build")
@click.argument("task")
@_dataset_options
@click.option("--output_path", type=click.Path(path_type=Path), required=True, help="Folder for x1, x2 and test.jsonl.")
def data_build(
    task: str,
    seed: int,
    stage2_seed: int,
    overrides: tuple[str, ...],
    include_path: tuple[Path, ...],
    output_path: Path,
) -> None:
    """Write a task's records as JSON lines, one file a split."""
    from ocl_bench.files import require_writable
    from ocl_bench.tasks.load import load_task
    from ocl_bench.tasks.release import write_splits

    loaded = load_task(task, overrides, include_path)
    require_writable(output_path)
    for path, count in write_splits(loaded, seed, stage2_seed, output_path).items():
        click.echo(f"{path}  {counted(count, 'record')}")


@data.command("show")
@click.argument("task")
@_dataset_options
@click.option("--output_path", type=click.Path(path_type=Path), help="The picture, of a task that shows pictures.")
def data_show(
    task: str,
    seed: int,
    stage2_seed: int,
    overrides: tuple[str, ...],
    include_path: tuple[Path, ...],
    output_path: Path | None,
) -> None:
    """Print an example of each kind of record; of a task that shows pictures, draw them on a sheet too.

    Colours are those of tag (magenta), variable (cyan) and entity (green); a bar stands where the prompt ends.
    """
    from ocl_bench.report.examples import contact_sheet, example_lines
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.load import load_task

    loaded = load_task(task, overrides, include_path)
    if output_path is not None and loaded.design.picture is None:
        raise OclBenchError(f"--output_path {output_path}: task '{task}' shows no pictures; leave it out.")
    records = build(loaded, seed, stage2_seed)
    for line in example_lines(loaded, records, seed):
        click.echo(line)
    sheet = contact_sheet(records, output_path or Path(f"{loaded.task}.png"))
    if sheet is not None:
        click.echo(f"\nsheet  {sheet}")


@data.command("verify")
@click.argument("task")
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
def data_verify(task: str, include_path: tuple[Path, ...]) -> None:
    """Rebuild a task's released data and compare checksums; exit code 1 if any differs."""
    from ocl_bench.tasks.release import verify

    differing = False
    for check in verify(task, include_path):
        differing |= not check.agrees
        click.echo(f"{'ok      ' if check.agrees else 'DIFFERS '} {check.name}  {check.detail}")
    if differing:
        sys.exit(1)


@data.command("card")
@click.argument("task")
@click.option("--output_path", type=click.Path(path_type=Path), required=True, help="A new folder, ready to upload.")
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
def data_card(task: str, output_path: Path, include_path: tuple[Path, ...]) -> None:
    """Write a task's data as a dataset for the Hugging Face Hub: card, Croissant metadata, eval.yaml and data."""
    from ocl_bench.files import require_writable
    from ocl_bench.report.dataset_card import write_card

    require_writable(output_path)
    for path in write_card(task, output_path, include_path):
        click.echo(path)
    click.echo(f"next  hf upload ORG/ocl-bench-{task} {output_path} --repo-type dataset")


@main.command("eval")
@click.option("--model", "-m", required=True, help="Checkpoint folder, hub id, or a server's name of its model.")
@click.option("--task", "-t", default="attributes", show_default=True, help="Task name or file.")
@_dataset_options
@click.option("--stage", help="The stage at whose end it is; the folder's name, or the last, if not given.")
@click.option("--lm_eval_model", default="hf", show_default=True, help="lm-eval's kind of model: hf, vllm, …")
@click.option("--model_args", "-a", default="", help="key=value,… for it, as lm-eval has them.")
@click.option("--batch_size", type=click.IntRange(1), default=64, show_default=True, help="Prompts at a time.")
@click.option("--device", help="For models that take one.")
@click.option("--limit", type=click.IntRange(1), help="Questions per subset.")
@click.option("--output_path", type=click.Path(path_type=Path), default="evals", show_default=True, help="For results.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json and nothing else.")
def evaluate(as_json: bool, model_args: str, **options: Any) -> None:
    """Score a finished checkpoint through any model of lm-eval."""
    from ocl_bench import api
    from ocl_bench.evaluate.lm_eval_model import parse_lm_eval_args

    result = api.evaluate_checkpoint(model_args=parse_lm_eval_args(model_args), **options)
    if as_json:
        click.echo(result.results.model_dump_json(indent=2))
    else:
        click.echo(f"\n{result.table()}\n\nresults  {result.folder}")


@main.command()
@click.argument("task")
@_dataset_options
@click.option("--output_path", type=click.Path(path_type=Path), required=True, help="Folder for lm-eval's task files.")
@click.option("--limit", type=click.IntRange(1), help="Questions per subset; the same as of `run`.")
@click.option("--relative", is_flag=True, help="Name data by relative paths: run lm-eval from inside the folder.")
def export(
    task: str,
    seed: int,
    stage2_seed: int,
    overrides: tuple[str, ...],
    include_path: tuple[Path, ...],
    output_path: Path,
    limit: int | None,
    relative: bool,
) -> None:
    """Write a task's questions as tasks of lm-eval, one for each subset of each evaluation set."""
    from ocl_bench.files import require_writable
    from ocl_bench.score import lm_eval_export
    from ocl_bench.score.gaps import scored_questions
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.load import load_task

    loaded = load_task(task, overrides, include_path)
    require_writable(output_path)
    records = scored_questions(loaded, build(loaded, seed, stage2_seed), limit, seed)
    for name, count in lm_eval_export.export(loaded, records, output_path, relative).items():
        click.echo(f"{name}  {counted(count, 'question')}")
    click.echo(f"next  {lm_eval_export.lm_eval_command(loaded, output_path)}")


def _executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where runs are performed."""
    address = "Of a Ray cluster that runs, HOST:PORT or auto; without it, ray starts one on this machine."
    command = click.option("--address", help=address)(command)
    where = "Where runs are performed: local (if nothing says so), ray, slurm, or another package's."
    return click.option("--executor", "kind", metavar="NAME", help=where)(command)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_executor_options
@click.option(
    "--output_path", type=click.Path(path_type=Path), default="runs", show_default=True, help="For run folders."
)
def sweep(file: Path, kind: str | None, address: str | None, output_path: Path) -> None:
    """Run a grid of models, tasks and recipes, here or on a cluster; the same command again goes on.

    FILE says which: sweep, models, tasks, recipes, seeds, set, run, executor.
    """
    from ocl_bench.report.status import watched
    from ocl_bench.report.tables import sweep_table
    from ocl_bench.runner.executors import executor
    from ocl_bench.runner.progress import RunProgress, tell
    from ocl_bench.study.sweep import failure, load_sweep, points_of, run_sweep

    read = load_sweep(file)
    name = read.executor if kind is None else kind
    chosen = executor(name, address=address, options=read.options(name), progress=RunProgress, tell=tell)
    points = points_of(read, file, output_path)
    with watched(output_path) if name != "local" else nullcontext():
        swept = list(run_sweep(points, chosen))
    _echo_table(f"\n{sweep_table(points, swept)}")
    if (error := failure(swept)) is not None:
        raise error


@main.command()
@click.argument("name")
@click.option("--model", "-m", help="Hub id, folder, or scratch:NAME; scratch:tiny or the study's own if not given.")
@click.option("--task", "-t", help="Task name or file; the study's if not given.")
@click.option("--seeds", default="5", show_default=True, help="Stage-1 seeds of each point: 0,1,2 or how many.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Further override of every point.")
@click.option("--batch_size", default="auto", show_default=True, help="Most datapoints per forward pass, or auto.")
@click.option("--device", help="cpu, cuda, cuda:N or mps; the best there is if not given.")
@click.option("--include_path", type=click.Path(path_type=Path), multiple=True, help="Folder with further task files.")
@click.option(
    "--output_path",
    type=click.Path(path_type=Path),
    default="studies",
    show_default=True,
    help="For NAME.json and NAME.png; finished points there are kept.",
)
@click.option("--runs_path", type=click.Path(path_type=Path), default="runs", show_default=True, help="For runs.")
@_executor_options
def study(name: str, seeds: str, batch_size: str, kind: str | None, address: str | None, **options: Any) -> None:
    """Run a study, a grid of runs, and draw the paper's figure for it."""
    from ocl_bench.report.tables import study_table
    from ocl_bench.runner.executors import executor
    from ocl_bench.runner.progress import RunProgress, tell
    from ocl_bench.runner.request import read
    from ocl_bench.study.run import run_study

    results, figure = run_study(
        name,
        seeds=read("seeds", seeds),
        batch_size=read("batch_size", batch_size),
        curves=False,
        executor=executor("local" if kind is None else kind, address=address, progress=RunProgress, tell=tell),
        **options,
    )
    tables = [study_table(results)]
    if results.study.figure == "mechanism":
        from ocl_bench.report.findings import findings_table
        from ocl_bench.study.mechanism import findings

        tables.append(findings_table(findings(results)))
    printed = "\n\n".join(tables)
    _echo_table(f"\n{printed}\n")
    click.echo(f"figure   {figure}\nresults  {figure.with_suffix('.json')}")


@main.command()
@click.option("--learners", metavar="NAME,…", help="mlp, forest, neighbours, ridge, adaptive_ridge; all if not given.")
@click.option("--seeds", default="20", show_default=True, metavar="N|0,1,…", help="Worlds: which, or how many.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the world's settings.")
@click.option(
    "--output_path", type=click.Path(path_type=Path), default="toy", show_default=True, help="For toy.json and toy.png."
)
def toy(learners: str | None, seeds: str, overrides: tuple[str, ...], output_path: Path) -> None:
    """Ask networks, trees, neighbours and kernels in a toy world whether meta-OCL needs gradient descent."""
    from ocl_bench.runner.progress import tell
    from ocl_bench.runner.request import names, read
    from ocl_bench.toy.figure import toy_table
    from ocl_bench.toy.learners import LEARNERS
    from ocl_bench.toy.run import read_settings, run_toy

    chosen = tuple(LEARNERS) if learners is None else names(learners)
    results = run_toy(chosen, read("seeds", seeds), read_settings(overrides), output_path, tell)
    click.echo(f"\n{toy_table(results)}\n\nfigure   {output_path / 'toy.png'}\nresults  {output_path / 'toy.json'}")


@main.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print results.json and nothing else.")
def score(run_folder: Path, as_json: bool) -> None:
    """Score a run again from its answers; no model is loaded."""
    from ocl_bench import api

    result = api.score(run_folder)
    if as_json:
        click.echo(result.results.model_dump_json(indent=2))
    else:
        _echo_table(result.table())


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["hub", "every-eval-ever"]), required=True, help="Which format.")
@click.option("--name", metavar="ORG/MODEL", help="The model's name on the hub; its own if it is from there.")
@click.option("--dataset", metavar="ORG/NAME", help="The task's data on the hub (`ocl-bench data card`).")
@click.option("--by", help="Who evaluated it; for every-eval-ever.")
@click.option(
    "--relationship",
    type=click.Choice(["first_party", "third_party", "collaborative", "other"]),
    default="third_party",
    show_default=True,
    help="Of who evaluated the model to who made it; for every-eval-ever.",
)
@click.option(
    "--output_path", type=click.Path(path_type=Path), default="converted", show_default=True, help="For the file."
)
def convert(folder: Path, to: str, output_path: Path, by: str | None, relationship: str, **given: str | None) -> None:
    """Write the results of a run or a submission, FOLDER, in a format that others read.

    hub: YAML in .eval_results, for the model's repository. every-eval-ever: JSON in data, for that datastore.
    """
    from ocl_bench.files import require_writable
    from ocl_bench.report import every_eval_ever, hub_results

    require_writable(output_path)
    if to == "hub":
        click.echo(hub_results.write(folder, output_path, **given))
    elif by is None:
        raise OclBenchError("--by: say who evaluated the model; every-eval-ever asks for it.")
    else:
        click.echo(every_eval_ever.write(folder, output_path, by, relationship, **given))


@main.command()
@click.argument("what", metavar="RUN_FOLDER|RESULTS", type=click.Path(path_type=Path))
@click.option(
    "--of",
    type=click.Choice(["curves", "probes", "gradients"]),
    default="curves",
    show_default=True,
    help="What to draw of a run.",
)
@click.option(
    "--output_path", type=click.Path(path_type=Path), help="The picture; its ending, .png, .svg or .pdf, is its format."
)
def plot(what: Path, of: str, output_path: Path | None) -> None:
    """Draw a run's learning curves, what its probes read, or how its gradients are aligned; or a study's results again.

    Pictures are as wide as a column or a page of a paper. Beside one of a run is what it shows, as CSV.
    """
    from ocl_bench.report.figures import require_picture
    from ocl_bench.report.gradients import plot_gradients
    from ocl_bench.report.pictures import draw_results
    from ocl_bench.report.plots import plot_run
    from ocl_bench.report.probes import plot_probes

    if output_path is not None:
        require_picture(output_path)
    if what.is_file():
        click.echo(draw_results(what, output_path))
        return
    drawing = {"curves": plot_run, "probes": plot_probes, "gradients": plot_gradients}[of]
    click.echo(drawing(what, output_path))


@main.command()
@click.option(
    "--output_path", type=click.Path(path_type=Path), default="runs", show_default=True, help="The runs' folder."
)
@click.option("--all", "everything", is_flag=True, help="Runs that have ended, too.")
def status(output_path: Path, everything: bool) -> None:
    """Show what runs are at, also of other machines that write to the same folder."""
    from ocl_bench.report.status import status_table
    from ocl_bench.runner.live import seen

    if not output_path.is_dir():
        raise OclBenchError(f"--output_path {output_path}: there is no such folder.")
    _echo_table(status_table(list(seen(output_path)), output_path, everything))


@main.group()
def cache() -> None:
    """Show or remove the stages and evaluations that runs share."""


OUTPUT_PATH = click.option(
    "--output_path", type=click.Path(path_type=Path), default="runs", show_default=True, help="The runs' folder."
)


@cache.command("ls")
@OUTPUT_PATH
def cache_ls(output_path: Path) -> None:
    """List what is there, how large it is, and which runs use it."""
    from ocl_bench.report.tables import cache_table
    from ocl_bench.runner.cache import cached

    click.echo(cache_table(cached(output_path), output_path))


@cache.command("prune")
@OUTPUT_PATH
@click.option("--weights", is_flag=True, help="Remove all weights too; answers and results stay.")
def cache_prune(output_path: Path, weights: bool) -> None:
    """Remove what no run uses, and half-finished stages that no process is at."""
    from ocl_bench.report.tables import cache_table
    from ocl_bench.runner.cache import prune

    click.echo(cache_table(prune(output_path, weights), output_path))


main.add_command(samples)
main.add_command(compare)
main.add_command(submit)
main.add_command(leaderboard)


if __name__ == "__main__":
    main()
