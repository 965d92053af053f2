"""Groups stand for tasks, which differ for models from random and from trained weights."""

from pathlib import Path

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.groups import expand

OWN = "group: own\ndescription: mine\nscratch: [attributes, set_inclusion_mini]\npretrained: [trex]\n"


def test_standard_is_world_from_random_weights_and_cvdb_for_a_pretrained_model() -> None:
    assert expand(["standard"], pretrained=False) == ["world"]
    assert expand(["standard"], pretrained=True) == ["cvdb"]


def test_tasks_files_and_groups_mix_and_no_task_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "own.yaml").write_text(OWN)
    names = expand(["own", "attributes", "x.yaml", "standard"], pretrained=False, include_path=[tmp_path])
    assert names == ["attributes", "set_inclusion_mini", "x.yaml", "world"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(OclBenchError, match="unknown task 'standrad'; did you mean 'standard'"):
        expand(["standrad"], pretrained=True)


@pytest.mark.parametrize(("file", "text"), [("attributes", OWN.replace("own", "attributes")), ("other", OWN)])
def test_a_group_needs_its_files_name_and_one_of_its_own(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / f"{file}.yaml").write_text(text)
    with pytest.raises(OclBenchError, match="rename it"):
        expand(["attributes"], pretrained=False, include_path=[tmp_path])
