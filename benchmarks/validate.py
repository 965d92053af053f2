"""What a check costs: seconds of processor time and peak memory of hostile submissions, beside an honest one.

    python benchmarks/validate.py

Each is checked by the command line, in a process of its own.
"""

import gzip
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HONEST = "attributes/ocl-bench__gpt-neox-1x64"
SECONDS, MEGABYTES = 3.0, 500
SAMPLES, CURVES = "samples.jsonl.gz", "curves.jsonl.gz"


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads((folder / name).read_text())
    changed = change(value)
    (folder / name).write_text(json.dumps(value if changed is None else changed))


def rows(folder: Path, change: Callable[[bytes], bytes], name: str = SAMPLES, level: int = 1) -> None:
    """Change the unpacked lines of every cell."""
    for path in folder.glob(f"*/{name}"):
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), level))


def rehash(folder: Path) -> None:
    """Make the checksums in submission.json those of the files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "submission.json"]
    files = [path for path in paths if path.stat().st_size < 2**30]
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    edit(folder, "submission.json", lambda value: value.update(files=digests))


def open_task(**changes: Any) -> Callable[[Path], None]:
    """An own task in the open division; keys with two underscores are below `design`, `evaluate` or the like."""

    def make(folder: Path) -> None:
        def change(manifest: Any) -> None:
            for key, value in changes.items():
                place, *inner = key.split("__")
                if inner:
                    manifest["config"]["task"][place][inner[0]] = value
                else:
                    manifest["config"]["task"][place] = value

        edit(folder, "manifest.json", change)
        edit(folder, "submission.json", lambda value: value.update(division="open", notes="an own task"))

    return make


def more_seeds(count: int) -> Callable[[Path], None]:
    """Invented seeds, each with the files of seed 0."""

    def make(folder: Path) -> None:
        def change(manifest: Any) -> None:
            manifest["config"]["seeds"] = list(range(count))
            for part in ("datasets", "stages", "evaluations"):
                manifest[part] |= {f"seed-{seed}": manifest[part]["seed-0"] for seed in range(10, count)}

        edit(folder, "manifest.json", change)
        for seed in range(10, count):
            shutil.copytree(folder / "seed-0", folder / f"seed-{seed}")

    return make


def one_more_seed(folder: Path) -> None:
    """An eleventh seed, whose data are right."""
    from ocl_bench.tasks.build import build
    from ocl_bench.tasks.load import load_task
    from ocl_bench.tasks.records import dataset_sha256

    more_seeds(11)(folder)
    digest = dataset_sha256(build(load_task("attributes"), 10))
    edit(folder, "manifest.json", lambda value: value["datasets"].update({"seed-10": digest}))


def many_keys(name: str, count: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        text = (folder / name).read_text().rstrip().removesuffix("}")
        (folder / name).write_text(text + "".join(f', "k{number}": 1' for number in range(count)) + ', "k1": 1}')

    return make


def many_files(folder: Path) -> None:
    for number in range(2000):
        (folder / f"more-{number}.json").write_text("{}")


def deep_folders(folder: Path) -> None:
    for _ in range(400):
        folder /= "d"
        folder.mkdir()


def many_folders(folder: Path) -> None:
    for number in range(20_000):
        (folder / f"d{number}").mkdir()


def refused_archives(folder: Path) -> None:
    packed = gzip.compress(bytes(200 * 2**20))
    for number in range(90):
        (folder / f"more-{number}.gz").write_bytes(packed)


def sparse_file(folder: Path) -> None:
    with (folder / "seed-0" / SAMPLES).open("wb") as file:
        file.truncate(2**40)


def many_members(folder: Path) -> None:
    (folder / "seed-0" / SAMPLES).write_bytes(gzip.compress(b"") * 300_000)


def repeated(text: bytes, most: int) -> Callable[[bytes], bytes]:
    return lambda _: text * (most // len(text))


def changed_texts(text: str) -> Callable[[bytes], bytes]:
    """Every generated answer is another long text."""

    def change(content: bytes) -> bytes:
        made = []
        for number, line in enumerate(content.splitlines()):
            made.append(json.dumps(json.loads(line) | {"generated": f"{number} {text}"}))
        return ("\n".join(made) + "\n").encode()

    return change


def spaced(content: bytes) -> bytes:
    """The same answers, as another JSON writer has them."""
    return b"".join(line.replace(b": ", b":") + b"\n" for line in content.splitlines())


def curve_points(folder: Path) -> None:
    for path in folder.glob(f"*/{CURVES}"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) * 200))


def everything_wrong(content: bytes) -> bytes:
    return content.replace(b'"em_forced": 0', b'"em_forced": 1')


WIDE = {"templates": ["{tag} {variable} {entity}"], "sources": ["s"] * 800, "phrases": ["p"] * 800}
WIDE["templates"] = ["{tag} {source} {phrase} {variable} {entity}"] * 20
# Lists whose intersection is hardly ever the one number that it has to be.
ENDLESS = {"num_entities": 20, "num_values": 300, "list_length": 100, "num_questions": 12}
WORDS = {name: [f"{name}{number}" for number in range(10)] for name in "abcdefghijklmnopqrstuvwx"}

HOSTILE: dict[str, Callable[[Path], None]] = {
    "honest": lambda folder: None,
    "40,000 keys": many_keys("manifest.json", 40_000),
    "400,000 keys": many_keys("results.json", 400_000),
    "a million zeros": lambda folder: edit(folder, "config.json", lambda value: value.update(x=[0] * 10**6)),
    "45,000 odd texts": lambda folder: edit(folder, "results.json", lambda value: value.update(notes=["<"] * 45_000)),
    "45,000 wrong types": lambda folder: edit(folder, "results.json", lambda value: value.update(seeds=["x"] * 45_000)),
    "45,000 passed values": lambda folder: edit(
        folder, "manifest.json", lambda value: value["passed"].update(x=[[0] * 3] * 11_000)
    ),
    "20 MB of {} lines": lambda folder: rows(folder, repeated(b"{}\n", 20 * 2**20)),
    "60 MB of {} lines": lambda folder: rows(folder, repeated(b"{}\n", 60 * 2**20)),
    "14,400 {} lines a cell": lambda folder: rows(folder, repeated(b"{}\n", 3 * 14_400)),
    "20 MB of newlines": lambda folder: rows(folder, repeated(b"\n", 20 * 2**20)),
    "one line of 20 MB": lambda folder: rows(folder, repeated(b"[", 20 * 2**20)),
    "answers of another writer": lambda folder: rows(folder, spaced),
    "answers twice": lambda folder: rows(folder, lambda content: content * 2),
    "answers of 300 letters": lambda folder: rows(folder, changed_texts("a the an." * 33)),
    "answers of 9,000 letters": lambda folder: rows(folder, changed_texts("a the an." * 1000)),
    "every answer right": lambda folder: rows(folder, everything_wrong),
    "every answer unknown": lambda folder: rows(folder, lambda content: content.replace(b'"id": "', b'"id": "x')),
    "an eleventh seed": one_more_seed,
    "20 seeds": more_seeds(20),
    "14 seeds": more_seeds(14),
    "40 seeds": more_seeds(40),
    "30,000 seeds": lambda folder: edit(
        folder, "manifest.json", lambda value: value["config"].update(seeds=list(range(30_000)))
    ),
    "2,000 files": many_files,
    "400 folders deep": deep_folders,
    "20,000 folders": many_folders,
    "90 archives of 200 MB": refused_archives,
    "a sparse file": sparse_file,
    "300,000 gzip members": many_members,
    "490,000 curve points": curve_points,
    "the largest task": lambda folder: edit(
        folder, "manifest.json", lambda value: value["config"].update(task=largest_task())
    ),
    "12,800,000 wordings": open_task(design__wording={"d1": WIDE, "d2": WIDE, "d3": WIDE}),
    "a source that draws for ever": open_task(source="set_inclusion", source_args=ENDLESS),
    "20,000 entities": open_task(source_args={"num_entities": 20_000, "attributes": WORDS}),
    "24 attributes": open_task(source_args={"num_entities": 2000, "attributes": WORDS}),
    "15 kB of attributes": open_task(
        source_args={"num_entities": 2000, "attributes": {"a": [f"w{n}" for n in range(900)], "b": ["x", "y", "z"]}}
    ),
    "200 stages": open_task(stages=[{"name": f"s{number}", "train": ["x1", "x2"]} for number in range(200)]),
    "300 questions of the variable": open_task(
        evaluate={
            "sets": ["attribution"],
            "attribution": {f"q{number}": "Is {variable}?" for number in range(300)},
            "max_new_tokens": 8,
            "curve_questions": 128,
        }
    ),
}

HARMLESS = ("honest", "45,000 passed values")


def largest_task() -> Any:
    from ocl_bench.tasks.load import load_task

    return load_task("set_inclusion").model_dump(mode="json")


def honest(folder: Path) -> Path:
    """A copy of an accepted submission, to spoil."""
    (original,) = (ROOT / "leaderboard" / "results" / HONEST).iterdir()
    return Path(shutil.copytree(original, folder.joinpath(*original.parts[-3:])))


def make(name: str, folder: Path) -> None:
    """Write one of the hostile inputs, with checksums that fit."""
    copy = honest(folder)
    HOSTILE[name](copy)
    rehash(copy)


def cost(folder: Path) -> tuple[float, float, int, str]:
    """Processor seconds, peak megabytes, lines printed and the first line, of checking a folder."""
    command = [sys.executable, "-m", "ocl_bench.cli", "leaderboard", "validate", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.DEVNULL, env=environment)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        printed.seek(0)
        lines = printed.read().decode().splitlines()
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return usage.ru_utime + usage.ru_stime, peak, len(lines), lines[0] if lines else ""


def main() -> None:
    """Print a line for each input; exit code 1 if one costs too much."""
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # of each process
    too_much = False
    names = sys.argv[1:] or list(HOSTILE)
    print(f"{'input':32} {'seconds':>8} {'MB':>6} {'lines':>6}")
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            # In a process of its own: what it needs would count as the peak of those that are measured.
            maker = multiprocessing.get_context("spawn").Process(target=make, args=(name, Path(place)))
            maker.start()
            maker.join()
            (folder,) = Path(place).glob("*/*/*")
            seconds, megabytes, lines, first = cost(folder)
        too_much |= seconds > SECONDS or megabytes > MEGABYTES or lines > 51
        print(f"{name:32} {seconds:8.2f} {megabytes:6.0f} {lines:6}  {first.split(': ', 1)[-1][:90]}", flush=True)
    sys.exit(too_much)


if __name__ == "__main__":
    main()
