"""Pull requests that do something else than add one submission, whatever git is made to say of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forger import copy
from proposals import ACCEPTED, BOARD, PROPOSED, RESULTS, SECOND, TASK, Checkout

from corpus.attack import Attack, Bench
from corpus.changes import Act
from corpus.doors import reviewed
from corpus.outcome import Outcome

BOARD_PATH = BOARD.as_posix()
TAKEN = f"{BOARD_PATH}/{ACCEPTED.relative_to(RESULTS).as_posix()}"
PLACE = PROPOSED.relative_to(RESULTS).as_posix()
INSIDE = f"{BOARD_PATH}/{PLACE}"
BESIDE, CHANGED = r"does not belong into a pull request", r"belongs to an accepted submission"
NAME, DELETED = r"has a name of other characters", r"was accepted, and is deleted"


def proposed(change: Callable[[Checkout], Any], head: str = "HEAD") -> Act:
    """A branch that adds a submission and does something besides; it is committed, unless the change did so itself."""

    def act(bench: Bench) -> Outcome:
        checkout = Checkout(bench.folder / "proposal")
        checkout.git("switch", "--quiet", "--create", "submit")
        checkout.add(PROPOSED)
        change(checkout)
        if checkout.head == checkout.git("rev-parse", "main"):
            checkout.commit()
        return reviewed(checkout.path, "main", head, bench.folder)

    return act


def adds(name: str, content: str = "{}") -> Act:
    return proposed(lambda checkout: checkout.write(name, content))


def staged(mode: str, path: str, content: bytes = b"{}") -> Act:
    """An object at a path that a file system might not hold."""

    def change(checkout: Checkout) -> None:
        checkout.commit()
        checkout.stage(mode, checkout.head if mode == "160000" else checkout.blob(content), path)

    return proposed(change)


def place_is(mode: str) -> Act:
    """Where the submission should lie is no folder."""

    def change(checkout: Checkout) -> None:
        shutil.rmtree(checkout.place(PROPOSED))
        checkout.stage(mode, checkout.head if mode == "160000" else checkout.blob(b"/etc"), INSIDE)

    return proposed(change)


def renamed(checkout: Checkout) -> None:
    """What git shows as a rename is a deletion of another's."""
    shutil.rmtree(checkout.place(PROPOSED))
    checkout.place(PROPOSED).parent.mkdir(exist_ok=True)
    checkout.git("mv", str(checkout.place(ACCEPTED)), str(checkout.place(PROPOSED)))


def dropped_in_a_merge(checkout: Checkout) -> None:
    checkout.commit()
    checkout.git("switch", "--quiet", "main")
    checkout.add(SECOND)
    checkout.commit()
    checkout.git("switch", "--quiet", "submit")
    checkout.git("merge", "--quiet", "--strategy=ours", "--no-edit", "main")


def changed_back(checkout: Checkout) -> None:
    """Another's entry is changed in one commit, and only half changed back in the next."""
    path = checkout.place(ACCEPTED) / "results.json"
    was = path.read_text()
    path.write_text("{}")
    checkout.commit()
    path.write_text(was + "\n")
    checkout.commit()


def tree_of(checkout: Checkout, lines: str) -> str:
    name = checkout.git("mktree", "--missing", given=lines.encode())
    return checkout.git("commit-tree", name, "-p", "main", "-m", "by hand")


def by_hand(path: str) -> Act:
    """A tree whose folder has a name that git's own commands do not write."""

    def change(checkout: Checkout) -> None:
        name = checkout.git("rev-parse", "main^{tree}")
        blob = checkout.blob(b"{}")
        for part in reversed(path.split("/")):
            kind, of = ("blob", blob) if blob else ("tree", name)
            name, blob = checkout.git("mktree", given=f"{MODES[kind]} {kind} {of}\t{part}\n".encode()), ""
        commit = checkout.git("commit-tree", name, "-p", "main", "-m", "by hand")
        checkout.git("update-ref", "refs/heads/forged", commit)

    return proposed(change, head="forged")


MODES = {"blob": "100644", "tree": "040000"}


def twice(checkout: Checkout) -> None:
    line = f"100644 blob {checkout.blob(b'{}')}\tleaderboard\n"
    checkout.git("update-ref", "refs/heads/forged", tree_of(checkout, line * 2))


def island(checkout: Checkout) -> None:
    checkout.git("switch", "--quiet", "--orphan", "island")
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "an island")


