"""Parts of other packages: really installed, found by processes that train, and none of the leaderboard's business."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import third_evaluator
from conftest import Heard, call

import ocl_bench
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.evaluator import EVALUATORS
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.leaderboard.isolated import environment
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.validate import check
from ocl_bench.plugins import SWITCH, own_parts_only
from ocl_bench.runner.executors import Local, Setting, executor
from ocl_bench.runner.folder import score_run
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.part import code_versions
from ocl_bench.score.metrics import METRICS, PLUGINS
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources import SOURCES

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
FILE = re.compile(r"`((?:numbers|my-tasks)/[\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGE = "ocl-bench-numbers"


def here(setting: Setting) -> Local:
    """An executor of another package: runs in this process, and keeps what it was made with."""
    made = Local(setting.progress)
    made.setting = setting  # type: ignore[attr-defined]
    return made


def claim(folder: Path, package: str, entries: dict[str, dict[str, str]]) -> None:
    """What an installer leaves of a package, without its code."""
    info = folder / f"{package.replace('-', '_')}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n")
    lines = [f"[ocl_bench.{kind}]\n" + "".join(f"{n} = {v}\n" for n, v in own.items()) for kind, own in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the task of the page, installed by pip into `site`, and beside it an evaluator."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, content in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "site", folder / "numbers"], check=True)
    claim(folder / "site", "weights", {"evaluators": {"largest_weight": "third_evaluator:LargestWeight"}})
    return folder


BROKEN = {
    "broken": {
        "sources": {"attributes": "nowhere:Any", "lost": "nowhere:Lost", "odd": "json:dumps"},
        "metrics": {"em": "nowhere:EM", "failing": "failing_plugin:METRIC"},
        "evaluators": {"probes": "nowhere:Any", "sleepy": "json:nothing", "named": "third_evaluator:LargestWeight"},
        "executors": {"twice": "nowhere:run"},
        "recipes": {"tiny": "nowhere", "gone": "nowhere"},
    },
    "rival": {"executors": {"twice": "nowhere:run"}},
}
SENTENCES = {
    "attributes": "source 'attributes' of package broken is not used, because ocl-bench has a source of that name",
    "lost": "source 'lost' of package broken cannot be used (ModuleNotFoundError: No module named 'nowhere')",
    "odd": "source 'odd' of package broken cannot be used (TypeError: json:dumps has no 'Args')",
    "em": "metric 'em' of package broken is not used, because ocl-bench has a metric of that name",
    "failing": "metric 'failing' of package broken cannot be used (ZeroDivisionError: division by zero)",
    "probes": "evaluator 'probes' of package broken is not used",
    "sleepy": "evaluator 'sleepy' of package broken cannot be used (AttributeError",
    "named": "evaluator 'named' of package broken cannot be used (ValueError: third_evaluator:LargestWeight is called",
    "twice": "executor 'twice' of package broken is not used, because package rival has one of that name",
    "tiny": "recipe 'tiny' of package broken is not used, because ocl-bench has a recipe of that name",
    "gone": "recipe 'gone' of package broken cannot be used (ModuleNotFoundError",
}


def break_all(folder: Path, *packages: str) -> Path:
    """Fill a folder with packages that bring nothing that could be used."""
    folder.mkdir()
    for package in packages:
        claim(folder, package, BROKEN[package])
    (folder / "failing_plugin.py").write_text("METRIC = 1 / 0\n")
    return folder


def find(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Put folders on Python's path, here and in processes that start from here."""
    for folder in folders:
        monkeypatch.syspath_prepend(folder)
    former = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), former]))


@pytest.fixture
def found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with its packages on Python's path."""
    find(monkeypatch, installed / "site", Path(third_evaluator.__file__).parent)
    return installed


