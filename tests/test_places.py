"""Data, results and versions in the forms that other places read, checked by their own libraries and schemas."""

import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import call
from huggingface_hub import DatasetCard, parse_eval_result_entries

from ocl_bench.report.dataset_card import SOURCES
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.release import splits
from ocl_bench.tasks.sources import SOURCES as REGISTERED

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SUBMISSION = next((ROOT / "leaderboard" / "results" / "world").glob("*/*"))
SUBMITTED = json.loads((SUBMISSION / "submission.json").read_text())


@pytest.fixture(scope="module", params=["cvdb_sample", "digit_grid"])
def card(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task of one seed, and the folder that was made of it."""
    folder, name = tmp_path_factory.mktemp("card"), f"one_{request.param}"
    task = folder / "tasks" / name / f"{name}.yaml"
    task.parent.mkdir(parents=True)
    task.write_text(f"include: {request.param}\ntask: {name}\nversion: 7\nseeds: 1\n")
    page = f"---\nlicense: mit\n---\n# {name}\n\nAs [world](../world/README.md). ![it](../a.png)\n"
    task.with_name("README.md").write_text(page)
    done = call("data", "card", name, "--include_path", "tasks", "--output_path", "made", folder=folder)
    assert done.returncode == 0, done.stderr
    assert call("data", "card", name, "--include_path", "tasks", "--output_path", "made", folder=folder).returncode == 2
    return str(task), folder / "made"


def built(task: str) -> dict[str, list[dict[str, Any]]]:
    found = splits(build(load_task(task), 0))
    return {split: [json.loads(one.line) for one in records] for split, records in found.items() if records}


def held(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table without the columns that its record does not have."""
    return {column: value for column, value in row.items() if value is not None}


def decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.rpartition("/")[2]: decoded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [decoded(inner) for inner in value]
    return value.decode() if isinstance(value, bytes) else value


def test_croissant_gives_the_very_records_and_says_what_they_may_be_used_for(card: tuple[str, Path]) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    task, folder = card
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not dataset.metadata.issues.errors and dataset.metadata.version == "7.0.0"
    assert dataset.metadata.data_limitations and dataset.metadata.personal_sensitive_information
    for split, records in built(task).items():
        for row, record in zip(map(held, map(decoded, dataset.records(f"seed-0/{split}"))), records, strict=True):
            # Its reader takes a column of digits for numbers, and drops the zeros in front.
            assert row == record | {"variable": record["variable"].lstrip("0")}


def test_the_card_loads_as_a_dataset_and_has_the_page(card: tuple[str, Path], tmp_path: Path) -> None:
    from datasets import load_dataset

    task, folder = card
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path))
    records = built(task)
    for split in records:
        assert list(map(held, loaded[split])) == records[split]
    read = DatasetCard.load(folder / "README.md")
    assert read.data.license == "cc0-1.0" and read.data.size_categories == ["1K<n<10K"]
    assert read.text.strip() == f"# {Path(task).stem}\n\nAs world."
    evaluation = yaml.safe_load((folder / "eval.yaml").read_text())
    assert {"id": "meta_ocl_gap", "config": "seed-0", "split": "test"} in evaluation["tasks"]


def test_every_source_says_what_its_entities_are() -> None:
    assert set(SOURCES) == set(REGISTERED) - {"table"}  # whose entities anybody may give


def test_the_hub_reads_each_gap_of_a_submission(tmp_path: Path) -> None:
    given = ("convert", SUBMISSION, "--to", "hub", "--output_path", tmp_path)
    refused = call(*given, folder=tmp_path)
    assert refused.returncode == 2 and "--dataset" in refused.stderr
    assert call(*given, "--dataset", "me/ocl-bench-world", folder=tmp_path).returncode == 0
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results/ocl-bench-world.yaml").read_text()))
    gaps = json.loads((SUBMISSION / "results.json").read_text())["gaps"]
    assert {one.task_id: one.value for one in entries} == {
        gap: pytest.approx(values["choice"]["mean"], abs=1e-4) for gap, values in gaps.items()
    }
    assert all("10 seeds; task version 2" in str(one.notes) for one in entries)


def test_what_was_limited_says_so_wherever_it_goes(tmp_path: Path) -> None:
    run = shutil.copytree(SUBMISSION, tmp_path / "run", ignore=shutil.ignore_patterns("seed-*"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"]["limit"] = 7
    (run / "manifest.json").write_text(json.dumps(manifest))
    for place, options, said in (
        ("hub", ("--dataset", "me/world"), "only 7 questions per subset"),
        ("every-eval-ever", ("--by", "A. Lab"), '"questions_per_subset": "7"'),
    ):
        done = call("convert", run, "--to", place, *options, "--output_path", tmp_path / place, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        (path,) = (path for path in (tmp_path / place).rglob("*") if path.is_file())
        assert said in " ".join(path.read_text().split())


def every_eval_ever() -> Any:
    """The schema, from the project's own package."""
    (path,) = (one for one in metadata.files("every-eval-ever") or () if one.name == "eval.schema.json")
    return json.loads(path.read_text())


def test_every_eval_ever_takes_every_number(tmp_path: Path) -> None:
    done = call(
        "convert", SUBMISSION, "--to", "every-eval-ever", "--by", "A. Lab", "--output_path", tmp_path, folder=tmp_path
    )
    (path,) = (tmp_path / "data").rglob("*.json")
    assert done.returncode == 0 and path.parts[-4:-1] == ("ocl-bench-world", SUBMITTED["org"], SUBMITTED["model"])
    record, results = (json.loads(file.read_text()) for file in (path, SUBMISSION / "results.json"))
    scores = {one["evaluation_result_id"]: one["score_details"]["score"] for one in record["evaluation_results"]}
    assert scores == {
        f"{what}.{metric}": value["mean"]
        for part in ("metrics", "gaps")
        for what, values in results[part].items()
        for metric, value in values.items()
    }
    try:
        schema = every_eval_ever()
    except metadata.PackageNotFoundError:
        pytest.skip("needs the schema: make test installs every-eval-ever")
    assert schema["version"] == record["schema_version"]
    jsonschema.validate(record, schema)


def test_a_model_without_a_name_has_to_be_given_one(tmp_path: Path) -> None:
    copied = tmp_path / "run"
    copied.mkdir()
    shutil.copy(SUBMISSION / "results.json", copied)
    manifest = json.loads((SUBMISSION / "manifest.json").read_text())
    manifest["config"]["model"] |= {"name": "scratch:tiny", "location": "/somewhere/tiny"}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    given = ("convert", copied, "--to", "every-eval-ever", "--by", "A. Lab", "--output_path", tmp_path)
    refused = call(*given, folder=tmp_path)
    assert refused.returncode == 2 and "--name: 'tiny' is no name of the hub" in refused.stderr
    assert call(*given, "--name", "me/tiny", folder=tmp_path).returncode == 0


def test_the_citation_is_of_the_version_that_is_built() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION


def test_the_changelog_names_the_version_or_what_it_will_have() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] == "## [Unreleased]" and (len(headings) == 1 or f"[{VERSION}]" in headings[1])
