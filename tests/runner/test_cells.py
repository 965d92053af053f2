"""Which cell trains what is said in one place, and what identifies a stage is its content."""

from pathlib import Path

import pytest

from ocl_bench.finetune.epoch import trained_on
from ocl_bench.runner.cells import Cell, cells_of
from ocl_bench.runner.identity import base_identity, content_key
from ocl_bench.runner.jobs import stage_identity
from ocl_bench.runner.manifest import RunConfig
from ocl_bench.runner.plan import choose, make_plan
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.schedule import Schedule
from ocl_bench.runner.store import Store
from ocl_bench.tasks import build as build_module
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import dataset_sha256, serialize

SMALL = ("source_args.num_entities=60",)


def config(**options: object) -> RunConfig:
    request = RunRequest.from_options(
        **{"model": "scratch:tiny", "task": "attributes", "overrides": SMALL, "seeds": 2, "stage2_seeds": 2, **options}
    )
    return make_plan(choose(request), request, lambda: None).config


def test_later_stage_2_seeds_own_the_stages_from_x2_on_and_share_the_others() -> None:
    task = load_task("attributes", SMALL)
    first, second, other = cells_of([3, 4], [0, 7])[:3]
    assert [cell.name for cell in (first, second, other)] == ["seed-3", "seed-3-stage2-7", "seed-4"]
    assert [stage.name for stage in first.owned(task)] == ["x1", "x2"]
    assert [stage.name for stage in second.owned(task)] == ["x2"]
    assert second.owner(task, 0) == first and second.owner(task, 1) == second and first.owner(task, 0) == first


def test_every_training_has_a_seed_of_its_own_and_x1_does_not_depend_on_the_stage_2_seed() -> None:
    task = load_task("attributes", SMALL)
    seeds = {(cell, n): cell.training_seed(task, n) for cell in cells_of([0, 1], [0, 5]) for n in (0, 1)}
    assert len(set(seeds.values())) == 6
    assert Cell(0, 5).training_seed(task, 0) == Cell(0, 0).training_seed(task, 0)


@pytest.mark.parametrize("task", ["attributes", "cvdb_sample", "set_inclusion_mini", "sources_attributes"])
def test_what_x1_trains_on_is_the_same_for_every_stage_2_seed(task: str) -> None:
    loaded = load_task(task)
    one, other = build(loaded, 0, 0), build(loaded, 0, 1)
    assert one != other
    assert trained_on(loaded.stages[0], one) == trained_on(loaded.stages[0], other)


def test_a_seed_has_the_same_data_and_keys_planned_alone_or_with_others(tmp_path: Path) -> None:
    def planned(*seeds: int) -> dict[int, tuple[str, list[str]]]:
        """Seed → its data, and the keys of what it trains, each stage's parent given."""
        request = RunRequest.from_options(
            task="world", overrides=("source_args.num_entities=20",), seeds=seeds, output_path=tmp_path
        )
        plan = make_plan(choose(request), request, lambda: None)
        task, schedule, found = plan.config.task, Schedule(plan, Store(tmp_path)), {}
        x0 = schedule.job((plan.config.cells[0], 0))
        for cell in plan.config.cells:
            keys = [x0.key]
            for number, stage in enumerate(task.stages[1:], start=1):
                dataset = dataset_sha256(trained_on(stage, plan.records[cell]))
                keys.append(content_key(stage_identity(plan.config, cell, number, dataset, "a" * 64)))
            found[cell.seed] = serialize(plan.records[cell]), keys
        return found

    together, apart = planned(4, 0, 7), {}
    for seed in (7, 0, 4):
        build_module._x0.cache_clear()  # as in a process of its own
        apart |= planned(seed)
    assert together == apart
    assert len({keys[1] for _, keys in together.values()}) == 3 and len({keys[0] for _, keys in together.values()}) == 1


def test_a_key_is_that_of_the_content_and_of_nothing_else() -> None:
    plain = config()
    records = build(plain.task, 0)
    cell = plain.cells[0]

    def key(config: RunConfig, number: int = 0, parent: object = None) -> str:
        base = base_identity(config.model, records, cell.seed)
        dataset = dataset_sha256(trained_on(config.task.stages[number], records))
        return content_key(stage_identity(config, cell, number, dataset, parent or base))  # type: ignore[arg-type]

    same = [
        config(limit=5), config(curves=False), config(seeds=[0, 9]), config(batch_size=8),
        config(overrides=(*SMALL, "evaluate.max_new_tokens=4")), config(overrides=(*SMALL, "recipe.epochs=[40,2]")),
    ]  # fmt: skip
    assert {key(one) for one in same} == {key(plain)}
    other = [
        config(overrides=(*SMALL, "recipe.learning_rate=1e-3")), config(overrides=(*SMALL, "recipe.epochs=[4,30]")),
        config(model="scratch:tiny-16"), config(model_args={"dtype": "bfloat16"}),
    ]  # fmt: skip
    assert len({key(one) for one in (plain, *other)}) == 5
    assert key(plain, 1, "a" * 64) != key(plain, 1, "b" * 64)
    assert key(plain, 1, "a" * 64) == key(config(overrides=(*SMALL, "recipe.epochs=[3,30]")), 1, "a" * 64)


def test_a_model_folder_is_known_by_its_weights_and_not_by_its_path(model_folder, tmp_path: Path) -> None:
    import shutil

    from ocl_bench.models.spec import parse_model

    first = model_folder("gpt2")
    second = shutil.copytree(first, tmp_path / "elsewhere")
    identities = [base_identity(parse_model(str(path)), [], 0) for path in (first, second)]
    assert identities[0] == identities[1]
    weights = bytearray((second / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (second / "model.safetensors").write_bytes(weights)
    assert base_identity(parse_model(str(second)), [], 0) != identities[0]
