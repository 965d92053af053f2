"""A request is typed once: command line, Python and --config have its fields, defaults and descriptions."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import call

import ocl_bench
from ocl_bench.cli import _request_fields, main
from ocl_bench.errors import OclBenchError
from ocl_bench.models.spec import ModelArgs
from ocl_bench.runner.request import RunRequest, check_seeds, option_of, parse_seeds

FIELDS = RunRequest.model_fields
RUN = main.commands["run"]
# What a user writes for each field, and what it means.
WRITTEN: dict[str, tuple[Any, Any]] = {
    "model": ("scratch:tiny-16", "scratch:tiny-16"),
    "seeds": ("4,7", (4, 7)),
    "stage2_seeds": ("3", (0, 1, 2)),
    "own_x0": (True, True),
    "devices": ("0,2", (0, 2)),
    "model_args": ("dtype=bfloat16", ModelArgs(dtype="bfloat16")),
    "trust_remote_code": (True, True),
    "recipe": ("paper", "paper"),
    "overrides": (["design.alpha=0.9", "recipe.epochs=[1,1]"], ("design.alpha=0.9", "recipe.epochs=[1,1]")),
    "include_path": (["a", "b"], (Path("a"), Path("b"))),
    "device": ("cpu", "cpu"),
    "shard": ("2", 2),
    "batch_size": ("8", 8),
    "engine": ("torch", "torch"),
    "engine_args": ("dtype=half,max_num_seqs=4", {"dtype": "half", "max_num_seqs": 4}),
    "also_tasks": ("piqa, arc", ("piqa", "arc")),
    "limit": ("20", 20),
    "curves": (True, False),  # --no_curves
    "report_to": ("tensorboard", ("tensorboard",)),
    "output_path": ("elsewhere", Path("elsewhere")),
    "keep": ("last", "last"),
    "checkpoint_seconds": ("1.5", 1.5),
    "fresh": (True, True),
}


def option(field: str) -> str:
    return (option_of(field).names or (f"--{field}",))[0].removeprefix("--")


def read(*arguments: str) -> RunRequest:
    """What the command line makes of its arguments, without running it."""
    context = RUN.make_context("run", list(arguments), parent=main.make_context("ocl-bench", ["run"]))
    given = {name: value for name, value in context.params.items() if name in FIELDS}
    return RunRequest.from_options(**_request_fields(context, given))


def test_command_and_python_have_the_fields_of_a_request_with_their_defaults_and_descriptions() -> None:
    command = {parameter.name: parameter for parameter in RUN.params}
    assert command.keys() - {"tasks", "config", "as_json"} == FIELDS.keys() - {"task"} == WRITTEN.keys()
    python = dict(inspect.signature(ocl_bench.run).parameters)
    assert python.keys() - {"progress", "workers"} == FIELDS.keys()
    for name, field in FIELDS.items():
        assert python[name].default == field.default, name
        if name not in ("model", "task"):
            assert f"\n            {name}: {field.description}.\n" in (ocl_bench.run.__doc__ or "")
        if name != "task":
            told = f"do not {field.description}" if option_of(name).flag is False else field.description
            assert command[name].help.lower() == f"{told}.".lower()
    assert read() == RunRequest()
    assert (command["tasks"].default,) == inspect.signature(ocl_bench.run_tasks).parameters["tasks"].default


def test_each_option_is_read_into_its_field_on_the_command_line_and_from_a_file(tmp_path: Path) -> None:
    whole = RunRequest.from_options(**{name: meant for name, (_, meant) in WRITTEN.items()})
    path, words = tmp_path / "run.yaml", []
    for name, (written, _) in WRITTEN.items():
        for value in written if isinstance(written, list) else [written]:
            words += [f"--{option(name)}"] if value is True else [f"--{option(name)}", value]
    assert read(*words) == whole
    path.write_text(yaml.safe_dump({option(name): written for name, (written, _) in WRITTEN.items()}))
    assert read("--config", str(path)) == whole
    assert read("--config", str(path), "--limit", "3") == whole.model_copy(update={"limit": 3})


def test_a_file_tells_three_seeds_from_seed_three_and_a_flag_from_its_opposite(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seeds: [3]\nstage2-seeds: 3\nlimit:\nno_curves: false\n")
    request = read("--config", str(tmp_path / "run.yaml"))
    assert (request.seeds, request.stage2_seeds, request.limit, request.curves) == ((3,), (0, 1, 2), None, True)


def test_what_was_passed_is_kept_apart_from_defaults() -> None:
    assert RunRequest().passed == {}
    assert read("--seeds", "5", "--output_path", "out").passed == {"seeds": [0, 1, 2, 3, 4], "output_path": "out"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--limit", "0"), "--limit 0: give a number from 1 up"),
        (("--keep", "some"), "'some' is not one of"),
        (("--checkpoint_seconds", "soon"), "--checkpoint_seconds soon: give a number of seconds"),
        (("--checkpoint_seconds", "-1"), "checkpoint_seconds: input should be greater than or equal to 0"),
        (("--engine_args", "seed=3"), "the run decides seed"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_the_option(option: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = call("run", *option, folder=tmp_path)
    assert done.returncode == 2 and message in done.stderr and list(tmp_path.iterdir()) == []


def test_an_unknown_option_from_python_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="seed'; did you mean 'seeds'"):
        ocl_bench.run(seed=3, output_path=tmp_path)


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("4,7", (4, 7)), ("4,", (4,)), (" 0 , 2", (0, 2)), ("1", (0,))]
)
def test_seeds_are_a_list_or_a_count(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text, "--seeds") == seeds


@pytest.mark.parametrize("text", ["a", "", "0", "-1", "1,1", "1,-2", "1.5", "²", "4294967296,", "1000000000", "1,x"])
def test_wrong_seeds_are_refused_with_the_option(text: str) -> None:
    with pytest.raises(OclBenchError, match="--seeds"):
        parse_seeds(text, "--seeds")


def test_seeds_may_be_text_in_python_too() -> None:
    assert check_seeds("4,7", "seeds") == (4, 7) and check_seeds("3", "seeds") == (0, 1, 2)


@pytest.mark.parametrize("seeds", [True, [0.5], "0,0", [], [1, 1]])
def test_wrong_seeds_from_python_are_refused(seeds: Any) -> None:
    with pytest.raises(OclBenchError, match="seeds"):
        check_seeds(seeds, "seeds")
