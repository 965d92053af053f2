"""Task files are strict, inherit and can be overridden; a mistake is refused with the file, key and fix."""

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import TASK_FOLDER, all_tasks, load_task, task_files
from ocl_bench.tasks.release import CHECKSUMS, splits, verify
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import SOURCES, published_data

ATTRIBUTES = TASK_FOLDER / "attributes" / "attributes.yaml"
COMPLETE = {**yaml.safe_load(ATTRIBUTES.read_text()), "task": "study"}
CHILD = "include: attributes\ntask: study\n"
GONE = object()


def changed(key: str, value: Any) -> dict[str, Any]:
    """A complete task file with one dotted key set, or removed if the value is GONE."""
    data = copy.deepcopy(COMPLETE)
    inner: Any = data
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        inner = inner[part]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return data


def write(folder: Path, content: Any, name: str = "study.yaml") -> Path:
    """Write a task file: text as it is, anything else as YAML."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def refusal(what: Callable[[], object]) -> str:
    with pytest.raises(OclBenchError) as error:
        what()
    return str(error.value)


# --- strictness


def test_complete_file_is_loaded_as_written(tmp_path: Path) -> None:
    task = load_task(str(write(tmp_path, COMPLETE)))
    assert task.model_dump(mode="json", exclude_unset=True) == COMPLETE


HALF = {"d1_cons_qa": 0.5, "unseen": 0.5}
CROSSED = {"d1_cons_qa": 0.4, "d1_incons_qa": 0.2, "d1_cons": 0.4}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        # an unknown key
        ("descripton", "x", ["unknown key 'descripton'", "'description'"]),
        ("design.ordr", "tve", ["unknown key 'design.ordr'", "'order'"]),
        ("evaluate.max_tokens", 3, ["unknown key 'evaluate.max_tokens'", "'max_new_tokens'"]),
        ("stages.1.trian", ["x2"], ["unknown key 'stages.1.trian'", "'train'"]),
        ("metadata.licence", "MIT", ["unknown key 'metadata.licence'", "'license'"]),
        ("recipe.pretraned", "tiny", ["unknown key 'recipe.pretraned'", "'pretrained'"]),
        ("source_args.num_entitys", 9, ["unknown key 'num_entitys'", "'num_entities'", "source_args"]),
        # a missing key
        ("version", GONE, ["key 'version' is missing"]),
        ("design.fractions", GONE, ["key 'design.fractions' is missing"]),
        ("stages.0.name", GONE, ["key 'stages.0.name' is missing"]),
        ("metadata.license", GONE, ["key 'metadata.license' is missing"]),
        ("source_args.num_entities", GONE, ["key 'num_entities' is missing", "source_args"]),
        # a wrong type or value
        ("version", "1", ["version:", "integer", 'got "1"']),
        ("version", 0, ["version:", "got 0"]),
        ("schema_version", 2, ["schema_version:", "1", "got 2"]),
        ("task", "Study 1", ["task:", "got"]),
        ("design", [], ["design:", "object"]),
        ("design.alpha", "high", ["design.alpha:", 'got "high"']),
        ("design.alpha", 1.5, ["design.alpha:", "less than or equal to 1", "got 1.5"]),
        ("design.alpha", True, ["design.alpha:", "got true"]),
        ("design.alpha", float("nan"), ["design.alpha:"]),
        ("design.order", "tvw", ["design.order:", "'tve'", "'etv'", 'got "tvw"']),
        ("design.fractions.unseen", "much", ["design.fractions.unseen:", 'got "much"']),
        ("description", date(2026, 11, 1), ["date", "use numbers, strings, lists and mappings only"]),
        ("source_args.num_entities", 60.5, ["num_entities:", "got 60.5"]),
        ("source_args.attributes.colour", ["red", "circle"], ["attributes:", "'circle' is there twice"]),
        ("source_args.attributes.colour", ["dark red", "blue"], ["'dark red' is not one word"]),
        ("source_args.attributes.colour", ["red"], ["attributes:", "'colour' needs at least two values"]),
        # shares of subsets
        ("design.fractions.unseen", 0.2, ["design.fractions:", "sum to 1.1", "sum to 1"]),
        ("design.fractions", {"d1_cons_qa": 1.5, "unseen": -0.5}, ["'d1_cons_qa' is 1.5", "from 0 to 1"]),
        ("design.fractions", {"d1_cons_qa": float("nan")}, ["design.fractions.d1_cons_qa:", "finite"]),
        ("design.fractions", {"d1_con_qa": 1.0}, ["unknown subset 'd1_con_qa'", "'d1_cons_qa'"]),
        ("design", {"fractions": CROSSED, "alpha": 0.9}, ["design:", "alpha fills d1_incons_qa", "not both"]),
        # stages
        ("stages", [], ["stages:", "at least 1"]),
        ("stages.0.train", [], ["stages.0.train:", "at least 1"]),
        ("stages.0.train", ["x3"], ["stages.0.train:", "unknown training data 'x3'", "'x1'"]),
        ("stages.0.train", ["x1/defintion"], ["unknown training data 'x1/defintion'", "'x1/definition'"]),
        ("stages.0.name", "../x1", ["stages.0.name:", "got"]),
        ("stages.1.name", "x1", ["stages", "same name", "rename one"]),
        ("design.fractions", HALF, ["stages", "'x2' trains on 'x2'", "design.fractions"]),
        # sources
        ("source", "atributes", ["source", "'atributes'", "'attributes'"]),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_file_key_and_fix(tmp_path: Path, key: str, value: Any, words: list[str]) -> None:
    path = write(tmp_path, changed(key, value))
    message = refusal(lambda: load_task(str(path)))
    for word in [str(path), *words]:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHILD + "task: study\n", ["line 3", "'task'", "twice"]),
        (CHILD + "design: {alpha: 0.9, alpha: 0.8}\n", ["line 3", "'alpha'", "twice"]),
        (CHILD + "design: {alpha: 0.9\n", ["correct the YAML"]),
        (CHILD + "description: a: b\n", ["line 3", "correct the YAML"]),
        ("just words\n", ["mapping"]),
        ("- task: study\n", ["mapping"]),
        ("", ["mapping"]),
        ("include: [attributes]\ntask: study\n", ["include", "attributes"]),
    ],
)
def test_file_that_is_not_a_sound_yaml_mapping_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    message = refusal(lambda: load_task(str(path)))
    for word in [str(path), *words]:
        assert word in message


@pytest.mark.parametrize("code", ["os.mkdir [{}]", """builtins.eval ["__import__('os').mkdir('{}')"]"""])
def test_python_objects_in_a_task_file_are_refused_and_not_run(tmp_path: Path, code: str) -> None:
    marker = tmp_path / "executed"
    path = write(tmp_path, f"{CHILD}description: !!python/object/apply:{code.format(marker)}\n")
    yaml.unsafe_load(path.read_text())
    marker.rmdir()  # an unsafe loader has run it
    message = refusal(lambda: load_task(str(path)))
    assert not marker.exists()
    for word in (str(path), "line 3", "python/object"):
        assert word in message


def test_file_and_task_of_different_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, COMPLETE, "other.yaml")
    message = refusal(lambda: load_task(str(path)))
    for word in (str(path), "'study'", "other.yaml", "make them agree"):
        assert word in message


def test_missing_task_file_is_refused_by_name(tmp_path: Path) -> None:
    assert f"{tmp_path}/absent.yaml: cannot be read" in refusal(lambda: load_task(f"{tmp_path}/absent.yaml"))


def test_more_entities_than_the_attributes_can_tell_apart_are_refused(tmp_path: Path) -> None:
    attributes = {"colour": ["red", "blue"], "shape": ["cube", "ring"]}
    task = load_task(str(write(tmp_path, changed("source_args", {"num_entities": 5, "attributes": attributes}))))
    source = SOURCES.load("attributes")
    message = refusal(lambda: source().entities(source.Args.parse(task.source_args, "here")))
    assert "source_args.num_entities is 5" in message
    assert "only 4 combinations" in message


# --- inheritance


def test_include_lays_the_file_on_its_parent_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "include: attributes\ntask: base\ndesign: {alpha: 0.9}\nversion: 7\n", "base.yaml")
    path = write(
        tmp_path,
        "include: base.yaml\ntask: study\ndesign: {order: vet}\nstages: [{name: x1, train: [x1, x2]}]\n",
    )
    expected = changed("stages", [{"name": "x1", "train": ["x1", "x2"]}])
    expected["version"] = 7
    expected["design"] |= {"alpha": 0.9, "order": "vet"}
    assert load_task(str(path)) == Task.parse(expected, "expected")


def test_include_leaves_the_parent_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, f"{CHILD}design: {{fractions: {{unseen: 0.05, random_tag_qa: 0.05}}}}\n")
    assert load_task(str(path)).design.fractions == {
        **COMPLETE["design"]["fractions"],
        "unseen": 0.05,
        "random_tag_qa": 0.05,
    }
    assert load_task("attributes").design.fractions == COMPLETE["design"]["fractions"]


def test_include_finds_tasks_of_the_include_path_by_name(tmp_path: Path) -> None:
    write(tmp_path / "mine", f"{CHILD.replace('study', 'mother')}version: 5\n", "mother.yaml")
    path = write(tmp_path, "include: mother\ntask: study\n")
    assert load_task(str(path), include_path=[tmp_path / "mine"]).version == 5


@pytest.mark.parametrize("cycle", [["study"], ["study", "second"], ["study", "second", "third"]])
def test_include_of_itself_is_refused(tmp_path: Path, cycle: list[str]) -> None:
    for name, parent in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        write(tmp_path, f"include: {parent}.yaml\ntask: {name}\n", f"{name}.yaml")
    message = refusal(lambda: load_task(f"{tmp_path}/study.yaml"))
    for word in (f"{tmp_path}/study.yaml", "includes itself", "remove the include"):
        assert word in message


@pytest.mark.parametrize(("parent", "words"), [("atributes", ["'attributes'"]), ("absent.yaml", ["absent.yaml"])])
def test_include_of_nothing_is_refused_with_the_file_that_includes_it(
    tmp_path: Path, parent: str, words: list[str]
) -> None:
    path = write(tmp_path, f"include: {parent}\ntask: study\n")
    message = refusal(lambda: load_task(str(path)))
    for word in [str(path), parent, *words]:
        assert word in message


# --- overrides


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["design.alpha=0.9"], "design.alpha", 0.9),
        (["design.alpha=5e-1"], "design.alpha", 0.5),
        (["design.alpha=0.9", "design.alpha=0.8"], "design.alpha", 0.8),  # the last one holds
        ([" design.order = vet"], "design.order", "vet"),
        (["source_args.num_entities=300"], "source_args.num_entities", 300),
        (["source_args.attributes.colour=[mauve, teal]"], "source_args.attributes.colour", ["mauve", "teal"]),
        (["stages=[{name: one, train: [x1/qa, x2]}]"], "stages", [{"name": "one", "train": ["x1/qa", "x2"]}]),
        (["design.fractions.unseen=0.05", "design.fractions.d2_cons=0.15"], "design.fractions",
         {**COMPLETE["design"]["fractions"], "unseen": 0.05, "d2_cons": 0.15}),
        (["description=a = b, c"], "description", "a = b, c"),
    ],
)  # fmt: skip
def test_override_changes_one_key(tmp_path: Path, overrides: list[str], key: str, value: Any) -> None:
    task = load_task(str(write(tmp_path, COMPLETE)), overrides)
    assert task == Task.parse(changed(key, value), "expected")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("design.alpha", ["key=value", "design.alpha=0.9"]),
        ("=3", ["key=value"]),
        ("design..alpha=1", ["key=value"]),
        ("design.=1", ["key=value"]),
        ("design.alpah=1", ["unknown key 'design.alpah'", "'alpha'"]),
        ("dseign.alpha=1", ["unknown key 'dseign'", "'design'"]),
        ("source_args.num_entites=9", ["unknown key 'num_entites'", "'num_entities'"]),
        ("design.alpha=2", ["design.alpha:", "got 2"]),
        ("design.alpha=", ["design.alpha:", "got null"]),
        ("design.alpha=[1", ["YAML"]),
        ("design.fractions.unseen=0.2", ["sum to 1.1"]),
        ("description.short=x", ["'description' is a value"]),
        ("stages.0.name=x", ["'stages' is a value"]),
        ("design={alpha: 1, alpha: 1}", ["'alpha'", "twice"]),
        ("description=!!python/name:os.system ''", ["python/name"]),
        ("source_args.num_entities=1e3", ["num_entities:", "integer"]),
    ],
)
def test_wrong_override_is_refused_with_its_text_and_the_fix(override: str, words: list[str]) -> None:
    message = refusal(lambda: load_task("attributes", [override]))
    for word in [f"--set {override}", *words]:
        assert word in message


# --- finding


def test_every_task_that_is_listed_can_be_loaded() -> None:
    names = [one.task.task for one in all_tasks()]
    assert "attributes" in names
    assert names == sorted(task_files())


def test_tasks_of_the_include_path_are_found_in_its_subfolders(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "er", COMPLETE)
    assert task_files([tmp_path])["study"] == path
    assert load_task("study", include_path=[tmp_path]).task == "study"
    assert "study" in [one.task.task for one in all_tasks([tmp_path])]


def test_recipes_of_the_include_path_are_not_taken_for_tasks(tmp_path: Path) -> None:
    write(tmp_path, COMPLETE)
    write(tmp_path / "recipes", "recipe: quick\n", "quick.yaml")  # where load_recipe looks for it
    assert {one.task.task for one in all_tasks([tmp_path])} - {one.task.task for one in all_tasks()} == {"study"}


def test_two_tasks_with_released_data_can_be_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "study", COMPLETE)
    write(tmp_path / "study", (ATTRIBUTES.parent / CHECKSUMS).read_text(), CHECKSUMS)
    assert {"study", "attributes"} <= set(task_files([tmp_path]))


def test_two_tasks_of_one_name_are_refused_with_both_files(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a", COMPLETE), write(tmp_path / "b", COMPLETE)
    message = refusal(lambda: task_files([tmp_path / "a", tmp_path / "b"]))
    for word in ("'study'", str(one), str(two), "rename one"):
        assert word in message
    assert "'attributes'" in refusal(lambda: task_files([write(tmp_path / "c", COMPLETE, "attributes.yaml").parent]))


def test_missing_include_path_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(lambda: task_files([tmp_path / "absent"]))
    assert f"--include_path {tmp_path}/absent" in message


def test_unknown_task_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, COMPLETE)
    assert (
        refusal(lambda: load_task("atributes"))
        == "unknown task 'atributes'; did you mean 'attributes' or 'sources_attributes'?"
    )
    assert "'study'" in refusal(lambda: load_task("stud", include_path=[tmp_path]))


# --- released data


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A copy of the folder of `attributes`, with one seed only, to be fast."""
    folder = tmp_path / "attributes"
    shutil.copytree(ATTRIBUTES.parent, folder)
    checksums = json.loads((folder / CHECKSUMS).read_text())
    write(folder, json.dumps(checksums | {"seeds": {"0": checksums["seeds"]["0"]}}), CHECKSUMS)
    for seed in range(1, 5):
        shutil.rmtree(folder / "data" / f"seed-{seed}")
    return folder


