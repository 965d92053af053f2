"""Whole runs: what they print, what their folders hold, and that the same seeds give the same numbers."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import WHOLE, call
from safetensors.torch import load_file, save_file

import ocl_bench
from ocl_bench import OclBenchError
from ocl_bench.evaluate.answers import read_answers, write_answers
from ocl_bench.files import sha256_of_file
from ocl_bench.runner import manifest as manifests
from ocl_bench.runner.folder import read_results, score_run
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.score.result import results_json_schema
from ocl_bench.tasks.records import read_dataset

TINY = WHOLE["overrides"]
SMALL = ["--task", "attributes", *(part for override in TINY for part in ("--set", override))]


def test_run_prints_tables_with_intervals_chance_and_the_next_step(whole_run: Path) -> None:
    printed, told = json.loads((whole_run.parents[3] / "printed.json").read_text())
    for text in ("d1_cons_qa", "meta_ocl_gap", "95 %", "chance", ".100", "curves.png", "next", str(whole_run.name)):
        assert text in printed
    for cell in ("seed 0", "seed 1"):
        for stage in ("x1", "x2", "stage-2 seed 1 x2"):
            assert f"{cell} {stage} done in" in told


def test_run_folder_is_complete(whole_run: Path) -> None:
    checkpoint = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    stage = {"stage.json", "curve.jsonl", "answers.jsonl", "answers.json"} | checkpoint
    for cell in ("seed-0", "seed-1", "seed-0-stage2-1", "seed-1-stage2-1"):
        stages = ["x2"] if "stage2" in cell else ["x1", "x2"]  # stage-2 seeds share stage 1
        assert {path.name for path in (whole_run / cell).iterdir()} == {"data.jsonl", *stages}
        for name in stages:
            found = {path.name for path in (whole_run / cell / name).iterdir()}
            assert found - {"tokenizer_config.json", "special_tokens_map.json"} == stage
    assert (whole_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in whole_run.rglob(".*")] == [".lock"], "no temporary file is left"
    assert not list(whole_run.parents[2].glob("*/.*.work")), "no epoch checkpoint is left"


def test_manifest_tells_what_was_passed_what_was_run_and_what_it_took(whole_run: Path) -> None:
    manifest = read_manifest(whole_run)
    assert (manifest.schema_version, manifest.status, manifest.starts, manifest.reused) == (4, "complete", 1, 0)
    passed = {"seeds": [0, 1], "stage2_seeds": [0, 1], "output_path": "out", "overrides": list(TINY)}
    assert manifest.passed == passed | {"model": None, "task": "attributes"}
    assert manifest.config.recipe.epochs == (2, 2)
    compute = manifest.config.compute
    assert (set(compute.slots), compute.processes, compute.engine) == ({"cpu"}, 1, "torch")
    first, second = manifest.stages["seed-0"]["x1"], manifest.stages["seed-0"]["x2"]
    assert first.effective_batch_size == 64
    assert first.optimizer_steps == 2 * -(-120 // 64)  # 108 questions and 12 definitions an epoch
    assert first.files["model.safetensors"][1] == sha256_of_file(whole_run / "seed-0" / "x1" / "model.safetensors")
    assert first.weights_before != first.weights_after == second.weights_before != second.weights_after
    assert manifest.stages["seed-0-stage2-1"]["x2"].identity.parent == first.weights_after
    assert first.provenance.threads == compute.threads and first.provenance.hardware == manifest.hardware
    asked = manifest.evaluations["seed-1"]["x2"]["answers"]
    assert asked.rows == len(read_answers(whole_run / "seed-1" / "x2" / "answers.jsonl")) == 132
    assert manifest.peak_memory_bytes > 10**8 and manifest.wall_seconds > 0
    assert {"torch", "transformers", "python"} <= manifest.versions.keys()


def test_results_follow_the_json_schema_and_are_scored_again_from_answers_to_the_same_bytes(
    whole_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(whole_run, tmp_path / "copy")
    before = (copy / "results.json").read_bytes()
    jsonschema.validate(json.loads(before), results_json_schema())
    (copy / "results.json").unlink()
    scored = call("score", copy, folder=tmp_path)
    assert scored.returncode == 0 and "meta_ocl_gap" in scored.stdout
    assert (copy / "results.json").read_bytes() == before
    assert score_run(copy) == read_results(copy)


def test_a_changed_answer_changes_the_score_and_is_refused_if_its_record_knows_nothing_of_it(
    whole_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(whole_run, tmp_path / "copy")
    path = copy / "seed-0" / "x2" / "answers.jsonl"
    wanted = {record.id: record.answers[0] for record in read_dataset(copy / "seed-0" / "data.jsonl")}
    write_answers(path, [one.model_copy(update={"generated": wanted[one.id]}) for one in read_answers(path)])
    with pytest.raises(OclBenchError, match=r"answers\.jsonl: not what was written .* run the command again"):
        score_run(copy)
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | {"rows_sha256": sha256_of_file(path)}))
    assert score_run(copy).metrics["d1_cons"]["em"].mean > read_results(copy).metrics["d1_cons"]["em"].mean


def test_a_missing_answer_is_noticed(whole_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole_run, tmp_path / "copy")
    path = copy / "seed-1-stage2-1" / "x2" / "answers.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(OclBenchError, match="stage x2 has 131 answered questions of 132"):
        score_run(copy)


def test_plot_writes_where_it_is_told(whole_run: Path, tmp_path: Path) -> None:
    done = call("plot", whole_run, "--output_path", "picture.svg", folder=tmp_path)
    assert done.returncode == 0
    assert "<svg" in (tmp_path / "picture.svg").read_text()


def test_a_stage_that_did_not_learn_its_data_is_said_in_tables_and_results(whole_run: Path, whole_output: Path) -> None:
    found = read_results(whole_run)
    assert {(one.seed, one.stage2_seed, one.stage) for one in found.unlearned} == {
        (seed, stage2, stage) for seed in (0, 1) for stage2, stage in ((0, "x1"), (0, "x2"), (1, "x2"))
    }
    assert all(one.train_loss > one.learned_below == 0.7 for one in found.unlearned)
    table = ocl_bench.load(whole_run).table()
    assert "note: x1 of seeds 0, 1 did not learn its own data (loss up to " in table
    assert "expected below 0.7): a small gap says nothing there" in table
    # What a recipe expects is no part of what it trains.
    lower = {**WHOLE, "overrides": (*TINY, "recipe.learned_below=100")}
    learned = ocl_bench.run(**lower, output_path=whole_output, curves=False)
    assert learned.results.unlearned == () and "did not learn" not in learned.table()
    assert read_manifest(learned.folder).reused == 6


def test_the_same_seed_gives_the_same_numbers_and_python_gives_those_of_the_command(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "task: attributes\nseeds: [3]\n"
        "set: [source_args.num_entities=60, 'recipe.epochs=[2,2]', 'evaluate.sets=[]']\nlimit: 5\n"
    )
    done = call("run", "--config", "run.yaml", "--limit", "20", "--no-curves", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("curves.png"))
    results = json.loads(done.stdout)  # and nothing else is printed
    assert results["submittable"] is False
    assert max(metrics["em"]["n"] for metrics in results["metrics"].values()) == 20
    again = ocl_bench.run(task="attributes", seeds=[3], overrides=TINY, limit=20, output_path=tmp_path / "again")
    assert again.results.model_dump(mode="json") == results
    assert again.gaps["meta_ocl_gap"]["em"].seeds == 1
    assert again.gaps["meta_ocl_gap"]["em"].interval == "entities"
    assert "| d1_cons" in again.table("github")
    assert ocl_bench.load(again.folder).results == again.results


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
        output_path=tmp_path, limit=5, curves=False,
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
        str(model_folder(architecture)), task="attributes", seeds=1, limit=5, output_path=tmp_path, curves=False,
        overrides=["source_args.num_entities=40", "recipe.epochs=[1,1]", "recipe.precision=fp32"],
    )  # fmt: skip
    assert result.results.recipe == "paper"
    stage = read_manifest(result.folder).stages["seed-0"]["x1"]
    assert stage.learning_rate_peak == 5e-5 and stage.effective_batch_size == 256


def test_checkpoints_load_with_transformers(whole_run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = whole_run / "seed-0" / "x2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer("Q: colour").input_ids == tokenizer.convert_tokens_to_ids(["Q:", "colour"])


def test_a_seq2seq_model_from_random_weights_gets_a_word_level_tokenizer_and_tensorboard_each_of_its_stages(
    tmp_path: Path,
) -> None:
    shape = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape | {"is_encoder_decoder": True}))
    result = ocl_bench.run(
        f"scratch:{tmp_path}",
        task="attributes",
        seeds=1,
        overrides=TINY,
        limit=5,
        output_path=tmp_path / "out",
        report_to=["tensorboard"],
    )
    assert result.results.recipe == "tiny"
    assert {metrics["em"].n for metrics in result.metrics.values()} == {5}
    logs = [path.parts[-4] for path in sorted(result.folder.rglob("events.out.tfevents*"))]
    assert logs == ["x1-logs", "x2-logs"]


def test_weights_that_are_found_spoilt_by_a_worker_are_a_mistake_said_in_one_sentence(
    model_folder: Any, tmp_path: Path
) -> None:
    broken = shutil.copytree(model_folder("gpt_neox"), tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    options = ["--model", broken, "--tasks", "attributes", "--seeds", "1", "--output_path", "out"]
    done = call("run", *options, "--set", "recipe.precision=fp32", folder=tmp_path)
    assert done.returncode == 2 and "its weights are spoilt" in done.stderr
    engine, to_do, sentence = filter(None, done.stderr.splitlines())
    assert engine.startswith("engine torch: ") and to_do.startswith("2 stages to do, 1 at a time on cpu: ")
    assert sentence.startswith("ocl-bench: ")
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    assert json.loads(manifest.read_text())["status"] == "failed"


def test_a_diverging_run_fails_in_one_sentence_and_is_never_scored(tmp_path: Path) -> None:
    options = ["--seeds", "1", "--set", "recipe.learning_rate=1e30", "--output_path", "out", *SMALL]
    done = call("run", *options, folder=tmp_path)
    assert done.returncode == 3
    assert "diverged" in done.stderr and "Traceback" not in done.stderr
    assert "0 of 2 stages are finished and kept; run the same command again to go on." in done.stderr
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    scored = call("score", manifest.parent, folder=tmp_path)
    assert scored.returncode == 2 and "status is 'failed'" in scored.stderr


def test_the_shipped_json_schema_is_that_of_the_code() -> None:
    path = Path(ocl_bench.__file__).parent / "score" / "results.schema.json"
    assert json.loads(path.read_text()) == results_json_schema()


def test_a_checkout_on_pythons_path_knows_its_version_without_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "ocl-bench":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    expected = installed("ocl-bench")
    monkeypatch.setattr(metadata, "version", version)
    assert manifests._versions.__wrapped__()["ocl-bench"] == expected
