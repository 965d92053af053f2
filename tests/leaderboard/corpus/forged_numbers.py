"""Numbers that no run gave, each in a submission that is coherent otherwise."""

import random
from typing import Any

from forger import asked, edit, says
from settling import Forgery, Row, end_curves, read

from corpus.attack import Attack, Bench
from corpus.changes import Act, every_answer, every_point, forged, manifest, put, stage, tampered
from corpus.doors import checked
from corpus.outcome import Outcome


def rewritten(bench: Bench) -> Outcome:
    return checked(edit(bench.honest, bench.results, share=1.0), bench.folder)


def forced_only(forgery: Forgery) -> None:
    for row, record in asked(forgery):
        row["em_forced"] = int(record.subset == "d1_cons" or row["em_forced"])


def unlikely_but_greedy(forgery: Forgery) -> None:
    for row, record in asked(forgery):
        if record.subset == "d1_cons":
            row |= {"generated": record.answers[0], "em_forced": 1, "logprob": -300.0}


def only_last_epochs(forgery: Forgery) -> None:
    for name, rows in forgery.curves.items():
        last = {row["stage"]: row["epoch"] for row in rows}
        forgery.curves[name] = [row for row in rows if row["epoch"] == last[row["stage"]]]


def one_loss_of_an_epoch_differs(forgery: Forgery) -> None:
    forgery.curves["seed-0"][0]["loss"] += 1.0


def rescaled(bench: Bench) -> Outcome:
    """Log-probabilities of an entry whose questions were all asked, halved; its learning curves are as they were."""
    forgery = read(bench.small)
    for rows in forgery.answers.values():
        for row in rows:
            row["logprob"] = round(row["logprob"] / 2, 6) if row["em_forced"] else min(row["logprob"] / 2, -0.7)
    return checked(forgery.write(bench.results), bench.folder)


def with_seeds(seeds: list[int]) -> Act:
    """The manifest and results tell of other seeds; answers of new ones are those of old ones."""
    return manifest("config", "seeds", to=seeds)


def lucky_seeds(bench: Bench) -> Outcome:
    """A further seed beside the standard division's ten, with the best answers."""
    forgery = read(bench.accepted)
    forgery.manifest["config"]["seeds"] = [*range(10), 77]
    for part in (forgery.manifest["stages"], forgery.manifest["evaluations"], forgery.curves):
        part["seed-77"] = [dict(row) for row in part["seed-4"]] if part is forgery.curves else copied(part["seed-4"])
    for record in forgery.manifest["stages"]["seed-77"].values():
        record["weights_before"] = record["weights_before"][::-1]
        record["weights_after"] = record["weights_after"][::-1]
    cell = next(cell for cell in forgery.told.config.cells if cell.seed == 77)
    old = sorted(forgery.answers["seed-4"], key=lambda row: (row["stage"], row["id"]))
    wanted = sorted((name, id, one) for name in ("x1", "x2") for id, one in forgery.questions(cell, name).items())
    forgery.answers["seed-77"] = [
        {
            "stage": name, "id": id, "em_forced": 0, "logprob": min(row["logprob"], -0.7),
            **says(record, "nothing", random.Random(id)),
        }
        for (name, id, record), row in zip(wanted, old, strict=True)
    ]  # fmt: skip
    end_curves(forgery)
    return checked(forgery.write(bench.results), bench.folder)


