"""Files are read strictly and written whole; registries refuse duplicates and answer with nearest names."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from ocl_bench.contract import Contract, parse_yaml, read_yaml
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.files import folder_atomic, read_json_lines, require_writable, to_json_lines, write_atomic
from ocl_bench.registry import Registry


class Wheel(Contract):
    """A part, for the tests."""

    size: int = Field(description="in inches")


class Bicycle(Contract):
    """A whole, for the tests."""

    name: str = Field(description="name")
    price: float = Field(1.0, description="price")
    wheels: tuple[Wheel, ...] = Field((), description="wheels")
    spare: Wheel | None = Field(None, description="spare wheel")


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5), ("1E3", 1000.0), ("+2.5e-3", 0.0025), ("-.5e1", -5.0), ("0.1", 0.1), ("3", 3),
        ("'5e-5'", "5e-5"), ("5e", "5e"), ("e5", "e5"), ("v1e5", "v1e5"), ("true", True), ("null", None),
        ("", None), ("[4, 4]", [4, 4]), ("{a: {b: 1e-1}}", {"a": {"b": 0.1}}),
    ],
)  # fmt: skip
def test_yaml_values_are_read_as_their_writer_meant(text: str, value: object) -> None:
    read = parse_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3", "'a'", "twice"]),
        ("top:\n  inner: {b: 1, b: 1}\n", ["line 2", "'b'", "twice"]),
        ("1: one\n", ["line 1", "key 1", "quote it"]),
        ("yes: one\n", ["key True", "quote it"]),
        ("? [a, b]\n: one\n", ["line 1", "not text"]),
        ("a: [1, 2\n", ["line 2", "correct the YAML"]),
        ("a:\n\t- 1\n", ["line 2", "correct the YAML"]),
        ("a: *nothing\n", ["line 1", "nothing"]),
        ("a: !!python/name:os.system ''\n", ["line 1", "python/name"]),
        ("a: b\x00\n", ["not YAML"]),
        ("[" * 600, ["not YAML"]),
    ],
)
def test_yaml_mistakes_are_errors_that_name_file_and_line(text: str, words: list[str]) -> None:
    with pytest.raises(OclBenchError) as error:
        parse_yaml(text, "file.yaml")
    for word in ["file.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"text", b"a: \xff\xfe\n"])
def test_yaml_file_that_is_not_a_mapping_in_utf8_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    with pytest.raises(OclBenchError, match=r"some\.yaml: "):
        read_yaml(path)


def test_missing_yaml_file_and_folder_in_its_place_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in ("absent.yaml", "folder.yaml"):
        with pytest.raises(OclBenchError, match=rf"{name}: cannot be read"):
            read_yaml(tmp_path / name)


# --- contracts


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["'name'", "missing", "add it"]),
        ({"name": "x", "prise": 2}, ["unknown key 'prise'", "'price'"]),
        ({"name": "x", "qqqq": 2}, ["unknown key 'qqqq'", "known: name, price, spare, wheels"]),
        ({"name": "x", "wheels": [{"size": 1}, {"sise": 1, "size": 2}]}, ["'wheels.1.sise'", "'size'"]),
        ({"name": "x", "spare": {"siz": 1, "size": 1}}, ["'spare.siz'", "'size'"]),
        ({"name": "x", "wheels": [{}]}, ["'wheels.0.size'", "missing"]),
        ({"name": 3}, ["name:", "valid string", "got 3"]),
        ({"name": "x", "price": "2"}, ["price:", "valid number", 'got "2"']),
        ({"name": "x", "price": True}, ["price:", "got true"]),
        ({"name": "x", "wheels": [{"size": 1.5}]}, ["wheels.0.size:", "got 1.5"]),
        ({"name": "x", "wheels": {"size": 1}}, ["wheels:", "array"]),
        ({"name": {1, 2}}, ["set", "use numbers, strings, lists and mappings only"]),
        ([], ["(top level)", "object"]),
        (None, ["(top level)", "got null"]),
    ],
)
def test_wrong_data_is_refused_with_place_key_and_fix(data: object, words: list[str]) -> None:
    with pytest.raises(OclBenchError) as error:
        Bicycle.parse(data, "shop.yaml")
    for word in ["shop.yaml: ", *words]:
        assert word in str(error.value)


def test_right_data_becomes_frozen_and_a_list_becomes_a_tuple() -> None:
    bicycle = Bicycle.parse({"name": "x", "price": 2, "wheels": [{"size": 26}]}, "here")
    assert bicycle == Bicycle(name="x", price=2.0, wheels=(Wheel(size=26),))
    with pytest.raises(ValueError, match="frozen"):
        bicycle.name = "y"


def test_nearest_names_come_first_and_all_names_when_none_is_near() -> None:
    assert did_you_mean("attribute", ["zebra", "attributes"]) == "did you mean 'attributes'?"
    assert did_you_mean("qqq", ["zebra", "attributes"]) == "known: attributes, zebra"
    assert did_you_mean("qqq", []) == "none is known"


# --- files


def test_write_atomic_makes_folders_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    for content in ("first, longer\n", "zweite, ä\n"):
        write_atomic(path, content)
        assert path.read_bytes() == content.encode()
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (  # a file-size limit makes the write itself fail, as a full disk does
        "import resource, sys; from pathlib import Path; from ocl_bench.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_atomic(Path(sys.argv[1]), b'x' * 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_write_onto_a_folder_fails_and_leaves_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomic(tmp_path / "taken", "text")
    assert [item.name for item in tmp_path.iterdir()] == ["taken"]


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_atomic(tmp_path / "made") as inside:
        (inside / "half.txt").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with folder_atomic(tmp_path / "made") as inside:
        (inside / "whole.txt").write_text("whole")
        assert not (tmp_path / "made").exists()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["made", "made/whole.txt"]


def test_json_lines_come_back_as_they_went(tmp_path: Path) -> None:
    rows = [{"b": "ä\n\u2028", "a": [1, None]}, {"x": 0.1}]
    write_atomic(tmp_path / "rows.jsonl", to_json_lines(rows))
    assert list(read_json_lines(tmp_path / "rows.jsonl")) == rows
    assert to_json_lines(rows).startswith('{"b": "ä\\n\u2028", "a": [1, null]}\n')


@pytest.mark.parametrize("line", [b"{not json}", b'{"half": ', b"[1, 2]", b"3", b"", b'{"a": "\xff"}'])
def test_wrong_json_line_is_an_error_that_names_the_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(OclBenchError, match=r"rows\.jsonl line 2: not a JSON object"):
        list(read_json_lines(path))


def test_missing_json_lines_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match=r"absent\.jsonl: cannot be read"):
        list(read_json_lines(tmp_path / "absent.jsonl"))


def test_output_folder_below_a_file_is_refused_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OclBenchError, match="--output_path"):
        require_writable(tmp_path / "file" / "runs")
    require_writable(tmp_path / "new" / "runs")
    assert not (tmp_path / "new").exists(), "a check leaves nothing behind"


# --- registries


def test_registry_imports_a_part_only_when_it_is_loaded() -> None:
    registry = Registry("part", {"decoder": "json:JSONDecoder", "broken": "no_such_module:thing"})
    assert list(registry) == ["decoder", "broken"]
    assert (len(registry), registry["broken"], "json" in registry) == (2, "no_such_module:thing", False)
    assert registry.load("decoder").__name__ == "JSONDecoder"
    with pytest.raises(ModuleNotFoundError):
        registry.load("broken")


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("decoder", "json:JSONEncoder", "part 'decoder' is registered twice"),
        ("encoder", "json.JSONEncoder", "not of the form module:attribute"),
        ("encoder", "a:b:c", "not of the form module:attribute"),
    ],
)
def test_registry_refuses_duplicates_and_malformed_targets(name: str, target: str, words: str) -> None:
    registry = Registry("part", {"decoder": "json:JSONDecoder"})
    with pytest.raises(OclBenchError, match=words):
        registry.register(name, target)
    assert dict(registry) == {"decoder": "json:JSONDecoder"}


@pytest.mark.parametrize(("miss", "answer"), [("decodr", "did you mean 'decoder'?"), ("zzz", "known: decoder, lint")])
def test_registry_answers_a_miss_with_the_nearest_names(miss: str, answer: str) -> None:
    with pytest.raises(OclBenchError) as error:
        Registry("part", {"lint": "json:tool", "decoder": "json:JSONDecoder"}).load(miss)
    assert str(error.value) == f"unknown part '{miss}'; {answer}"
