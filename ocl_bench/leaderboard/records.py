"""What the board itself says of a submission, in files that only its maintainers write.

leaderboard/records/<task>/<org>__<model>/<revision>/
    challenge.json      which seeds' weights are to be handed over
    verification.json   what became of it when it was replayed or run again
    revocation.json     why it no longer counts

Each is bound to the submission's content: what its weights and its answers are. Another submission at the same place
has none of them.
"""

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256, write_atomic
from ocl_bench.leaderboard.untrusted import MAX_JSON_BYTES, Unreadable, parse_json, read_bytes
from ocl_bench.runner.manifest import Manifest
from ocl_bench.text import Identifier, Line, Sha256, Timestamp, Version

RECORDS, RESULTS = "records", "results"
CHALLENGE, VERIFICATION, REVOCATION = "challenge.json", "verification.json", "revocation.json"
FIRST_DATE = "2026-01-01"
LEAST_EQUAL = 0.9  # of the answers before X2, whatever they are computed in
CHALLENGED = 3  # seeds; of five, one that was made up is among them in three of five cases, two in nine of ten

Level = Literal["checked", "replayed", "re-run"]


class Record(Contract):
    """What every record has."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    content: Sha256 = Field(description="the submission that it is about: `content_of` its manifest")
    by: Line = Field(description="who made it")
    date: Timestamp = Field(description="when, UTC")


class Challenge(Record):
    """challenge.json: drawn after the submission is in, so that nobody can prepare for it."""

    nonce: str = Field(pattern=r"^[0-9a-f]{32}$", description="random; without it a submitter could try contents")
    seeds: tuple[int, ...] = Field(min_length=1, description="stage-1 seeds whose weights before X2 to hand over")


class Comparison(Contract):
    """One gap in one metric, submitted and measured again."""

    what: Literal["x2 replayed", "new seeds", "same seeds"] = Field(
        description="what was trained again: X2 of submitted seeds, all stages of new seeds, or of the submitted ones"
    )
    gap: Identifier = Field(description="the gap")
    metric: Identifier = Field(description="the metric")
    submitted: float = Field(description="mean over the submitted seeds that are compared")
    again: float = Field(description="mean over the seeds trained again")
    difference: float = Field(description="again minus submitted, paired where the seeds are the same")
    interval: tuple[float, float] | None = Field(
        description="of the difference, so wide that all of a verification's hold 0 in 95 of 100 honest cases; null "
        "where one seed gives none"
    )
    agrees: bool = Field(description="whether it holds 0; for one seed, whether that is inside the submitted interval")


class Verification(Record):
    """verification.json: weights and gaps were found to be what training gives."""

    level: Literal["replayed", "re-run"] = Field(
        description="replayed: X2 again from weights that were handed over; re-run: every stage again"
    )
    nonce: str | None = Field(description="of the challenge; null for re-run")
    seeds: tuple[int, ...] = Field(description="submitted stage-1 seeds that were trained again, or went on from")
    stage2_seeds: tuple[int, ...] = Field(description="stage-2 seeds that were trained; new ones for replayed")
    new_seeds: tuple[int, ...] = Field(description="stage-1 seeds that nobody could know")
    equal_answers: float | None = Field(
        description="share of answers before X2 that the handed weights give as submitted; null for re-run"
    )
    comparisons: tuple[Comparison, ...] = Field(min_length=1, description="what was compared")
    versions: dict[Line, Version] = Field(description="package → version")
    hardware: dict[Identifier, Line] = Field(description="the machine")
    seconds: float = Field(ge=0, description="wall time")


class Revocation(Record):
    """revocation.json: the submission stays in the table, struck out, and counts no more."""

    reason: Line = Field(description="why")


R = TypeVar("R", bound=Record)


def content_of(manifest: Manifest) -> str:
    """SHA-256 of what a submission claims: task, model, and the sha256 of every stage's weights and answers.

    It outlives a conversion of the submission's format, and differs for other weights or answers.
    """
    claims: dict[str, Any] = {
        "task": [manifest.config.task.task, manifest.config.task.version],
        "model": [manifest.config.model.source, manifest.config.model.name, manifest.model_revision],
        "weights": {
            cell: {stage: record.weights_after for stage, record in stages.items()}
            for cell, stages in manifest.stages.items()
        },
        "answers": {
            cell: {place: {name: one.rows_sha256 for name, one in found.items()} for place, found in places.items()}
            for cell, places in manifest.evaluations.items()
        },
    }
    return sha256(json.dumps(claims, sort_keys=True))


def draw(manifest: Manifest, count: int, by: str) -> Challenge:
    """Draw the seeds of a challenge from the submission's content and a number that did not exist before.

    Only standard seeds are drawn, where there are some: ranks rest on them.
    """
    content, nonce = content_of(manifest), secrets.token_hex(16)
    seeds = _drawn(content, nonce, manifest, count)
    return Challenge(content=content, by=by, date=now(), nonce=nonce, seeds=seeds)


def is_drawn(challenge: Challenge, manifest: Manifest) -> bool:
    """Whether a challenge names the seeds that its content and nonce give."""
    return challenge.seeds == _drawn(content_of(manifest), challenge.nonce, manifest, len(challenge.seeds))


def _drawn(content: str, nonce: str, manifest: Manifest, count: int) -> tuple[int, ...]:
    standard = manifest.config.task.standard_seeds
    seeds = [seed for seed in manifest.config.seeds if seed in standard] or list(manifest.config.seeds)
    return tuple(sorted(sorted(seeds, key=lambda seed: sha256(f"{content} {nonce} {seed}"))[:count]))


def now() -> str:
    """This second, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def require_none(submission: Path) -> None:
    """Refuse a second challenge: drawn until it suits, a challenge would prove nothing."""
    path = records_of(submission) / CHALLENGE
    if path.exists():
        raise OclBenchError(f"{path}: seeds were drawn already; to draw anew, remove it, and say why in the commit.")


