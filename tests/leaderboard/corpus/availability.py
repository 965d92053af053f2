"""What would keep a check busy for ever, fill its memory, or stop it, and with it the checks of all others."""

import gzip
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tampering import Copy

from corpus.attack import Attack, Bench
from corpus.changes import Act, manifest, tampered
from corpus.doors import checked, command, validated
from corpus.outcome import Outcome

CONFIG, CARD, SAMPLES, CURVES = "config.json", "submission.json", "seed-0/samples.jsonl.gz", "seed-0/curves.jsonl.gz"
MEGABYTE = 2**20


def holds(name: str, content: bytes) -> Act:
    """A file has this content."""
    return tampered(lambda copy: copy.write(name, content))


def packed(name: str, content: bytes) -> Act:
    return tampered(lambda copy: copy.write(name, gzip.compress(content, 1)))


def instead(name: str, make: Callable[[Path], Any]) -> Act:
    """Something else lies where a file should."""

    def change(copy: Copy) -> None:
        (copy.path / name).unlink()
        make(copy.path / name)

    return tampered(change)


def sparse(bench: Bench) -> Outcome:
    copy = bench.copy()
    with (copy.path / CURVES).open("wb") as file:
        file.truncate(2**40)  # of which no checksum can be made in time
    return checked(copy.path, bench.folder)


def plug(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)
        made.bind(path.name)


def socketed(bench: Bench) -> Outcome:
    here = Path.cwd()
    try:
        return instead(CURVES, plug)(bench)
    finally:
        os.chdir(here)


def many_files(copy: Copy) -> None:
    for number in range(150):
        copy.write(f"extra-{number}.json", "{}")


def many_folders(copy: Copy) -> None:
    for number in range(1100):
        (copy.path / f"seed-{number + 10}").mkdir()


def deep_folders(copy: Copy) -> None:
    (copy.path / "/".join("a" * 40)).mkdir(parents=True)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def bytes_of_letters(copy: Copy) -> None:
    copy.edit_lines(SAMPLES, lambda rows: [row.update(generated="a" * 20_000) for row in rows])


def task(*keys: str, to: Any) -> Act:
    return manifest("config", "task", *keys, to=to)


def seeds(count: int) -> Act:
    return manifest("config", "seeds", to=list(range(count)))


def many_models(bench: Bench) -> Outcome:
    """More names in one folder than the board reads, beside an honest submission."""
    bench.copy()
    for number in range(10_100):
        (bench.results / f"x{number}").touch()
    return validated(bench.results, within=bench.folder)


def looped(bench: Bench) -> Outcome:
    """A folder that leads back to the board."""
    copy = bench.copy()
    (copy.path.parent / "config-loop").symlink_to(bench.results)
    return validated(bench.results, within=bench.folder)


def path(*names: str) -> Act:
    return lambda bench: validated(*map(Path, names), within=bench.folder)