@pytest.fixture(scope="module")
def run(installed: Path) -> tuple[Any, Heard]:
    """A run of the page's task, with packages beside it that are broken."""
    heard = Heard()
    with pytest.MonkeyPatch.context() as monkeypatch:
        other = break_all(installed / "broken", "broken")
        find(monkeypatch, installed / "site", other, Path(third_evaluator.__file__).parent)
        result = ocl_bench.run(
            task=str(installed / "my-tasks" / "numbers.yaml"), seeds=1, limit=5, curves=False, progress=heard.shown,
            output_path=installed / "runs",
        )  # fmt: skip
    return result, heard


def test_the_pages_package_is_listed_and_its_task_is_valid(found: Path) -> None:
    listed = call("ls", "--include_path", "my-tasks", folder=found).stdout
    for kind, name in (("source", "numbers"), ("metric", "initial"), ("recipe", "hasty")):
        assert re.search(rf"^{kind} +{name} +{PACKAGE} 0\.1\.0$", listed, re.MULTILINE), listed
    assert re.search(r"^evaluator +largest_weight +weights 2\.0$", listed, re.MULTILINE)
    assert re.search(r"^numbers +1 +60 ", listed, re.MULTILINE)
    assert "task 'numbers' version 1 is valid" in call("validate", "my-tasks/numbers.yaml", folder=found).stdout
    assert load_recipe("hasty").epochs == (1, 1) and load_recipe("hasty").optim == load_recipe("tiny").optim
    assert code_versions()[PACKAGE] == "0.1.0"


def test_a_run_goes_through_all_of_it_in_the_processes_that_train(run: tuple[Any, Heard], found: Path) -> None:
    result, heard = run
    manifest = read_manifest(result.folder)
    assert manifest.config.recipe.recipe == "hasty" and manifest.config.task.source == "numbers"
    assert 0 <= result.results.metrics["unseen"]["initial"].mean <= 1 and "initial" in result.table()
    assert result.results.also["weights"]["largest"].seeds == 1
    # Asked in a process of its own, which wrote down what it had.
    asked = manifest.evaluations["seed-0"]["x2"]["largest_weight"]
    assert asked.provenance.versions[PACKAGE] == manifest.versions[PACKAGE] == "0.1.0"
    assert manifest.versions["weights"] == "2.0"
    # What is broken and would have been asked is told, and nothing else is.
    told = [note for note in heard.notes if "package broken" in note]
    assert len(told) == 5
    for name in ("em", "failing", "probes", "sleepy", "named"):
        assert sum(note.startswith(SENTENCES[name]) for note in told) == 1


CARD = Card(submitted_by="me", contact="me@example.org", license="MIT")
ACCEPTED = Path(__file__).parents[1] / "leaderboard" / "results" / "attributes"


def test_a_submission_has_nothing_that_other_packages_measured(found: Path, whole_run: Path, tmp_path: Path) -> None:
    assert "initial" in score_run(whole_run).metrics["unseen"]
    submission = write_submission(whole_run, tmp_path, "open", "me/small", CARD)
    assert '"initial"' not in (tmp_path / submission.place / "results.json").read_text()