def differing(folder: Path) -> dict[str, str]:
    checks = list(verify(str(folder / "attributes.yaml")))
    assert [check.name for check in checks] == ["seed-0/x1", "seed-0/x2", "seed-0/test"]
    return {check.name: check.detail for check in checks if not check.agrees}


@pytest.mark.parametrize("name", [one.task.task for one in all_tasks() if published_data(one.task) is None])
def test_released_data_are_what_rebuilding_gives(name: str) -> None:
    checks = list(verify(name))
    assert [check.name for check in checks if not check.agrees] == []
    assert (
        len({check.name for check in checks})
        == len(checks)
        == load_task(name).seeds * len({check.name.partition("/")[2] for check in checks})
    )


@pytest.mark.parametrize("name", [one.task.task for one in all_tasks()])
def test_every_task_has_a_page_that_names_its_licence(name: str) -> None:
    page = (task_files()[name].parent / "README.md").read_text()
    assert f"# {name}" in page
    assert "**Licence.**" in page


def in_one_answer(packed: bytes) -> bytes:
    lines = gzip.decompress(packed).splitlines(keepends=True)
    return gzip.compress(b"".join([lines[0].replace(b'"answers": ["', b'"answers": ["not '), *lines[1:]]))


def in_the_order_of_lines(packed: bytes) -> bytes:
    return gzip.compress(b"".join(reversed(gzip.decompress(packed).splitlines(keepends=True))))