AVAILABILITY: dict[str, tuple[Act, str]] = {
    "JSON nested 100,000 deep": (holds(CONFIG, nested(100_000)), r"nested more than"),
    "lists nested 100,000 deep": (holds(CONFIG, b"[" * 100_000), r"nested more than|not JSON"),
    "JSON nested a little too deep": (holds(CONFIG, nested(40)), r"nested more than 16"),
    "60,000 values": (holds(CONFIG, json.dumps({"a": [0] * 60_000}).encode()), r"more than 50000 values"),
    "a key twice": (holds(CONFIG, b'{"model_type": "gpt2", "model_type": "gpt_neox"}'), r"'model_type' twice"),
    "a key twice, spelled in two ways": (holds(CONFIG, b'{"a": 1, "\\u0061": 2}'), r"'a' twice"),
    "two megabytes of JSON": (holds(CONFIG, b'{"a": "' + b"a" * 2 * MEGABYTE + b'"}'), r"of JSON are taken"),
    "a text of 20,000 letters": (holds(CONFIG, b'{"a": "' + b"a" * 20_000 + b'"}'), r"a text of 20000 characters"),
    "a number of 5,000 digits": (holds(CONFIG, b'{"a": ' + b"9" * 5000 + b"}"), r"whole number of 5000 digits"),
    "an endless number": (holds(CONFIG, b'{"a": 1e999}'), r"no finite number"),
    "not a number": (holds(CONFIG, b'{"a": NaN}'), r"NaN"),
    "a mark of byte order": (holds(CONFIG, b"\xef\xbb\xbf{}"), r"not JSON"),
    "another encoding": (holds(CONFIG, '{"a": 1}'.encode("utf-16")), r"UTF-8|not JSON"),
    "a list": (holds(CONFIG, b"[]"), r"not a JSON object"),
    "no bytes": (holds(CONFIG, b""), r"not JSON"),
    "only half of it": (holds("results.json", b'{"schema_version": 1, "task": "attr'), r"not JSON"),
    "two values": (holds(CONFIG, b"{}{}"), r"not JSON"),
    "a card of a million braces": (holds(CARD, b"{" * 1_000_000), r"not JSON|nested"),
    "a bomb": (packed(SAMPLES, bytes(60 * MEGABYTE)), r"unpacks to more than"),
    "a bomb in a bomb": (packed(SAMPLES, gzip.compress(bytes(10 * MEGABYTE))), r"line 1|not UTF-8"),
    "two members": (holds(SAMPLES, gzip.compress(b"{}\n") * 2), r"more than one gzip member"),
    "200,000 empty members": (holds(SAMPLES, gzip.compress(b"") * 200_000), r"more than one gzip member"),
    "something behind the archive": (holds(SAMPLES, gzip.compress(b"{}\n") + b"PK\x03\x04"), r"more than one gzip"),
    "an archive that is cut off": (holds(SAMPLES, gzip.compress(b"{}\n" * 1000)[:-9]), r"is cut off"),
    "no archive": (holds(SAMPLES, b'{"id": "a"}\n'), r"is not gzip"),
    "an archive of another kind": (holds(SAMPLES, b"\x28\xb5\x2f\xfd" + bytes(50)), r"is not gzip"),
    "answers that are no lines": (packed(SAMPLES, b"\n" * 3 * MEGABYTE), r"lines|no answer"),
    "answers in one line": (packed(SAMPLES, b"a" * 3 * MEGABYTE), r"at most .* of JSON|bytes|line"),
    "answers of 20,000 letters": (tampered(bytes_of_letters), r"generated|characters|average|text of"),
    "100,000 points of curves": (packed(CURVES, b"{}\n" * 100_000), r"more than 20000 lines"),
    "points that are numbers": (packed(CURVES, b"1\n2\n"), r"not a JSON object"),
    "a pipe that nobody writes to": (instead(CURVES, os.mkfifo), r"neither a file nor a folder"),
    "a socket": (socketed, r"neither a file nor a folder"),
    "a link to what never ends": (instead(CURVES, lambda at: at.symlink_to("/dev/zero")), r"is a link"),
    "a link to itself": (instead(CURVES, lambda at: at.symlink_to(at)), r"is a link"),
    "a link to nothing": (instead(CURVES, lambda at: at.symlink_to("nothing")), r"is a link"),
    "a folder where a file should be": (instead(CONFIG, Path.mkdir), r"config\.json: is missing"),
    "a terabyte of nothing": (sparse, r"has 1099511627776 bytes"),
    "ten megabytes": (holds("extra.bin", bytes(10 * MEGABYTE)), r"at most 8388608 are taken"),
    "150 files": (tampered(many_files), r"more than 100 files"),
    "1,100 folders": (tampered(many_folders), r"more than 1000 files and folders"),
    "40 folders deep": (tampered(deep_folders), r"more than 16 folders deep"),
    "a name of 255 letters": (tampered(lambda copy: copy.write("a" * 255, "")), r"has a name that no file"),
    "a name of no character": (
        tampered(lambda copy: copy.write(os.fsdecode(b"caf\xe9"), "")), r"has a name that no file"
    ),
    "a name that is a command of a runner": (tampered(lambda copy: copy.write("::error::x", "")), r"has a name that"),
    "120 seeds": (seeds(120), r"more than 20 trainings"),
    "40,000 seeds": (seeds(40_000), r"more than 20 trainings"),
    "a hundred million entities": (task("source_args", "num_entities", to=10**8), r"more data than are built"),
    "no entity": (task("source_args", "num_entities", to=0), r"config\.task"),
    "entities below zero": (task("source_args", "num_entities", to=-5), r"config\.task"),
    "attributes of 16 kB": (
        task("source_args", "attributes", to={f"a{n}": [f"v{n}{m}" for m in range(10)] for n in range(150)}),
        r"config\.task",
    ),
    "fractions that are not one": (task("design", "fractions", "unseen", to=50.0), r"config\.task"),
    "a million phrasings": (task("design", "phrasings", to=10**6), r"config\.task"),
    "a wording that is multiplied": (
        task("design", "wording", to=[[f"{a}{n}" for n in range(400)] for a in "abcdef"]), r"config\.task"
    ),
    "a million questions on a curve": (task("evaluate", "curve_questions", to=10**9), r"config\.task|curve"),
    "a thousand stages": (
        task("stages", to=[{"name": f"s{n}", "train": ["x1"]} for n in range(1000)]), r"config\.task|stages"
    ),
    "a task's argument that is a task": (task("source_args", to={"include": "attributes"}), r"config\.task"),
    "epochs without end": (manifest("config", "recipe", "epochs", to=[10**9, 10**9]), r"epochs|modified"),
    "an embedding of a petabyte": (
        tampered(lambda copy: copy.edit(CONFIG, lambda config: config.update(hidden_size=10**9))), r"revision|config"
    ),
    "10,000 problems of one kind": (
        tampered(lambda copy: copy.edit(CARD, lambda value: value.update({f"k{n}": 1 for n in range(10_000)}))),
        r"and \d+ more",
    ),
    "more names than a board has": (many_models, r"has more than 1000 files and folders"),
    "a way back to the board": (looped, r"is not a folder of a submission"),
    "a path that is a device": (path("/dev/zero"), r"is not a folder of a submission"),
    "a path that is nowhere": (path("nowhere"), r"there is no such folder"),
    "a path of 5,000 letters": (path("a" * 5000), r"no such folder"),
    "a path that is a command of a terminal": (path("\x1b[2Jx"), r"no such folder"),
}  # fmt: skip

ATTACKS = [
    *(Attack("availability", name, act, said) for name, (act, said) in AVAILABILITY.items()),
    Attack(
        "availability", "an option where a path should be",
        lambda bench: command("leaderboard", "validate", "--paths", within=bench.folder), r"[Nn]o such option",
    ),
]  # fmt: skip
