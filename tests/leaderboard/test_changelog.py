"""The changelog says what the branch's own history says, and nothing that a submitter can choose."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import call
from proposals import ACCEPTED, PROPOSED, RESULTS, TASK, Checkout

from ocl_bench.leaderboard.changelog import Change, changes, markdown, rows, write_changelog

PLACE = ACCEPTED.relative_to(RESULTS).as_posix()
OTHER = PROPOSED.relative_to(RESULTS).as_posix()
EVIL = "made up <script>alert(1)</script> [here](http://x) @everyone | \u202e\n# a title"


@pytest.fixture
def board(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "board")


def told(checkout: Checkout) -> list[tuple[str, str, str, str]]:
    return [(one.date, one.what, one.place, one.says) for one in changes(checkout.path / "leaderboard")]


def write_record(checkout: Checkout, kind: str, value: object, date: str) -> None:
    checkout.write(f"leaderboard/records/{PLACE}/{kind}.json", json.dumps(value))
    checkout.commit(date=f"{date}T23:30:00-05:00")


def test_an_entry_is_added_verified_revoked_and_removed_with_dates_levels_and_reasons(board: Checkout) -> None:
    write_record(board, "verification", {"schema_version": 1, "level": "replayed", "by": "B"}, "2026-02-01")
    write_record(board, "revocation", {"schema_version": 1, "reason": "the answers\nwere copied"}, "2026-03-01")
    (board.path / "leaderboard" / "records" / PLACE / "revocation.json").unlink()
    board.commit(date="2026-04-01T00:00:00Z")
    (board.place(ACCEPTED) / "submission.json").write_text("{}")
    board.commit(date="2026-05-01T00:00:00Z")
    shutil.rmtree(board.place(ACCEPTED))
    board.commit(date="2026-06-01T00:00:00Z")
    assert told(board) == [
        ("2026-06-01", "removed", PLACE, ""),
        ("2026-05-01", "changed", PLACE, ""),
        ("2026-04-01", "revocation withdrawn", PLACE, ""),
        ("2026-03-02", "revoked", PLACE, "the answers were copied"),
        ("2026-02-02", "verified", PLACE, "replayed"),
        ("2026-01-02", "added", PLACE, ""),
    ]


def test_a_merge_dates_an_entry_and_what_happened_inside_the_branch_does_not_count(board: Checkout) -> None:
    board.git("switch", "--quiet", "--create", "submit")
    board.add(PROPOSED)
    shutil.rmtree(board.place(ACCEPTED))
    board.commit(date="2001-01-01T00:00:00Z")
    board.add(ACCEPTED)
    board.commit(date="2001-01-02T00:00:00Z")
    board.git("switch", "--quiet", "main")
    board.git("merge", "--quiet", "--no-ff", "--no-edit", "submit", GIT_COMMITTER_DATE="2026-07-01T00:00:00Z")
    assert told(board) == [("2026-07-01", "added", OTHER, ""), ("2026-01-02", "added", PLACE, "")]


def test_a_renamed_entry_is_one_removed_and_one_added(board: Checkout) -> None:
    board.place(PROPOSED).parent.mkdir(parents=True, exist_ok=True)
    board.git("mv", str(board.place(ACCEPTED)), str(board.place(PROPOSED)))
    board.git("config", "diff.renames", "copies")
    board.commit(date="2026-02-01T00:00:00Z")
    assert {one[1:3] for one in told(board)[:2]} == {("removed", PLACE), ("added", OTHER)}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"reason": 3}', '{"reason": "' + "x" * 70_000 + '"}', "[" * 99, "\xff"]
)
def test_a_record_that_cannot_be_read_is_told_without_its_text(content: str, board: Checkout) -> None:
    path = board.write(f"leaderboard/records/{PLACE}/revocation.json", "")
    path.write_bytes(content.encode("latin-1"))
    board.commit(date="2026-02-01T00:00:00Z")
    assert told(board)[0] == ("2026-02-01", "revoked", PLACE, "")


def test_files_elsewhere_and_messages_and_authors_are_not_told(board: Checkout) -> None:
    board.write("leaderboard/results/attributes/submission.json", "{}")
    board.write(f"leaderboard/results/{PLACE}/deeper/submission.json", "{}")
    board.write("leaderboard/results/attributes/a\x1bb__c/d/submission.json", "{}")
    board.write(f"leaderboard/records/{PLACE}/submission.json", "{}")
    board.git("config", "user.name", "<b>Mallory</b>")
    board.commit("revoked: everything\n\n\0".replace("\0", "x"))
    assert told(board) == [("2026-01-02", "added", PLACE, "")]
    assert "Mallory" not in markdown(changes(board.path / "leaderboard"))


def test_a_reason_is_shown_as_text_whatever_it_holds(board: Checkout) -> None:
    write_record(board, "revocation", {"reason": EVIL}, "2026-02-01")
    write_record(board, "verification", {"level": "long " * 1000}, "2026-02-02")
    assert len(told(board)[0][3]) == 300
    (board.path / "leaderboard" / "site").mkdir()
    assert write_changelog(board.path / "leaderboard") is None
    page = (board.path / "leaderboard" / "site" / "changelog.html").read_text()
    text = (board.path / "leaderboard" / "CHANGELOG.md").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert "<script>" not in text and "](http" not in text and "@" not in text and "\n# a title" not in text
    assert "\u202e" not in page + text


def test_rows_have_what_the_page_shows() -> None:
    (row,) = rows([Change("2026-01-02", "revoked", "attributes/me__small/config-0", "why")])
    assert row == {
        "date": "2026-01-02",
        "what": "revoked",
        "entry": "attributes: me/small, config-0",
        "slug": "attributes-me__small-config-0",
        "says": "why",
    }


def test_build_writes_the_changelog_and_links_it_and_the_entries_pages(board: Checkout) -> None:
    done = call("leaderboard", "build", folder=board.path)
    assert (done.returncode, done.stderr) == (0, "")
    added = f"added: {TASK}: {ACCEPTED.parent.name.replace('__', '/')}".replace("_", r"\_")  # as Markdown has it
    assert added in (board.path / "leaderboard" / "CHANGELOG.md").read_text()
    site = board.path / "leaderboard" / "site"
    assert 'href="changelog.html"' in (site / "index.html").read_text()
    page = (site / "changelog.html").read_text()
    slug = PLACE.replace("/", "-")
    assert f'href="{slug}.html"' in page and (site / f"{slug}.html").is_file()


def test_without_the_whole_history_the_old_changelog_stays_and_one_line_says_so(
    board: Checkout, tmp_path: Path
) -> None:
    board.write("leaderboard/CHANGELOG.md", "as it was\n")
    board.commit()
    shallow, plain = tmp_path / "shallow", tmp_path / "plain"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{board.path}", str(shallow)], check=True)
    shutil.copytree(board.path / "leaderboard", plain / "leaderboard")
    for folder, reason in ((shallow, "git fetch --unshallow"), (plain, "not a git repository")):
        done = call("leaderboard", "build", folder=folder)
        assert done.returncode == 0 and reason in done.stderr and len(done.stderr.splitlines()) == 1
        assert (folder / "leaderboard" / "CHANGELOG.md").read_text() == "as it was\n"
        assert "not at hand" in (folder / "leaderboard" / "site" / "changelog.html").read_text()
