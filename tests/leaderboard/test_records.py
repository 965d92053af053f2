"""Records are bound to what a submission claims, and only what fits is believed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from forger import copy
from tampering import Copy

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard import initial
from ocl_bench.leaderboard.records import (
    REVOCATION,
    VERIFICATION,
    Comparison,
    Revocation,
    Verification,
    content_of,
    draw,
    is_drawn,
    level_of,
    now,
    records_of,
    write_record,
)  # fmt: skip
from ocl_bench.leaderboard.table import load_entries
from ocl_bench.leaderboard.validate import check, check_all
from ocl_bench.runner.manifest import Manifest


@pytest.fixture
def submission(small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A submission in a leaderboard of its own; its initial weights, which take seconds, are not made."""
    monkeypatch.setattr(initial, "find_spec", lambda name: None)
    return Copy(small_submission, tmp_path / "leaderboard" / "results").path


def manifest_of(submission: Path) -> Manifest:
    manifest = check(submission).manifest
    assert manifest is not None
    return manifest


def verified(manifest: Manifest, agrees: bool = True) -> Verification:
    one = Comparison(
        what="new seeds", gap="meta_ocl_gap", metric="em", submitted=0.1, again=0.1, difference=0.0,
        interval=(-0.1, 0.1), agrees=agrees,
    )  # fmt: skip
    return Verification(
        content=content_of(manifest), by="A. Maintainer", date=now(), level="re-run", nonce=None, seeds=(),
        stage2_seeds=(0,), new_seeds=(8, 9), equal_answers=None, comparisons=(one,),
        versions={}, hardware={}, seconds=1.0,
    )  # fmt: skip


def test_the_content_outlives_another_layout_but_no_other_claim(submission: Path) -> None:
    path = submission / "manifest.json"
    manifest = manifest_of(submission)
    said = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(said.items())), indent=7))
    assert content_of(manifest_of(submission)) == content_of(manifest)
    found = {content_of(manifest)}
    for change in (
        lambda said: said["stages"]["seed-0"]["x2"].update(weights_after="1" * 64),
        lambda said: said["evaluations"]["seed-1"]["x1"]["answers"].update(rows_sha256="1" * 64),
        lambda said: said["config"]["model"].update(name="scratch:someone/else"),
        lambda said: said["config"]["task"].update(version=said["config"]["task"]["version"] + 1),
    ):
        other = json.loads(json.dumps(said))
        change(other)
        found.add(content_of(Manifest.model_validate_json(json.dumps(other))))
    assert len(found) == 5


def test_seeds_are_drawn_from_content_and_nonce(submission: Path) -> None:
    manifest = manifest_of(submission)
    drawn = [draw(manifest, 1, "A. Maintainer") for _ in range(40)]
    assert {one.seeds for one in drawn} == {(0,), (1,)}
    assert len({one.nonce for one in drawn}) == 40 and all(is_drawn(one, manifest) for one in drawn)
    swapped = drawn[0].model_copy(update={"seeds": (1 - drawn[0].seeds[0],)})
    assert not is_drawn(swapped, manifest)
    others = manifest.model_copy(
        update={"config": manifest.config.model_copy(update={"seeds": (0, 1, 2, 3, 4, 70, 71)})}
    )
    assert all(seed < 5 for _ in range(20) for seed in draw(others, 3, "A. Maintainer").seeds)


def test_a_verification_raises_the_level_until_the_submission_changes(submission: Path) -> None:
    manifest = manifest_of(submission)
    assert level_of(submission, manifest) == ("checked", None, None)
    path = write_record(submission, verified(manifest))
    assert path == records_of(submission) / VERIFICATION and "results" not in path.parts[-5:]
    level, verification, revocation = level_of(submission, manifest)
    assert level == "re-run" and revocation is None and verification is not None
    assert verification == verified(manifest).model_copy(update={"date": verification.date})
    (entry,) = load_entries(submission.parents[2])
    assert entry.level == "re-run"
    write_record(submission, verified(manifest).model_copy(update={"content": "0" * 64}))
    with pytest.raises(OclBenchError, match="about other weights or answers"):
        load_entries(submission.parents[2])


BAD: dict[str, Any] = {
    "not JSON": "{",
    "not UTF-8": b"\xff",
    "another level": {"level": "checked"},
    "an unknown key": {"extra": 1},
    "no comparison": {"comparisons": []},
    "NaN": '{"seconds": NaN}',
    "a key twice": '{"by": "a", "by": "b"}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_is_none_is_an_error_and_no_level(name: str, submission: Path) -> None:
    manifest = manifest_of(submission)
    path = write_record(submission, verified(manifest))
    bad = BAD[name]
    if isinstance(bad, dict):
        bad = json.dumps(json.loads(path.read_text()) | bad)
    path.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    with pytest.raises(OclBenchError, match=r"verification\.json: it is no record"):
        level_of(submission, manifest)


def test_a_link_is_no_record(submission: Path, tmp_path: Path) -> None:
    manifest = manifest_of(submission)
    path = write_record(submission, verified(manifest))
    shutil.move(path, tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(OclBenchError, match="it is no record"):
        level_of(submission, manifest)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(OclBenchError, match="it is no record"):
        level_of(submission, manifest)


def test_a_verification_that_does_not_agree_raises_no_level(submission: Path) -> None:
    manifest = manifest_of(submission)
    write_record(submission, verified(manifest, agrees=False))
    with pytest.raises(OclBenchError, match="does not agree; remove it"):
        level_of(submission, manifest)


def test_what_a_submission_brings_itself_is_no_record(submission: Path, tmp_path: Path) -> None:
    manifest = manifest_of(submission)
    (submission / VERIFICATION).write_text(verified(manifest).model_dump_json())
    assert level_of(submission, manifest)[0] == "checked"
    assert any(problem.file == VERIFICATION for problem in check(submission).problems)
    alone = shutil.copytree(submission, tmp_path / "alone")
    assert level_of(alone, manifest)[0] == "checked"
    with pytest.raises(OclBenchError, match="no place for its records"):
        write_record(alone, verified(manifest))


def test_a_revoked_submission_keeps_its_line_and_loses_its_rank(submission: Path, tmp_path: Path) -> None:
    (before,) = load_entries(submission.parents[2])
    done = call("leaderboard", "revoke", submission, "--reason", "made up", "--by", "A. Maintainer", folder=tmp_path)
    assert done.returncode == 0 and REVOCATION in done.stdout
    (after,) = load_entries(submission.parents[2])
    assert before.unranked.startswith("lacks") and (after.unranked, after.standing) == ("revoked", None)
    assert isinstance(after.revocation, Revocation) and after.revocation.reason == "made up"


def test_a_revoked_copy_is_no_reason_against_what_it_was_copied_from(submission: Path) -> None:
    results = submission.parents[2]
    forged = copy(submission, results, "another/small", noise=0)  # before the other in order
    assert [len(one.problems) for one in check_all([results])] == [0, 1]
    write_record(forged, Revocation(content=content_of(manifest_of(forged)), by="A", date=now(), reason="a copy"))
    assert [len(one.problems) for one in check_all([results])] == [0, 0]
    assert [entry.revocation is None for entry in load_entries(results)] == [True, False]
