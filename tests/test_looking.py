"""What was found is looked at: from Python and the command line, samples by samples, side by side, as data."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from statistics import fmean

import pytest
from conftest import call

import ocl_bench
from ocl_bench import OclBenchError, api
from ocl_bench.evaluate.answers import read_answers, write_answers
from ocl_bench.report.samples import sample_lines
from ocl_bench.runner.progress import RunProgress
from ocl_bench.runner.request import RunRequest
from ocl_bench.score.metrics import main_metric
from ocl_bench.score.statistics import over_seeds

BOARD = Path(__file__).parents[1] / "leaderboard"


def entry(task: str, model: str) -> Path:
    """An accepted submission."""
    (folder,) = (BOARD / "results" / task / f"ocl-bench__{model}").iterdir()
    return folder


LLAMA, GPT2 = entry("attributes", "llama-2x64"), entry("attributes", "gpt2-2x64")


def test_all_that_there_is_is_listed_and_told() -> None:
    names = {"run", "load", "score", "compare", "samples", "load_task", "load_leaderboard", "plan", "run_tasks"}
    assert names <= set(dir(ocl_bench)) & set(ocl_bench.__all__)
    for name in names:
        found = getattr(ocl_bench, name)
        assert callable(found) and found.__doc__, name


def test_a_result_prints_as_its_gaps_and_its_table_has_all(small_run: Path) -> None:
    result = ocl_bench.load(small_run)
    assert result == ocl_bench.load(small_run / "results.json")
    lines = repr(result).splitlines()
    assert lines[0].startswith("attributes (version 2) · scratch:tiny-16 · recipe tiny · 2 stage-1 seeds")
    assert [line.split()[0] for line in lines[4:]] == list(result.gaps)
    assert max(map(len, lines)) <= 80
    assert "unseen" not in repr(result) and "unseen" in result.table()
    page = result._repr_html_()
    assert page.count("<table>") == 1 and page.startswith("<p>attributes") and "meta_ocl_gap" in page
    assert result.table("html").count("<p>") == 2, "title and notes are paragraphs"


def test_a_run_is_scored_again(small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    path = run / "seed-0" / "x2" / "answers.jsonl"
    (run / "results.json").unlink()
    result = ocl_bench.score(run)
    assert result.results == ocl_bench.load(small_run).results == ocl_bench.load(run).results
    write_answers(path, read_answers(path)[1:])
    with pytest.raises(OclBenchError, match="answered questions of"):
        ocl_bench.score(run)


def test_mappings_are_taken_where_the_command_line_takes_text() -> None:
    text = RunRequest.from_options(overrides=["recipe.epochs=[2, 1]", "design.alpha=0.7"])
    mapping = RunRequest.from_options(overrides={"recipe.epochs": [2, 1], "design.alpha": 0.7})
    assert mapping == text and mapping.passed == text.passed
    assert RunRequest.from_options(overrides="design.alpha=0.7").overrides == ("design.alpha=0.7",)
    assert RunRequest.from_options(model_args={"dtype": "bfloat16"}).model_args.dtype == "bfloat16"
    assert RunRequest.from_options(task=Path("my/task.yaml"), model=Path("my")).model == "my"
    for wrong, message in (({"a": {1}}, "use numbers, strings"), (5, "give a mapping"), ([5], "valid string")):
        with pytest.raises(OclBenchError, match=message):
            RunRequest.from_options(overrides=wrong)


def test_progress_is_shown_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert api._shown(None) is None and api._shown(False) is None
    assert api._shown(True) is RunProgress and api._shown(RunProgress) is RunProgress
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, a terminal
    assert api._shown(None) is RunProgress and api._shown(False) is None


def test_results_and_records_become_frames_and_datasets(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ocl_bench.load(small_run)
    frame = result.to_pandas()
    own = frame[(frame["set"] == "qa") & (frame["name"] == "meta_ocl_gap") & (frame["metric"] == "choice")]
    gap = result.gaps["meta_ocl_gap"]["choice"]
    assert own[["of", "mean", "low", "high", "n"]].values.tolist() == [["gap", gap.mean, *gap.ci95, gap.n]]
    seeds = result.to_pandas(per_seed=True).query("set == 'qa' and name == 'meta_ocl_gap' and metric == 'choice'")
    assert dict(zip(seeds["seed"].map(str), seeds["value"], strict=True)) == gap.per_seed
    records = ocl_bench.load_task("attributes", {"source_args.num_entities": 60}).records(seed=1)
    data, table = records.to_datasets(), records.to_pandas()
    assert data.num_rows == len(table) == len(records) and data[0]["prompt"] == records[0].prompt
    assert set(data.unique("split")) == {"x1", "x2", "test"} and repr(records).startswith(f"{len(records)} records: ")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(OclBenchError, match="pip install pandas"):
        result.to_pandas()


def test_samples_are_those_that_were_scored(small_run: Path, small_submission: Path) -> None:
    result = ocl_bench.load(small_run)
    for kind, metrics in (("qa", result.metrics), ("recall", result.results.sets["recall"].metrics)):
        for subset, scores in metrics.items():
            found, scored = result.samples(subset=subset, kind=kind), scores[main_metric(scores).name]
            assert len(found) == scored.n and {one.stage for one in found} == {scored.stage}
            assert fmean(one.right for one in found) == pytest.approx(scored.mean)
    assert ocl_bench.samples(small_submission).rows == result.samples().rows
    wrong = result.samples(wrong=True, seed=1)
    assert [one.record.id for one in wrong] == [one.record.id for one in result.samples(seed=1) if not one.right]
    assert result.samples(stage="x1", subset="d1_cons")[0].stage == "x1"


def test_one_question_is_shown_across_seeds_and_models(small_run: Path, small_submission: Path) -> None:
    first = ocl_bench.samples(small_run, limit=1)
    assert len({one.record.subset for one in first}) == len(first) > 5
    entities = [{one.record.entity for one in ocl_bench.samples(small_run, seed=seed)} for seed in (0, 1)]
    entity = min(set.intersection(*entities))
    found = ocl_bench.samples(small_run, question=entity)
    assert {one.record.entity for one in found} == {entity} and {one.seed for one in found} == {0, 1}
    id = first[0].record.id
    both = ocl_bench.samples(small_run, small_submission, question=id, seed=0)
    assert [(one.run, one.record.id) for one in both] == [("A", id), ("B", id)]
    assert both[0].answer.generated == both[1].answer.generated
    for selected, message in (
        ({"subset": "d1_con"}, "did you mean 'd1_cons'"),
        ({"seed": 7}, "there are the seeds 0, 1"),
        ({"stage": "x3"}, "did you mean 'x"),
        ({"kind": "recal"}, "did you mean 'recall'"),
        ({"question": "nobody asks this"}, "no question has this id"),
    ):
        with pytest.raises(OclBenchError, match=message):
            ocl_bench.samples(small_run, **selected)


def test_samples_are_readable_whatever_a_model_said(small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    path = run / "seed-0" / "x2" / "answers.jsonl"
    said = "\x1b[31m" + "word " * 40 + "x" * 200
    write_answers(path, [one.model_copy(update={"generated": said}) for one in read_answers(path)])
    done = call("samples", run, "--subset", "d2_cons", "--limit", "3", folder=tmp_path)
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout and "\\u001b[31mword" in done.stdout
    assert done.stdout.count("question  ") == 3 and "3 answers shown" in done.stdout
    printed = call("samples", run, "--subset", "d2_cons", "--seed", "0", "--json", folder=tmp_path)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert (
        len(rows) == 2
        and rows[0]["generated"] == said
        and rows[0]["right"] == (rows[0]["chosen"] == rows[0]["answers"][0])
    )
    assert list(sample_lines([], {}, 80)) == []


def test_of_a_run_that_has_not_ended_what_it_has_is_shown(small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    (run / "results.json").unlink()
    shutil.rmtree(run / "seed-1")
    assert {one.seed for one in ocl_bench.samples(run)} == {0}
    shutil.rmtree(run / "seed-0")
    with pytest.raises(OclBenchError, match="there are no answers yet"):
        ocl_bench.samples(run)


def test_runs_with_the_same_seeds_and_data_are_compared_within_seeds() -> None:
    found = ocl_bench.compare(LLAMA, GPT2, gaps="meta_ocl_gap")
    first, second = (ocl_bench.load(folder).gaps["meta_ocl_gap"]["choice"] for folder in (LLAMA, GPT2))
    expected = over_seeds([second.per_seed[seed] - first.per_seed[seed] for seed in first.per_seed])
    assert found[1].difference is not None and found[1].difference.test == "paired"
    assert found[1].difference.mean == pytest.approx(expected.mean) and found[1].difference.ci95 == expected.ci95
    assert len(found.notes) == 1 and "paired by seed" in found.notes[0]
    assert found.to_pandas()["difference"].isna().tolist() == [True, False]
    three = ocl_bench.compare(LLAMA, GPT2, GPT2, gaps="meta_ocl_gap")
    assert three[1].p == three[2].p == pytest.approx(2 * (found[1].p or 0)), "corrected for two comparisons"


def test_what_else_differs_is_said_and_other_seeds_are_not_paired(small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"]["limit"] = 12
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = ocl_bench.compare(LLAMA, run)
    notes = "\n".join(found.notes)
    assert all(one.difference is None or one.difference.test == "welch" for one in found)
    for said in ("recipes: epochs", "tasks: evaluate", "12 per subset and all", "because their seeds differ"):
        assert said in notes, notes
    world = entry("world", "gpt2-4x64")
    for runs, options, message in (
        ((LLAMA, world), {}, r"A \(.* is of attributes version 2 and B .* of world version 2"),
        ((LLAMA,), {}, "two or more"),
        (([LLAMA, GPT2],), {}, "list: give runs, or their folders, one by one"),
        ((LLAMA, GPT2), {"gaps": ["meta_ocl"]}, "did you mean 'meta_ocl_gap'"),
        ((LLAMA, GPT2), {"metric": "chioce"}, "did you mean 'choice'"),
        ((LLAMA, GPT2), {"metric": "em_first"}, "no gap in em_first in common"),
    ):
        with pytest.raises(OclBenchError, match=message):
            ocl_bench.compare(*runs, **options)


def test_compare_prints_and_draws_in_every_format(tmp_path: Path) -> None:
    done = call("compare", LLAMA, GPT2, "--gap", "ocl_gap", "--plot", "gaps.svg", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "minus A [95 %]" in done.stdout and "figure   gaps.svg" in done.stdout
    drawn = (tmp_path / "gaps.svg").read_text()
    assert "<svg" in drawn and len(drawn) > 10_000
    table = call("compare", LLAMA, GPT2, "--format", "csv", folder=tmp_path)
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert (
        json.loads(call("compare", LLAMA, GPT2, "--format", "json", folder=tmp_path).stdout)[0]["gap"] == rows[0]["gap"]
    )
    assert {row["run"] for row in rows} == {"A", "B"} and "note: " in table.stderr
    assert "| ocl_gap " in call("compare", LLAMA, GPT2, "--format", "github", folder=tmp_path).stdout
    refused = call("compare", LLAMA, GPT2, "--plot", "gaps.none", folder=tmp_path)
    assert refused.returncode == 2 and "gaps.none: pictures are written as" in refused.stderr


def test_the_leaderboard_is_what_its_table_says() -> None:
    board = ocl_bench.load_leaderboard(BOARD)
    text = (BOARD / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([\d–]*) *\| \[([\w/.-]+)\].*?\| ([\w-]+) ", text, re.MULTILINE)
    assert [(one.rank_text, one.name, one.level) for one in board] == listed
    assert len(listed) == len(list(BOARD.glob("results/*/*/*/submission.json"))) > 0
    frame = board.to_pandas()
    assert frame["rank_best"].notna().sum() == sum(bool(rank) for rank, *_ in listed)
    row = frame[(frame["model"] == "ocl-bench/llama-2x64") & (frame["task"] == "attributes")].iloc[0]
    assert (row["meta_ocl_gap"], row["meta_ocl_gap_low"]) == (0.358625, pytest.approx(0.314766, abs=1e-6))
    assert all(rank in repr(board) for rank, *_ in listed) and board._repr_html_().count("<table>") == 3
    with pytest.raises(OclBenchError, match="no folder 'results'"):
        ocl_bench.load_leaderboard(BOARD / "results")


def test_samples_of_different_tasks_are_not_mixed(tmp_path: Path) -> None:
    (world,) = (LLAMA.parents[2] / "world" / "ocl-bench__llama-4x64").iterdir()
    done = call("samples", LLAMA, world, folder=tmp_path)
    assert done.returncode == 2 and "samples are shown side by side of one task" in done.stderr
