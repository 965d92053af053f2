"""The checks refuse whatever was tampered with, each with a line of its own, and never crash or dawdle."""

import gzip
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tampering import Copy

from ocl_bench.leaderboard.checks.answers import LAST_DIGITS
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.untrusted import MAX_FILE_BYTES, MAX_TOTAL_BYTES, MAX_UNPACKED_BYTES
from ocl_bench.leaderboard.validate import check, check_all, find_submissions
from ocl_bench.tasks.schema import Task

MANIFEST, RESULTS, SUBMISSION, CONFIG = "manifest.json", "results.json", "submission.json", "config.json"
ACCEPTED = next((Path(__file__).parents[2] / "leaderboard" / "results" / "digit_grid").glob("*/*"))
SAMPLES, CURVES = "seed-0/samples.jsonl.gz", "seed-0/curves.jsonl.gz"


@pytest.fixture
def copy(small_submission: Path, tmp_path: Path) -> Copy:
    """A fresh copy of a submission that passes the checks."""
    return Copy(small_submission, tmp_path)


def put(*keys: Any, to: Any) -> Callable[[Any], None]:
    """Set one value deep inside; a function as `to` gets the present one."""

    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to(value[keys[-1]]) if callable(to) else to

    return change


def drop(*keys: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        del value[keys[-1]]

    return change


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Copy], None]:
    return lambda copy: copy.edit(name, change)


def lines(change: Callable[[list[dict[str, Any]]], Any], name: str = SAMPLES) -> Callable[[Copy], None]:
    return lambda copy: copy.edit_lines(name, change)


def text(name: str, old: str, new: str) -> Callable[[Copy], None]:
    return lambda copy: copy.replace(name, old, new)


def file(name: str, content: bytes | str) -> Callable[[Copy], None]:
    return lambda copy: copy.write(name, content)


def stage(cell: str, name: str, key: str, to: Any) -> Callable[[Copy], None]:
    return edit(MANIFEST, put("stages", cell, name, key, to=to))


def asked(cell: str, name: str, *keys: str, to: Any) -> Callable[[Copy], None]:
    return edit(MANIFEST, put("evaluations", cell, name, "answers", *keys, to=to))


def same_weights(*others: tuple[str, str, str]) -> Callable[[Copy], None]:
    """Make weights of seed 0's X1 those of another place: (cell, stage, key) gets the value of the first."""

    def change(manifest: Any) -> None:
        (cell, of, key), *rest = others
        for other_cell, other_of, other_key in rest:
            manifest["stages"][other_cell][other_of][other_key] = manifest["stages"][cell][of][key]

    return edit(MANIFEST, change)


def swap_seeds(copy: Copy) -> None:
    first, second = copy.path / SAMPLES, copy.path / "seed-1/samples.jsonl.gz"
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def link(name: str, target: str) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        (copy.path / name).unlink(missing_ok=True)
        (copy.path / name).symlink_to(target)

    return change


def bomb(copy: Copy, start: bytes, filling: bytes) -> None:
    """A megabyte that unpacks to a gigabyte: of one member, whose end is right."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # After a full flush nothing refers to what was before: packed once, it may be there as often as one likes.
    first, again = (packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in (start, filling))
    count = 2**30 // len(filling)
    checksum = zlib.crc32(start)
    for _ in range(count):
        checksum = zlib.crc32(filling, checksum)
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    end = packer.flush() + struct.pack("<II", checksum, len(start) + count * len(filling))
    copy.write(SAMPLES, header + first + count * again + end)


def zip_bomb(copy: Copy) -> None:
    bomb(copy, b"", bytes(2**20))


def long_text(copy: Copy) -> None:
    bomb(copy, b'{"id": "', b"a" * 2**20)


def many_bombs(copy: Copy) -> None:
    """Each within the limit, all of them more than memory should hold."""
    packed = gzip.compress(bytes(MAX_UNPACKED_BYTES))
    for number in range(9):
        copy.write(f"more/{number}.gz", packed)


def right(rows: list[dict[str, Any]]) -> None:
    rows[0].update(em_forced=1, logprob=-0.1)  # were it unlikely, that would be said


def clean(value: Any) -> None:
    """Whatever was made was made by code that was committed."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "dirty":
                value[key] = False
            clean(inner)


