"""The workflows: the leaderboard's and the pages' run step by step in real repositories, as a runner runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from proposals import ACCEPTED, BOARD, PROPOSED, REPOSITORY, RESULTS, SECOND, Checkout

FILES = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = {(file, name): job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}
STEPS = [step for job in JOBS.values() for step in job["steps"]]
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
MAKEFILE = f"""install:
\tmkdir -p .venv/bin
\tprintf '#!/bin/sh\\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m ocl_bench.cli "$$@"\\n' > .venv/bin/ocl-bench
\tprintf '#!/bin/sh\\nPYTHONPATH={REPOSITORY} exec {sys.executable} "$$@"\\n' > .venv/bin/python
\tchmod +x .venv/bin/*
docs:
\tmkdir -p build/docs && touch build/docs/index.html
"""


class Runner:
    """What a runner does with a job: checkouts, and the steps' commands; other actions are only noted."""

    def __init__(self, folder: Path, origin: Path, sha: str) -> None:
        self.folder, self.origin = folder, origin
        self.context = {"github.event.pull_request.number": "1", "github.event.pull_request.head.sha": sha}
        self.output, self.used = "", list[str]()
        folder.mkdir()

    def filled(self, values: dict[str, Any]) -> dict[str, str]:
        return {key: EXPRESSION.sub(lambda one: self.context[one[1]], str(value)) for key, value in values.items()}

    def wanted(self, condition: str | None, code: int) -> bool:
        if condition is None:
            return code == 0
        always, rest = condition.startswith("always()"), condition.removeprefix("always() && ")
        name, _, value = rest.partition(" == ")
        return (always or code == 0) and self.context.get(name, "") == value.strip("'")

    def job(self, name: str, file: str = "leaderboard") -> int:
        """Run a job of a workflow; its exit code."""
        job, code = JOBS[file, name], 0
        for step in job["steps"]:
            if not self.wanted(step.get("if"), code):
                continue
            if "run" in step:
                code = self.run(step, self.filled(job.get("env", {}) | step.get("env", {}))) or code
            elif step["uses"].startswith("actions/checkout@"):
                self.checkout(step["with"])
            else:
                self.used.append(step["uses"].split("@")[0])
        return code

    def checkout(self, options: dict[str, Any]) -> None:
        depth = [] if options.get("fetch-depth") == 0 else ["--depth=1"]
        origin, there = f"file://{self.origin}", str(self.folder / options["path"])
        subprocess.run(["git", "clone", "--quiet", *depth, "--branch=main", origin, there], check=True)

    def run(self, step: dict[str, Any], environment: dict[str, str]) -> int:
        said = self.folder.parent / "said"
        said.write_text("")
        files = {"GITHUB_OUTPUT": str(said), "GITHUB_STEP_SUMMARY": str(said.with_name("summary"))}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=self.folder,
            env=os.environ | environment | files, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.output += done.stdout
        for line in said.read_text().splitlines():
            key, _, value = line.partition("=")
            self.context[f"steps.{step['id']}.outputs.{key}"] = value
        return done.returncode


def commands(output: str) -> list[str]:
    """Lines that a runner obeys."""
    found, token = [], None
    for line in output.splitlines():
        if token is not None:
            token = None if line == f"::{token}::" else token
        elif line.startswith("::stop-commands::"):
            token = line.removeprefix("::stop-commands::")
        elif line.lstrip().startswith("::") or "##[" in line:
            found.append(line)
    return found


@pytest.fixture
def proposal(tmp_path: Path) -> Checkout:
    """A clone on a branch that leaves main, where the accepted submission and the workflow's scripts are."""
    checkout = Checkout(tmp_path / "proposal")
    shutil.copytree(REPOSITORY / ".github", checkout.path / ".github")
    checkout.write("Makefile", MAKEFILE)
    checkout.write(".gitignore", ".venv/\n")
    checkout.commit()
    checkout.git("switch", "--quiet", "--create", "submit")
    return checkout


def run(checkout: Checkout, folder: Path, job: str = "review", file: str = "leaderboard") -> tuple[int, Runner]:
    """Propose what the branch holds, and run a job on it."""
    origin = folder / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin)], check=True)
    checkout.git("push", "--quiet", str(origin), "main:main", "HEAD:refs/pull/1/head")
    runner = Runner(folder / "runner", origin, checkout.head)
    code = runner.job(job, file)
    assert commands(runner.output) == []
    return code, runner


def test_an_honest_pull_request_passes(proposal: Checkout, tmp_path: Path) -> None:
    proposal.add(PROPOSED)
    proposal.commit()
    code, runner = run(proposal, tmp_path)
    assert code == 0 and f"{BOARD / PROPOSED.relative_to(RESULTS)}: ok" in runner.output, runner.output
    assert not (runner.folder / "main" / BOARD / PROPOSED.relative_to(RESULTS)).exists()


def hide_deletion_by_renaming(checkout: Checkout) -> None:
    checkout.place(PROPOSED).parent.mkdir(parents=True, exist_ok=True)
    checkout.git("mv", str(checkout.place(ACCEPTED)), str(checkout.place(PROPOSED)))
    checkout.commit()


def edit_another(checkout: Checkout) -> None:
    checkout.add(PROPOSED)
    (checkout.place(ACCEPTED) / "results.json").write_text("{}")
    checkout.commit()


def second_submission(checkout: Checkout) -> None:
    checkout.add(PROPOSED)
    checkout.add(SECOND)
    checkout.commit()


def gitlink(checkout: Checkout) -> None:
    checkout.stage("160000", checkout.head, f"{BOARD}/attributes/me__model/config-0")


def link(checkout: Checkout) -> None:
    name = checkout.blob(b"../../../../../../code.py")
    checkout.stage("120000", name, f"{BOARD}/attributes/me__model/config-0/results.json")


def own_checks(checkout: Checkout) -> None:
    checkout.add(PROPOSED)
    checkout.write("Makefile", "install:\n\tmkdir -p .venv/bin; ln -s /bin/true .venv/bin/ocl-bench\n")
    checkout.write(".github/untrusted", "#!/bin/sh\nexit 0\n")
    checkout.commit()


def commands_in_names(checkout: Checkout) -> None:
    for name in ("::set-output name=small::true", "x\n::set-env name=PATH::x\n##[command]echo", "##[error]x"):
        checkout.stage("100644", checkout.blob(b"{}"), f"{BOARD}/attributes/me__model/config-0/{name}")


def commands_in_contents(checkout: Checkout) -> None:
    for file in checkout.add(PROPOSED).glob("*.json"):
        file.write_text('{"\\n::set-output name=small::true\\n##[command]x": "::stop-commands::y"}')
    checkout.commit()


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        (hide_deletion_by_renaming, "was accepted, and is deleted"),
        (edit_another, "belongs to an accepted submission, and is changed"),
        (second_submission, "adds 2 submissions"),
        (gitlink, "is another repository"),
        (link, "is a link"),
        (own_checks, "Makefile: does not belong into"),
        (commands_in_names, "has a name of other characters"),
        (commands_in_contents, "Field required"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_trick_is_refused_and_prints_no_command(trick: Any, reason: str, proposal: Checkout, tmp_path: Path) -> None:
    trick(proposal)
    code, runner = run(proposal, tmp_path)
    assert code == 1 and reason in runner.output, runner.output


def test_a_commit_that_is_pushed_after_another_passed_is_reviewed_itself(proposal: Checkout, tmp_path: Path) -> None:
    proposal.add(PROPOSED)
    proposal.commit()
    code, runner = run(proposal, tmp_path)
    assert code == 0, runner.output
    (proposal.place(ACCEPTED) / "results.json").write_text("{}")
    later = Runner(tmp_path / "later", runner.origin, proposal.commit())
    proposal.git("push", "--quiet", str(runner.origin), "HEAD:refs/pull/1/head")
    assert later.job("review") == 1 and "is changed" in later.output


@pytest.mark.parametrize(
    ("branch", "repository", "wanted"),
    [
        ("submit/x", "fork/ocl", "review"),
        ("maintain/x", "fork/ocl", "review"),
        ("submit/x", "own/ocl", "review"),
        ("maintain/x", "own/ocl", "maintenance"),
    ],
)
def test_only_a_branch_of_the_repository_itself_can_be_a_maintainers(branch: str, repository: str, wanted: str) -> None:
    values = {
        "github.event.pull_request.head.repo.full_name": repository, "github.head_ref": branch,
        "github.repository": "own/ocl",
    }  # fmt: skip
    run_now = []
    for name, job in WORKFLOWS["leaderboard"]["jobs"].items():
        if condition := job.get("if"):
            for key, value in values.items():
                condition = re.sub(rf"{re.escape(key)}(?![\w.])", repr(value), condition)
            spelled = condition.replace("&&", "and").replace("!(", "not (")
            if eval(spelled, {"startsWith": str.startswith}):
                run_now.append(name)
    assert run_now == [wanted]


def test_malformed_objects_are_not_even_fetched(proposal: Checkout, tmp_path: Path) -> None:
    line = f"100644 blob {proposal.blob(b'{}')}\tleaderboard\n"
    twice = proposal.git("mktree", given=(line + line).encode())
    proposal.git("update-ref", "refs/heads/bad", proposal.git("commit-tree", twice, "-p", "main", "-m", "twice"))
    proposal.git("symbolic-ref", "HEAD", "refs/heads/bad")
    code, runner = run(proposal, tmp_path)
    assert code != 0 and "ok" not in runner.output


def test_what_a_stranger_prints_is_no_command_and_the_exit_code_is_kept() -> None:
    printed = r"printf '::set-output name=a::b\n##[command]x\n::stop-commands::y\n::y::\n::error::z'; exit 7"
    done = subprocess.run([REPOSITORY / ".github" / "untrusted", "bash", "-c", printed], capture_output=True, text=True)
    assert done.returncode == 7 and "::error::z" in done.stdout
    assert commands(done.stdout + "\n::error::mine") == ["::error::mine"]


def test_a_small_model_is_run_again_and_what_came_out_is_kept(
    small_submission: Path, proposal: Checkout, tmp_path: Path
) -> None:
    place = proposal.path / BOARD / Path(*small_submission.parts[-3:])
    shutil.copytree(small_submission, place)
    proposal.commit()
    code, runner = run(proposal, tmp_path, "verify")
    printed = (runner.folder / "verification" / "printed.txt").read_text()
    assert "ocl_gap" in printed and (code != 0) == ("NO" in printed), runner.output
    assert list((runner.folder / "verification").rglob("results.json"))
    assert runner.used[-1] == "actions/upload-artifact"


def test_code_alone_is_reviewed_by_people_and_nothing_is_run_again(proposal: Checkout, tmp_path: Path) -> None:
    proposal.write("code.py", "print('better')\n")
    proposal.commit()
    code, runner = run(proposal, tmp_path, "verify")
    assert code == 0 and "leaves the leaderboard alone" in runner.output
    assert not (runner.folder / "verification").exists() and "actions/upload-artifact" not in runner.used


def test_main_is_checked_built_with_its_history_and_handed_to_the_pages(proposal: Checkout, tmp_path: Path) -> None:
    code, runner = run(proposal, tmp_path, "build", "pages")
    assert code == 0 and "changelog stays" not in runner.output, runner.output
    assert "added" in (runner.folder / "main" / "leaderboard" / "site" / "changelog.html").read_text()
    assert (runner.folder / "main" / "leaderboard" / "site" / "docs" / "index.html").exists()
    assert runner.used[-1] == "actions/upload-pages-artifact"


def test_actions_are_pinned_and_their_versions_named() -> None:
    for line in "".join(file.read_text() for file in FILES).splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_no_text_of_an_event_is_in_a_command() -> None:
    assert not [step["run"] for step in STEPS if "${{" in step.get("run", "")]


# The jobs that may write, and what; none of them runs a command.
WRITES = {
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
    ("release", "publish"): {"id-token": "write"},
}


def test_rights_are_the_least_and_every_job_ends() -> None:
    for file, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {} and set(workflow[True]) <= {"pull_request", "push"}, file
    assert not any("secrets" in file.read_text() for file in FILES)
    for place, job in JOBS.items():
        assert job["permissions"] == WRITES.get(place, {"contents": "read"}), place
        assert job["timeout-minutes"] <= 180
        if place in WRITES:
            assert not any("run" in step for step in job["steps"])
    for step in STEPS:
        assert "checkout" not in step.get("uses", "") or step["with"]["persist-credentials"] is False


def test_only_ci_checks_a_proposal_out() -> None:
    for (file, name), job in JOBS.items():
        if "pull_request" in WORKFLOWS[file][True] and (file, name) != ("leaderboard", "maintenance") and file != "ci":
            assert [step["with"]["ref"] for step in job["steps"] if "checkout" in step.get("uses", "")] == ["main"]


def test_a_contribution_is_told_of_in_the_summary(proposal: Checkout, tmp_path: Path) -> None:
    proposal.write("tasks/wrong/wrong.yaml", "task: ::error::x\n")
    proposal.write("Makefile", "install:\n\ttouch /nowhere\n")
    proposal.commit()
    code, runner = run(proposal, tmp_path, "try", "contribution")
    summary = (tmp_path / "summary").read_text()
    assert code == 1 and "Does not work." in summary and "wrong.yaml" in summary, runner.output


def test_what_maintainers_alone_write_has_owners() -> None:
    owned = (REPOSITORY / ".github" / "CODEOWNERS").read_text()
    for path in ("/.github/", "/leaderboard/records/"):
        assert re.search(rf"^{path}\s+@\S+$", owned, re.MULTILINE)
