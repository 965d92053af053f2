"""What runs share can be looked at, kept in part and removed; what is damaged or gone is made again when needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import WHOLE, Heard, call

import ocl_bench
from ocl_bench.runner.folder import score_run
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import EpochDone

SMALL = {"seeds": 1, "limit": 3, "curves": False}


def run(output: Path, **changes: Any) -> tuple[Path, list[str], set[str]]:
    """The run folder, what was said, and the stages that were trained."""
    heard = Heard()
    folder = ocl_bench.run(**{**WHOLE, "output_path": output, **changes}, progress=heard.shown).folder
    return folder, heard.notes, {message.where.name for message in heard.of(EpochDone)}


def stored(output: Path, run: Path, cell: str, stage: str) -> Path:
    """The folder in the store that a run folder shows."""
    return output / "stages" / read_manifest(run).stages[cell][stage].key[:24]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def weights(folder: Path) -> list[str]:
    """Cells and stages of a run folder that show weights."""
    return sorted("/".join(path.parts[-3:-1]) for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("stage", "name", "damage", "said"),
    [
        ("x2", "model.safetensors", cut, "bytes"),
        ("x1", "config.json", flip, "is not what was written (its sha256 differs)"),
        ("x2", "tokenizer.json", Path.unlink, "is missing"),
        ("x1", "stage.json", cut, "is not what was written"),
    ],
)
def test_a_damaged_file_of_a_stage_is_named_and_the_stage_trained_again_to_the_same_bytes(
    stage: str, name: str, damage: Callable[[Path], None], said: str, whole_run: Path, whole_output: Path
) -> None:
    place = stored(whole_output, whole_run, "seed-0", stage)
    damage(place / name)
    folder, notes, trained = run(whole_output)
    (note,) = (note for note in notes if "again" in note)
    assert note.startswith(f"{place / name} ") and said in note
    assert note.endswith(f": seed 0 {stage} is trained again") and trained == {f"seed 0 {stage}"}
    for shown in (folder / "seed-0" / stage, place):
        assert (shown / "model.safetensors").read_bytes() == (
            whole_run / "seed-0" / stage / "model.safetensors"
        ).read_bytes()
    assert not {note for note in run(whole_output)[1] if "again" in note}


def test_damaged_weights_are_noticed_when_a_later_stage_needs_them(whole_run: Path, whole_output: Path) -> None:
    """Reading all weights at each start would take long: of those that nothing needs, the size is enough."""
    first, second = (stored(whole_output, whole_run, cell, "x1") / "model.safetensors" for cell in ("seed-0", "seed-1"))
    flip(first), flip(second)
    assert run(whole_output)[2] == set()
    _, notes, trained = run(whole_output, stage2_seeds=[0, 5], limit=3)
    for path in (first, second):  # the first of these questions is to that very model
        assert any(note.startswith(f"{path} is not what was written") for note in notes)
    fresh = {f"seed {seed} stage-2 seed 5 x2" for seed in (0, 1)}
    assert trained == {"seed 0 x1", "seed 1 x1"} | fresh
    flip(first)
    _, notes, trained = run(whole_output, stage2_seeds=[0, 6], limit=3)
    assert any(note.startswith(f"{first} is not what was written") and "the stage before" in note for note in notes)
    assert trained == {"seed 0 x1"} | {f"seed {seed} stage-2 seed 6 x2" for seed in (0, 1)}


def test_damaged_answers_are_named_and_asked_again_and_those_of_a_run_folder_are_shown_again(
    whole_run: Path, whole_output: Path
) -> None:
    folder, _, _ = run(whole_output)
    shown = folder / "seed-0" / "x2" / "answers.jsonl"
    key = read_manifest(folder).evaluations["seed-0"]["x2"]["answers"].key
    path = whole_output / "evaluations" / key[:24] / "rows.jsonl"
    cut(path), cut(shown)
    _, notes, trained = run(whole_output)
    assert f"{path} is not what was written: seed 0 x2 is asked again" in notes and trained == set()
    whole = (whole_run / "seed-0" / "x2" / "answers.jsonl").read_bytes()
    assert path.read_bytes() == shown.read_bytes() == whole


@pytest.mark.parametrize(
    ("keep", "kept"), [("all", ["x1", "x2", "stage2-1/x2"]), ("last", ["x2", "stage2-1/x2"]), ("none", [])]
)
def test_weights_are_kept_as_told_and_results_do_not_depend_on_it(keep: str, kept: list[str], tmp_path: Path) -> None:
    folder, notes, _ = run(tmp_path, keep=keep, **SMALL)
    places = sorted(f"seed-0-{name}" if "/" in name else f"seed-0/{name}" for name in kept)
    assert weights(folder) == places and len(list(tmp_path.glob("stages/*/*.safetensors"))) == len(kept)
    removed = [note for note in notes if note.startswith("removed the weights of seed-0")]
    assert len(removed) == 3 - len(kept) and all(note.endswith("GB; --keep all keeps them)") for note in removed)
    assert score_run(folder).metrics["d1_cons"]["em"].n == 6
    assert run(tmp_path, keep=keep, **SMALL)[2] == set(), "and the same command trains nothing"
    # What needs removed weights trains them again, and says so; what does not need them stays as it is.
    _, notes, trained = run(tmp_path, keep=keep, **SMALL, stage2_seeds=[0, 1, 2])
    assert trained == {"seed 0 stage-2 seed 2 x2"} | (set() if keep == "all" else {"seed 0 x1"})
    assert any("were removed" in note for note in notes) == (keep != "all")


def test_questions_to_a_model_whose_weights_were_removed_have_it_trained_again(tmp_path: Path) -> None:
    run(tmp_path, keep="none", **SMALL)
    folder, notes, trained = run(tmp_path, keep="none", **{**SMALL, "limit": 4})
    assert trained == {"seed 0 x1", "seed 0 x2", "seed 0 stage-2 seed 1 x2"}
    assert any(note.endswith(" were removed: seed 0 x2 is trained again") for note in notes)
    assert score_run(folder).metrics["d1_cons"]["em"].n == 8


def test_cache_ls_and_prune_tell_and_remove_what_no_run_uses(whole_output: Path) -> None:
    folder, _, _ = run(whole_output, seeds=[1])
    before = call("cache", "ls", "--output_path", "out", folder=whole_output.parent)
    rows = [line.split() for line in before.stdout.splitlines()]
    stages = [row for row in rows if row[:1] == ["stage"]]
    assert len(stages) == 6 and sum(row[:1] == ["evaluation"] for row in rows) == 6
    assert sorted(row[-2] for row in stages) == ["1", "1", "1", "2", "2", "2"]
    assert "attributes x1" in before.stdout and "12 in all, " in before.stdout
    pruned = call("cache", "prune", "--output_path", "out", folder=whole_output.parent)
    assert pruned.stdout == "nothing\n"

    for whole in (path for path in folder.parent.iterdir() if path != folder):
        (whole / "manifest.json").unlink()  # with its run, what only it has used is of no more use
    half = whole_output / "stages" / f".{'0' * 24}.work"
    half.mkdir()
    pruned = call("cache", "prune", "--output_path", "out", folder=whole_output.parent)
    assert "7 in all, " in pruned.stdout and not half.exists()
    assert len(list(whole_output.glob("stages/[!.]*"))) == len(list(whole_output.glob("evaluations/[!.]*"))) == 3
    assert run(whole_output, seeds=[1])[2] == set() and len(weights(folder)) == 3

    call("cache", "prune", "--weights", "--output_path", "out", folder=whole_output.parent)
    assert weights(folder) == list(whole_output.glob("stages/*/*.safetensors")) == []
    assert run(whole_output, seeds=[1])[2] == set(), "answers and results stay"
    nowhere = call("cache", "ls", "--output_path", "nowhere", folder=whole_output.parent)
    assert nowhere.returncode == 2 and nowhere.stderr == "ocl-bench: --output_path nowhere: there is no such folder.\n"


def test_a_run_without_hard_links_is_whole_too(whole_run: Path, whole_output: Path, monkeypatch: Any) -> None:
    """Some file systems have none; here the call fails as it does there."""

    def refused(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    folder, _, trained = run(whole_output, seeds=[1])
    assert trained == set()
    for name in ("seed-1/x2/model.safetensors", "seed-1/x2/config.json"):
        assert (folder / name).read_bytes() == (whole_run / name).read_bytes()
    assert json.loads((folder / "results.json").read_text())["seeds"] == [1]


def test_nothing_is_pruned_under_a_sweep_whose_stages_no_run_shows_yet(tmp_path: Path) -> None:
    (tmp_path / ".parts").mkdir()
    result = call("cache", "prune", "--output_path", tmp_path, folder=tmp_path)
    assert result.returncode == 2 and "a sweep is under way there, or has not ended well" in result.stderr
