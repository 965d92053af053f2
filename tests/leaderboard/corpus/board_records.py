"""What the board's own records would say, where a submitter, or a slip, has a hand in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.attack import Attack, Bench
from corpus.changes import Act, tampered
from corpus.doors import built, command, validated
from corpus.outcome import Outcome
from ocl_bench.leaderboard.records import (
    CHALLENGE,
    REVOCATION,
    VERIFICATION,
    Challenge,
    Comparison,
    Revocation,
    Verification,
    content_of,
    now,
    records_of,
)  # fmt: skip
from ocl_bench.runner.manifest import Manifest

Change = Callable[[dict[str, Any]], Any]


def content(submission: Path) -> str:
    return content_of(Manifest.model_validate_json((submission / "manifest.json").read_text()))


def verification(submission: Path) -> dict[str, Any]:
    """An honest one."""
    compared = Comparison(
        what="same seeds", gap="ocl_gap", metric="em", submitted=0.1, again=0.1, difference=0.0, interval=(-0.1, 0.1),
        agrees=True,
    )  # fmt: skip
    return Verification(
        content=content(submission), by="A. Maintainer", date=now(), level="re-run", nonce=None, seeds=(0, 1),
        stage2_seeds=(0,), new_seeds=(), equal_answers=None, comparisons=(compared,), versions={"torch": "2.13.0"},
        hardware={"processor": "Xeon"}, seconds=1.0,
    ).model_dump(mode="json")  # fmt: skip


def revocation(submission: Path) -> dict[str, Any]:
    return Revocation(
        content=content(submission), by="A. Maintainer", date=now(), reason="copied from another"
    ).model_dump(mode="json")


def recorded(name: str, change: Change, door: Callable[[Bench], Outcome] | None = None) -> Act:
    """A record of the honest submission, changed."""

    def act(bench: Bench) -> Outcome:
        path = bench.copy().path
        value = verification(path) if name == VERIFICATION else revocation(path)
        changed = change(value)
        place = records_of(path) / name
        place.parent.mkdir(parents=True)
        place.write_text(changed if isinstance(changed, str) else json.dumps(value))
        return door(bench) if door else built(bench.board, bench.folder)

    return act


def verified(change: Change) -> Act:
    return recorded(VERIFICATION, change)


def revoked(change: Change) -> Act:
    return recorded(REVOCATION, change)


def compared(**values: Any) -> Act:
    return verified(lambda value: value["comparisons"][0].update(values))


def linked(bench: Bench) -> Outcome:
    """The record is a link to one that a submitter wrote."""
    path = bench.copy().path
    (bench.folder / "own.json").write_text(json.dumps(verification(path)))
    records_of(path).mkdir(parents=True)
    (records_of(path) / VERIFICATION).symlink_to(bench.folder / "own.json")
    return built(bench.board, bench.folder)


def folder(bench: Bench) -> Outcome:
    (records_of(bench.copy().path) / VERIFICATION).mkdir(parents=True)
    return built(bench.board, bench.folder)


def changed_after(bench: Bench) -> Outcome:
    """Other answers take the place of those that were verified; every hash is right."""
    path = bench.copy().path
    records_of(path).mkdir(parents=True)
    (records_of(path) / VERIFICATION).write_text(json.dumps(verification(path)))
    forgery = bench.forgery()
    for row in forgery.answers["seed-0"]:
        if "/qa/" not in row["id"] and not row["em_forced"]:  # no learning curve shows these
            row["logprob"] = round(row["logprob"] - 0.01, 6)
    forgery.write(bench.results)
    return built(bench.board, bench.folder)


def moved(bench: Bench) -> Outcome:
    """The record of one submission lies where that of another should."""
    path = bench.copy().path
    forgery = bench.forgery()
    forgery.rename("another", "model")
    other = forgery.write(bench.folder / "aside")
    records_of(path).mkdir(parents=True)
    (records_of(path) / VERIFICATION).write_text(json.dumps(verification(other)))
    return built(bench.board, bench.folder)


def challenged(bench: Bench) -> Outcome:
    """A challenge that names the seeds whose weights there are, and not those that were drawn."""
    path = bench.copy().path
    nonces = (f"{number:032x}" for number in range(1000))
    record = Challenge(content=content(path), by="A", date=now(), nonce=next(nonces), seeds=(1, 0))
    records_of(path).mkdir(parents=True)
    (records_of(path) / CHALLENGE).write_text(record.model_dump_json())
    (bench.folder / "weights").mkdir()
    return command(
        "leaderboard", "verify", path, "--replay", bench.folder / "weights", "--output_path", bench.folder / "runs",
        within=bench.folder,
    )  # fmt: skip


def unchallenged(bench: Bench) -> Outcome:
    (bench.folder / "weights").mkdir()
    path = bench.copy().path
    return command("leaderboard", "verify", path, "--replay", bench.folder / "weights", within=bench.folder)


def said(what: str, *options: str) -> Act:
    return lambda bench: command("leaderboard", what, bench.copy().path, *options, within=bench.folder)


def outside(bench: Bench) -> Outcome:
    """A submission that lies in no leaderboard has no place for a record."""
    forgery = bench.forgery()
    path = forgery.write(bench.folder / "aside")
    return command("leaderboard", "revoke", path, "--reason", "copied", "--by", "A", within=bench.folder)


def brings(name: str) -> Act:
    def change(copy: Any) -> None:
        copy.write(name, json.dumps(verification(copy.path)))

    return tampered(change)


NONE, OTHER = r"is no record of this version", r"is about other weights or answers"

RECORDS: dict[str, tuple[Act, str]] = {
    "a submission that brings its verification": (brings("verification.json"), r"verification\.json: does not belong"),
    "a submission that brings its challenge": (brings("challenge.json"), r"challenge\.json: does not belong"),
    "a submission that brings a folder of records": (
        brings("records/verification.json"), r"records/verification\.json: does not belong"
    ),
    "a verification of no content": (verified(lambda value: value.update(content="")), NONE),
    "a verification of other content": (verified(lambda value: value.update(content="0" * 64)), OTHER),
    "a verification of what was there before": (changed_after, OTHER),
    "a verification of another submission": (moved, OTHER),
    "a verification that disagrees": (compared(agrees=False), r"does not agree"),
    "a verification that compared nothing": (verified(lambda value: value.update(comparisons=[])), NONE),
    "a verification of a gap with markup": (compared(gap="<b>"), NONE),
    "a verification of no number": (verified(lambda value: json.dumps(value).replace("-0.1", "NaN")), NONE),
    "a verification of a higher level": (verified(lambda value: value.update(level="proven")), NONE),
    "a verification by an element": (verified(lambda value: value.update(by="<script>")), NONE),
    "a verification of two lines": (verified(lambda value: value.update(by="A\n# B")), NONE),
    "a verification in time to come, in words": (verified(lambda value: value.update(date="soon")), NONE),
    "a verification of an unknown key": (verified(lambda value: value.update(rank=1)), NONE),
    "a verification of two contents": (
        verified(lambda value: json.dumps(value).replace("{", '{"content": "", ', 1)), NONE
    ),
    "a verification that is cut off": (verified(lambda value: json.dumps(value)[:-9]), NONE),
    "a verification that is deep": (verified(lambda value: "[" * 100_000), NONE),
    "a verification of two megabytes": (verified(lambda value: " " * 2_000_000 + json.dumps(value)), NONE),
    "a verification that is a link": (linked, NONE),
    "a verification that is a folder": (folder, NONE),
    "a revocation with an element": (revoked(lambda value: value.update(reason="<img src=x>")), NONE),
    "a revocation with a link": (revoked(lambda value: value.update(reason="[x](https://example.org)")), NONE),
    "a revocation with a bar": (revoked(lambda value: value.update(reason="a | b")), NONE),
    "a revocation of two lines": (revoked(lambda value: value.update(reason="a\n# b")), NONE),
    "a revocation with a command of a terminal": (revoked(lambda value: value.update(reason="\x1b[2J")), NONE),
    "a revocation without a reason": (revoked(lambda value: value.update(reason="")), NONE),
    "a revocation of other content": (revoked(lambda value: value.update(content="0" * 64)), OTHER),
    "a challenge of chosen seeds": (challenged, r"other seeds than its content and nonce give"),
    "a replay without a challenge": (unchallenged, r"was not challenged"),
    "a reason with markup": (said("revoke", "--reason", "<b>x</b>", "--by", "A"), r"--reason"),
    "a reason of two lines": (said("revoke", "--reason", "x\ny", "--by", "A"), r"--reason"),
    "a maintainer who is unseen": (said("revoke", "--reason", "x", "--by", "\u200b"), r"--by"),
    "a challenge by two lines": (said("challenge", "--by", "A\nB"), r"--by"),
    "a challenge of no seeds": (said("challenge", "--by", "A", "--seeds", "0"), r"--seeds"),
    "a verification by an element, from the start": (said("verify", "--by", "<b>"), r"--by"),
    "a record of what lies in no leaderboard": (outside, r"does not lie in a leaderboard"),
}  # fmt: skip

# What a maintainer may write, and is shown as the text that it is.
INERT: dict[str, Act] = {
    "a reason that a page would make links of": revoked(
        lambda value: value.update(reason="see www.example.org, https://example.org, a@example.org and #1")
    ),
    "a reason in emphasis": revoked(lambda value: value.update(reason="**bold** ~~out~~ __low__ $x$ &lt;b&gt;")),
    "a reason that is a command of a runner": revoked(lambda value: value.update(reason="::error::x ##[error]y")),
    "a reason that closes an attribute": revoked(lambda value: value.update(reason="\" onmouseover=\"alert(1)")),
    "a verifier who would be told": verified(lambda value: value.update(by="@everyone www.example.org")),
    "hardware that closes an attribute": verified(
        lambda value: value.update(hardware={"processor": "\" onclick=\"alert(1)"})
    ),
}  # fmt: skip


def broken_but_revoked(bench: Bench) -> Outcome:
    """An entry that no longer passes was revoked: it is no reason against others, and is shown struck out."""

    def door(bench: Bench) -> Outcome:
        forgery = bench.forgery()
        forgery.rename("another", "model")
        forgery.write(bench.results)
        return validated(bench.results, within=bench.folder)

    return recorded(REVOCATION, lambda value: None, door)(bench)


ATTACKS = [
    *(Attack("records", name, act, said) for name, (act, said) in RECORDS.items()),
    *(Attack("records, to be shown", name, act, ".", refused=False) for name, act in INERT.items()),
    Attack("records, to be shown", "another's revoked work under its name", broken_but_revoked, ".", refused=False),
]
