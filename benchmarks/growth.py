"""How cost grows: processor time and memory of each part of the suite against the size of what it is given.

    python benchmarks/growth.py
    python benchmarks/growth.py --entities 1000000 --submissions 1000 --only build --only pages

Each point is measured in a process of its own, which has loaded libraries and inputs before; memory is by how much its
peak rises over that. Slopes are those of a straight line through the logarithms of the last decade's points: 1 is
linear, and n log n is 1.1 there.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from msgspec import structs

# Whatever a part needs is imported in its own process: the peak of a process counts from that of its parent.
ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "figures" / "growth.svg"
ENTRIES = ROOT / "leaderboard" / "results"
STEPS, BATCH = 20, 64
QUICK = {"entities": 300, "seeds": 3, "submissions": 10}
LINEARITHMIC = 1.2  # the slope of n log n in the lowest decade that is fitted, and some noise
SHOWN = {"seconds": "processor time [s]", "mib": "memory [MiB]"}
LEAST_MIB, LEAST_SECONDS = 1.0, 1e-3  # less is not told from nothing

Work = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """A part of the suite whose cost is measured.

    Attributes:
        axis: what it grows with: entities, seeds or submissions.
        work: a size and a folder → what is measured, with all that it needs. Where it returns a number, that is the
            processor time in seconds, in place of all that it takes.
        make: a size and a folder → what lies in the folder before, made by another process.
        least, most: sizes. `most` is what the suite itself takes, or what takes minutes.
        inherent: why it grows faster, where it has to.
    """

    axis: str
    work: Callable[[int, Path], Work]
    make: Callable[[int, Path], None] | None = None
    least: int = 1000
    most: int = 10**6
    inherent: str = ""


# --- data


def attributes(entities: int) -> Any:
    """The task `attributes`, whose attributes have enough values for a million entities."""
    from ocl_bench.tasks.load import load_task

    task = load_task("attributes")
    values = {name: tuple(f"{name}{number}" for number in range(32)) for name in task.source_args["attributes"]}
    return task.model_copy(update={"source_args": {"num_entities": entities, "attributes": values}})


def build_attributes(size: int, folder: Path) -> Work:
    from ocl_bench.tasks.build import build

    task = attributes(size)
    return lambda: build(task, seed=0)


def build_world(size: int, folder: Path) -> Work:
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.load import load_task

    task = load_task("world", [f"source_args.num_entities={size}"])
    return lambda: build(task, seed=0)


def make_table(size: int, folder: Path) -> None:
    """The people of `cvdb_sample` again and again, each time with other names."""
    import csv

    with (ROOT / "ocl_bench" / "tasks" / "sources" / "cvdb_sample.csv").open(newline="", encoding="latin-1") as file:
        people = list(csv.DictReader(file))
    columns = list(people[0])
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for number in range(size):
            person = people[number % len(people)]
            writer.writerow(person | {columns[0]: f"{person[columns[0]]} {number}"})
    asked = {column: f"What is the {column} of {{entity}}?" for column in columns[1:]}
    told = {
        "task": "people", "version": 1, "description": "People.", "include": "cvdb", "source": "table",
        "source_args": {"path": "people.csv", "name": columns[0], "questions": asked},
        "metadata": {"license": "CC0-1.0", "citation": "none"},
    }  # fmt: skip
    (folder / "people.yaml").write_text(json.dumps(told))


def build_table(size: int, folder: Path) -> Work:
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.load import load_task

    build(load_task("cvdb_sample"), seed=0)  # what is imported on the way is
    return lambda: build(load_task(str(folder / "people.yaml")), seed=0)


# --- training and evaluation


def _trained_on(size: int) -> tuple[Any, list[Any]]:
    """A tokenizer whose size does not depend on the data, and the records of X1."""
    from common import tokenizer

    from ocl_bench.tasks.build import build

    records = [record for record in build(attributes(size), seed=0) if record.split == "x1"]
    return tokenizer([record.prompt + record.completion for record in records[:2000]]), records


def _encoded(words: Any, records: Sequence[Any]) -> tuple[Any, list[Any]]:
    from ocl_bench.models.batches import datapoints
    from ocl_bench.models.encoding import Encoder

    encoder = Encoder(words, seq2seq=False)
    return encoder, datapoints(encoder([(one.given, one.completion) for one in records]), False, "completion")


def _model(words: Any) -> Any:
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, set_seed

    set_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 256}
    return AutoModelForCausalLM.from_config(GPTNeoXConfig(vocab_size=len(words), max_position_embeddings=64, **shape))


def encode(size: int, folder: Path) -> Work:
    words, records = _trained_on(size)
    return lambda: _encoded(words, records)


def train_step(size: int, folder: Path) -> Work:
    """One of STEPS steps, after as many others."""
    from ocl_bench.finetune.epoch import Pool
    from ocl_bench.finetune.recipe import load_recipe
    from ocl_bench.finetune.stage import train_stage

    words, records = _trained_on(size)
    encoder, points = _encoded(words, records)
    network, ended = _model(words), list[float]()

    def train() -> float:
        train_stage(
            lambda: network,
            points,
            [Pool(tuple(range(len(points))), STEPS * BATCH)],
            recipe=load_recipe("tiny", ["epochs=[2]", f"effective_batch_size={BATCH}"]).of_stage(0),
            seed=0,
            pad_id=encoder.pad_id,
            device="cpu",
            bf16=False,
            batch_size=BATCH,
            report_to=(),
            run_name="growth",
            folder=folder / "checkpoints",
            log_folder=folder / "logs",
            checkpoint_seconds=math.inf,
            on_epoch=lambda model, epoch, loss: ended.append(time.process_time()) or [],
        )
        return (ended[1] - ended[0]) / STEPS

    return train


def evaluate(size: int, folder: Path) -> Work:
    from ocl_bench.evaluate.ask import ask, encode_questions
    from ocl_bench.evaluate.torch_engine import TorchEngine
    from ocl_bench.models.encoding import Encoder

    words, records = _trained_on(size)
    encoder = Encoder(words, seq2seq=False)
    asked = [structs.replace(one, split="test") for one in records if one.kind == "qa"][:size]
    engine = TorchEngine(_model(words).eval(), encoder, bf16=False)
    return lambda: ask(engine, encode_questions(asked, encoder), 8).answers


# --- runs


def make_run(entities: int, seeds: int, folder: Path) -> None:
    """A run folder with as many entities and seeds: stages of a real, tiny run, and its answers to other questions.

    Data, answers and their records are written by what writes them in a run.
    """
    import random

    from ocl_bench.evaluate.answers import read_answers
    from ocl_bench.evaluate.questions import asked_after
    from ocl_bench.files import sha256, write_atomic
    from ocl_bench.runner.cells import stage_folder
    from ocl_bench.runner.folder import write_data
    from ocl_bench.runner.manifest import read_manifest
    from ocl_bench.runner.store import rows_text
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.records import dataset_sha256

    real = _real(folder)
    manifest, rng = read_manifest(real), random.Random(0)
    first = manifest.config.cells[0]
    told = {"task": attributes(entities), "seeds": tuple(range(seeds)), "limit": None}
    config = manifest.config.model_copy(update=told)
    run, datasets, stages, evaluations = folder / "run", {}, {}, {}
    for cell in config.cells:
        records = build(config.task, cell.seed)
        write_data(run, {cell: records})
        datasets[cell.name] = dataset_sha256(records)
        stages[cell.name], evaluations[cell.name] = manifest.stages[first.name], {}
        for stage in config.task.stages:
            given = read_answers(stage_folder(real, first, stage.name) / "answers.jsonl")
            asked = asked_after(config.task, stage.name, records, None, cell.seed)
            text = rows_text([rng.choice(given).model_copy(update={"id": one.id}) for one in asked])
            record = manifest.evaluations[first.name][stage.name]["answers"].model_copy(
                update={"rows": len(asked), "rows_sha256": sha256(text)}
            )
            place = stage_folder(run, cell, stage.name)
            write_atomic(place / "answers.jsonl", text)
            write_atomic(place / "answers.json", record.model_dump_json())
            write_atomic(place / "stage.json", manifest.stages[first.name][stage.name].model_dump_json())
            evaluations[cell.name][stage.name] = {"answers": record}
    changed = {"config": config, "datasets": datasets, "stages": stages, "evaluations": evaluations}
    manifest.model_copy(update=changed).write(run)


def make_real(folder: Path) -> None:
    command = [sys.executable, "-m", "ocl_bench", "run", "--task", "attributes", "--model", "scratch:tiny"]
    small = ["--seeds", "1", "--set", "source_args.num_entities=60", "--set", "recipe.epochs=[1,1]"]
    done = subprocess.run([*command, *small, "--output_path", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)


def _real(folder: Path) -> Path:
    return next(path.parent for path in (folder / "real").rglob("manifest.json"))


def score(size: int, folder: Path) -> Work:
    from ocl_bench.runner.folder import score_run

    score_run(_real(folder))  # what is imported on the way is
    return lambda: score_run(folder / "run")


def samples(size: int, folder: Path) -> Work:
    """`ocl-bench samples --limit 5`."""
    from ocl_bench.runner.answered import RunSamples
    from ocl_bench.score.selection import select

    return lambda: select({"": RunSamples(folder / "run")}, limit=5)


# --- the leaderboard


def _entries(task: str = "attributes") -> list[Path]:
    return sorted(path.parent for path in (ENTRIES / task).rglob("submission.json"))


def make_submission(size: int, folder: Path) -> None:
    """The first seeds of an accepted entry, as a submission of the open division."""
    sys.path.insert(0, str(ROOT / "tests" / "leaderboard"))
    from settling import read

    forgery = read(_entries()[0])
    names = [f"seed-{seed}" for seed in range(size)]
    manifest = forgery.manifest
    manifest["config"]["seeds"] = list(range(size))
    for part in ("datasets", "stages", "evaluations"):
        manifest[part] = {name: manifest[part][name] for name in names}
    forgery.answers = {name: forgery.answers[name] for name in names}
    forgery.curves = {name: forgery.curves[name] for name in names}
    forgery.card |= {"division": "open", "notes": "fewer seeds"}
    forgery.write(folder / "results")


def validate(size: int, folder: Path) -> Work:
    from ocl_bench.leaderboard.validate import check

    (submission,) = (path.parent for path in (folder / "results").rglob("submission.json"))

    def work() -> None:
        checked = check(submission)
        assert not checked.problems, checked.problems

    return work


def _submissions(count: int) -> Iterator[Any]:
    """Read entries, in turn, under names of their own, with gaps of other seeds."""
    import numpy as np

    from ocl_bench.leaderboard.checks.reading import Checked, read_all

    real, rng = [], np.random.default_rng(0)
    for folder in _entries():
        checked = Checked(folder)
        read_all(checked)
        real.append(checked)
    for number in range(count):
        one = real[number % len(real)]
        assert one.submission and one.results
        shift = rng.normal(0, 0.02, len(one.results.seeds))

        def moved(gap: Any, shift: Any = shift) -> Any:
            own = {seed: value + by for (seed, value), by in zip(gap.per_seed.items(), shift, strict=True)}
            return gap.model_copy(update={"per_seed": own, "mean": float(np.mean(list(own.values())))})

        gaps = {
            name: {metric: moved(gap) for metric, gap in metrics.items()} for name, metrics in one.results.gaps.items()
        }
        submission = one.submission.model_copy(update={"model": f"{one.submission.model}-{number}"})
        yield replace(one, submission=submission, results=one.results.model_copy(update={"gaps": gaps}))


def ranks(size: int, folder: Path) -> Work:
    from ocl_bench.leaderboard.table import markdown, ranked

    found = list(_submissions(size))
    markdown(ranked(found[:3]))  # what is imported on the way is
    return lambda: markdown(ranked(found))


def data_files(size: int, folder: Path) -> Work:
    from ocl_bench.leaderboard.data import write_data
    from ocl_bench.leaderboard.table import ranked

    entries = ranked(list(_submissions(size)))
    write_data(entries[:3], folder)
    return lambda: write_data(entries, folder)


def pages(size: int, folder: Path) -> Work:
    from ocl_bench.leaderboard.site import write_site
    from ocl_bench.leaderboard.table import ranked

    entries = ranked(list(_submissions(size)))
    write_site(entries[:3], folder / "site")
    return lambda: write_site(entries, folder / "site").name


def copies(size: int, folder: Path) -> Work:
    """Whether one of them has the answers of another: 1000 questions after each of two stages of one seed."""
    import numpy as np

    from ocl_bench.leaderboard.checks.copies import Seen

    rng, found = np.random.default_rng(0), []
    for one in _submissions(size):
        assert one.manifest and one.submission
        told = one.manifest.model_copy(update={"stages": {}})
        answered = {
            ("seed-0", stage): (
                -rng.exponential(2, 1000).astype(np.float32),
                rng.integers(0, 40, 1000).astype(np.uint32),
            )
            for stage in ("x1", "x2")
        }
        found.append(replace(one, manifest=told, fingerprint=answered))

    def work() -> None:
        seen = Seen()
        assert not any(seen.look(one) for one in found)

    return work


PAIRS = "every pair is compared"
PARTS = {
    "build: attributes": Part("entities", build_attributes),
    "build: world": Part("entities", build_world, most=10_000),
    "build: table": Part("entities", build_table, make_table, most=100_000),
    "data to first step": Part("entities", encode),
    "train: one step": Part("entities", train_step),
    "evaluate": Part("entities", evaluate, most=30_000),
    "score": Part("entities", score, lambda size, folder: make_run(size, 2, folder), most=10_000),
    "score: seeds": Part("seeds", score, lambda size, folder: make_run(200, size, folder), least=1),
    "samples: seeds": Part("seeds", samples, lambda size, folder: make_run(200, size, folder), least=1),
    "validate: seeds": Part("seeds", validate, make_submission, least=1, most=10),
    "leaderboard: ranks, table": Part("submissions", ranks, least=10, inherent=PAIRS),
    "leaderboard: data files": Part("submissions", data_files, least=10),
    "leaderboard: pages": Part("submissions", pages, least=10),
    "leaderboard: copies": Part("submissions", copies, least=10, inherent=PAIRS),
}


# --- measuring


def sizes(least: int, most: int) -> list[int]:
    """Two a decade, up to `most`."""
    found = [round(least * 10 ** (half / 2), -int(math.log10(least * 10 ** (half / 2)))) for half in range(13)]
    return sorted({*(int(size) for size in found if size < most), most})


def make(name: str, size: int, folder: Path) -> None:
    """What is measured, made before, in a process of its own."""
    part = PARTS[name]
    assert part.make is not None
    part.make(size, folder)


def measure(name: str, size: int, folder: Path) -> dict[str, Any]:
    """One point, in this process."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # threads that wait count as work
    work = PARTS[name].work(size, folder)
    before, began, start = _peak(), time.perf_counter(), time.process_time()
    own = work()
    cpu, wall = time.process_time() - start, time.perf_counter() - began
    return {
        "part": name,
        "axis": PARTS[name].axis,
        "size": size,
        "seconds": own if isinstance(own, float) else cpu,
        "wall_seconds": wall,
        "mib": _peak() - before,
    }


