"""A pull request adds one submission and nothing else, whatever git is made to say of it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call
from proposals import ACCEPTED, BOARD, PROPOSED, RESULTS, SECOND, TASK, Checkout

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard import git
from ocl_bench.leaderboard.pull_request import review

PLACE = PROPOSED.relative_to(RESULTS).as_posix()
INSIDE = f"{BOARD.as_posix()}/{PLACE}"


@pytest.fixture
def proposal(tmp_path: Path) -> Checkout:
    """A checkout on a branch that adds a submission, and has not committed it yet."""
    checkout = Checkout(tmp_path / "proposal")
    checkout.git("switch", "--quiet", "--create", "submit")
    checkout.add(PROPOSED)
    return checkout


def problems(checkout: Checkout) -> list[str]:
    return review(checkout.path, "main", "HEAD").problems


def test_a_submission_alone_passes_and_is_left_in_the_folder_asked_for(proposal: Checkout, tmp_path: Path) -> None:
    proposal.commit()
    done = call("leaderboard", "review", "--base", "main", "--to", "kept", proposal.path, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{INSIDE}: ok\n")
    kept = tmp_path / "kept" / PLACE
    assert (kept / "results.json").read_bytes() == (PROPOSED / "results.json").read_bytes()
    again = call("leaderboard", "review", "--base", "main", "--to", "kept", proposal.path, folder=tmp_path)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_a_submission_passes_when_main_went_on_meanwhile(proposal: Checkout) -> None:
    proposal.commit()
    proposal.git("switch", "--quiet", "main")
    proposal.write("README.md", "news\n")
    proposal.commit()
    proposal.git("switch", "--quiet", "submit")
    assert problems(proposal) == []
    proposal.git("merge", "--quiet", "--no-edit", "main")
    assert problems(proposal) == []


def test_a_submission_that_fails_the_checks_is_refused_with_its_reasons(proposal: Checkout) -> None:
    results = proposal.place(PROPOSED) / "results.json"
    results.write_text(results.read_text().replace('"mean": 0.', '"mean": 0.9', 1))
    proposal.commit()
    assert any(f"{INSIDE}/results.json: its sha256" in line for line in problems(proposal))


def test_what_leaves_the_board_alone_passes(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "code")
    checkout.git("switch", "--quiet", "--create", "code")
    checkout.write("code.py", "print('better checks')\n")
    checkout.commit()
    done = call("leaderboard", "review", "--base", "main", checkout.path, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "leaves the leaderboard alone\n")


def edit_another(checkout: Checkout) -> None:
    (checkout.place(ACCEPTED) / "results.json").write_text("{}")
    checkout.commit()


def add_to_another(checkout: Checkout) -> None:
    (checkout.place(ACCEPTED) / "notes.json").write_text("{}")
    checkout.commit()


def delete_another(checkout: Checkout) -> None:
    shutil.rmtree(checkout.place(ACCEPTED))
    checkout.commit()


def rename_another(checkout: Checkout) -> None:
    shutil.rmtree(checkout.place(PROPOSED))
    checkout.place(PROPOSED).parent.mkdir(exist_ok=True)
    checkout.git("mv", str(checkout.place(ACCEPTED)), str(checkout.place(PROPOSED)))
    checkout.commit()


def change_code(checkout: Checkout) -> None:
    checkout.write("code.py", "print('anything goes')\n")
    checkout.commit()


def second_submission(checkout: Checkout) -> None:
    checkout.add(SECOND)
    checkout.commit()


def attributes(checkout: Checkout) -> None:
    checkout.write(f"{INSIDE}/.gitattributes", "*.json export-subst eol=crlf\n")
    checkout.commit()


def modules(checkout: Checkout) -> None:
    checkout.write(".gitmodules", '[submodule "x"]\npath = x\nurl = ../x\n')
    checkout.commit()


def executable(checkout: Checkout) -> None:
    (checkout.place(PROPOSED) / "results.json").chmod(0o755)
    checkout.commit()


def link(checkout: Checkout) -> None:
    checkout.commit()
    checkout.stage("120000", checkout.blob(b"../../../../../etc/passwd"), f"{INSIDE}/seed-99/samples.jsonl.gz")


def linked_board(checkout: Checkout) -> None:
    checkout.git("rm", "-r", "--quiet", "leaderboard")
    checkout.stage("120000", checkout.blob(b"/tmp"), "leaderboard")


def gitlink(checkout: Checkout) -> None:
    checkout.commit()
    checkout.stage("160000", checkout.head, f"{INSIDE}/seed-99")


def other_case(checkout: Checkout) -> None:
    org = ACCEPTED.parent.name
    checkout.commit()
    checkout.stage("100644", checkout.blob(b"{}"), f"{BOARD}/{TASK}/{org.upper()}/config-0/submission.json")


def board_in_other_case(checkout: Checkout) -> None:
    shutil.rmtree(checkout.place(PROPOSED))
    checkout.stage("100644", checkout.blob(b"{}"), "Leaderboard/RESULTS/a/b__c/d/submission.json")


def board_behind_a_hidden_character(checkout: Checkout) -> None:
    shutil.rmtree(checkout.place(PROPOSED))
    checkout.stage("100644", checkout.blob(b"{}"), "leaderboard/res\u200cults/a/b__c/d/submission.json")


def odd_name(checkout: Checkout) -> None:
    checkout.commit()
    checkout.stage("100644", checkout.blob(b"{}"), f"{INSIDE}/::set-output name=x::\n.json")


def too_shallow(checkout: Checkout) -> None:
    checkout.write(f"{BOARD}/{TASK}/notes.json", "{}")
    checkout.commit()


def too_large(checkout: Checkout) -> None:
    (checkout.place(PROPOSED) / "samples.jsonl.gz").write_bytes(bytes(11 * 2**20))
    checkout.commit()


def too_many(checkout: Checkout) -> None:
    checkout.commit()
    name = checkout.blob(b"{}")
    lines = "".join(f"100644 {name}\t{INSIDE}/cell-{number}/samples.jsonl.gz\n" for number in range(2001))
    checkout.git("update-index", "--add", "--index-info", given=lines.encode())
    checkout.git("commit", "--quiet", "--message", "many")


def record(checkout: Checkout) -> None:
    checkout.write(f"leaderboard/records/{PLACE}/verification.json", '{"level": "replayed"}')
    checkout.commit()


def hidden_in_a_merge(checkout: Checkout) -> None:
    """main accepts another submission; the branch merges main, and drops it in the merge."""
    checkout.commit()
    checkout.git("switch", "--quiet", "main")
    checkout.add(SECOND)
    checkout.commit()
    checkout.git("switch", "--quiet", "submit")
    checkout.git("merge", "--quiet", "--strategy=ours", "--no-edit", "main")


def nothing(checkout: Checkout) -> None:
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "nothing")


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        (edit_another, "results.json: belongs to an accepted submission, and is changed or added"),
        (add_to_another, "notes.json: belongs to an accepted submission, and is changed or added"),
        (delete_another, "results.json: was accepted, and is deleted"),
        (rename_another, "results.json: was accepted, and is deleted"),
        (change_code, "code.py: does not belong into a pull request with a submission"),
        (second_submission, "the pull request adds 2 submissions"),
        (attributes, ".gitattributes: has a name of other characters"),
        (modules, ".gitmodules: does not belong into"),
        (executable, "results.json: is executable; add plain files"),
        (link, "samples.jsonl.gz: is a link; add plain files"),
        (linked_board, "leaderboard: does not belong into"),
        (gitlink, "seed-99: is another repository; add plain files"),
        (other_case, "differs in upper and lower case only from a path that is there"),
        (board_in_other_case, "Leaderboard/RESULTS/a/b__c/d/submission.json: does not belong"),
        (board_behind_a_hidden_character, r"res\u200cults/a/b__c/d/submission.json: does not belong"),
        (odd_name, r"::set-output name=x::\n.json: has a name of other characters"),
        (too_shallow, "notes.json: lies in no submission"),
        (too_large, "samples.jsonl.gz: has more than 8388608 bytes"),
        (too_many, "files; at most 100 are taken"),
        (record, "verification.json: is a record, which maintainers write"),
        (hidden_in_a_merge, "results.json: was accepted, and is deleted"),
        (nothing, "the pull request changes nothing"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_trick_is_refused_with_its_reason(
    trick: Callable[[Checkout], None], reason: str, proposal: Checkout, tmp_path: Path
) -> None:
    trick(proposal)
    done = call("leaderboard", "review", "--base", "main", "--to", "kept", proposal.path, folder=tmp_path)
    assert done.returncode == 1 and reason in done.stdout, done.stdout
    assert len(done.stdout.splitlines()) < 20
    assert not (tmp_path / "kept").exists()


def test_files_with_two_problems_of_a_kind_are_counted_and_not_all_listed(proposal: Checkout) -> None:
    for number in range(9):
        proposal.write(f"beside/{number}.txt", "x")
    proposal.commit()
    assert sum(line.startswith("beside/") for line in problems(proposal)) == 5
    assert any(line.startswith("and 4 more that each") for line in problems(proposal))


def test_the_content_that_is_checked_is_the_stored_one_whatever_filters_say(proposal: Checkout) -> None:
    marker = proposal.path / "ran"
    proposal.commit()
    proposal.git("config", "filter.evil.smudge", f"touch {marker}; cat")
    proposal.git("config", "core.fsmonitor", f"touch {marker}")
    proposal.git("config", "diff.evil.textconv", f"touch {marker}; cat")
    proposal.write(".git/info/attributes", "* filter=evil diff=evil working-tree-encoding=UTF-16\n")
    assert problems(proposal) == [] and not marker.exists()


def test_replaced_objects_do_not_stand_in_for_those_of_the_proposal(proposal: Checkout) -> None:
    proposal.commit()
    honest = proposal.head
    proposal.write("code.py", "print('anything goes')\n")
    changed = proposal.commit()
    proposal.git("replace", changed, honest)
    assert any(line.startswith("code.py") for line in problems(proposal))


def test_a_tree_that_lists_a_path_twice_is_no_proposal(proposal: Checkout) -> None:
    line = f"100644 blob {proposal.blob(b'{}')}\tleaderboard\n"
    name = proposal.git("mktree", given=(line + line).encode())
    commit = proposal.git("commit-tree", name, "-p", "main", "-m", "twice")
    with pytest.raises(OclBenchError, match="holds leaderboard twice"):
        review(proposal.path, "main", commit)


def test_a_tree_that_never_ends_is_given_up(proposal: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    name = proposal.git("mktree", given=f"100644 blob {proposal.blob(b'')}\tfile\n".encode())
    for _ in range(30):
        lines = f"040000 tree {name}\ta\n040000 tree {name}\tb\n"
        name = proposal.git("mktree", given=lines.encode())
    commit = proposal.git("commit-tree", name, "-p", "main", "-m", "a bomb")
    monkeypatch.setattr(git, "ask", lambda *words, **named: asked(*words, **(named | {"most": 2**20})))
    with pytest.raises(OclBenchError, match="prints more than"):
        review(proposal.path, "main", commit)


asked = git.ask


def test_commits_that_cannot_be_compared_are_an_error_that_says_what_to_do(proposal: Checkout, tmp_path: Path) -> None:
    proposal.commit()
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{proposal.path}", str(shallow)], check=True)
    with pytest.raises(OclBenchError, match="--unshallow"):
        review(shallow, "HEAD", "HEAD")
    for name in ("nowhere", "--output=x", "HEAD:README.md"):
        with pytest.raises(OclBenchError, match="has no such commit"):
            review(proposal.path, "main", name)
    proposal.git("switch", "--quiet", "--orphan", "island")
    proposal.git("commit", "--quiet", "--allow-empty", "--message", "an island")
    with pytest.raises(OclBenchError, match="no history in common"):
        review(proposal.path, "main", "island")
    outside = call("leaderboard", "review", "--base", "main", tmp_path, folder=tmp_path)
    assert outside.returncode == 2 and "not a git repository" in outside.stderr


def test_branches_that_merged_each_other_are_an_error(proposal: Checkout) -> None:
    proposal.commit()
    first = proposal.head
    proposal.git("switch", "--quiet", "main")
    proposal.write("README.md", "news\n")
    second = proposal.commit()
    proposal.git("merge", "--quiet", "--no-edit", first)
    proposal.git("switch", "--quiet", "submit")
    proposal.git("merge", "--quiet", "--no-edit", second)
    with pytest.raises(OclBenchError, match="at 2 places"):
        review(proposal.path, "main", "HEAD")


def test_a_review_loads_neither_torch_nor_transformers(proposal: Checkout) -> None:
    proposal.commit()
    code = (
        "import sys; from pathlib import Path; from ocl_bench.leaderboard.pull_request import review;"
        "found = review(Path(sys.argv[1]), 'main', 'HEAD');"
        "print(found.problems, [name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(proposal.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"
