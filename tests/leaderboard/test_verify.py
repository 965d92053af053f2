"""A submission is run again, and its intervals are compared with the new ones."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from tampering import Copy

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard import verify as verifying
from ocl_bench.leaderboard.agreement import seeds_compared
from ocl_bench.leaderboard.isolated import environment, fetch, run_isolated
from ocl_bench.leaderboard.table import load_entries
from ocl_bench.leaderboard.validate import check
from ocl_bench.leaderboard.verify import model_of, verify
from ocl_bench.models.spec import ModelArgs
from ocl_bench.score.result import Gap, Results


def test_the_same_seeds_on_the_same_machine_agree_and_raise_the_level(small_submission: Path, tmp_path: Path) -> None:
    submission = Copy(small_submission, tmp_path / "leaderboard" / "results").path
    done = call("leaderboard", "verify", submission, "--by", "A. Maintainer", "--output_path", "runs", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("same seeds")]
    assert ["ocl_gap", "choice"] in [row[2:4] for row in rows]
    assert all(row[4] == row[5] and row[-1] == "yes" for row in rows)
    (entry,) = load_entries(tmp_path / "leaderboard" / "results")
    assert entry.level == "re-run" and entry.verification is not None and entry.verification.seeds == (0, 1)


def test_a_private_seed_trains_what_the_submitter_could_not_prepare(small_submission: Path, tmp_path: Path) -> None:
    options = ("--private_seed", "71", "--seeds", "2", "--output_path", tmp_path)
    done = call("leaderboard", "verify", small_submission, *options, folder=tmp_path)
    (manifest,) = tmp_path.rglob("manifest.json")
    assert '"seeds": [\n      71,\n      72\n    ]' in manifest.read_text()
    assert (done.returncode == 1) == ("NO" in done.stdout) == ("does not agree" in done.stderr)


def test_what_fails_the_checks_or_was_never_published_is_not_run(small_submission: Path, tmp_path: Path) -> None:
    copy = Copy(small_submission, tmp_path)
    copy.edit("results.json", lambda results: results.update(submittable=True))
    with pytest.raises(OclBenchError, match="does not pass the checks"):
        verify(copy.path, None, None, tmp_path / "runs")
    with pytest.raises(OclBenchError, match="nobody can run it again"):
        model_of(small_submission, "folder", "someone/small")
    assert not (tmp_path / "runs").exists()


def test_seeds_that_were_submitted_are_not_private(small_submission: Path, tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="seed 1 is one of those that were submitted"):
        verify(small_submission, 2, 1, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_model_of_another_size_than_was_said_is_found(small_submission: Path, tmp_path: Path) -> None:
    copy = Copy(small_submission, tmp_path)
    copy.edit("manifest.json", lambda manifest: manifest.update(parameters=manifest["parameters"] - 7))
    copy.rehash()
    with pytest.raises(OclBenchError, match=r"manifest says [0-9]{4} parameters, the model has [0-9]{4} "):
        verify(copy.path, 1, None, tmp_path / "runs")


def attack(small_submission: Path, folder: Path) -> tuple[Copy, Path]:
    """A submission whose configuration names a module that lies beside it, and whose revision asks to trust it."""
    copy, marker = Copy(small_submission, folder), folder / "executed"
    copy.write("own.py", f"open({str(marker)!r}, 'w').close()\nfrom transformers import GPTNeoXConfig as Config\n")
    copy.edit("config.json", lambda config: config.update(auto_map={"AutoConfig": "own.Config"}))

    def change(manifest: Any) -> None:
        manifest["model_revision"] = "main"
        manifest["config"]["model"]["args"] |= {
            "revision": "main,trust_remote_code=true", "trust_remote_code": True, "tokenizer": None,
        }  # fmt: skip

    copy.edit("manifest.json", change)
    copy.rehash()
    return copy, marker


def test_a_submission_that_brings_code_is_refused(small_submission: Path, tmp_path: Path) -> None:
    copy, marker = attack(small_submission, tmp_path)
    problems = "\n".join(copy.problems())
    for line in (
        "config.json: auto_map: chooses code",
        "manifest.json: model_revision: has to be null",
        "manifest.json: config.model.args.revision: has to be 'main'",
        "manifest.json: config.model.args.trust_remote_code: has to be false",
        "own.py: does not belong into this submission",
    ):
        assert line in problems
    done = call("leaderboard", "verify", copy.path, "--output_path", tmp_path / "runs", folder=tmp_path)
    assert done.returncode == 2 and "does not pass the checks" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("model_type", ["gpt_neox", "own"])
@pytest.mark.parametrize("beside", [True, False])
def test_even_past_the_checks_no_code_of_a_submission_is_run(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, beside: bool
) -> None:
    copy, marker = attack(small_submission, tmp_path)
    copy.edit("config.json", lambda config: config.update(model_type=model_type))

    def unchecked(folder: Path) -> Any:
        checked = check(folder)
        assert checked.problems
        checked.problems.clear()
        return checked

    monkeypatch.setattr(verifying, "check", unchecked)
    if beside:  # even where the module lies beside what is loaded
        monkeypatch.setattr(verifying, "model_of", lambda *_: f"scratch:{copy.path}")
    if model_type == "gpt_neox":
        assert verify(copy.path, 1, None, tmp_path / "runs").comparisons
    else:
        with pytest.raises(OclBenchError):
            verify(copy.path, 1, None, tmp_path / "runs")
    assert not marker.exists()


def test_a_tokenizer_with_code_is_not_run_past_the_checks(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, folder = tmp_path / "executed", tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.Own", null]}}')
    found = check(small_submission)
    assert found.manifest is not None
    spec = found.manifest.config.model
    args = ModelArgs(tokenizer=str(folder), trust_remote_code=True)
    model = spec.model_copy(update={"args": args})
    found.manifest = found.manifest.model_copy(
        update={"config": found.manifest.config.model_copy(update={"model": model})}
    )
    monkeypatch.setattr(verifying, "check", lambda _: found)
    with pytest.raises(OclBenchError, match="is a folder here"):
        verify(small_submission, 1, None, tmp_path / "runs")
    monkeypatch.setattr(verifying, "fetch", lambda *_, **__: None)
    with pytest.raises(OclBenchError, match="code of its own"):
        verify(small_submission, 1, None, tmp_path / "runs")
    assert not marker.exists()


def test_the_isolated_process_refuses_to_trust_code(tmp_path: Path) -> None:
    request = {"model": "scratch:tiny-16", "output_path": str(tmp_path), "model_args": {"trust_remote_code": True}}
    with pytest.raises(OclBenchError, match="never run"):
        run_isolated(request)


def test_secrets_do_not_reach_the_isolated_process(tmp_path: Path) -> None:
    secrets = (
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "MY_API_KEY", "my_password", "AWS_PROFILE",
        "SSH_AUTH_SOCK", "WANDB_MODE", "GITHUB_ACTOR", "CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS",
        "https_proxy", "DATABASE_URL",
    )  # fmt: skip
    kept = environment(dict.fromkeys((*secrets, "PATH", "HF_HOME", "CUDA_VISIBLE_DEVICES"), "mine"), tmp_path)
    assert "mine" not in {kept.get(name) for name in secrets}
    assert [kept[name] for name in ("PATH", "HF_HOME", "CUDA_VISIBLE_DEVICES")] == ["mine"] * 3
    assert not Path(kept["HF_TOKEN_PATH"]).exists()
    assert kept["HF_HUB_OFFLINE"] == kept["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"


# What the process that trains, and one that it starts in turn, see: the environment, and a server of the parent's.
LOOK = """
import json, os, socket, subprocess, sys
from ocl_bench.leaderboard.isolated import leave_network
reason = leave_network() if sys.argv[2] == "first" else None
def reached(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        return type(error).__name__
    return "reached"
own = socket.create_server(("127.0.0.1", 0))
print(json.dumps([reason, reached(int(sys.argv[1])), reached(own.getsockname()[1]), os.geteuid()]), flush=True)
open("written-" + sys.argv[2], "w").close()
if sys.argv[2] == "first":
    subprocess.run([sys.executable, sys.argv[0], sys.argv[1], "second"], check=True)
"""


def test_the_isolated_process_and_its_children_reach_no_network(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        done = subprocess.run(
            [sys.executable, "look.py", str(port), "first"], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    if first[0] is not None:
        pytest.skip(f"namespaces are not allowed here ({first[0]})")
    assert first == second == [None, "ConnectionRefusedError", "reached", os.geteuid()]
    assert {path.name for path in tmp_path.glob("written-*")} == {"written-first", "written-second"}


def test_training_itself_has_neither_tokens_nor_network(
    small_submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from inside the processes that verify starts: each writes down what it finds when it starts."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path[1:]]))
    monkeypatch.setenv("SPY_FOLDER", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "wandb_secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("SPY_PORT", str(server.getsockname()[1]))
        command = [sys.executable, "-m", "ocl_bench.cli", "leaderboard", "verify", small_submission, "--seeds", "1"]
        done = subprocess.run(
            [*command, "--output_path", "runs"], cwd=tmp_path, capture_output=True, text=True, timeout=500
        )
    assert done.returncode in (0, 1) and "run folder" in done.stdout, done.stdout + done.stderr
    seen = [json.loads(path.read_text()) for path in tmp_path.glob("seen-*.json")]
    (command,) = (one for one in seen if one["module"] == "ocl_bench.cli")
    assert command["secrets"] and command["reached"]
    isolated = [one for one in seen if one["module"] == "ocl_bench.leaderboard.isolated"]
    workers = [one for one in isolated if one["libraries"]]  # forked from what has imported them, and that itself
    assert len(workers) >= 2 and len(isolated) > len(workers)
    assert not any(one["secrets"] for one in isolated)
    for one in workers:
        assert one["offline"] == "1"
        assert one["reached"] == ("training keeps its network" in done.stderr)


SPY = """
import json, os, socket, sys
module = dict(zip(sys.orig_argv, sys.orig_argv[1:])).get("-m")
def look():
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["SPY_PORT"])), timeout=5).close()
        reached = True
    except OSError:
        reached = False
    found = {
        "module": module, "reached": reached, "offline": os.environ.get("HF_HUB_OFFLINE"),
        "libraries": "torch" in sys.modules,
        "secrets": [name for name, value in os.environ.items() if value in ("hf_secret", "wandb_secret")],
    }
    with open(os.path.join(os.environ["SPY_FOLDER"], f"seen-{os.getpid()}.json"), "w") as file:
        json.dump(found, file)