def _peak() -> float:
    """The highest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """What a function of this file gives, in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def slope(points: Sequence[dict[str, Any]], what: str) -> float | None:
    """Of the logarithm of what was measured over that of the size, in the last decade; None if there is one point."""
    import numpy as np

    last = max(point["size"] for point in points)
    least = LEAST_MIB if what == "mib" else 0.0
    own = [(point["size"], max(least, point[what])) for point in points if point["size"] >= last / 10.5]
    if len(own) < 2:
        return None
    return float(np.polyfit(*np.log(np.array(own, float)).T, 1)[0])


def summary(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each part: its largest point, and how time and memory grow."""
    rows = []
    for name in dict.fromkeys(point["part"] for point in points):
        own = [point for point in points if point["part"] == name]
        last = max(own, key=lambda point: point["size"])
        time_slope, memory_slope = slope(own, "seconds"), slope(own, "mib")
        worse = time_slope is not None and time_slope > LINEARITHMIC and last["seconds"] > LEAST_SECONDS
        why = PARTS[name].inherent or "worse than n log n"
        rows.append({**last, "time_slope": time_slope, "memory_slope": memory_slope, "note": why if worse else ""})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, as Markdown."""
    from tabulate import tabulate

    shown = [
        [row["part"], f"{row['size']:,} {row['axis']}", f"{row['seconds']:.3g} s", _number(row["time_slope"]),
         f"{row['mib']:.0f} MiB", _number(row["memory_slope"]), row["note"]]
        for row in rows
    ]  # fmt: skip
    headers = ["part", "largest", "time", "slope", "memory", "slope", ""]
    return tabulate(shown, headers=headers, tablefmt="github", disable_numparse=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Time above, memory below, a column for each axis; dashed lines are linear."""
    from ocl_bench.report.figures import GREY, MARKERS, PAGE, PALETTE, figure

    axes = list(dict.fromkeys(point["axis"] for point in points))
    with figure(path, PAGE, 5.5, points) as drawn:
        panels = drawn.subplots(2, len(axes), squeeze=False)
        for column, axis in enumerate(axes):
            parts = list(dict.fromkeys(point["part"] for point in points if point["axis"] == axis))
            for panel, (what, label) in zip(panels[:, column], SHOWN.items(), strict=True):
                for number, name in enumerate(parts):
                    own = [point for point in points if point["part"] == name]
                    values = [max(LEAST_MIB, one[what]) if what == "mib" else one[what] for one in own]
                    shown = name.removeprefix("leaderboard: ").removesuffix(f": {axis}")
                    style = {"color": PALETTE[number], "marker": MARKERS[number], "label": shown}
                    panel.plot([one["size"] for one in own], values, **style)
                panel.set(xscale="log", yscale="log", xlabel=axis)
                _linear(panel, GREY)
                panel.set_ylabel(label if column == 0 else "")
            panels[1, column].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _linear(panel: Any, colour: str) -> None:
    """Guides of slope 1, behind the lines."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    low, high = low / 2, high * 2  # so that what is flat looks flat
    start = low
    while start / right * left < high:
        panel.plot([left, right], [start, start * right / left], color=colour, lw=0.5, ls="--", zorder=0)
        start *= 100
    panel.set(xlim=(left, right), ylim=(low, high))


@click.command()
@click.option("--entities", default=30_000, show_default=True, help="The most.")
@click.option("--seeds", default=100, show_default=True, help="The most.")
@click.option("--submissions", default=300, show_default=True, help="The most.")
@click.option("--only", multiple=True, help="Only parts whose name has this in it.")
@click.option("--quick", is_flag=True, help="A few small sizes, in a minute.")
@click.option("--name", default="growth", show_default=True, help="Name of the JSON file.")
@click.option("--output_path", type=click.Path(path_type=Path), help="Folder of JSON and figure, in place of the own.")
def main(
    entities: int, seeds: int, submissions: int, only: tuple[str, ...], quick: bool, name: str, output_path: Path | None
) -> None:
    """Print a row for each part, with slopes; write the points and their figure."""
    most = QUICK if quick else {"entities": entities, "seeds": seeds, "submissions": submissions}
    chosen = {part: own for part, own in PARTS.items() if not only or any(text in part for text in only)}
    points = []
    with tempfile.TemporaryDirectory() as place:
        real = Path(place) / "real"
        if any(part.startswith(("score", "samples")) for part in chosen):
            make_real(real)
        for part, own in chosen.items():
            last = min(own.most, most[own.axis])
            for size in (last // 3, last) if quick else sizes(min(own.least, max(1, last // 10)), last):
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    (Path(folder) / "real").symlink_to(real)
                    if own.make is not None:
                        alone(make, part, size, Path(folder))
                    points.append(alone(measure, part, size, Path(folder)))
                click.echo(json.dumps(points[-1]), err=True)
    click.echo(table(summary(points)))
    figures, results = (output_path, output_path) if output_path else (FIGURE.parent, ROOT / "benchmarks" / "results")
    write(points, figures, results / f"{name}.json")


def write(points: Sequence[dict[str, Any]], figures: Path, results: Path) -> None:
    """The points as a figure and as JSON."""
    from ocl_bench.runner.manifest import processor, versions

    for ending in (".svg", ".png"):
        draw(points, figures / f"{FIGURE.stem}{ending}")
    content = {"processor": processor(), "versions": versions(), "slopes": summary(points), "points": points}
    results.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
