"""Parts of a request leave, wherever they are done, just what the whole request looks for; a node that differs is told
in one sentence."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Heard

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file
from ocl_bench.runner.begin import perform_part, perform_request
from ocl_bench.runner.compute import CORES, available_cores
from ocl_bench.runner.messages import StageDone
from ocl_bench.runner.part import FOLDER, Ended, Part, choice_sha256, code_versions, perform
from ocl_bench.runner.plan import choose
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.workers import Workers

WORLD = {
    "model": "scratch:tiny-16", "task": "world", "limit": 6, "seeds": 2, "curves": False,
    "overrides": ("source_args.num_entities=20", "recipe.epochs=[1,1,1]"),
}  # fmt: skip


def request(output: Path, **changes: Any) -> RunRequest:
    return RunRequest.from_options(**{**WORLD, "output_path": output, **changes})


def weights(output: Path) -> dict[str, str]:
    """Stage → sha256 of its weights, of the stages whose weights are there."""
    return {path.parent.name: sha256_of_file(path) for path in output.glob("stages/*/model.safetensors")}


def test_the_whole_finds_what_its_parts_have_made_and_nothing_keeps_x0_from_the_next_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORES, "1")  # digits depend on threads
    apart, together = tmp_path / "apart", tmp_path / "together"
    heard = Heard()
    with Workers() as workers:
        _, wanted = perform_request(request(together), workers)
        for seeds in ((), (1,), (0,)):  # () is X0, which no part removes whatever is kept of its own
            perform_part(request(apart, keep="none"), seeds, tmp_path / "part", workers)
            left = weights(apart)
            assert len(left) == 1
        _, results = perform_request(request(apart), workers, heard.shown)
    assert heard.notes == ["5 of 5 stages were there"] and not heard.of(StageDone)
    assert results == wanted
    assert left.items() <= weights(together).items()
    assert len(list(apart.glob("stages/[!.]*"))) == 5


def part(output: Path, **changes: Any) -> Part:
    """What the head of a sweep would send of a request."""
    sent = request(output)
    (output / FOLDER).mkdir(parents=True)
    (output / FOLDER / ".marker").touch()
    fields = {
        "request": msgspec.json.encode(sent.passed).decode(),
        "seeds": (0,),
        "marker": str(output / FOLDER / ".marker"),
        "cwd": str(Path.cwd()),
        "versions": code_versions(),
        "choice": choice_sha256(choose(sent)),
    }
    return Part(**fields | changes)


def ended(sent: Part, **environment: str) -> Ended:
    """How it ends on this node."""
    text = perform(msgspec.json.encode(sent).decode(), dict(os.environ) | environment)
    return msgspec.json.decode(text, type=Ended)


def failure(sent: Part, **environment: str) -> str:
    """What is said of a part that the node refuses."""
    told = ended(sent, **environment).failure
    assert told is not None and type(told) is OclBenchError and told.exit_code == 2
    return str(told)


def test_a_node_with_another_version_is_told_with_package_and_both_versions(tmp_path: Path) -> None:
    info = tmp_path / "site" / "torch-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    path = os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])
    told = failure(part(tmp_path / "out"), PYTHONPATH=path.rstrip(os.pathsep))
    here = code_versions()["torch"]
    assert told.startswith("node ") and f"has torch 1.0, and the machine that started this has {here};" in told


def test_a_node_without_the_output_folder_is_told(tmp_path: Path) -> None:
    sent = part(tmp_path / "out")
    Path(sent.marker).unlink()
    assert f"the output folder {tmp_path / 'out'} is not there" in failure(sent)
    assert list((tmp_path / "out" / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("include: attributes\ntask: own\n", "is another than on the machine that started this"),
    ],
)
def test_a_node_whose_task_file_is_missing_or_another_is_told(
    content: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("include: attributes\ntask: own\nsource_args: {num_entities: 60}\n")
    of_file = RunRequest.from_options(task=str(file), output_path=tmp_path / "out")
    changes = {"request": msgspec.json.encode(of_file.passed).decode(), "choice": choice_sha256(choose(of_file))}
    sent = part(tmp_path / "out", **changes)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    told = failure(sent)
    assert str(file) in told and message in told and "in folders that all nodes share" in told


def test_cores_may_be_bounded_and_a_wrong_bound_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_cores()
    for bound, cores in (("1", 1), ("10000", free), ("0", free), ("many", free), ("", free)):
        monkeypatch.setenv(CORES, bound)
        assert available_cores() == cores
