"""Hub ids, folders and scratch shapes are told apart, and everything else is refused with the fix."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.models.load import load_config, load_tokenizer
from ocl_bench.models.spec import SCRATCH_FOLDER, ModelArgs, parse_model, parse_model_args, scratch_models


@pytest.fixture
def config_folder(tmp_path: Path) -> Path:
    """A folder with a configuration and nothing else."""
    folder = tmp_path / "my-model"
    shutil.copytree(SCRATCH_FOLDER / "tiny", folder)
    return folder


@pytest.mark.parametrize(("name", "slug"), [("EleutherAI/pythia-1b", "EleutherAI__pythia-1b"), ("gpt2", "gpt2")])
def test_hub_id_stays_as_it_is(name: str, slug: str) -> None:
    spec = parse_model(name)
    assert (spec.source, spec.location, spec.name, spec.slug) == ("hub", name, name, slug)


def test_folder_is_resolved(config_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config_folder.parent)
    for name in (str(config_folder), "my-model", "./my-model"):
        spec = parse_model(name)
        assert (spec.source, spec.location, spec.name) == ("folder", str(config_folder.resolve()), name)


@pytest.mark.parametrize("name", ["{}", "scratch:{}", "./my-model", ".", "..", "scratch:tiny", "org/model"])
def test_slug_is_the_name_of_one_visible_folder(
    config_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copy(config_folder / "config.json", config_folder.parent)
    monkeypatch.chdir(config_folder.parent if name.startswith("./") else config_folder)
    slug = parse_model(name.format(config_folder)).slug
    assert slug == Path(slug).name
    assert not slug.startswith(".")
    assert ":" not in slug


def test_scratch_takes_a_shape_of_the_suite_or_a_folder(config_folder: Path) -> None:
    assert parse_model("scratch:tiny").location == str(scratch_models()["tiny"])
    spec = parse_model(f"scratch:{config_folder}")
    assert (spec.source, spec.location, spec.slug) == (
        "scratch",
        str(config_folder.resolve()),
        "scratch__my-model",
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scratch:tinny", ["scratch:tinny", "did you mean 'tiny'"]),
        ("scratch:", ["scratch:", "config.json"]),
        ("/no/such/folder", ["/no/such/folder", "no such folder"]),
        ("./absent", ["./absent", "no such folder"]),
        ("~/absent", ["~/absent", "no such folder"]),
        ("a/b/c", ["a/b/c", "no such folder"]),
        ("", ["--model"]),
        ("{folder}", ["config.json", "save_pretrained"]),
        ("scratch:{folder}", ["config.json"]),
    ],
)
def test_name_that_is_no_model_is_refused(tmp_path: Path, name: str, words: list[str]) -> None:
    with pytest.raises(OclBenchError) as error:
        parse_model(name.format(folder=tmp_path))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("dtype=bfloat16", {"dtype": "bfloat16"}),
        (" revision=step3000 , dtype=bfloat16 ", {"revision": "step3000", "dtype": "bfloat16"}),
        ("revision=123456", {"revision": "123456"}),  # a commit of digits alone stays text
        ("revision=5e3,", {"revision": "5e3"}),
        ("tokenizer=org/a=b", {"tokenizer": "org/a=b"}),
        ("attn_implementation=eager", {"attn_implementation": "eager"}),
        ("trust_remote_code=true", {"trust_remote_code": True}),
        ("trust_remote_code=True", {"trust_remote_code": True}),
        ("trust_remote_code=false", {"trust_remote_code": False}),
    ],
)
def test_model_args_are_read(text: str, expected: dict[str, Any]) -> None:
    assert parse_model("gpt2", parse_model_args(text)).args == ModelArgs(**expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dtpye=bfloat16", ["unknown key 'dtpye'", "'dtype'"]),
        ("dtype=bf16", ["dtype", "'bfloat16'", "bf16"]),
        ("dtype", ["--model_args dtype", "key=value"]),
        ("trust_remote_code=maybe", ["trust_remote_code", "maybe"]),
        ("trust_remote_code=1", ["trust_remote_code"]),
        ("load_in_8bit=true", ["unknown key 'load_in_8bit'", "known: "]),
    ],
)
def test_wrong_model_args_are_refused_with_the_fix(text: str, words: list[str]) -> None:
    with pytest.raises(OclBenchError) as error:
        parse_model_args(text)
    for word in ["--model_args", *words]:
        assert word in str(error.value)


def test_code_of_a_model_is_trusted_only_when_asked_to() -> None:
    assert parse_model("gpt2").args.trust_remote_code is False
    assert parse_model("gpt2", ModelArgs(trust_remote_code=True)).args.trust_remote_code is True
    assert parse_model_args("trust_remote_code=true").trust_remote_code is True


def test_a_value_is_never_read_as_further_settings(config_folder: Path) -> None:
    spec = parse_model(f"scratch:{config_folder}", ModelArgs(revision="main,trust_remote_code=true"))
    assert spec.args == ModelArgs(revision="main,trust_remote_code=true") and not spec.args.trust_remote_code


def test_code_that_comes_with_a_model_is_not_run(config_folder: Path) -> None:
    marker = config_folder / "executed"
    (config_folder / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    (config_folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}')
    with pytest.raises(OclBenchError, match="--trust_remote_code"):
        load_config(parse_model(str(config_folder)))
    assert not marker.exists()


def test_folder_without_a_tokenizer_is_refused_unless_another_is_given(config_folder: Path, model_folder: Any) -> None:
    with pytest.raises(OclBenchError, match=r"holds no tokenizer.*--model_args tokenizer="):
        load_tokenizer(parse_model(str(config_folder)), [])
    other = model_folder("gpt_neox")
    assert len(load_tokenizer(parse_model(str(config_folder), ModelArgs(tokenizer=str(other))), [])) > 2


def test_unreadable_configuration_is_refused_by_name(config_folder: Path) -> None:
    (config_folder / "config.json").write_text("{half")
    with pytest.raises(OclBenchError, match=r"--model .*my-model: the model cannot be loaded"):
        load_config(parse_model(str(config_folder)))


def test_hub_model_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(
        OclBenchError, match=r"--model no-such-org/no-such-model: .*neither the hub nor the local cache"
    ):
        load_config(parse_model("no-such-org/no-such-model"))


def test_scratch_model_without_a_tokenizer_reads_words_of_the_data() -> None:
    tokenizer = load_tokenizer(parse_model("scratch:tiny"), ["Q: colour <|abcde|>\nA: red\n"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("colour <|abcde|>\nA: red\n").input_ids) == [
        "colour", "<|abcde|>", "\nA:", "red", "\n",
    ]  # fmt: skip


def test_specs_are_parsed_without_importing_torch() -> None:
    code = (
        "import sys; from ocl_bench.models.spec import parse_model; parse_model('scratch:tiny')\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
