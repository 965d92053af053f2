"""Evaluate a finished checkpoint as it is, through a model of lm-eval, into the suite's result format."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.evaluate.answers import ANSWERS, write_answers
from ocl_bench.evaluate.lm_eval_model import LmEvalModel
from ocl_bench.files import files_atomic, write_atomic
from ocl_bench.finetune.epoch import trained_on
from ocl_bench.models.load import hub_commit
from ocl_bench.models.spec import ModelArgs, parse_model
from ocl_bench.runner.compute import pick_device
from ocl_bench.runner.folder import write_results
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.store import stage_of
from ocl_bench.score.gaps import scored_questions
from ocl_bench.score.metrics import group_values
from ocl_bench.score.result import Results
from ocl_bench.score.samples import samples_of
from ocl_bench.score.score import score, score_samples
from ocl_bench.tasks.build import build, chance_levels
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, dataset_sha256, serialize
from ocl_bench.tasks.schema import Task

DATA = "data.jsonl"


def evaluate_checkpoint(
    checkpoint: str,
    task: str,
    *,
    seed: int,
    stage2_seed: int,
    stage: str | None,
    overrides: Sequence[str],
    include_path: Sequence[Path],
    lm_eval_model: str,
    model_args: Mapping[str, Any],
    batch_size: int,
    device: str | None,
    limit: int | None,
    output_path: Path,
) -> tuple[Path, Results]:
    """Ask a checkpoint the questions that the task asks at the end of a stage.

    Args:
        checkpoint: a folder, a hub id, or what a server calls its model.
        task: a task's name or file.
        seed, stage2_seed: of the data that it was finetuned on.
        stage: the stage at whose end it is; None takes the folder's name if that is a stage, else the last.
        overrides: of the task, as in the run that trained it.
        include_path: folders with further task files.
        lm_eval_model: lm-eval's kind of model.
        model_args: arguments for it, lm-eval's own.
        batch_size, device: for it.
        limit: questions per subset and kind.
        output_path: where a folder `<checkpoint>/<task>/<UTC time>` is made, with results.json, answers.jsonl, and the
            questions in data.jsonl.

    Raises:
        OclBenchError: for bad input, or if lm-eval's model fails.
    """
    loaded = load_task(task, overrides, include_path)
    if loaded.design.picture is not None:
        raise OclBenchError(
            f"task '{loaded.task}' shows pictures, and lm-eval's models read text; score it with a run."
        )
    names = [one.name for one in loaded.stages]
    own = Path(checkpoint).name
    stage = stage or (own if own in names else names[-1])
    if stage not in names:
        raise OclBenchError(f"--stage {stage}: task '{loaded.task}' has none; {did_you_mean(stage, names)}")
    device = pick_device(device)
    if lm_eval_model == "hf":  # which would ask the hub for minutes for what neither it nor this machine has
        revision = str(model_args.get("revision", "main"))
        hub_commit(parse_model(checkpoint, ModelArgs(revision=revision)))
    records = build(loaded, seed, stage2_seed)
    _require_its_data(Path(checkpoint), loaded, records, seed, stage2_seed)
    asked = scored_questions(loaded, records, limit, seed, stage)
    model = LmEvalModel(lm_eval_model, checkpoint, model_args, batch_size, device)
    answers = model.ask(asked, loaded.evaluate.max_new_tokens)
    questions = {record.id: record for record in asked}
    samples = samples_of(
        answers,
        questions,
        chance_levels(loaded),
        group_values(asked),
        stage=stage,
        seed=seed,
        stage2_seed=stage2_seed,
    )
    results = score(
        score_samples(samples, loaded),
        loaded,
        seeds=(seed,),
        stage2_seeds=(stage2_seed,),
        model=checkpoint,
        model_revision=None,
        recipe=None,
        engine=model.record,
        engine_check=None,
        unlearned=(),
        limit=limit,
        modified=bool(overrides),
    )
    slug = "__".join(Path(checkpoint).parts[-3:]).strip("/_") or "model"
    folder = output_path / slug / loaded.task / time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    with files_atomic(folder) as inside:
        write_atomic(inside / DATA, serialize(asked))
        write_answers(inside / ANSWERS, answers)
        write_results(inside, results)
    return folder, results


def _require_its_data(checkpoint: Path, task: Task, records: Sequence[Record], seed: int, stage2_seed: int) -> None:
    """Refuse a run's checkpoint that was trained on other data than is asked about: its gaps would be wrong numbers.

    Any stage of the same data will do: what X1 left may be asked about X2. In a run's folder the stages beside it have
    to be of that data too: X2 alone does not tell how X1's questions were worded.
    """
    trained = stage_of(checkpoint)
    if trained is None:
        return
    cell, run = checkpoint.absolute().parent, checkpoint.absolute().parents[1]
    own = {stage.name: dataset_sha256(trained_on(stage, records)) for stage in task.stages}
    beside = {name: found.identity.dataset for name in own if (found := stage_of(cell / name))}
    if trained.identity.dataset in own.values() and all(own[name] == digest for name, digest in beside.items()):
        return
    told = ""
    if (run / "manifest.json").is_file():
        manifest = read_manifest(run)
        sets = [f" --set {one}" for one in manifest.passed.get("overrides", ()) if not one.startswith("recipe.")]
        told = f" It is of {cell.name} of a run of task '{manifest.config.task.task}'{''.join(sets)}."
    raise OclBenchError(
        f"{checkpoint} was trained on other data than task '{task.task}' has with --seed {seed} and --stage2_seed "
        f"{stage2_seed}.{told} Give the --task, --seed, --stage2_seed and --set of the task that it was trained with."
    )
