"""Make whatever of a submission is derived fit what was changed, with the suite's own functions, as a forger would."""

import gzip
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ocl_bench.evaluate.answers import Answer
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.evaluate.evaluator import EVALUATORS, Observed
from ocl_bench.evaluate.questions import asked_after, question_settings
from ocl_bench.evaluate.sampling import curve_sample
from ocl_bench.files import sha256
from ocl_bench.finetune.epoch import trained_on
from ocl_bench.leaderboard.submission import (
    CONFIG,
    CURVES,
    MANIFEST,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    SubmittedAnswer,
    answer_lines,
    revision,
)  # fmt: skip
from ocl_bench.leaderboard.untrusted import pack
from ocl_bench.models.word_level import vocabulary
from ocl_bench.registry import load_attribute
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.folder import results_of
from ocl_bench.runner.identity import BaseIdentity, EvaluationIdentity, content_key, vocabulary_sha256
from ocl_bench.runner.jobs import stage_identity
from ocl_bench.runner.manifest import Manifest
from ocl_bench.runner.store import rows_text
from ocl_bench.tasks.build import build
from ocl_bench.tasks.records import Record, dataset_sha256, texts
from ocl_bench.tasks.schema import Task

Row = dict[str, Any]


@dataclass
class Forgery:
    """A submission in memory, all of which can be changed.

    Attributes:
        card, manifest: submission.json and manifest.json.
        config: the bytes of config.json.
        answers, curves: cell → its rows.
    """

    card: Row
    manifest: Row
    config: bytes
    answers: dict[str, list[Row]]
    curves: dict[str, list[Row]]

    @property
    def told(self) -> Manifest:
        return parsed(json.dumps(self.manifest))

    def stages(self) -> Iterable[tuple[Cell, str, Row]]:
        """Every training: cell, stage, and what the manifest says of it."""
        told = self.told
        for cell in told.config.cells:
            for stage in cell.owned(told.config.task):
                yield cell, stage.name, self.manifest["stages"][cell.name][stage.name]

    def records(self, cell: Cell) -> tuple[Record, ...]:
        """The cell's data."""
        return built(self.told.config.task.model_dump_json(), cell.seed, cell.stage2_seed)

    def questions(self, cell: Cell, stage: str | None = None) -> dict[str, Record]:
        """What the cell is asked after a stage; None: after any of its own."""
        config = self.told.config
        stages = [one.name for one in cell.owned(config.task)] if stage is None else [stage]
        asked = (asked_after(config.task, one, self.records(cell), config.limit, cell.seed) for one in stages)
        return {record.id: record for records in asked for record in records}

    def rename(self, org: str, model: str) -> None:
        """Call the model otherwise, everywhere."""
        spec, name = self.manifest["config"]["model"], f"{org}/{model}"
        spec["name"], spec["location"] = ("scratch:" if spec["source"] == "scratch" else "") + name, name
        self.card |= {"org": org, "model": model}

    def write(self, results: Path) -> Path:
        """Make everything derived fit, and write the submission below a folder `results`; returns its folder."""
        settle(self)
        told = self.told
        self.card["revision"] = revision(told, self.config)
        folder = results / self.card["task"] / f"{self.card['org']}__{self.card['model']}" / self.card["revision"]
        files = {
            MANIFEST: (told.model_dump_json(indent=2) + "\n").encode(),
            RESULTS: (scored(self).model_dump_json(indent=2) + "\n").encode(),
            CONFIG: self.config,
        }
        for cell, rows in self.answers.items():
            files[f"{cell}/{SAMPLES}"] = pack(answer_lines(map(SubmittedAnswer.model_validate, rows)))
        for cell, rows in self.curves.items():
            files[f"{cell}/{CURVES}"] = pack(rows_text([CurvePoint.model_validate(row) for row in rows]).encode())
        self.card["files"] = {name: sha256(content) for name, content in sorted(files.items())}
        files[SUBMISSION] = (json.dumps(self.card, indent=2) + "\n").encode()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


def read(folder: Path) -> Forgery:
    """A submission that lies in a folder."""

    def rows(name: str) -> dict[str, list[Row]]:
        paths = sorted(folder.glob(f"*/{name}"))
        return {path.parent.name: [json.loads(line) for line in gzip.open(path).read().splitlines()] for path in paths}

    card, manifest = (json.loads((folder / name).read_text()) for name in (SUBMISSION, MANIFEST))
    return Forgery(card, manifest, (folder / CONFIG).read_bytes(), rows(SAMPLES), rows(CURVES))


@lru_cache(maxsize=8)
def parsed(manifest: str) -> Manifest:
    """A manifest, which is given as JSON."""
    return Manifest.model_validate_json(manifest)


@lru_cache(maxsize=64)
def tokenizer(task: str, seed: int) -> str:
    """Identity of the suite's own tokenizer for a seed's data."""
    return vocabulary_sha256(vocabulary(texts(built(task, seed, 0))))


@lru_cache(maxsize=64)
def built(task: str, seed: int, stage2_seed: int) -> tuple[Record, ...]:
    """The data of a cell of a task, which is given as JSON."""
    return tuple(build(Task.model_validate_json(task), seed, stage2_seed))


@lru_cache(maxsize=512)
def digest(records: tuple[Record, ...]) -> str:
    """Identity of some of a dataset's records."""
    return dataset_sha256(list(records))