def in_the_compressed_stream(packed: bytes) -> bytes:
    return packed[:10] + b"\xff" * 64 + packed[74:]


@pytest.mark.parametrize(
    "tamper",
    [
        in_one_answer,
        in_the_order_of_lines,
        in_the_compressed_stream,
        lambda packed: packed[:-100],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: b"no",
        lambda packed: b"",
    ],
    ids=["answer", "order", "stream", "cut short", "check sum", "not compressed", "empty"],
)
def test_tampered_copy_is_reported_as_differing(released: Path, tamper: Callable[[bytes], bytes]) -> None:
    path = released / "data" / "seed-0" / "test.jsonl.gz"
    path.write_bytes(tamper(path.read_bytes()))
    found = differing(released)
    assert set(found) == {"seed-0/test"}
    assert "released file" in found["seed-0/test"]


def test_recompressed_copy_still_agrees(released: Path) -> None:
    path = released / "data" / "seed-0" / "x1.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert differing(released) == {}


def test_changed_task_is_reported_as_differing_from_its_checksums(released: Path) -> None:
    path = released / "attributes.yaml"
    path.write_text(path.read_text().replace("order: tve", "order: vte"))
    found = differing(released)
    assert set(found) == {"seed-0/x1", "seed-0/x2", "seed-0/test"}  # which asks for definitions, too
    assert all("rebuilt" in detail and "released" not in detail for detail in found.values())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["'attributes'", "no released data"]),
        ('{"version": 9, "seeds": {}}', ["version 9", "version 2", "release again"]),
        ('{"version": 1', ["not JSON"]),
        ("[1]", []),
        ('{"version": 2, "seeds": {"0": "x"}}', ["seeds.0"]),
        ('{"version": 2, "seeds": {"a": {"x1": "x"}}}', ["seeds.a"]),
        ('{"version": 2, "seeds": {"0": {"x9": "x"}}}', ["x9"]),
    ],
)
def test_unusable_checksums_are_refused(released: Path, content: str | None, words: list[str]) -> None:
    (released / CHECKSUMS).unlink()
    if content is not None:
        write(released, content, CHECKSUMS)
    message = refusal(lambda: list(verify(str(released / "attributes.yaml"))))
    for word in [str(released / CHECKSUMS), *words]:
        assert word in message


WITH_DATA = [name for name, path in task_files().items() if (path.parent / "data").is_dir()]


@pytest.mark.parametrize(("name", "seed"), [*((name, None) for name in WITH_DATA), ("attributes", 3)])
def test_released_folder_loads_as_a_dataset_with_a_configuration_per_seed(
    name: str, seed: int | None, tmp_path: Path
) -> None:
    from datasets import load_dataset

    configuration = None if seed is None else f"seed-{seed}"
    loaded = load_dataset(str(TASK_FOLDER / name), configuration, cache_dir=str(tmp_path))
    built = splits(build(load_task(name), seed or 0))
    expected = {split: records for split, records in built.items() if records}
    assert list(loaded) == list(expected)
    for split, records in expected.items():
        rows = [{key: value for key, value in row.items() if value is not None} for row in loaded[split]]
        assert rows == [json.loads(record.line) for record in records]