def copied(value: Any) -> Any:
    return {key: copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def results(*keys: Any, to: Any) -> Act:
    return tampered(lambda copy: copy.edit("results.json", lambda value: put(value, *keys, to=to)))


def moved_down(row: Row) -> None:
    row["logprob"] = round(row["logprob"] - 3e-7, 9)


# name → (what is done, what has to be said)
NUMBERS: dict[str, tuple[Act, str]] = {
    "generated answers rewritten, all else as it was": (rewritten, r"generated|em_forced"),
    "em_forced rewritten, all else as it was": (forged(forced_only), r"em_forced"),
    "right by greedy decoding, with a log-probability of -300": (forged(unlikely_but_greedy), r"logprob"),
    "log-probabilities of more digits than are stored": (every_answer(moved_down), r"logprob|log-prob"),
    "log-probabilities halved, curves as they were": (rescaled, r"curve"),
    "learning curves of zeros until the end": (
        every_point(lambda row: row.update(logprob=0.0) if row["epoch"] == 1 else None), r"curve|logprob"
    ),
    "learning curves without loss": (every_point(lambda row: row.update(loss=0.0)), r"loss"),
    "learning curves of a negative loss": (every_point(lambda row: row.update(loss=-1.0)), r"loss"),
    "learning curves of the last epochs only": (forged(only_last_epochs), r"curve|epoch"),
    "one epoch of two losses": (forged(one_loss_of_an_epoch_differs), r"loss"),
    "a training loss that is not the last of the curve": (stage("train_loss", 0.01), r"train_loss|loss"),
    "a negative training loss": (stage("train_loss", -0.5), r"train_loss"),
    "a training that saw one token": (stage("real_tokens", 1), r"real_tokens"),
    "a training that saw tokens below zero": (stage("real_tokens", -7), r"real_tokens"),
    "a model of negative size": (manifest("parameters", to=-1), r"parameters"),
    "a model of no parameters": (manifest("parameters", to=0), r"parameters"),
    "the parameters of another model": (manifest("parameters", to=7 * 10**9), r"parameters"),
    "a run that ended before it began": (manifest("wall_seconds", to=-5.0), r"wall_seconds"),
    "memory below zero": (manifest("peak_memory_bytes", to=-1), r"peak_memory_bytes"),
    "a training in negative time": (stage("seconds", -1.0), r"seconds"),
    "a curve that took longer than its training": (stage("curve_seconds", 10.0**6), r"curve_seconds"),
    "trainings longer than the run": (stage("seconds", 10.0**9), r"seconds"),
    "stages reused below zero": (manifest("reused", to=-1), r"reused"),
    "memory that ran out less than never": (stage("out_of_memory", -1), r"out_of_memory"),
    "an engine that crashed less than never": (manifest("engine_crashes", to=-1), r"engine_crashes"),
    "a training resumed after its end": (stage("resumed", 99), r"resumed"),
    "weights loaded into an engine that was none": (manifest("engine_load_seconds", to=[1.0]), r"engine_load_seconds"),
    "a limit of no questions": (manifest("config", "limit", to=0), r"limit"),
    "a limit below zero": (manifest("config", "limit", to=-12), r"limit|no answer"),
    "a negative batch": (manifest("config", "batch_size", to=-1), r"batch_size"),
    "checkpoints before time": (manifest("config", "checkpoint_seconds", to=-1.0), r"checkpoint_seconds"),
    "no thread at all": (stage("provenance", lambda value: value | {"threads": 0}), r"threads"),
    "a device that the run did not have": (stage("provenance", lambda value: value | {"device": "cuda"}), r"device"),
    "answers in negative time": (
        manifest("evaluations", "seed-0", "x1", "answers", "seconds", to=-1.0), r"seconds"
    ),
    "a learning rate of the first step above the peak": (stage("learning_rate_first", 0.1), r"learning_rate_first"),
    "a step more than the recipe takes": (stage("optimizer_steps", lambda steps: steps + 1), r"optimizer_steps"),
    "a gap in the results alone": (results("gaps", "meta_ocl_gap", "em", "mean", to=0.9), r"gaps\.meta_ocl_gap"),
    "an interval of the results, narrower": (
        results("gaps", "ocl_gap", "logprob", "ci95", to=[0.1, 0.2]), r"gaps\.ocl_gap\.logprob\.ci95"
    ),
    "a warning taken out of the results": (results("notes", to=[]), r"notes"),
    "a stage that learned, by the results": (results("unlearned", to=[]), r"unlearned"),
    "a metric's eighth digit": (
        results("metrics", "d1_cons", "logprob", "mean", to=lambda was: was * (1 + 1e-8)), r"d1_cons\.logprob"
    ),
    # seeds
    "a further seed, lucky": (lucky_seeds, r"seed-77\.x1\.weights_before: is not what configuration and seed give"),
    "the same seed twice": (with_seeds([0, 0]), r"cells seed-0, seed-0"),
    "a seed below zero": (with_seeds([0, -1]), r"seed"),
    "a seed of 33 bits": (with_seeds([0, 2**32]), r"exactly the cells seed-0, seed-4294967296"),
    "a seed of true": (with_seeds([0, True]), r"seed"),
    "no seed": (with_seeds([]), r"seed"),
    "stage-2 seeds that nobody trained": (manifest("config", "stage2_seeds", to=[0, 1, 2]), r"stage2|cells"),
    "the same stage-2 seed twice": (manifest("config", "stage2_seeds", to=[0, 0]), r"cells seed-0, seed-0"),
}  # fmt: skip

# Those of a whole entry of ten seeds take what checking one takes.
ATTACKS = [
    Attack("forged numbers", name, act, said, allowed=10.0 if act in (lucky_seeds, rescaled) else 3.0)
    for name, (act, said) in NUMBERS.items()
]
