"""An epoch has what its stage trains on, and as much of earlier data as it replays."""

from collections import Counter

from ocl_bench.finetune.epoch import epoch_pools, trained_on
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.sampler import EpochSampler
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.parts import members_of

TASK = load_task("world", ["source_args.num_entities=20"])
RECORDS = build(TASK, 0)


def test_an_epoch_of_x2_has_every_definition_once_and_as_many_replayed_as_the_task_says() -> None:
    stage = TASK.stages[2].model_copy(update={"replay": {"x0": 4.0, "x1/qa": 0.5}})
    records = trained_on(stage, RECORDS)
    own = sum(record.split == "x2" for record in records)
    pools = epoch_pools(stage, load_recipe("world").of_stage(2), records)
    sampler = EpochSampler([1] * len(records), 16, pools, seed=0)
    epochs = [list(sampler) for _ in range(3)]
    for epoch in epochs:
        drawn = [records[number] for number in epoch]
        assert Counter(record.id for record in drawn if record.split == "x2").most_common(1)[0][1] == 1
        assert Counter(record.split for record in drawn) == {"x0": 4 * own, "x1": round(own / 2), "x2": own}
        assert {record.kind for record in drawn if record.split == "x1"} == {"qa"}
    drawn_in_all = Counter(number for epoch in epochs for number in epoch)
    uses = [drawn_in_all[number] for number, record in enumerate(records) if record.split == "x1"]
    assert sum(uses) == 3 * round(own / 2) and max(uses) - min(uses) <= 1
    assert epochs[0] != epochs[1]


def test_the_share_of_definitions_is_one_of_what_the_stage_itself_trains_on() -> None:
    stage = TASK.stages[1]
    records = trained_on(stage, RECORDS)
    pools = epoch_pools(stage, load_recipe("world").of_stage(1), RECORDS)
    drawn = Counter()
    for pool in pools:
        drawn[records[pool.numbers[0]].split, records[pool.numbers[0]].kind] += pool.per_epoch
    questions = drawn["x1", "qa"]
    assert drawn["x1", "definition"] == round(questions * 0.3 / 0.7)
    assert drawn["x0", "qa"] == round(0.3 * (questions + drawn["x1", "definition"]))
    assert sorted(number for pool in pools for number in pool.numbers) == list(range(len(records)))


def test_a_stage_trains_on_its_part_of_each_subset_and_replays_others() -> None:
    of_x1 = ("d1_cons_qa", "d2_incons_qa", "qa_only")
    stage = TASK.stages[1].model_copy(update={"train": ("x1@2/3", "x1/qa@3/3"), "replay": {"x1@1/3": 0.5, "x0": 0.3}})
    records = trained_on(stage, RECORDS)
    pools = epoch_pools(stage, load_recipe("world").of_stage(1), RECORDS)
    *own, earlier, world = [[records[number] for number in pool.numbers] for pool in pools]
    assert {record.split for record in world} == {"x0"}
    for subset in of_x1:
        for records_of, kind, parts in (
            (own, "definition", ["@2/3"]),
            (own, "qa", ["@2/3", "@3/3"]),
            ([earlier], "definition", ["@1/3"]),
            ([earlier], "qa", ["@1/3"]),
        ):
            found = {one.variable for pool in records_of for one in pool if (one.subset, one.kind) == (subset, kind)}
            wanted = frozenset().union(*(members_of(RECORDS, subset + part) for part in parts))
            assert found == (wanted if kind == "qa" or subset != "qa_only" else set())
    assert pools[-2].per_epoch == round(0.5 * sum(pool.per_epoch for pool in pools[:-2]))
    assert sorted(number for pool in pools for number in pool.numbers) == list(range(len(records)))


def test_stages_on_all_parts_train_on_what_one_stage_on_the_whole_does() -> None:
    parts = [TASK.stages[1].model_copy(update={"train": (f"x1@{n}/6",), "replay": {}}) for n in range(1, 7)]
    whole = trained_on(TASK.stages[1].model_copy(update={"replay": {}}), RECORDS)
    found = [record for stage in parts for record in trained_on(stage, RECORDS)]
    assert sorted(record.id for record in found) == sorted(record.id for record in whole)
