"""Coherent forgeries of growing cost: each leaves every hash, key and derived number as an honest run would.

edit        the generated answers of an honest entry are rewritten
resample    answers and log-probabilities are drawn anew from those of an honest entry, the right ones more often
copy        an honest entry under another name, with noise
invent      nothing is real but the random weights that training would have begun with (in forged_runs.py)
"""

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from settling import Forgery, Row, end_curves, read

from ocl_bench.files import sha256
from ocl_bench.score.text import exact_match
from ocl_bench.tasks.records import Record

WANTED = "d1_cons"  # the subset whose right answers make the gap that entries are ranked by
LEAST_WRONG = -0.7  # log-probability: the likeliest that an answer is which greedy decoding does not give


def edit(honest: Path, results: Path, share: float = 0.5, seed: int = 0) -> Path:
    """Rewrite what was generated: of the wrong answers that would widen the gap, a share becomes right.

    Args:
        honest: the submission to start from.
        results: the folder to write into, as the leaderboard's `results`.
        share: of the wrong answers.
        seed: of every random choice.

    Returns:
        The forged submission.
    """
    forgery, rng = read(honest), random.Random(seed)
    for row, record in asked(forgery):
        if record.subset == WANTED and not exact_match(row["generated"], record.answers) and rng.random() < share:
            row["generated"] = record.answers[0]
    return forgery.write(results)


def resample(honest: Path, results: Path, name: str = "forger/resampled", favour: int = 4, seed: int = 0) -> Path:
    """Draw every answer from those of its stage and subset, right ones of the wanted subset `favour` times as often.

    Args as of `edit`; the new entry has weights of its own, by name only.
    """
    forgery, rng = read(honest), random.Random(seed)
    pools: dict[tuple[str, str], list[tuple[Row, Record]]] = defaultdict(list)
    for row, record in asked(forgery):
        times = favour if record.subset == WANTED and exact_match(row["generated"], record.answers) else 1
        pools[row["stage"], record.subset] += [(dict(row), record)] * times
    spare = {record.group: record.answers[0] for _, record in asked(forgery)}
    for row, record in asked(forgery):
        drawn, of = rng.choice(pools[row["stage"], record.subset])
        right = bool(exact_match(drawn["generated"], of.answers))
        said = record.answers[0] if right else drawn["generated"]
        if not right and exact_match(said, record.answers):
            said = next((text for text in spare.values() if not exact_match(text, record.answers)), "")
        row |= {"em_forced": drawn["em_forced"], "logprob": drawn["logprob"], **says(record, said, rng)}
    pretend_other_weights(forgery, name)
    forgery.rename(*name.split("/"))
    end_curves(forgery)
    return forgery.write(results)


def copy(honest: Path, results: Path, name: str = "forger/copied", noise: float = 0.01, seed: int = 0) -> Path:
    """Another's run under a new name.

    Args as of `edit`.

    Args:
        noise: standard deviation of what is added to each log-probability, as a share of it; 0 copies exactly.
    """
    forgery, rng = read(honest), random.Random(seed)

    def noisy(row: Row) -> float:
        moved = round(row["logprob"] * max(0.0, rng.gauss(1, noise)), 6)
        return moved if row["em_forced"] else min(moved, LEAST_WRONG)

    change_answers(forgery, noisy)
    pretend_other_weights(forgery, name)
    forgery.rename(*name.split("/"))
    end_curves(forgery)
    return forgery.write(results)


def says(record: Record, generated: str, rng: random.Random) -> Row:
    """An answer's text, and where the question has options the one that goes with it, or else a wrong one."""
    if not record.options:
        return {"generated": generated}
    wrong = [option for option in record.options if option != record.answers[0]]
    chosen = generated if generated in record.options else rng.choice(wrong)
    return {"generated": generated, "choice": record.options.index(chosen)}


def change_answers(forgery: Forgery, logprob: Callable[[Row], float]) -> None:
    """Give every answer another log-probability."""
    for rows in forgery.answers.values():
        for row in rows:
            row["logprob"] = logprob(row)


def asked(forgery: Forgery) -> list[tuple[Row, Record]]:
    """Every answer with its question."""
    return [
        (row, questions[row["id"]])
        for cell in forgery.told.config.cells
        for questions in [forgery.questions(cell)]
        for row in forgery.answers[cell.name]
    ]


def pretend_other_weights(forgery: Forgery, name: str) -> None:
    """Every training ended with weights that nobody else has, by their hashes."""
    for cell, stage, record in forgery.stages():
        record["weights_after"] = sha256(f"{name} {cell.name} {stage} weights")
        for file, (size, _) in list(record["files"].items()):
            if file.endswith(".safetensors"):
                record["files"][file] = [size, sha256(f"{name} {cell.name} {stage} {file}")]
