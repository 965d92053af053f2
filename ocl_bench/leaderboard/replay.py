"""Replay: go on from the weights that a submission had before X2, with stage-2 seeds that nobody could know.

Answers, hashes and curves can be made up by a patient forger, and a checkpoint can be trained on the test answers. What
cannot be had cheaply are weights that, trained on X2 by somebody else, give the gap that was submitted: they have to
have learned whom to believe. One seed more is trained from its beginning, so that the weights before X2 are compared
with honest ones too.
"""

import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import ANSWERS, read_answers
from ocl_bench.files import sha256_of_file
from ocl_bench.leaderboard.agreement import compared, pairs, replayed_gaps, seeds_compared
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.handed import Handed
from ocl_bench.leaderboard.isolated import run_isolated
from ocl_bench.leaderboard.records import CHALLENGE, Challenge, Verification, content_of, is_drawn, now, read_record
from ocl_bench.leaderboard.submission import SAMPLES, SubmittedAnswer
from ocl_bench.leaderboard.untrusted import read_bytes, unpack
from ocl_bench.leaderboard.verify import Progress, Verified, passed, request_of, require_means
from ocl_bench.models.spec import HUB_ID
from ocl_bench.runner.cells import Cell, stage_folder
from ocl_bench.runner.folder import read_data, read_results
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.runner.store import is_weights
from ocl_bench.score.gaps import GAPS, Scores, final_stages
from ocl_bench.score.metrics import METRICS, group_values
from ocl_bench.score.samples import samples_of
from ocl_bench.tasks.build import build, chance_levels
from ocl_bench.tasks.schema import Task

HUB = "hf:"
TIMES = 4  # stage-2 seeds that X2 is replayed with
SEED_BITS = 31
# Answers before X2 that handed weights have to give as submitted, of each subset: what may differ of all of them is a
# whole subset's. Rounding differs between machines.
EQUAL_ANSWERS = {"float32": 0.99, "bfloat16": 0.9}
LOGPROB_TOLERANCE = {"float32": 0.01, "bfloat16": 0.3}