if module and module.startswith("ocl_bench."):
    look()
    os.register_at_fork(after_in_child=look)
"""


def test_a_hub_model_is_taken_from_the_cache_as_plain_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(OclBenchError, match=r"has no \*\.safetensors"):
        fetch("org/model", "a" * 40, weights=True)
    (tmp_path / "model.safetensors").touch()
    fetch("org/model", "a" * 40, weights=True)
    names = ["config.json", "own.py", "pytorch_model.bin", "adapter_config.json", "x/config.json", "model.safetensors"]
    kept = huggingface_hub.utils.filter_repo_objects(
        names, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
    )
    assert list(kept) == ["config.json", "model.safetensors"] and asked["revision"] == "a" * 40
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    with pytest.raises(OclBenchError, match="is a folder here"):
        fetch("org/model", "a" * 40, weights=True)


def results(like: Path, per_seed: dict[str, float]) -> Results:
    found = check(like).results
    assert found is not None
    gap: dict[str, Any] = found.gaps["ocl_gap"]["em"].model_dump()
    gap["per_seed"] = per_seed
    return found.model_copy(update={"gaps": {"ocl_gap": {"em": Gap.model_validate(gap)}}})


@pytest.mark.parametrize(
    ("submitted", "again", "agrees"),
    [
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.40, 0.42, 0.38, 0.41, 0.39], True),  # the same seeds and digits
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.20, 0.22, 0.18, 0.21, 0.19], False),  # the same seeds, half as much
        ([0.40, 0.42, 0.38, 0.41, 0.39], [0.41, 0.42, 0.37, 0.42, 0.38], True),  # the same but for rounding
    ],
)
def test_the_same_seeds_are_compared_in_pairs(
    small_submission: Path, submitted: list[float], again: list[float], agrees: bool
) -> None:
    old, new = ({str(seed): value for seed, value in enumerate(values)} for values in (submitted, again))
    (one,) = seeds_compared(results(small_submission, old), results(small_submission, new), range(5))
    assert one.what == "same seeds" and one.agrees == agrees and one.interval is not None
    assert one.difference == pytest.approx(one.again - one.submitted)


def test_other_seeds_are_compared_as_two_samples(small_submission: Path) -> None:
    old = results(small_submission, {str(seed): 0.4 + 0.02 * seed for seed in range(5)})
    near = results(small_submission, {str(seed): 0.35 + 0.0003 * seed for seed in range(100, 300, 40)})
    far = results(small_submission, {str(seed): 0.0001 * seed for seed in range(100, 300, 40)})
    again = range(100, 300, 40)
    assert [seeds_compared(old, new, again)[0].agrees for new in (near, far)] == [True, False]