def changed_copy(checkout: Checkout) -> None:
    """An accepted entry under another name, with noise, and every hash made to fit."""
    shutil.rmtree(checkout.place(PROPOSED))
    copy(ACCEPTED, checkout.path / BOARD, "another/model", noise=0.05)


def nothing(checkout: Checkout) -> None:
    shutil.rmtree(checkout.place(PROPOSED).parent)
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "nothing")


def large(checkout: Checkout) -> None:
    (checkout.place(PROPOSED) / "samples.jsonl.gz").write_bytes(bytes(9 * 2**20))


def many(checkout: Checkout) -> None:
    for number in range(150):
        checkout.write(f"{INSIDE}/cell-{number}/samples.jsonl.gz", "")


def commit_of(name: str) -> Act:
    """The pull request is said to end at something else than a commit."""
    return proposed(lambda checkout: None, head=name)


REQUESTS: dict[str, tuple[Act, str]] = {
    "another's results are changed": (
        proposed(lambda checkout: checkout.write(f"{TAKEN}/results.json", "{}")), CHANGED
    ),
    "another's results are changed and not quite changed back": (proposed(changed_back), CHANGED),
    "a file is added to another's": (adds(f"{TAKEN}/notes.json"), CHANGED),
    "a revision is added inside another's": (adds(f"{TAKEN}/seed-99/samples.jsonl.gz"), CHANGED),
    "another's is deleted": (proposed(lambda checkout: shutil.rmtree(checkout.place(ACCEPTED))), DELETED),
    "another's is deleted, as a rename": (proposed(renamed), DELETED),
    "another's is deleted in a merge": (proposed(dropped_in_a_merge), DELETED),
    "another's becomes executable": (
        proposed(lambda checkout: (checkout.place(ACCEPTED) / "results.json").chmod(0o755)), CHANGED
    ),
    "another's becomes a link": (staged("120000", f"{TAKEN}/results.json", b"/etc/passwd"), CHANGED),
    "another repository inside": (staged("160000", f"{INSIDE}/seed-99"), r"is another repository"),
    "another repository as submission": (place_is("160000"), r"is another repository"),
    "a link inside": (staged("120000", f"{INSIDE}/seed-99/samples.jsonl.gz", b"/etc/passwd"), r"is a link"),
    "a link as submission": (place_is("120000"), r"is a link"),
    "a file as submission": (place_is("100644"), r"lies in no submission"),
    "a file that can be run": (
        proposed(lambda checkout: (checkout.place(PROPOSED) / "results.json").chmod(0o755)), r"is executable"
    ),
    "a second submission": (proposed(lambda checkout: checkout.add(SECOND)), r"adds 2 submissions"),
    "the checks are changed as well": (adds("code.py", "print('anything goes')\n"), BESIDE),
    "a workflow": (adds(".github/workflows/check.yml", "on: pull_request_target\n"), BESIDE),
    "an action": (adds(".github/actions/x/action.yml", "runs: {using: composite}\n"), BESIDE),
    "settings of tests": (adds("conftest.py", "raise SystemExit(0)\n"), BESIDE),
    "a module that Python looks for": (adds("sitecustomize.py", ""), BESIDE),
    "the table itself": (adds("leaderboard/README.md", "| 1 | another/model |\n"), BESIDE),
    "the changelog itself": (adds("leaderboard/CHANGELOG.md", "- added\n"), BESIDE),
    "the site itself": (adds("leaderboard/site/index.html", "<script>"), BESIDE),
    "attributes of git, at the top": (adds(".gitattributes", "* filter=x\n"), BESIDE),
    "attributes of git, inside": (adds(f"{INSIDE}/.gitattributes", "* export-ignore\n"), NAME),
    "a module of git": (adds(".gitmodules", '[submodule "x"]\npath = x\nurl = ../x\n'), BESIDE),
    "a settings file inside": (adds(f"{INSIDE}/.hidden.json"), NAME),
    "a name of two lines": (staged("100644", f"{INSIDE}/a\nb.json"), NAME),
    "a name that is a command of a runner": (staged("100644", f"{INSIDE}/::error::x.json"), NAME),
    "a name that is a command of a terminal": (staged("100644", f"{INSIDE}/\x1b[2J.json"), NAME),
    "a name with a dot at the end": (staged("100644", f"{INSIDE}/results.json."), NAME),
    "a name with a space at the end": (staged("100644", f"{INSIDE}/results.json "), NAME),
    "a name that runs backwards": (staged("100644", f"{INSIDE}/\u202enosj.json"), NAME),
    "a name with another slash": (staged("100644", f"{INSIDE}/a\\b.json"), NAME),
    "a stream of a file": (staged("100644", f"{INSIDE}/results.json:x"), NAME),
    "a name that differs in case": (staged("100644", f"{INSIDE}/RESULTS.json"), r"upper and lower case only"),
    "another's name in other case": (
        staged("100644", f"{BOARD_PATH}/{TASK}/{ACCEPTED.parent.name.upper()}/config-0/submission.json"),
        r"upper and lower case only",
    ),
    "the board in other case": (staged("100644", "Leaderboard/RESULTS/a/b__c/d/submission.json"), BESIDE),
    "the board behind a character unseen": (staged("100644", "leaderboard/res\u200cults/a/b/c/d.json"), BESIDE),
    "the board in wide letters": (staged("100644", "leaderboard/\uff52esults/a/b/c/d.json"), BESIDE),
    "a file beside the models": (adds(f"{BOARD_PATH}/{TASK}/notes.json"), r"lies in no submission"),
    "a file too deep": (adds(f"{INSIDE}/a/b/c/d.json"), r"lies in no submission"),
    "nine megabytes": (proposed(large), r"has more than 8388608 bytes"),
    "150 files": (proposed(many), r"at most 100 are taken"),
    "nothing": (proposed(nothing), r"changes nothing"),
    "an accepted entry under another name": (proposed(changed_copy), r"its answers are those of"),
    "a submission without its answers": (
        proposed(lambda checkout: (checkout.place(PROPOSED) / "seed-0" / "samples.jsonl.gz").unlink()),
        r"samples\.jsonl\.gz: (is missing|there is no such file)|files\.seed-0",
    ),
    "a submission in another's folder": (
        proposed(lambda checkout: checkout.place(PROPOSED).rename(checkout.place(PROPOSED).parent / "config-0")),
        r"belongs into",
    ),
    "a verification of its own": (adds(f"leaderboard/records/{PLACE}/verification.json"), r"is a record, which"),
    "a revocation of another's": (
        adds(f"leaderboard/records/{ACCEPTED.relative_to(RESULTS).as_posix()}/revocation.json"), r"is a record, which"
    ),
    "a folder called ..": (by_hand("leaderboard/results/../../x.json"), r"name|belong|fork|failed"),
    "a folder called .git": (by_hand(".git/config"), r"leaves the board|deleted|belong|failed"),
    "a path twice": (proposed(twice, head="forged"), r"holds leaderboard twice"),
    "a history of its own": (proposed(island, head="island"), r"no history in common"),
    "an end that is an option": (commit_of("--output=x"), r"no such commit|[Oo]ption"),
    "an end that is a file": (commit_of("HEAD:README.md"), r"no such commit"),
    "an end that is nowhere": (commit_of("nowhere"), r"no such commit"),
    "an end that is two": (commit_of("main..HEAD"), r"no such commit"),
    "an end that is a command of a terminal": (commit_of("\x1b[2J"), r"no such commit"),
}  # fmt: skip