def replay(
    folder: Path,
    weights: str,
    output_path: Path,
    by: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Verified:
    """Replay a submission's X2.

    Args:
        folder: a submission that was challenged.
        weights: where the handed-over weights lie, as `seed-N/STAGE/*.safetensors`: a folder, such as that of the run,
            or hf:ORG/NAME[@COMMIT].
        output_path: where run folders are made.
        by: who does it; None makes no record.
        progress: shows progress, as `ocl_bench.run` has it.
        options: device, batch_size and engine, as `ocl_bench.run` has them.

    Raises:
        OclBenchError: if the submission does not pass the checks or was not challenged, or if weights are missing or
            not those that it named.
    """
    require_means(output_path, **options)
    _require_place(weights)
    checked = passed(folder)
    assert checked.manifest is not None and checked.ranked is not None
    manifest, task, start = checked.manifest, checked.manifest.config.task, time.monotonic()
    if not 0 < task.first_x2_stage < len(task.stages):
        raise OclBenchError(f"{folder}: its task has no stage before X2 to go on from; use verify without --replay.")
    challenge = challenge_of(folder, manifest)
    handed = _handed(manifest, challenge, _weights_folder(weights, manifest, challenge))
    known = {*manifest.config.seeds, *manifest.config.stage2_seeds}
    new_seed, *stage2_seeds = _unknown(known, 1 + TIMES)
    # A store of its own: whatever lies in another may be what is to be verified.
    own = Path(tempfile.mkdtemp(prefix="replay-", dir=_made(output_path)))
    seeds = (*challenge.seeds, new_seed)
    with request_of(folder, checked, seeds, stage2_seeds, own, fresh=False, **options) as request:
        run = run_isolated(request, progress, handed)
    again, gaps = read_results(run), gaps_after_x2(run, task)
    count = len(pairs(checked.ranked.gaps, again.gaps)) + sum(map(len, gaps.values()))
    comparisons = (
        *replayed_gaps(checked.ranked, gaps, challenge.seeds, count),
        *seeds_compared(checked.ranked, again, (new_seed,), count),
    )
    found = equal_answers(folder, checked, run, challenge.seeds)
    equal = sum(same for same, _ in found.values()) / max(1, sum(total for _, total in found.values()))
    agrees = are_as_submitted(found, _precision(manifest)) and all(one.agrees for one in comparisons)
    record = None
    if by is not None and agrees:
        made = read_manifest(run)
        record = Verification(
            content=content_of(manifest),
            by=by,
            date=now(),
            level="replayed",
            nonce=challenge.nonce,
            seeds=challenge.seeds,
            stage2_seeds=tuple(stage2_seeds),
            new_seeds=(new_seed,),
            equal_answers=equal,
            comparisons=comparisons,
            versions=made.versions,
            hardware=made.hardware,
            seconds=round(time.monotonic() - start, 1),
        )
    return Verified(run, comparisons, agrees, equal, record)


def challenge_of(folder: Path, manifest: Manifest) -> Challenge:
    """The challenge that a submission got. Raises OclBenchError if it got none, or it is another's."""
    challenge = read_record(folder, Challenge, CHALLENGE, content_of(manifest))
    if challenge is None:
        raise OclBenchError(f"{folder}: it was not challenged; run `ocl-bench leaderboard challenge {folder}` first.")
    if not is_drawn(challenge, manifest):
        raise OclBenchError(f"{folder}: its challenge names other seeds than its content and nonce give; draw anew.")
    return challenge


def places(manifest: Manifest, challenge: Challenge) -> list[tuple[Cell, int, str]]:
    """Cell, number and folder of each stage whose weights are to be handed over."""
    config = manifest.config
    first = {cell.seed: cell for cell in config.cells if cell.shares is None}
    # Seeds may share the first stages: each once.
    owners = dict.fromkeys(
        (first[seed].owner(config.task, number), number)
        for seed in challenge.seeds
        for number in range(config.task.first_x2_stage)
    )
    return [(cell, number, f"{cell.name}/{config.task.stages[number].name}") for cell, number in owners]


def _unknown(known: set[int], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        seed = secrets.randbits(SEED_BITS)
        if seed not in known and seed not in found:
            found.append(seed)
    return found


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _require_place(where: str) -> None:
    """Refuse what is neither a folder nor a repository of the hub."""
    if not where.startswith(HUB):
        if not where or not Path(where).is_dir():
            raise OclBenchError(f"--replay {where}: there is no such folder; give one, or hf:ORG/NAME.")
        return
    name, _, revision = where.removeprefix(HUB).partition("@")
    if not HUB_ID.fullmatch(name) or (revision and not re.fullmatch(r"[0-9a-f]{40}", revision)):
        raise OclBenchError(f"--replay {where}: write it as hf:ORG/NAME, or hf:ORG/NAME@COMMIT.")


def _weights_folder(where: str, manifest: Manifest, challenge: Challenge) -> Path:
    if not where.startswith(HUB):
        return Path(where)
    from huggingface_hub import snapshot_download

    name, _, revision = where.removeprefix(HUB).partition("@")
    wanted = [
        f"{place}/{name}"
        for cell, number, place in places(manifest, challenge)
        for name in manifest.stages[cell.name][manifest.config.task.stages[number].name].files
        if is_weights(name)
    ]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub's client and its transport raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OclBenchError(f"--replay {where}: it cannot be fetched from the hub ({reason}).") from None


def _handed(manifest: Manifest, challenge: Challenge, folder: Path) -> list[Handed]:
    """The files that were handed over: just those, byte for byte, that the submission named."""
    handed = []
    for cell, number, place in places(manifest, challenge):
        record = manifest.stages[cell.name][manifest.config.task.stages[number].name]
        files = []
        for name, (size, digest) in sorted(record.files.items()):
            if not is_weights(name):
                continue
            path = folder / place / name
            if not path.is_file():
                raise OclBenchError(f"{path}: it is not there; the challenge names seeds {_listed(challenge.seeds)}.")
            if path.stat().st_size != size or sha256_of_file(path) != digest:
                raise OclBenchError(f"{path}: it is not the file whose sha256 the submission has.")
            files.append(str(path.resolve()))
        handed.append(Handed(cell.seed, number, files, record.model_dump_json()))
    return handed


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def gaps_after_x2(run: Path, task: Task) -> dict[str, dict[str, dict[int, dict[int, float]]]]:
    """Gap → metric → seed → stage-2 seed → gap, of the gaps that are scored at X2 or later."""
    stages = final_stages(task)
    late = {stage.name for stage in task.stages[task.first_x2_stage :]}
    chance = chance_levels(task)
    found: dict[str, dict[str, dict[int, dict[int, float]]]] = {}
    for cell in read_manifest(run).config.cells:
        asked = {record.id: record for record in read_data(run, cell)}
        values = group_values(asked.values())
        samples = [
            sample
            for stage in cell.owned(task)
            for sample in samples_of(
                read_answers(stage_folder(run, cell, stage.name) / ANSWERS), asked, chance, values,
                stage=stage.name, seed=cell.seed, stage2_seed=cell.stage2_seed,
            )
            if sample.record.set == "qa"
        ]  # fmt: skip
        scores = Scores(stages, lambda seed: ())
        scores.add(cell.seed, samples)
        for gap, (upper, lower) in GAPS.items():
            if not {upper, lower} <= set(scores.subsets) or not {stages[upper], stages[lower]} <= late:
                continue
            for metric in compared([name for name, one in METRICS.items() if scores.need(one)]):
                one = METRICS[metric]
                value = scores.per_seed(one, upper)[cell.seed] - scores.per_seed(one, lower)[cell.seed]
                by_seed = found.setdefault(gap, {}).setdefault(metric, {}).setdefault(cell.seed, {})
                by_seed[cell.stage2_seed] = value
    return found


def are_as_submitted(found: Mapping[str, tuple[int, int]], precision: str) -> bool:
    """Whether handed weights give each subset's answers as submitted; of a few, one may differ."""
    least = EQUAL_ANSWERS[precision]
    return bool(found) and all(total - same <= max(1, (1 - least) * total) for same, total in found.values())


def equal_answers(folder: Path, checked: Checked, run: Path, seeds: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Subset → answers before X2 that handed weights give as submitted, and all of questions that both were asked."""
    assert checked.manifest is not None
    manifest, task = checked.manifest, checked.manifest.config.task
    tolerance = LOGPROB_TOLERANCE[_precision(manifest)]
    stage = task.stages[task.first_x2_stage - 1].name
    new = {cell.seed: cell for cell in read_manifest(run).config.cells if cell.shares is None}
    found: dict[str, tuple[int, int]] = {}
    for cell in manifest.config.cells:
        if cell.shares is not None or cell.seed not in seeds:
            continue
        submitted = _submitted(folder, cell, stage)
        then = {record.id: record for record in build(task, cell.seed, cell.stage2_seed)}
        asked = {record.id: record for record in read_data(run, new[cell.seed])}
        for one in read_answers(stage_folder(run, new[cell.seed], stage) / ANSWERS):
            old = submitted.get(one.id)
            if old is None or asked[one.id].prompt != then[one.id].prompt:
                continue
            near = abs(old.logprob - one.logprob) <= tolerance * max(1.0, abs(old.logprob))
            same, total = found.get(asked[one.id].subset, (0, 0))
            equal = near and (old.generated, old.choice) == (one.generated, one.choice)
            found[asked[one.id].subset] = same + equal, total + 1
    return found


def _submitted(folder: Path, cell: Cell, stage: str) -> Mapping[str, SubmittedAnswer]:
    """A cell's answers of one stage, by question; they were checked."""
    lines = unpack(read_bytes(folder / cell.name / SAMPLES)).splitlines()
    answers = [SubmittedAnswer.model_validate_json(line, strict=True) for line in lines]
    return {one.id: one for one in answers if one.stage == stage}


def _precision(manifest: Manifest) -> str:
    return "float32" if str(manifest.config.compute.evaluation) == "float32" else "bfloat16"