def test_data_of_other_packages_are_not_submitted_and_checks_import_none(
    run: tuple[Any, Heard], found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "none of ocl-bench's; data are built again for a check, and no other package's code is run for that"
    with pytest.raises(OclBenchError, match=f"source 'numbers' is {sentence}"):
        write_submission(run[0].folder, tmp_path, "open", "me/small", CARD)
    # Whatever a submission says all the same.
    folder = tmp_path / "submission"
    shutil.copytree(next(ACCEPTED.glob("*/*")), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["task"] |= {"source": "numbers", "source_args": {"num_entities": 60}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for plugins in (SOURCES.plugins, PLUGINS):
        monkeypatch.setattr(plugins, "_loaded", {})
        monkeypatch.setattr(plugins, "_faults", {})
    monkeypatch.delitem(sys.modules, "ocl_bench_numbers")
    problems = [str(problem) for problem in check(folder).problems]
    assert f"manifest.json: config.task.source: is {sentence}" in problems
    assert "ocl_bench_numbers" not in sys.modules


def test_nothing_is_found_where_the_environment_or_the_leaderboard_says_so(
    found: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "numbers" in SOURCES and "initial" in METRICS and "largest_weight" in EVALUATORS
    with own_parts_only():
        assert "numbers" not in SOURCES and "initial" not in METRICS and "largest_weight" not in EVALUATORS
        with pytest.raises(OclBenchError, match="unknown recipe 'hasty'"):
            load_recipe("hasty")
    assert environment({"PATH": "/bin"}, Path("empty"))[SWITCH] == "0"
    monkeypatch.setenv(SWITCH, "0")
    assert "numbers" not in SOURCES and "from other packages" not in call("ls", folder=found).stdout


def test_what_is_broken_is_one_sentence_with_its_package_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = (list(SOURCES), list(METRICS), EVALUATORS.working())
    find(monkeypatch, break_all(tmp_path / "broken", *BROKEN), Path(third_evaluator.__file__).parent)
    listed = call("ls", folder=tmp_path)
    assert listed.returncode == 0
    for sentence in SENTENCES.values():
        assert listed.stdout.count(sentence) == 1, sentence
    assert (list(METRICS), EVALUATORS.working()) == (before[1], before[2])
    assert SOURCES.load("attributes").__module__ == "ocl_bench.tasks.sources.attributes"
    assert load_recipe("tiny").recipe == "tiny"
    for name, use in {
        "lost": lambda: SOURCES.load("lost"), "twice": lambda: executor("twice"), "gone": lambda: load_recipe("gone"),
    }.items():  # fmt: skip
        with pytest.raises(OclBenchError, match=re.escape(SENTENCES[name])):
            use()
    (tmp_path / "study.yaml").write_text("include: attributes\ntask: study\nsource: lost\n")
    done = call("run", "--task", "study.yaml", folder=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and SENTENCES["lost"] in done.stderr


def test_an_executor_of_another_package_is_made_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    claim(tmp_path / "site", "machines", {"executors": {"here": "machines_of_mine:here"}})
    monkeypatch.setitem(sys.modules, "machines_of_mine", types.ModuleType("machines_of_mine"))
    monkeypatch.setattr(sys.modules["machines_of_mine"], "here", here, raising=False)
    find(monkeypatch, tmp_path / "site")
    made: Any = executor("here", address="a:1", options={"queue": "long"})
    assert (made.setting.options, made.setting.address) == ({"queue": "long"}, "a:1")
    (tmp_path / "own.yaml").write_text(
        "sweep: own\ntasks: [attributes]\nseeds: 1\nexecutor: here\nplugin: {queue: q}\n"
    )
    (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text() + "run: {limits: 3}\n")
    done = call("sweep", "own.yaml", folder=tmp_path)  # the executor is found, the run's option is not
    assert "unknown key 'limits'" in done.stderr


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("package: ocl-bench-cities\n", "it comes with the package ocl-bench-cities: install that."),
        ("", "no package that is installed brings it, nor ocl-bench (did you mean 'attributes'?)."),
    ],
)
def test_a_task_whose_source_is_missing_is_listed_and_says_what_to_install(
    tmp_path: Path, package: str, words: str
) -> None:
    (tmp_path / "study.yaml").write_text(f"include: attributes\ntask: study\nsource: atributes\n{package}")
    listed = call("ls", "--include_path", ".", folder=tmp_path)
    assert listed.returncode == 0
    assert re.search(r"^study +\d+ .* missing ", listed.stdout, re.MULTILINE)
    sentence = f"study.yaml: source 'atributes' is missing: {words}" if not package else words
    assert sum(sentence in line for line in listed.stdout.splitlines()) == 1
    for command in (["run", "--task", "study.yaml"], ["validate", "study.yaml"], ["plan", "--task", "study.yaml"]):
        done = call(*command, folder=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and words in done.stderr
    with pytest.raises(OclBenchError, match="source 'atributes' is missing"):
        load_task(str(tmp_path / "study.yaml"))
