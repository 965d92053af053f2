"""Whole runs through the installed command line, in a fresh folder, with real processes and files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

import ocl_bench
from ocl_bench import OclBenchError
from ocl_bench.evaluate.answers import read_answers, write_answers
from ocl_bench.runner.folder import read_results, score_run
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.score.result import results_json_schema
from ocl_bench.tasks.records import read_records

COMMAND = str(Path(sys.executable).parent / "ocl-bench")
SMALL = ["--set", "source_args.num_entities=60", "--set", "recipe.epochs=[2,2]"]
TINY = ("source_args.num_entities=60", "recipe.epochs=[2,2]")


def ocl_bench_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("fresh")
    done = ocl_bench_command(
        "run", "--seeds", "2", "--stage2-seeds", "2", "--output-path", "out", *SMALL, folder=folder
    )
    assert done.returncode == 0, done.stderr
    (run_folder,) = (folder / "out" / "scratch__tiny" / "attributes").iterdir()
    return run_folder, done


def test_run_prints_tables_with_intervals_chance_and_the_next_step(finished: Any) -> None:
    run_folder, done = finished
    for text in (
        "d1_cons_qa",
        "meta_ocl_gap",
        "95 %",
        "chance",
        ".100",
        "curves.png",
        "next",
        str(run_folder.name),
    ):
        assert text in done.stdout
    assert "seed 0 x1 done in" in done.stderr


def test_run_folder_is_complete(finished: Any) -> None:
    run_folder, _ = finished
    for cell in ("seed-0", "seed-1", "seed-0-stage2-1", "seed-1-stage2-1"):
        for name in (
            "data.jsonl",
            "curves.jsonl",
            "x2/answers.jsonl",
            "x2/model.safetensors",
            "x2/tokenizer.json",
        ):
            assert (run_folder / cell / name).is_file(), f"{cell}/{name}"
    assert (run_folder / "seed-0" / "x1" / "model.safetensors").is_file()
    assert not (run_folder / "seed-0-stage2-1" / "x1").exists(), "stage-2 seeds share stage 1"
    assert (run_folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run_folder.rglob(".*")), "no temporary file is left"


def test_manifest_tells_what_was_passed_what_was_run_and_what_it_took(finished: Any) -> None:
    manifest = read_manifest(finished[0])
    assert manifest.status == "complete"
    assert manifest.passed == {"seeds": [0, 1], "stage2_seeds": [0, 1], "output_path": "out", "overrides": list(TINY)}
    assert manifest.config.recipe.epochs == (2, 2)
    stage = manifest.stages["seed-0"]["x1"]
    assert stage.effective_batch_size == 64
    assert stage.optimizer_steps == 2 * -(-120 // 64)  # 108 questions and 12 definitions an epoch
    assert stage.weights_sha256.keys() == {"model.safetensors"}
    assert manifest.stages["seed-0"]["x2"].weights_sha256 != stage.weights_sha256
    assert manifest.peak_memory_bytes > 10**8 and manifest.wall_seconds > 1
    assert {"torch", "transformers", "python"} <= manifest.versions.keys()


def test_results_follow_the_json_schema_and_are_scored_again_from_answers_to_the_same_bytes(
    finished: Any,
) -> None:
    run_folder, _ = finished
    before = (run_folder / "results.json").read_bytes()
    jsonschema.validate(json.loads(before), results_json_schema())
    scored = ocl_bench_command("score", str(run_folder), folder=run_folder)
    assert scored.returncode == 0 and "meta_ocl_gap" in scored.stdout
    assert (run_folder / "results.json").read_bytes() == before
    assert score_run(run_folder) == read_results(run_folder)


def test_a_changed_answer_changes_the_score(finished: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    path = copy / "seed-0" / "x2" / "answers.jsonl"
    wanted = {record.id: record.answers[0] for record in read_records(copy / "seed-0" / "data.jsonl")}
    write_answers(path, [one.model_copy(update={"generated": wanted[one.id]}) for one in read_answers(path)])
    assert score_run(copy).metrics["d1_cons"]["em"].mean > read_results(copy).metrics["d1_cons"]["em"].mean


def test_plot_writes_where_it_is_told(finished: Any, tmp_path: Path) -> None:
    done = ocl_bench_command("plot", str(finished[0]), "--output_path", str(tmp_path / "picture.svg"), folder=tmp_path)
    assert done.returncode == 0
    assert "<svg" in (tmp_path / "picture.svg").read_text()


def test_json_prints_the_result_and_nothing_else_and_limited_runs_are_not_submittable(tmp_path: Path) -> None:
    done = ocl_bench_command("run", "--seeds", "1", "--limit", "5", "--json", "--no-curves", *SMALL, folder=tmp_path)
    results = json.loads(done.stdout)
    assert results["submittable"] is False
    assert {metrics["em"]["n"] for metrics in results["metrics"].values()} == {5}
    assert not list(tmp_path.rglob("curves.png"))


def test_the_same_seed_gives_the_same_numbers_and_python_gives_those_of_the_command(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("seeds: [3]\nset: [source_args.num_entities=60, 'recipe.epochs=[2,2]']\nlimit: 5\n")
    done = ocl_bench_command("run", "--config", "run.yaml", "--limit", "20", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    again = ocl_bench.run(seeds=[3], overrides=TINY, limit=20, output_path=tmp_path / "again", curves=False)
    assert again.results.model_dump(mode="json") == json.loads(done.stdout)
    assert again.gaps["meta_ocl_gap"]["em"].seeds == 1
    assert again.gaps["meta_ocl_gap"]["em"].interval == "entities"
    assert "| d1_cons" in again.table("github")
    assert ocl_bench.load_results(again.folder).results == again.results


@pytest.mark.parametrize(
    ("stages", "epochs", "folders"),
    [
        ("[{name: both, train: [x1, x2]}]", "[2]", ["both"]),
        (
            "[{name: definitions, train: [x1/definition]}, {name: questions, train: [x1/qa]}, {name: x2, train: [x2]}]",
            "[1,2,1]",
            ["definitions", "questions", "x2"],
        ),
    ],
)
def test_single_and_three_stage_studies_are_task_files_and_no_code(
    stages: str, epochs: str, folders: list[str], tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        f"include: attributes\ntask: study\nstages: {stages}\nsource_args: {{num_entities: 60}}\n"
    )
    result = ocl_bench.run(
        task="study", include_path=[tmp_path], seeds=1, stage2_seeds=2, overrides=[f"recipe.epochs={epochs}"],
        output_path=tmp_path, limit=5,
    )  # fmt: skip
    manifest = read_manifest(result.folder)
    assert list(manifest.stages["seed-0"]) == folders
    # a stage-2 seed repeats only the stages from the first that trains on X2
    assert list(manifest.stages["seed-0-stage2-1"]) == folders[-1:]
    assert result.metrics["d1_cons_qa"]["em"].stage == folders[-2 if len(folders) > 1 else 0]
    assert result.metrics["unseen"]["em"].stage == folders[-1]


@pytest.mark.parametrize("architecture", ["gpt_neox", "t5"])
def test_a_model_folder_runs_with_the_papers_recipe(architecture: str, model_folder: Any, tmp_path: Path) -> None:
    result = ocl_bench.run(
        str(model_folder(architecture)), seeds=1, limit=5, output_path=tmp_path,
        overrides=["source_args.num_entities=40", "recipe.epochs=[1,1]", "recipe.precision=fp32"],
    )  # fmt: skip
    assert result.results.recipe == "paper"
    stage = read_manifest(result.folder).stages["seed-0"]["x1"]
    assert stage.learning_rate_peak == 5e-5 and stage.effective_batch_size == 256


def test_checkpoints_load_with_transformers(finished: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[0] / "seed-0" / "x2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer("Q: colour").input_ids == tokenizer.convert_tokens_to_ids(["Q:", "colour"])


def test_tensorboard_gets_each_stage(tmp_path: Path) -> None:
    result = ocl_bench.run(seeds=1, overrides=TINY, limit=5, output_path=tmp_path, report_to=["tensorboard"])
    assert [path.parts[-4] for path in sorted(result.folder.rglob("events.out.tfevents*"))] == [
        "x1-logs",
        "x2-logs",
    ]


def test_no_worker_outlives_a_killed_run(tmp_path: Path) -> None:
    long = ["--seeds", "2", "--set", "recipe.epochs=[1000,1]", "--set", "source_args.num_entities=60"]
    run = subprocess.Popen([COMMAND, "run", *long], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(workers) < 3:  # a template and two that it has forked
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.2)
        workers = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone and not alive


def test_a_failing_worker_is_one_sentence_and_the_run_says_so(model_folder: Any, tmp_path: Path) -> None:
    broken = shutil.copytree(model_folder("gpt_neox"), tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    options = ["--model", str(broken), "--tasks", "attributes", "--seeds", "1", "--output_path", "out"]
    done = ocl_bench_command("run", *options, folder=tmp_path)
    assert done.returncode == 2 and "cannot be loaded" in done.stderr
    engine, sentence = filter(None, done.stderr.splitlines())
    assert engine.startswith("engine torch: ") and sentence.startswith("ocl-bench: ")
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    assert json.loads(manifest.read_text())["status"] == "failed"


def test_the_shipped_json_schema_is_that_of_the_code() -> None:
    path = Path(ocl_bench.__file__).parent / "score" / "results.schema.json"
    assert json.loads(path.read_text()) == results_json_schema()


def test_a_diverging_run_fails_in_one_sentence_and_is_never_scored(tmp_path: Path) -> None:
    options = ["--seeds", "1", "--set", "recipe.learning_rate=1e30", "--output_path", "out", *SMALL]
    done = ocl_bench_command("run", *options, folder=tmp_path)
    assert done.returncode == 1
    assert "diverged" in done.stderr and "Traceback" not in done.stderr
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    scored = ocl_bench_command("score", str(manifest.parent), folder=tmp_path)
    assert scored.returncode == 2 and "status is 'failed'" in scored.stderr


def test_a_missing_answer_is_noticed(finished: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    path = copy / "seed-1-stage2-1" / "x2" / "answers.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(OclBenchError, match="stage x2 has 131 answered questions of 132"):
        score_run(copy)


def test_a_seq2seq_model_from_random_weights_gets_a_word_level_tokenizer(tmp_path: Path) -> None:
    shape = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape | {"is_encoder_decoder": True}))
    result = ocl_bench.run(f"scratch:{tmp_path}", seeds=1, overrides=TINY, limit=5, output_path=tmp_path / "out")
    assert result.results.recipe == "tiny"
    assert result.metrics["d1_cons"]["em"].n == 5