RESULTS_LINE = r"^results\.json: {}: is .*; the answers give"
# name → how to tamper with a submission, and the line that says so
TAMPERED: dict[str, tuple[Callable[[Copy], None], str]] = {
    # numbers of results.json
    "a metric": (edit(RESULTS, put("metrics", "d1_cons", "em", "mean", to=0.5)), RESULTS_LINE.format(r"metrics\.d1_cons\.em\.mean")),
    "a metric's eighth digit": (
        edit(RESULTS, put("metrics", "d1_cons", "logprob", "mean", to=lambda value: value * (1 + 1e-8))),
        RESULTS_LINE.format(r"metrics\.d1_cons\.logprob\.mean"),
    ),
    "a gap": (edit(RESULTS, put("gaps", "meta_ocl_gap", "em", "mean", to=0.9)), RESULTS_LINE.format(r"gaps\.meta_ocl_gap\.em\.mean")),
    "an interval": (edit(RESULTS, put("gaps", "ocl_gap", "em", "ci95", 0, to=0.01)), RESULTS_LINE.format(r"gaps\.ocl_gap\.em\.ci95\.0")),
    "a p-value": (edit(RESULTS, put("gaps", "ocl_gap", "em", "p", to=0.001)), RESULTS_LINE.format(r"gaps\.ocl_gap\.em\.p")),
    "a count": (edit(RESULTS, put("metrics", "unseen", "em", "n", to=4000)), RESULTS_LINE.format(r"metrics\.unseen\.em\.n")),
    "chance": (edit(RESULTS, put("metrics", "unseen", "em", "chance", to=0.01)), RESULTS_LINE.format(r"metrics\.unseen\.em\.chance")),
    "a seed's own value": (
        edit(RESULTS, put("gaps", "ocl_gap", "em", "per_seed", "1", to=0.7)), RESULTS_LINE.format(r"gaps\.ocl_gap\.em\.per_seed\.1")
    ),
    "a gap left out": (edit(RESULTS, drop("gaps", "meta_ocl_gap")), RESULTS_LINE.format(r"gaps\.meta_ocl_gap")),
    "a gap made up": (edit(RESULTS, lambda r: r["gaps"].update(my_gap=r["gaps"]["ocl_gap"])), RESULTS_LINE.format(r"gaps\.my_gap")),
    "seeds in the results": (edit(RESULTS, put("seeds", to=[0, 1, 2, 3, 4])), RESULTS_LINE.format("seeds")),
    "the engine in the results": (edit(RESULTS, put("engine", "version", to="9.9")), RESULTS_LINE.format(r"engine\.version")),
    "submittable": (edit(RESULTS, put("submittable", to=True)), RESULTS_LINE.format("submittable")),
    "notes left out": (edit(RESULTS, put("notes", to=[])), RESULTS_LINE.format("notes")),
    "no results": (lambda copy: (copy.path / RESULTS).unlink(), r"^results\.json: is missing"),
    "another format version": (edit(RESULTS, put("schema_version", to=99)), r"^results\.json: schema_version: "),
    "an unknown key": (edit(RESULTS, put("extra", to=1)), r"^results\.json: extra: Extra inputs"),
    "a wrong type": (edit(RESULTS, put("seeds", to="five")), r"^results\.json: seeds: Input should be"),
    "results as a list": (file(RESULTS, "[]"), r"^results\.json: is not a JSON object"),
    "an empty file": (file(RESULTS, ""), r"^results\.json: is not JSON"),
    "NaN": (text(RESULTS, '"chance": 0.1', '"chance": NaN'), r"^results\.json: holds NaN"),
    "infinity": (text(RESULTS, '"chance": 0.1', '"chance": 1e9990, "x": 1'), r"^results\.json: holds 1e9990, which is no finite"),
    "a huge number": (text(RESULTS, '"seeds": 2', '"seeds": ' + "9" * 5000), r"^results\.json: holds a whole number of 5000 digits"),
    "a key twice": (text(RESULTS, '"task":', '"task": "x", "task":'), r"^results\.json: has the key 'task' twice"),
    "deep nesting": (file(RESULTS, "[" * 100_000 + "]" * 100_000), r"^results\.json: is nested more than"),
    "nesting that parses": (file(RESULTS, '{"a":' * 200 + "1" + "}" * 200), r"^results\.json: is nested more than"),
    "not UTF-8": (file(RESULTS, b'{"task": "\xff"}'), r"^results\.json: is not UTF-8"),
    "half a character": (text(RESULTS, '"attributes"', '"\\ud800"'), r"^results\.json: holds half a character"),
    "a long text": (edit(RESULTS, put("task", to="a" * 20_000)), r"^results\.json: holds a text of 20000 characters"),
    "a file that is too large": (file(RESULTS, " " * (MAX_FILE_BYTES + 1)), r"^results\.json: has \d+ bytes; at most"),
    # answers
    "an answer": (lines(lambda rows: rows[0].update(generated="mountain", em_forced=0, logprob=-9.0)), RESULTS_LINE.format(".*")),
    "an outcome": (lines(lambda rows: rows[3].update(em_forced=1 - rows[3]["em_forced"])), RESULTS_LINE.format(".*")),
    "a log-probability": (lines(lambda rows: rows[0].update(logprob=rows[0]["logprob"] - 0.5)), RESULTS_LINE.format(r".*logprob.*")),
    "a log-probability above 0": (lines(lambda rows: rows[0].update(logprob=0.5)), r"^seed-0/samples.*: line 1: logprob: Input should be less"),
    "a log-probability that overflows": (lines(lambda rows: rows[0].update(logprob=-2.2e155)), r"^seed-0/samples.*: line 1: logprob: Input should be greater"),
    "a log-probability that is NaN": (lines(lambda rows: rows[0].update(logprob=math.nan)), r"^seed-0/samples.*: line 1 holds NaN"),
    "a log-probability as text": (lines(lambda rows: rows[0].update(logprob="-1")), r"^seed-0/samples.*: line 1: logprob: Input should be a valid number"),
    "an outcome of 2": (lines(lambda rows: rows[0].update(em_forced=2)), r"^seed-0/samples.*: line 1: em_forced: Input should be less"),
    "an outcome of true": (lines(lambda rows: rows[0].update(em_forced=True)), r"^seed-0/samples.*: line 1: em_forced: Input should be a valid integer"),
    "unlikely but the most likely": (
        lines(lambda rows: next(r for r in rows if not r["em_forced"]).update(logprob=-0.1)), r"^seed-0/samples.*more than half of the probability, but em_forced is 0"
    ),
    "forced but not generated": (lines(right), r"^seed-0/samples.*: em_forced: is 1, but the generated answer is not an accepted one"),
    "an answer of two lines": (lines(lambda rows: rows[0].update(generated="a\nb")), r"^seed-0/samples.*: generated: is not cut at the newline"),
    "a key too many in an answer": (lines(lambda rows: rows[0].update(em=1)), r"^seed-0/samples.*: line 1: em: Extra inputs"),
    "a key too few in an answer": (lines(lambda rows: rows[0].pop("generated")), r"^seed-0/samples.*: line 1: generated: Field required"),
    "a key twice in an answer": (text(SAMPLES, '{"id"', '{"id": "x", "id"'), r"^seed-0/samples.*: line 1 has the key 'id' twice"),
    "a dropped answer": (lines(lambda rows: rows.pop(5)), r"^seed-0/samples.*: x1 .*: has no answer"),
    "an answer twice": (lines(lambda rows: rows.append(rows[5])), r"^seed-0/samples.*: x1 .*: is answered more than once"),
    "an answer to another question": (lines(lambda rows: rows[0].update(id="d1_cons_qa/qa/9999/shape")), r"^seed-0/samples.*: d1_cons_qa/qa/9999/shape: was not asked|x1 d1_cons_qa/qa/9999/shape: was not asked"),
    "an answer of another stage": (lines(lambda rows: rows[0].update(stage="x9")), r"^seed-0/samples.*: x9 .*: was not asked"),
    "swapped seeds": (swap_seeds, r"^seed-0/samples.*: x1 .*: was not asked"),
    "no samples": (lambda copy: (copy.path / SAMPLES).unlink(), r"^seed-0/samples.jsonl.gz: is missing"),
    "a line that is a list": (file(SAMPLES, gzip.compress(b"[]\n")), r"^seed-0/samples.*: line 1 is not a JSON object"),
    "a zip bomb": (zip_bomb, rf"^seed-0/samples.*: unpacks to more than {MAX_UNPACKED_BYTES} bytes"),
    "a text of a gigabyte": (long_text, r"^seed-0/samples.*: unpacks to more than"),
    "many archives": (many_bombs, rf"^its files unpack to more than {MAX_TOTAL_BYTES} bytes in all"),
    "an archive cut off": (lambda copy: copy.write(SAMPLES, (copy.path / SAMPLES).read_bytes()[:-9]), r"^seed-0/samples.*: is cut off"),
    "an archive with a second part": (
        lambda copy: copy.write(SAMPLES, (copy.path / SAMPLES).read_bytes() + gzip.compress(b"hidden")), r"^seed-0/samples.*more than one gzip member"
    ),
    "no archive": (file(SAMPLES, "id"), r"^seed-0/samples.*: is not gzip"),
    # how it was made
    "the task's version": (edit(MANIFEST, put("config", "task", "version", to=3)), r"^(results\.json: task_version|manifest\.json: config\.task)"),
    "the task": (edit(MANIFEST, put("config", "task", "design", "alpha", to=0.9)), r"^manifest\.json: datasets\.seed-0: is not what the task builds"),
    "a task that would be huge": (
        edit(MANIFEST, put("config", "task", "source_args", "num_entities", to=10**12)), r"^manifest\.json: config\.task: asks for more data"
    ),
    "a task of no source": (edit(MANIFEST, put("config", "task", "source", to="nowhere")), r"^manifest\.json: config\.task\.source: is none of ocl-bench's"),
    "a dataset": (edit(MANIFEST, put("datasets", "seed-0", to="0" * 64)), r"^manifest\.json: datasets\.seed-0: is not what the task builds"),
    "a seed left out": (edit(MANIFEST, put("config", "seeds", to=[0])), r"^manifest\.json: stages: has not exactly the cells seed-0"),
    "a seed added": (edit(MANIFEST, put("config", "seeds", to=[0, 1, 2])), r"^seed-2/samples.jsonl.gz: is missing"),
    "very many seeds": (edit(MANIFEST, put("config", "seeds", to=list(range(2000)))), r"^manifest\.json: config\.seeds: more than 20"),
    "the limit": (edit(MANIFEST, put("config", "limit", to=12)), r"^manifest\.json: config\.limit: only 12 questions per subset"),
    "modified": (edit(MANIFEST, put("config", "modified", to=False)), r"^manifest\.json: config\.modified: should be true"),
    "optimizer steps": (stage("seed-0", "x1", "optimizer_steps", 10_000), r"^manifest\.json: stages\.seed-0\.x1\.optimizer_steps: is 10000; data and recipe give \d+"),
    "training data": (stage("seed-1", "x2", "records", 7), r"^manifest\.json: stages\.seed-1\.x2\.records: is 7; data and recipe give \d+"),
    "epochs": (stage("seed-0", "x1", "epochs", 40), r"^manifest\.json: stages\.seed-0\.x1\.epochs: is 40; data and recipe give 3"),
    "the batch size": (stage("seed-0", "x1", "effective_batch_size", 1), r"^manifest\.json: stages\.seed-0\.x1\.effective_batch_size: "),
    "micro-batches": (stage("seed-0", "x1", "micro_batch_size", 0), r"^manifest\.json: stages\.seed-0\.x1\.micro_batch_size: Input should be greater"),
    "the learning rate": (stage("seed-0", "x1", "learning_rate_peak", 0.5), r"^manifest\.json: stages\.seed-0\.x1\.learning_rate_peak: is 0\.5"),
    "a learning rate below 0": (stage("seed-0", "x1", "learning_rate_last", -1.0), r"^manifest\.json: stages\.seed-0\.x1\.learning_rate_last: Input should be greater"),
    "a stage's key": (stage("seed-0", "x1", "key", "0" * 64), r"^manifest\.json: stages\.seed-0\.x1\.key: is not the sha256 of the identity"),
    **{
        f"a stage's {key}": (
            edit(MANIFEST, put("stages", "seed-1", "x2", "identity", key, to=to)), rf"^manifest\.json: stages\.seed-1\.x2\.identity\.{key}: is not what task, recipe and seeds give"
        )
        for key, to in {"dataset": "0" * 64, "seed": 7, "parent": "0" * 64, "world_size": 2}.items()
    },
    "a stage's recipe": (
        edit(MANIFEST, put("stages", "seed-1", "x2", "identity", "recipe", "weight_decay", to=0.7)), r"^manifest\.json: stages\.seed-1\.x2\.identity\.recipe: is not what task"
    ),
    "a first stage of other weights": (
        edit(MANIFEST, put("stages", "seed-1", "x1", "identity", "parent", to="0" * 64)), r"^manifest\.json: stages\.seed-1\.x1\.identity\.parent: is not a model"
    ),
    "random weights of another seed": (
        edit(MANIFEST, put("stages", "seed-1", "x1", "identity", "parent", "init_seed", to=0)), r"^manifest\.json: stages\.seed-1\.x1\.identity\.parent\.init_seed: is not that of the model"
    ),
    "a precision of training": (
        edit(MANIFEST, put("config", "compute", "training", "autocast", to=True)), r"^manifest\.json: config\.compute\.training: is not what model and recipe give"
    ),
    "a checkpoint without weights": (stage("seed-0", "x1", "files", {}), r"^manifest\.json: stages\.seed-0\.x1\.files: has no weights"),
    "answers asked": (asked("seed-0", "x1", "rows", to=3), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.rows: is 3; there are \d+ answers"),
    "answers that differ": (
        asked("seed-0", "x1", "facts", "differing", to=10**6), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.facts: are not prompts_sha256, and differing from 0"
    ),
    "answers of other weights": (
        asked("seed-0", "x1", "identity", "weights", to="0" * 64), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.identity: is not what weights, questions and engine give"
    ),
    "answers to longer prompts": (
        asked("seed-0", "x1", "identity", "settings", "max_new_tokens", to=99), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.identity: is not what weights, questions"
    ),
    "the key of answers": (asked("seed-0", "x1", "key", to="0" * 64), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.key: is not the sha256 of the identity"),
    "the checksum of answers": (asked("seed-0", "x1", "rows_sha256", to="0" * 64), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.rows_sha256: is not that of the answers"),
    "answers of another engine": (asked("seed-0", "x1", "engine", "version", to="9.9"), r"^manifest\.json: evaluations\.seed-0\.x1\.answers\.engine: is not that of the run"),
    "no answers told of": (edit(MANIFEST, drop("evaluations", "seed-0", "x1", "answers")), r"^manifest\.json: evaluations\.seed-0\.x1: has not exactly the evaluator answers"),
    "answers to other questions": (
        asked("seed-0", "x2", "identity", "settings", "questions", to="0" * 64), r"^manifest\.json: evaluations\.seed-0\.x2\.answers\.identity: is not what weights"
    ),
    "a stage that was not asked": (edit(MANIFEST, drop("evaluations", "seed-1", "x1")), r"^manifest\.json: evaluations\.seed-1: has not exactly the stages x1, x2"),
    "X2 that changed nothing": (
        same_weights(("seed-0", "x2", "weights_before"), ("seed-0", "x2", "weights_after")), r"^manifest\.json: stages\.seed-0\.x2\.weights_after: are those that the stage began with"
    ),
    "X2 from other weights": (
        same_weights(("seed-0", "x1", "weights_before"), ("seed-0", "x2", "weights_before")), r"^manifest\.json: stages\.seed-0\.x2\.weights_before: are not those that the stage before"
    ),
    "seeds that began alike": (
        same_weights(("seed-0", "x1", "weights_before"), ("seed-1", "x1", "weights_before")), r"^manifest\.json: stages: two seeds began with the same random weights"
    ),
    "seeds that ended alike": (
        same_weights(("seed-0", "x2", "weights_after"), ("seed-1", "x2", "weights_after")), r"^manifest\.json: stages: two trainings ended with the same"
    ),
    "a stage left out": (edit(MANIFEST, drop("stages", "seed-1", "x1")), r"^manifest\.json: stages\.seed-1: has not exactly the stages x1, x2"),
    "a run that failed": (edit(MANIFEST, put("status", to="failed")), r"^manifest\.json: status: is 'failed'"),
    "no version of torch": (edit(MANIFEST, drop("versions", "torch")), r"^manifest\.json: versions\.torch: is missing"),
    "a manifest of an older format": (edit(MANIFEST, put("schema_version", to=2)), r"^manifest\.json: schema_version: "),
    "a script in the hardware": (
        edit(MANIFEST, put("hardware", "processor", to="<script>alert(1)</script>")), r"^manifest\.json: hardware\.processor: holds <, >"
    ),
    # who and what
    "another model's name": (edit(SUBMISSION, put("model", to="other")), r"^submission\.json: belongs into attributes/someone__other/"),
    "a script in a name": (edit(SUBMISSION, put("submitted_by", to="<script>alert(1)</script>")), r"^submission\.json: submitted_by: holds <, >"),
    "a script as the model": (edit(SUBMISSION, put("model", to="<img src=x>")), r"^submission\.json: model: String should match"),
    "text that turns round": (edit(SUBMISSION, put("contact", to="a\u202egro.elpmaxe@")), r"^submission\.json: contact: holds <, > or a character that does not print"),
    "a zero byte": (edit(SUBMISSION, put("notes", to="a\u0000b")), r"^submission\.json: notes: holds <, > or a character"),
    "no contact": (edit(SUBMISSION, put("contact", to="")), r"^submission\.json: contact: String should have at least 1"),
    "no statement of what differs": (edit(SUBMISSION, put("notes", to="")), r"^submission\.json: notes: say what differs"),
    "a way out of the folder, as model": (edit(SUBMISSION, put("model", to="../../../etc")), r"^submission\.json: model: String should match"),
    "a way out of the folder, as task": (edit(SUBMISSION, put("task", to="../attributes")), r"^submission\.json: task: String should match"),
    "another revision": (edit(SUBMISSION, put("revision", to="config-000000000000")), r"^submission\.json: revision: is not that of the model"),
    "another configuration": (edit(CONFIG, put("hidden_size", to=4096)), r"^submission\.json: revision: is not that of the model"),
    "a script as architecture": (edit(CONFIG, put("model_type", to="<b>")), r"^config\.json: model_type: is no name of an architecture"),
    "the standard division": (edit(SUBMISSION, put("division", to="standard")), r"^manifest\.json: config\.seeds: lacks the standard seeds 2, 3, 4"),
    # what would choose code
    "code of a model's own, in the revision": (
        edit(MANIFEST, put("model_revision", to="main,trust_remote_code=true")), r"^manifest\.json: model_revision: String should match"
    ),
    "code of a model's own, in the revision to load": (
        edit(MANIFEST, put("config", "model", "args", "revision", to="main,trust_remote_code=true")),
        r"^manifest\.json: config\.model\.args\.revision: has to be 'main'",
    ),
    "a branch of the hub": (
        edit(MANIFEST, lambda m: (put("config", "model", "source", to="hub")(m), put("model_revision", to="main")(m))[0]),
        r"^manifest\.json: model_revision: is no commit of the hub",
    ),
    "another commit than was run": (
        edit(MANIFEST, lambda m: (put("config", "model", "source", to="hub")(m), put("model_revision", to="a" * 40)(m))[0]),
        r"^manifest\.json: config\.model\.args\.revision: is not model_revision",
    ),
    "trust": (
        edit(MANIFEST, put("config", "model", "args", "trust_remote_code", to=True)), r"^manifest\.json: config\.model\.args\.trust_remote_code: has to be false"
    ),
    **{
        f"a tokenizer at {path}": (
            edit(MANIFEST, put("config", "model", "args", "tokenizer", to=path)), r"^manifest\.json: config\.model\.args\.tokenizer: is no name of a tokenizer"
        )
        for path in ("/tmp/code", "./code", "../code", "a/b/c", "org/..", "org/a..b", "org/x,trust_remote_code=true", "")
    },
    "a tokenizer in the standard division": (
        lambda copy: (
            copy.edit(SUBMISSION, put("division", to="standard")),
            copy.edit(MANIFEST, put("config", "model", "args", "tokenizer", to="org/tokenizer")),
        )[0],
        r"^manifest\.json: config\.model\.args\.tokenizer: has to be null in the standard division",
    ),
    "a kernel of the hub as attention": (
        edit(MANIFEST, put("config", "model", "args", "attn_implementation", to="org/kernel")), r"^manifest\.json: config\.model\.args\.attn_implementation: is none of eager"
    ),
    "a file as the task's model": (
        edit(MANIFEST, put("config", "task", "model", to="scratch:/tmp/x")), r"^manifest\.json: config\.task\.model: names neither"
    ),
    "a file as the task's recipe": (
        edit(MANIFEST, put("config", "task", "recipe", "scratch", to="/tmp/x.yaml")), r"^manifest\.json: config\.task\.recipe\.scratch: is no recipe's name"
    ),
    "a path for the engine": (
        edit(MANIFEST, put("config", "compute", "engine_args", to={"worker_cls": "a.b.C"})), r"^manifest\.json: config\.compute\.engine_args\.worker_cls: is neither a number nor a word"
    ),
    "a mapping for the engine": (
        edit(MANIFEST, put("config", "compute", "engine_args", to={"hf_overrides": {"auto_map": "x"}})), r"^manifest\.json: config\.compute\.engine_args\.hf_overrides: is neither"
    ),
    "trust of the engine": (
        edit(MANIFEST, put("config", "compute", "engine_args", to={"trust_remote_code": True})), r"^manifest\.json: config\.compute\.engine_args\.trust_remote_code: has to be false"
    ),
    "a tokenizer for the engine": (
        edit(MANIFEST, put("config", "compute", "engine_args", to={"tokenizer": "x"})), r"^manifest\.json: config\.compute\.engine_args\.tokenizer: is not part of a run"
    ),
    **{
        f"{key} in the configuration": (edit(CONFIG, put(key, to=value)), rf"^config\.json: {key}: chooses code or other files")
        for key, value in {
            "auto_map": {"AutoConfig": "own.Config"}, "trust_remote_code": True, "custom_pipelines": {}, "custom_pipeline": "x",
            "attn_implementation": "org/kernel", "_attn_implementation": "org/kernel", "_attn_implementation_internal": "x",
            "experts_implementation": "x", "quantization_config": {"quant_method": "x"}, "_name_or_path": "/tmp/code",
            "name_or_path": "/tmp/code", "adapter_config": {}, "peft_config": {}, "base_model_name_or_path": "x", "kernel_config": {},
            "use_kernels": True, "transformers_weights": "x", "step_kernel": "org/kernel:x",
        }.items()
    },
    "code deep in the configuration": (
        edit(CONFIG, put("text_config", to={"inner": [{"auto_map": {"AutoConfig": "own.Config"}}]})),
        r"^config\.json: text_config\.inner\.0\.auto_map: chooses code",
    ),
    "an architecture by path, deep in the configuration": (
        edit(CONFIG, put("text_config", to={"model_type": "../x"})), r"^config\.json: text_config\.model_type: is no name of an architecture"
    ),
    "no architecture": (edit(CONFIG, drop("model_type")), r"^config\.json: model_type: is no name of an architecture"),
    "a module as tokenizer class": (edit(CONFIG, put("tokenizer_class", to="a.b.C")), r"^config\.json: tokenizer_class: is no name of a class"),
    "a module as model class": (edit(CONFIG, put("architectures", to=["a/b.C"])), r"^config\.json: architectures: are no names of classes"),
    "an address in the configuration": (
        edit(CONFIG, put("index_path", to=["https://example.org"])), r"^config\.json: index_path: holds a path or an address"
    ),
    "uncommitted code": (
        lambda copy: (copy.edit(SUBMISSION, put("division", to="standard")), copy.edit(MANIFEST, put("dirty", to=True)))[0],
        r"^manifest\.json: dirty: code or tasks had uncommitted changes",
    ),
    "uncommitted code, in a stage": (
        lambda copy: (
            copy.edit(SUBMISSION, put("division", to="standard")),
            copy.edit(MANIFEST, lambda m: (clean(m), put("stages", "seed-0", "x1", "provenance", "dirty", to=True)(m))[0]),
        )[0],
        r"^manifest\.json: dirty: code or tasks had uncommitted changes",
    ),
    "weights that nobody has": (
        lambda copy: (
            copy.edit(SUBMISSION, put("division", to="standard")),
            copy.edit(MANIFEST, put("config", "model", "source", to="folder")),
        )[0],
        r"^manifest\.json: config\.model\.source: nobody else has these weights",
    ),
    "prompts that differ": (
        asked("seed-0", "x2", "facts", "prompts_sha256", to="0" * 64),
        r"^manifest\.json: evaluations\.seed-0\.x2\.answers\.facts\.prompts_sha256: differs from stage to stage",
    ),
    "no submission.json": (lambda copy: (copy.path / SUBMISSION).unlink(), r"^submission\.json: is missing"),
    # files
    "a file more": (file("evil.pkl", b"\x80\x04."), r"^evil\.pkl: does not belong into this submission"),
    "a cell more": (file("seed-9/samples.jsonl.gz", gzip.compress(b"")), r"^seed-9/samples\.jsonl\.gz: does not belong"),
    "a link": (link("extra.json", "/etc/passwd"), r"^extra\.json: is a link"),
    "a file that is a link": (link(RESULTS, "/etc/passwd"), r"^results\.json: is a link"),
    "a pipe": (lambda copy: os.mkfifo(copy.path / "pipe"), r"^pipe: is neither a file nor a folder"),
    # learning curves
    "a curve of another subset": (lines(lambda rows: rows[0].update(subset="d9"), CURVES), r"^seed-0/curves.*: x1 epoch 1 d9: is not a point"),
    "a curve that goes on": (lines(lambda rows: rows[0].update(epoch=9), CURVES), r"^seed-0/curves.*: x1 epoch 9 \w+: is not a point"),
    "a curve point twice": (lines(lambda rows: rows.append(rows[0]), CURVES), r"^seed-0/curves.*: x1 epoch 1 \w+: is not a point"),
    "a curve cut short": (lines(lambda rows: rows.pop(), CURVES), r"^seed-0/curves.*: x2 epoch 2 \w+: is missing from the learning curve"),
    "a curve above 1": (lines(lambda rows: rows[0].update(em_forced=2.0), CURVES), r"^seed-0/curves.*: line 1: em_forced: Input should be less"),
    "no curves": (lambda copy: (copy.path / CURVES).unlink(), r"^seed-0/curves.*: is missing, though the run recorded curves"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_refused_in_a_line_that_names_it(name: str, copy: Copy) -> None:
    tamper, line = TAMPERED[name]
    tamper(copy)
    copy.rehash()  # checksums fit: what is wrong shows all the same
    start = time.monotonic()
    problems = copy.problems()
    assert time.monotonic() - start < 10
    assert any(re.search(line, problem) for problem in problems), problems
    assert all(problem.isprintable() and len(problem) < 600 for problem in problems)
    assert not any("the checks failed" in problem for problem in problems)


def test_a_curve_ends_where_the_answers_are_if_all_was_asked(whole_run: Path, tmp_path: Path) -> None:
    card = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")
    whole = write_submission(whole_run, tmp_path / "results", "open", "someone/whole", card)
    copy = Copy(tmp_path / "results" / whole.place, tmp_path / "copies")
    assert copy.problems() == []
    copy.edit_lines(CURVES, lambda rows: [row.update(em_forced=1.0) for row in rows])
    copy.rehash()
    line = r"^seed-0/curves.*: x1 epoch 2 \w+: the curve does not end where the samples are"
    assert any(re.match(line, problem) for problem in copy.problems())


def test_an_untouched_copy_passes(copy: Copy) -> None:
    copy.rehash()
    assert copy.problems() == []


@pytest.mark.parametrize(("by", "passes"), [(1e-12, True), (1e-6, False)])
def test_another_processors_last_digits_are_no_change_of_the_results(by: float, passes: bool, copy: Copy) -> None:
    """With 512-bit registers the ends of intervals had other last digits, and every honest submission was refused."""
    copy.edit(RESULTS, put("gaps", "ocl_gap", "logprob", "ci95", 0, to=lambda end: end * (1 + by)))
    copy.rehash()
    assert (copy.problems() == []) is passes


@pytest.mark.parametrize("name", [MANIFEST, RESULTS, CONFIG, SAMPLES, CURVES])
def test_a_changed_file_does_not_fit_its_checksum(name: str, copy: Copy) -> None:
    content = (copy.path / name).read_bytes()
    copy.write(name, gzip.compress(gzip.decompress(content) + b"\n") if name.endswith(".gz") else content + b" ")
    assert f"{name}: its sha256 is not the one in submission.json" in copy.problems()


def test_a_checksum_of_no_file_and_a_file_without_checksum_are_named(copy: Copy) -> None:
    copy.edit(SUBMISSION, put("files", "seed-9/nothing.json", to="0" * 64))
    copy.edit(SUBMISSION, drop("files", CONFIG))
    assert copy.problems() == [
        "config.json: is not listed in submission.json",
        "submission.json: files.seed-9/nothing.json: there is no such file",
    ]


def test_all_problems_are_said_in_one_go(copy: Copy) -> None:
    copy.edit(RESULTS, put("metrics", "d1_cons", "em", "mean", to=0.5))
    copy.edit(MANIFEST, put("stages", "seed-0", "x1", "records", to=1))
    copy.edit_lines(CURVES, lambda rows: rows.pop())
    copy.rehash()
    files = [problem.split(":")[0] for problem in copy.problems()]
    assert files == ["manifest.json", "results.json", "seed-0/curves.jsonl.gz"]


def test_a_curve_has_to_end_where_the_answers_are(tmp_path: Path) -> None:
    """Of an accepted submission, whose questions were all asked: a limit leaves some that only the curve shows."""
    copy = Copy(ACCEPTED, tmp_path)
    copy.edit_lines(CURVES, lambda rows: [row.update(em_forced=1.0) for row in rows])
    copy.rehash()
    ends = "seed-0/curves.jsonl.gz: x1x2 epoch 20 d1_cons: the curve does not end where the samples are"
    assert ends in copy.problems()


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value holds numbers."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in numbers(inner, (*path, key))]
    if isinstance(value, list):
        return [found for number, inner in enumerate(value) for found in numbers(inner, (*path, number))]
    return [path] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


OTHER = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**30), 10**30),
    st.text(max_size=20),
    st.none(),
    st.booleans(),
    st.lists(st.integers(), max_size=3),
)
# CI looks at the same examples every time, so that a failure there is of the change; elsewhere they are new ones.
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize="CI" in os.environ
)


@QUICK
@given(data=st.data())
def test_no_number_can_be_changed(data: st.DataObject, small_submission: Path) -> None:
    """With the checksums made to fit: results and answers. Without, any file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(small_submission, Path(folder))
        careful = data.draw(st.booleans())
        name = data.draw(
            st.sampled_from([RESULTS, SAMPLES] if careful else [RESULTS, SAMPLES, MANIFEST, CONFIG, CURVES])
        )
        changed = False

        def change(value: Any) -> None:
            nonlocal changed
            *keys, last = data.draw(st.sampled_from(numbers(value)))
            for key in keys:
                value = value[key]
            new = data.draw(OTHER)
            changed = json.dumps(new) != json.dumps(value[last])
            if name == RESULTS and isinstance(new, float) and isinstance(value[last], float):
                changed = not math.isclose(new, value[last], rel_tol=LAST_DIGITS, abs_tol=LAST_DIGITS)
            value[last] = new

        (copy.edit_lines if name.endswith(".gz") else copy.edit)(name, change)
        if careful:
            copy.rehash()
        start = time.monotonic()
        problems = copy.problems()
        assert time.monotonic() - start < 10
        assert problems or not changed
        assert not any("the checks failed" in problem for problem in problems)


@QUICK
@given(data=st.data())
def test_no_bytes_make_the_checks_crash(data: st.DataObject, small_submission: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(small_submission, Path(folder))
        name = data.draw(st.sampled_from([RESULTS, SAMPLES, MANIFEST, CONFIG, CURVES, SUBMISSION]))
        content = (copy.path / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        start = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 40))
        new = content[:start] + data.draw(st.binary(max_size=40)) + content[start + cut :]
        copy.write(name, gzip.compress(new) if name.endswith(".gz") else new)
        if data.draw(st.booleans()):
            copy.rehash()
        begun = time.monotonic()
        problems = copy.problems()
        assert time.monotonic() - begun < 10
        assert all(problem.isprintable() and "the checks failed" not in problem for problem in problems)


def test_the_command_says_a_line_for_each_problem_and_exits_1(copy: Copy, small_submission: Path) -> None:
    copy.edit(RESULTS, put("gaps", "ocl_gap", "em", "mean", to=0.9))
    command = ("leaderboard", "validate")
    done = call(*command, small_submission, copy.path, folder=copy.path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{small_submission}: ok",
        f"{copy.path}/results.json: its sha256 is not the one in submission.json",
        *(line for line in done.stdout.splitlines() if "gaps.ocl_gap.em.mean: is 0.9; the answers give" in line),
    ]
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "1 submission did not pass\n"
    nowhere = call(*command, copy.path / "nowhere", folder=copy.path)
    assert nowhere.returncode == 2 and "there is no such folder" in nowhere.stderr


def test_a_folder_of_results_may_hold_nothing_else(copy: Copy) -> None:
    results = copy.path.parents[2]
    half = results / "attributes" / "a__b" / "config-000000000000"
    half.mkdir(parents=True)
    (half / MANIFEST).write_text("{}")
    (results / "attributes" / "loose.txt").write_text("hello")
    (results / "elsewhere").symlink_to("/")
    problems = {path.name: list(map(str, check(path).problems)) for path in find_submissions(results)}
    assert problems.pop(copy.path.name) == []
    assert "submission.json: is missing" in problems.pop(half.name)
    assert problems == {name: ["is not a folder of a submission"] for name in ("loose.txt", "elsewhere")}


def test_many_are_checked_by_several_processes_and_told_in_their_order(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    honest = tmp_path / "results" / Path(*small_submission.parts[-3:])
    shutil.copytree(small_submission, honest)
    for number in range(9):
        folder = tmp_path / "results" / f"task_{number % 2}" / f"org__model-{number}" / "config-0123456789ab"
        folder.mkdir(parents=True)
        (folder / SUBMISSION).write_text("{}")
    found = list(check_all([tmp_path / "results"]))
    assert [one.folder for one in found] == list(find_submissions(tmp_path / "results"))
    assert [one.folder for one in found if not one.problems] == [honest]
    assert not any(one.begun_with for one in found), "initial weights were not looked at"


def test_checking_needs_no_torch(small_submission: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ocl_bench.leaderboard.validate import check; "
        f"problems = check(Path({str(small_submission)!r})).problems; "
        "print(json.dumps([problems == [], [n for n in ('torch', 'transformers', 'pickle5') if n in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]


def test_ranks_rest_on_the_standard_seeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if seven of its ten seeds were the submitter's own choice.
    monkeypatch.setattr(Task, "standard_seeds", property(lambda self: (0, 1, 2)))
    checked = check(ACCEPTED)
    assert checked.problems == [] and checked.results is not None and checked.ranked is not None
    submitted, ranked = (one.gaps["meta_ocl_gap"]["choice"] for one in (checked.results, checked.ranked))
    assert ranked.per_seed == {seed: submitted.per_seed[seed] for seed in ("0", "1", "2")}
    assert checked.ranked.seeds == (0, 1, 2) and ranked.mean != submitted.mean
