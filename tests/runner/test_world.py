"""A task whose definitions only name: what seeds share is trained once, taken where it is released, and checked."""

import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import Heard

import ocl_bench
from ocl_bench.evaluate.ask import choices, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer, weights_sha256
from ocl_bench.models.spec import parse_model
from ocl_bench.runner.manifest import StageRecord, read_manifest
from ocl_bench.runner.messages import EpochDone
from ocl_bench.runner.plan import Plan, choose, make_plan
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.schedule import Schedule
from ocl_bench.runner.store import Store
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import TASK_FOLDER, load_task

RELEASED = TASK_FOLDER / "world" / "x0"
SMALL = {
    "task": "world", "limit": 12, "seeds": 2,
    "overrides": ("source_args.num_entities=20", "recipe.epochs=[1,1,1]", "evaluate.curve_questions=5"),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Heard]:
    heard = Heard()
    result = ocl_bench.run(**SMALL, output_path=tmp_path_factory.mktemp("world"), progress=heard.shown)
    return result, heard


def trained(heard: Heard) -> list[str]:
    return sorted({message.where.name for message in heard.of(EpochDone)})


def released_plan(task: str = "world", **options: Any) -> Plan:
    request = RunRequest.from_options(task=task, seeds=1, **options)
    return make_plan(choose(request), request, lambda: None)


def test_all_seeds_go_on_from_one_x0_and_only_it_is_asked_what_it_taught(small_world: tuple[Any, Heard]) -> None:
    result, heard = small_world
    assert trained(heard) == ["seed 0 x0", "seed 0 x1", "seed 0 x2", "seed 1 x1", "seed 1 x2"]
    stages = read_manifest(result.folder).stages
    assert list(stages["seed-0"]) == ["x0", "x1", "x2"] and list(stages["seed-1"]) == ["x1", "x2"]
    assert stages["seed-1"]["x1"].weights_before == stages["seed-0"]["x0"].weights_after
    assert stages["seed-0"]["x2"].identity.replay == {"x0": 2.0, "x1/qa": 1.0}
    aliases, gap = result.metrics["x0_aliases"]["choice"], result.gaps["meta_ocl_gap"]["choice"]
    assert (aliases.stage, aliases.seeds, aliases.n) == ("x0", 1, 12) and (gap.seeds, gap.n) == (2, 48)
    assert result.results.sets["recall"].metrics.keys() >= {"x0_facts", "d1_cons", "d2_cons", "d3_cons"}


def test_its_table_has_choice_form_and_recall_and_says_where_a_bar_is_missed(small_world: tuple[Any, Heard]) -> None:
    result, _ = small_world
    table = result.table()
    header = next(line for line in table.splitlines() if line.startswith("subset"))
    assert header.split() == ["subset", "after"] + [
        word for name in ("choice", "em", "logprob", "form", "recall") for word in (name, "[95", "%]")
    ] + ["chance", "n"]
    assert any(line.startswith("x0_facts") for line in table.splitlines())
    for subset in ("x0_facts", "x0_aliases"):
        assert f"note: after X0 {subset} is below its bar (down to ." in table.replace("to 0.", "to .")
    assert "p (choice)" in table and (result.folder / "curves.png").stat().st_size > 10_000


def test_another_seed_takes_the_x0_that_is_there_and_one_of_its_own_is_trained_if_asked(
    small_world: tuple[Any, Heard], tmp_path: Path
) -> None:
    output = shutil.copytree(small_world[0].folder.parents[2], tmp_path / "out")
    heard = Heard()
    ocl_bench.run(**{**SMALL, "seeds": [7]}, output_path=output, progress=heard.shown)
    assert heard.notes == ["1 of 3 stages were there"] and trained(heard) == ["seed 7 x1", "seed 7 x2"]
    own = Heard()
    result = ocl_bench.run(**{**SMALL, "seeds": [0, 7]}, own_x0=True, output_path=output, progress=own.shown)
    assert trained(own) == ["seed 7 x0", "seed 7 x1", "seed 7 x2"]  # that of seed 0 is the one that seeds share
    starts = {read_manifest(result.folder).stages[f"seed-{seed}"]["x0"].weights_before for seed in (0, 7)}
    assert len(starts) == 2 and result.metrics["x0_aliases"]["choice"].seeds == 2


def test_the_released_x0_is_just_what_a_plain_run_would_train_and_is_taken(tmp_path: Path) -> None:
    record = StageRecord.model_validate_json((RELEASED / "stage.json").read_text())
    store = Store(tmp_path)
    schedule = Schedule(released_plan(), store)
    assert schedule.look() == 1, "the released X0 is of other data, recipe or code: make release-model"
    assert store.stage(record.key) == record
    assert Schedule(released_plan(), Store(tmp_path / "other"), adopts=False).look() == 0
    assert Schedule(released_plan(overrides=["recipe.weight_decay=0.2"]), Store(tmp_path / "third")).look() == 0
    assert sum(path.stat().st_size for path in RELEASED.iterdir()) < 3_000_000


def test_the_released_x0_is_taken_by_another_task_with_just_that_x0_and_by_no_other(tmp_path: Path) -> None:
    assert Schedule(released_plan("six_stages"), Store(tmp_path / "one")).look() == 1
    assert Schedule(released_plan("negated"), Store(tmp_path / "other")).look() == 0


def test_the_released_x0_has_the_weights_that_its_record_says_and_reaches_its_bars() -> None:
    record = StageRecord.model_validate_json((RELEASED / "stage.json").read_text())
    spec = parse_model(str(RELEASED))
    tokenizer = load_tokenizer(spec, ())
    model = load_model(spec, tokenizer, seed=0).eval()
    assert weights_sha256(model) == record.weights_after
    asked = [one for one in build(load_task("world"), 0) if one.subset.startswith("x0")]
    engine = TorchEngine(model, Encoder(tokenizer, seq2seq=False))
    questions = encode_questions(asked, engine.encoder)
    right: dict[str, list[bool]] = {"x0_facts": [], "x0_aliases": []}
    for one, choice in zip(
        questions.records, choices(questions, engine.score(questions.encoded, questions.options)), strict=True
    ):
        assert choice is not None
        right[one.subset].append(one.options[choice] == one.answers[0])
    assert fmean(right["x0_facts"]) >= 0.95 and fmean(right["x0_aliases"]) >= 0.8


def test_a_model_folder_that_knows_the_world_is_finetuned_without_x0(tmp_path: Path) -> None:
    stages = "stages=[{name: x1, train: [x1]}, {name: x2, train: [x2]}]"
    result = ocl_bench.run(
        str(RELEASED), task="world", recipe="world", seeds=1, limit=20, output_path=tmp_path, curves=False,
        overrides=[stages, "recipe.epochs=[1,1]", "recipe.learning_rate=1e-5"],
    )  # fmt: skip
    manifest = read_manifest(result.folder)
    record = StageRecord.model_validate_json((RELEASED / "stage.json").read_text())
    assert manifest.stages["seed-0"]["x1"].weights_before == record.weights_after
    # Hardly trained further, it still knows what it knew.
    assert result.metrics["x0_aliases"]["choice"].mean > 0.6
    assert result.results.sets["recall"].metrics["x0_facts"]["choice"].mean > 0.9