def settle(forgery: Forgery) -> None:
    """Every identity, key and checksum of the manifest is what data, recipe, weights and rows give."""
    told, manifest = forgery.told, forgery.manifest
    config, task = told.config, told.config.task
    manifest["datasets"] = {cell.name: digest(forgery.records(cell)) for cell in config.cells}
    for cell, name, record in forgery.stages():
        number = next(n for n, stage in enumerate(task.stages) if stage.name == name)
        records = forgery.records(cell)
        if number:
            before = cell.owner(task, number - 1).name
            record["weights_before"] = manifest["stages"][before][task.stages[number - 1].name]["weights_after"]
        parent: BaseIdentity | str = record["weights_before"]
        if not number:
            scratch = config.model.source == "scratch"
            known = (
                {"init_seed": cell.init_seed(task), "tokenizer": tokenizer(task.model_dump_json(), cell.seed)}
                if scratch
                else {}
            )
            parent = BaseIdentity(**record["identity"]["parent"] | known)
        trained = digest(tuple(trained_on(task.stages[number], records)))
        identity = stage_identity(config, cell, number, trained, parent)
        record |= {"identity": identity.model_dump(mode="json"), "key": content_key(identity)}
        _settle_curve(forgery, cell, name, record)
        _settle_answers(forgery, cell, name, record)


def _settle_curve(forgery: Forgery, cell: Cell, stage: str, record: Row) -> None:
    rows = [CurvePoint.model_validate(row) for row in forgery.curves.get(cell.name, []) if row["stage"] == stage]
    if rows:
        text, compute = rows_text(rows), forgery.told.config.compute
        settings = {"questions": digest(tuple(shown_in(forgery, cell, stage))), "precision": str(compute.evaluation)}
        identity = EvaluationIdentity(evaluator="curve", weights=record["key"], settings=settings)
        record["files"]["curve.jsonl"] = [len(text.encode()), sha256(text)]
        record["rows"]["curve"] = content_key(identity)


def shown_in(forgery: Forgery, cell: Cell, stage: str) -> list[Record]:
    """The questions of a stage's learning curve."""
    task = forgery.told.config.task
    tests = asked_after(task, stage, forgery.records(cell), None, cell.seed)
    return [tests[n] for n in curve_sample(tests, task.evaluate.curve_questions)]


def _settle_answers(forgery: Forgery, cell: Cell, stage: str, record: Row) -> None:
    config = forgery.told.config
    compute = config.compute
    rows = answers_of(forgery, cell.name, stage)
    found = forgery.manifest["evaluations"][cell.name][stage]["answers"]
    asked = digest(tuple(forgery.questions(cell, stage).values()))
    settings = question_settings(
        asked, config.task, str(compute.evaluation), compute.engine, compute.engine_args
    )  # fmt: skip
    identity = EvaluationIdentity(evaluator="answers", weights=record["weights_after"], settings=settings)
    found |= {"identity": identity.model_dump(mode="json"), "key": content_key(identity), "rows": len(rows)}
    found["rows_sha256"] = sha256(rows_text(rows))


def answers_of(forgery: Forgery, cell: str, stage: str) -> list[Answer]:
    """What a run stored of one stage of a cell."""
    rows = forgery.answers.get(cell, [])
    return [
        Answer(**{key: row[key] for key in Answer.model_fields if key in row}) for row in rows if row["stage"] == stage
    ]


def scored(forgery: Forgery) -> Any:
    """The results that the answers give."""
    config = forgery.told.config
    observed, records = [], {}
    for cell in config.cells:
        records[cell.seed, cell.stage2_seed] = list(forgery.records(cell))
        for stage in cell.owned(config.task):
            rows = answers_of(forgery, cell.name, stage.name)
            observed.append(Observed(cell.seed, cell.stage2_seed, stage.name, rows))
    summary = load_attribute(EVALUATORS.load("answers").summary)
    return results_of(forgery.told, summary(observed, config.task, records))


def end_curves(forgery: Forgery) -> None:
    """Learning curves end where the answers are, wherever all that a point shows was asked; former points follow."""
    told = forgery.told
    for cell in told.config.cells:
        questions = forgery.questions(cell)
        given = {(row["stage"], row["id"]): row for row in forgery.answers[cell.name]}
        points = forgery.curves.get(cell.name, [])
        last = {row["stage"]: row["epoch"] for row in points}
        for end in [row for row in points if row["epoch"] == last[row["stage"]]]:
            shown = shown_in(forgery, cell, end["stage"])
            own = {one.id: one for one in shown if (one.subset, one.set) == (end["subset"], end["set"])}
            if set(own) <= set(questions):
                rows = [given[end["stage"], id] for id in own]
                means = {key: sum(row[key] for row in rows) / len(rows) for key in ("em_forced", "logprob")}
                if end.get("choice") is not None:
                    right = (
                        one.options[row["choice"]] == one.answers[0]
                        for one, row in zip(own.values(), rows, strict=True)
                    )
                    means["choice"] = sum(right) / len(rows)
                for key, mean in means.items():
                    _slide(points, end, key, mean - end[key])
        for row in points:  # what is not greedy has half of the probability at most
            row["logprob"] = min(row["logprob"], (1 - row["em_forced"]) * -0.7)


def _slide(points: list[Row], end: Row, key: str, by: float) -> None:
    """Move a curve by as much at its end, and less before."""
    low, high = (-math.inf, 0.0) if key == "logprob" else (0.0, 1.0)
    same = ("stage", "subset", "set")
    for row in [row for row in points if all(row[name] == end[name] for name in same)]:
        moved = row[key] + by * row["epoch"] / end["epoch"]
        row[key] = min(high, max(low, moved))