def records_of(submission: Path) -> Path:
    """Folder of a submission's records. Raises OclBenchError if it lies in no leaderboard."""
    parts = submission.resolve().parts
    if len(parts) < 5 or parts[-4] != RESULTS:
        raise OclBenchError(
            f"{submission}: it does not lie in a leaderboard's folder results/<task>/<model>/<revision>, so that there "
            "is no place for its records."
        )
    return Path(*parts[:-4], RECORDS, *parts[-3:])


def write_record(submission: Path, record: Record) -> Path:
    """Write a record beside the leaderboard's results; a former one of its kind is replaced."""
    names: Sequence[tuple[type[Record], str]] = (
        (Challenge, CHALLENGE), (Verification, VERIFICATION), (Revocation, REVOCATION),
    )  # fmt: skip
    name = next(name for kind, name in names if isinstance(record, kind))
    path = records_of(submission) / name
    write_atomic(path, record.model_dump_json(indent=2) + "\n")
    return path


def read_record(submission: Path, kind: type[R], name: str, content: str) -> R | None:
    """A record of a submission; None if there is none, or the submission lies in no leaderboard.

    Args:
        submission: its folder.
        kind, name: which record.
        content: what the submission claims now.

    Raises:
        OclBenchError: if the file is no such record, or is about another content.
    """
    try:
        path = records_of(submission) / name
    except OclBenchError:
        return None
    if not path.exists() and not path.is_symlink():
        return None
    try:
        raw = read_bytes(path, MAX_JSON_BYTES)
        parse_json(raw)
        record = kind.model_validate_json(raw, strict=True)
    except (Unreadable, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise OclBenchError(f"{path}: it is no record of this version of ocl-bench ({first}).") from None
    if record.content != content:
        raise OclBenchError(
            f"{path}: it is about other weights or answers than the submission has now; remove it, or verify again."
        )
    return record


def level_of(submission: Path, manifest: Manifest) -> tuple[Level, Verification | None, Revocation | None]:
    """How far a submission was verified, and what its records say. Raises OclBenchError as `read_record`."""
    content = content_of(manifest)
    verification = read_record(submission, Verification, VERIFICATION, content)
    revocation = read_record(submission, Revocation, REVOCATION, content)
    if verification is not None and (fault := _fault(submission, manifest, verification)) is not None:
        raise OclBenchError(f"{records_of(submission) / VERIFICATION}: {fault}; remove it, or verify again.")
    return (verification.level if verification else "checked"), verification, revocation


def _fault(submission: Path, manifest: Manifest, verification: Verification) -> str | None:
    """What a verification says that no verification of this submission could; None if nothing."""
    submitted = {*manifest.config.seeds, *manifest.config.stage2_seeds}
    if not all(one.agrees and _holds_zero(one) for one in verification.comparisons):
        return "what it compares does not agree"
    if not FIRST_DATE <= verification.date <= (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds"):
        return "its date is none between the suite's first year and now"
    if not set(verification.seeds) <= set(manifest.config.seeds) or set(verification.new_seeds) & submitted:
        return "its seeds are not those of the submission and new ones"
    if verification.level == "re-run":
        trained = len(verification.seeds) + len(verification.new_seeds)
        return None if trained >= len(manifest.config.seeds) else "fewer seeds were run again than were submitted"
    challenge = read_record(submission, Challenge, CHALLENGE, content_of(manifest))
    if challenge is None or (challenge.nonce, challenge.seeds) != (verification.nonce, verification.seeds):
        return "it is of no challenge that this submission got"
    if not is_drawn(challenge, manifest):
        return "its challenge names other seeds than its content and nonce give"
    if not verification.stage2_seeds or set(verification.stage2_seeds) & submitted or not verification.new_seeds:
        return "its X2 was replayed with no seeds that were new"
    if verification.equal_answers is None or verification.equal_answers < LEAST_EQUAL:
        return "the weights that were handed over give other answers than were submitted"
    return None


def _holds_zero(one: Comparison) -> bool:
    return one.interval is None or (one.interval[0] <= 1e-6 and one.interval[1] >= -1e-6)
