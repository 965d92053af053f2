"""A run becomes a submission: checked first, committed on a branch of its own, or sent to a hub."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import WHOLE, call
from huggingface_hub import constants

import ocl_bench
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.manifest import read_manifest

WHO = ("--name", "someone/small", "--by", "A. Researcher", "--contact", "a@example.org")
OPEN = (*WHO, "--division", "open", "--notes", "few entities")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "A. Researcher")
    git(folder, "config", "user.email", "a@example.org")
    (folder / "README.md").write_text("hello\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_a_changed_run_is_refused_for_the_standard_division_with_every_reason(small_run: Path, tmp_path: Path) -> None:
    done = call("submit", small_run, *WHO, folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    for reason in (
        "config.seeds: lacks the standard seeds 2, 3, 4",
        "config.task: the task was changed; run the suite's own",
    ):
        assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_division_takes_a_limited_run(tmp_path: Path) -> None:
    asked = {**WHOLE, "seeds": 1, "limit": 3, "curves": False}
    run = ocl_bench.run(**asked, output_path=tmp_path / "runs").folder
    for words in (WHO, OPEN):
        done = call("submit", run, *words, folder=tmp_path)
        assert done.returncode == 2 and done.stdout == ""
        assert "config.limit: only 3 questions per subset were asked; run without a limit" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_submission_is_a_branch_with_one_commit_and_a_second_time_changes_nothing(
    small_run: Path, checkout: Path
) -> None:
    (checkout / "README.md").write_text("changed, and not yet committed\n")
    first = call("submit", small_run, *OPEN, folder=checkout)
    assert first.returncode == 0, first.stderr
    (folder,) = (checkout / "leaderboard" / "results" / "attributes" / "someone__small").iterdir()
    assert check(folder).problems == []
    branch = git(checkout, "branch", "--show-current")
    assert branch == f"submit/attributes-someone__small-{folder.name}"
    assert f"git push --set-upstream origin {branch}" in first.stdout
    assert git(checkout, "log", "--format=%s", "main..") == "attributes: someone/small (open division)"
    changed = git(checkout, "diff", "--name-only", "main", "HEAD").splitlines()
    assert len(changed) == 8 and all(
        name.startswith("leaderboard/results/attributes/someone__small/") for name in changed
    )
    assert git(checkout, "status", "--porcelain") == "M README.md"  # what was under way stays so

    before = git(checkout, "rev-parse", "HEAD"), {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = call("submit", small_run, *OPEN, folder=checkout)
    assert second.returncode == 0 and "already there" in second.stdout
    assert before == (git(checkout, "rev-parse", "HEAD"), {path: path.stat().st_mtime_ns for path in folder.rglob("*")})


def test_other_words_about_the_same_run_replace_the_submission(small_run: Path, checkout: Path) -> None:
    call("submit", small_run, *OPEN, folder=checkout)
    again = call("submit", small_run, *OPEN[:-1], "other notes", folder=checkout)
    assert again.returncode == 0 and "submission" in again.stdout
    assert git(checkout, "rev-list", "--count", "main..") == "2"
    assert git(checkout, "status", "--porcelain") == ""


def test_a_second_submission_begins_at_the_default_branch_and_not_at_the_first(small_run: Path, checkout: Path) -> None:
    (checkout / "README.md").write_text("changed, and not yet committed\n")
    for name in ("someone/small", "someone/other"):
        done = call("submit", small_run, "--name", name, *OPEN[2:], folder=checkout)
        assert done.returncode == 0, done.stderr
    assert "submit/attributes-someone__other-" in git(checkout, "branch", "--show-current")
    changed = git(checkout, "diff", "--name-only", "main", "HEAD")
    assert "someone__other" in changed and "someone__small" not in changed
    assert (checkout / "README.md").read_text() == "changed, and not yet committed\n"


def test_an_accepted_submission_is_not_replaced(small_run: Path, checkout: Path, tmp_path: Path) -> None:
    for folder in (checkout, tmp_path / "plain"):
        folder.mkdir(exist_ok=True)
        assert call("submit", small_run, *OPEN, folder=folder).returncode == 0
        if folder == checkout:
            branch = git(folder, "branch", "--show-current")
            git(folder, "switch", "--quiet", "main")
            git(folder, "merge", "--quiet", branch)
            git(folder, "branch", "-D", branch)
        before = {path: path.read_bytes() for path in folder.rglob("leaderboard/**/*") if path.is_file()}
        done = call("submit", small_run, *OPEN[:-1], "other notes", folder=folder)
        assert done.returncode == 2 and "ask the maintainers to revoke it" in done.stderr
        assert before == {path: path.read_bytes() for path in folder.rglob("leaderboard/**/*") if path.is_file()}
        assert call("submit", small_run, *OPEN, folder=folder).stdout.startswith("already there")
    assert git(checkout, "branch", "--show-current") == "main" and git(checkout, "status", "--porcelain") == ""


def test_what_git_refuses_changes_nothing(small_run: Path, checkout: Path) -> None:
    call("submit", small_run, *OPEN, folder=checkout)
    branch = git(checkout, "branch", "--show-current")
    (file,) = checkout.rglob("submission.json")
    git(checkout, "switch", "--quiet", "--create", "work")
    file.write_text("under way\n")  # which a switch to another branch would lose
    refs = git(checkout, "for-each-ref")
    done = call("submit", small_run, "--name", "someone/other", *OPEN[2:], folder=checkout)
    assert done.returncode == 2 and "nothing was submitted" in done.stderr and "Traceback" not in done.stderr
    assert file.read_text() == "under way\n" and git(checkout, "branch", "--show-current") == "work"
    assert git(checkout, "for-each-ref") == refs and branch in refs
    assert not list(checkout.rglob("someone__other"))


def test_a_branch_that_git_cannot_make_leaves_the_checkout_as_it_was(small_run: Path, checkout: Path) -> None:
    git(checkout, "branch", "submit")  # so that none can be called submit/...
    done = call("submit", small_run, *OPEN, folder=checkout)
    assert done.returncode == 2 and "nothing was submitted" in done.stderr
    assert git(checkout, "branch", "--show-current") == "main" and git(checkout, "status", "--porcelain") == ""


def test_a_checkout_without_a_commit_is_one_sentence(small_run: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    done = call("submit", small_run, *OPEN, folder=tmp_path)
    assert done.returncode == 2 and "has no commit yet" in done.stderr


@pytest.mark.parametrize("below", ["results", "results/attributes", "results/attributes/someone__small"])
def test_a_link_below_the_leaderboard_is_not_followed(small_run: Path, tmp_path: Path, below: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "leaderboard" / below
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    done = call("submit", small_run, *OPEN, folder=tmp_path)
    assert done.returncode == 2 and "is a link" in done.stderr and list(elsewhere.iterdir()) == []


def test_a_name_in_other_case_is_refused_at_every_door(small_run: Path, small_submission: Path, tmp_path: Path) -> None:
    assert call("submit", small_run, *OPEN, folder=tmp_path).returncode == 0
    done = call("submit", small_run, "--name", "Someone/Small", *OPEN[2:], folder=tmp_path)
    assert done.returncode == 2 and "differs in upper and lower case only" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    assert call("submit", small_run, "--name", "Someone/Small", *OPEN[2:], folder=other).returncode == 0
    given = call("leaderboard", "validate", "leaderboard", "other/leaderboard", folder=tmp_path)
    assert given.returncode == 1 and "differs in upper and lower case only" in given.stdout
    second = next((other / "leaderboard" / "results" / "attributes").iterdir())
    second.rename(tmp_path / "leaderboard" / "results" / "attributes" / second.name)
    beside = call(
        "leaderboard", "validate", *second.parent.glob("none"), f"leaderboard/results/attributes/{second.name}",
        folder=tmp_path,
    )  # fmt: skip
    assert beside.returncode == 1 and "differs in upper and lower case only" in beside.stdout
    built = call("leaderboard", "build", folder=tmp_path)
    assert built.returncode == 1 and "differs in upper and lower case only" in built.stderr
    assert not (tmp_path / "leaderboard" / "site").exists()


def test_nothing_of_the_machine_is_in_a_submission(small_run: Path, small_submission: Path) -> None:
    import gzip

    for path in small_submission.rglob("*.json*"):
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        for private in (str(small_run.parents[2]), str(Path.home()), str(Path(__file__).parents[2])):
            assert private not in text, path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "A", "--contact", "b"), "say how to call it, as --name org/model"),
        ((*WHO[2:], "--name", "a b/c"), "use letters, digits, dots and hyphens"),
        ((*WHO[2:], "--name", "a__b/c"), "use letters, digits, dots and hyphens"),
        ((*WHO, "--notes", "<b>best</b>"), "--notes: holds <, >"),
        ((*WHO, "--to", "somewhere"), "write it as hf:ORG/DATASET"),
        ((*WHO, "--license", "all mine"), "SPDX name of the model's licence"),
        ((*WHO, "--by", "<i>"), "--by: holds <, >"),
        ((*WHO, "--by", "a\nb"), "--by: has more than one line"),
        ((*WHO, "--by", " "), "--by: begins or ends with a space"),
        ((*WHO, "--contact", ""), "--contact: String should have at least 1"),
        ((*WHO, "--contact", "a\u202eb"), "--contact: holds <, >"),
        ((*WHO, "--notes", "x" * 2001), "--notes: String should have at most 2000"),
        ((*WHO, "--license", "MIT\n"), "SPDX name of the model's licence"),
        ((*WHO[2:], "--name", "a/b\n"), "use letters, digits, dots and hyphens"),
        ((*WHO[2:], "--name", "a/b..c"), "use letters, digits, dots and hyphens"),
        ((*WHO[2:], "--name", "con/b"), "use letters, digits, dots and hyphens"),
        ((*WHO[2:], "--name", "a/b."), "use letters, digits, dots and hyphens"),
        ((*WHO[2:], "--name", f"{'a' * 50}/{'b' * 50}"), "use at most 96 characters"),
        ((*WHO, "--to", "hf:org/board\n"), "write it as hf:ORG/DATASET"),
    ],
)
def test_a_wrong_word_is_one_sentence(small_run: Path, tmp_path: Path, arguments: Any, message: str) -> None:
    done = call("submit", small_run, *arguments, folder=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    done = call("submit", tmp_path, *WHO, folder=tmp_path)
    assert done.returncode == 2 and "is not a run folder" in done.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as opening a pull request takes."""

    asked: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines() if line]
        self.asked.append((self.path, lines))
        if "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in lines[0]["files"]]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            address = f"http://{self.headers['Host']}/datasets/org/board"
            self.answer(
                {
                    "commitUrl": f"{address}/commit/0",
                    "commitOid": "0" * 40,
                    "pullRequestUrl": f"{address}/discussions/1",
                }
            )
        else:
            self.send_error(404)

    def answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    asked: list[tuple[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHub", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Tells the hub's client where the hub is; of the environment it would learn that only when it is imported."""

    def tell(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # it asks six times, and waits 23 seconds in between

    return tell


def test_a_pull_request_on_the_hub_holds_the_whole_submission(
    small_run: Path,
    small_submission: Path,
    hub: tuple[str, list[tuple[str, Any]]],
    told: Callable[[str], None],
    tmp_path: Path,
) -> None:
    address, asked = hub
    told(address)
    done = call("submit", small_run, *OPEN, "--to", "hf:org/board", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{address}/datasets/org/board/discussions/1")
    path, lines = asked[-1]
    assert path.startswith("/api/datasets/org/board/commit/main") and "create_pr=1" in path
    place = "/".join(small_submission.parts[-3:])
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    files = (path for path in small_submission.rglob("*") if path.is_file())
    assert sent == {f"results/{place}/{path.relative_to(small_submission).as_posix()}" for path in files}


def test_a_hub_that_refuses_is_one_sentence(small_run: Path, told: Callable[[str], None], tmp_path: Path) -> None:
    told("http://127.0.0.1:9")
    done = call("submit", small_run, *OPEN, "--to", "hf:org/board", folder=tmp_path)
    assert done.returncode == 2 and "the hub did not take it" in done.stderr and "Traceback" not in done.stderr


def test_a_run_all_of_whose_stages_other_runs_have_made_can_be_submitted(
    small_run: Path, checkout: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(small_run.parents[2], tmp_path / "runs", symlinks=True))
    made = json.loads((small_run / "manifest.json").read_text(encoding="utf-8"))
    one = ocl_bench.run(**{**made["passed"], "seeds": [0], "output_path": output})
    manifest = read_manifest(one.folder)
    assert manifest.reused == len(manifest.config.task.stages) and manifest.hardware == made["hardware"]
    done = call("submit", one.folder, *OPEN, folder=checkout)
    assert done.returncode == 0, done.stderr