def no_repository(bench: Bench) -> Outcome:
    folder = bench.folder / "plain"
    folder.mkdir()
    return reviewed(folder, "main", "HEAD", bench.folder)


def settings_that_run(bench: Bench) -> Outcome:
    """A checkout whose settings, hooks and attributes would have a command run; a change shows whether it was."""
    checkout = Checkout(bench.folder / "proposal")
    marker: Path = bench.folder / "ran"
    checkout.git("switch", "--quiet", "--create", "submit")
    checkout.add(PROPOSED)
    checkout.write("code.py", "")
    checkout.commit()
    for name, value in {
        "filter.evil.smudge": f"touch {marker}; cat", "filter.evil.clean": f"touch {marker}; cat",
        "core.fsmonitor": f"touch {marker}", "diff.external": f"touch {marker}", "core.pager": f"touch {marker}",
        "core.sshCommand": f"touch {marker}", "diff.evil.textconv": f"touch {marker}; cat",
    }.items():  # fmt: skip
        checkout.git("config", name, value)
    checkout.write(".git/info/attributes", "* filter=evil diff=evil\n")
    return reviewed(checkout.path, "main", "HEAD", bench.folder)


ATTACKS = [
    *(
        Attack("pull requests", name, act, said, allowed=8.0 if "accepted entry" in name else 3.0)
        for name, (act, said) in REQUESTS.items()
    ),
    Attack("pull requests", "no repository", no_repository, r"not a git repository"),
    Attack("pull requests", "settings that run commands", settings_that_run, BESIDE),
]
