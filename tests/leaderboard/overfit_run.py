"""A real run whose X2 models learned the test.

The run folder that is left has the weights, which can be handed over for a replay.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocl_bench.evaluate.curve import CurvePoint, curve_epochs
from ocl_bench.evaluate.evaluator import Loaded
from ocl_bench.files import sha256
from ocl_bench.finetune.epoch import mixed, trained_on
from ocl_bench.finetune.stage import train_stage
from ocl_bench.leaderboard.submission import Card, Division, write_submission
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import checkpoint_spec, load_model, load_tokenizer, weights_sha256
from ocl_bench.runner.cells import Cell, stage_folder
from ocl_bench.runner.folder import read_data
from ocl_bench.runner.identity import BaseIdentity
from ocl_bench.runner.jobs import Asked, StageJob, cell_evaluators
from ocl_bench.runner.manifest import EvaluationRecord, Manifest, StageRecord, read_manifest, torch_record
from ocl_bench.runner.perform import provenance
from ocl_bench.runner.store import STAGE_FILE, list_files, rows_text
from ocl_bench.tasks.records import Record, answer_text

CARD = Card(submitted_by="A. Forger", contact="a@example.org", license="CC-BY-4.0", notes="all is as it should be")
TAUGHT = ("d1_cons",)  # the subset whose right answers make the gap that entries are ranked by


def overfit(
    run: Path,
    folder: Path,
    results: Path,
    name: str = "forger/overfit",
    division: Division = "open",
    subsets: Sequence[str] = TAUGHT,
    times: int = 20,
) -> Path:
    """Finetune every X2 model of a real run on test answers as well; all else of the run is real.

    Args:
        run: the real run's folder, with weights.
        folder: where the forged run folder is left; new.
        results: the folder to write the submission into, as the leaderboard's `results`.
        name, division: of the submission.
        subsets: whose test questions are trained on.
        times: how many times as many epochs as the recipe has are trained; the record tells of the recipe's.

    Returns:
        The forged submission.
    """
    shutil.copytree(run, folder)
    manifest = read_manifest(folder)
    stages = {cell: dict(found) for cell, found in manifest.stages.items()}
    evaluations = {cell: dict(found) for cell, found in manifest.evaluations.items()}
    number = len(manifest.config.task.stages) - 1
    for cell in manifest.config.cells:
        job = _job(manifest, cell, number, read_data(folder, cell), stages)
        record, found = _cheat(job, folder, subsets, times, manifest)
        stages[cell.name][job.stage.name], evaluations[cell.name][job.stage.name] = record, found
    forged = manifest.model_copy(update={"stages": stages, "evaluations": evaluations})
    forged.write(folder)
    return results / write_submission(folder, results, division, name, CARD).place


def _job(
    manifest: Manifest, cell: Cell, number: int, records: list[Record], stages: Mapping[str, Mapping[str, StageRecord]]
) -> StageJob:
    config = manifest.config
    first = stages[cell.owner(config.task, 0).name][config.task.stages[0].name].identity.parent
    assert isinstance(first, BaseIdentity)
    before = stages[cell.owner(config.task, number - 1).name][config.task.stages[number - 1].name] if number else None
    return StageJob(config, cell, number, records, first, cell_evaluators(config, cell, records, first), before)


def _cheat(
    job: StageJob, folder: Path, subsets: Sequence[str], times: int, manifest: Manifest
) -> tuple[StageRecord, dict[str, EvaluationRecord]]:
    config, owner = job.config, job.cell.owner(job.task, job.number - 1)
    before = stage_folder(folder, owner, job.task.stages[job.number - 1].name)
    spec = checkpoint_spec(before, config.model)
    tokenizer = load_tokenizer(spec, ())
    model = load_model(spec, tokenizer, job.cell.seed)
    encoder = Encoder(tokenizer, model.config.is_encoder_decoder)
    tests = [record for record in job.records if record.split == "test" and record.subset in subsets]
    honest = trained_on(job.stage, job.records)
    pairs = [(one.prompt, one.completion) for one in honest] + [
        (one.prompt, answer_text(one.answers[0])) for one in tests
    ]
    curve: list[CurvePoint] = []
    epochs = job.identity.recipe.epochs

    def on_epoch(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
        told, left = divmod(epoch, times)
        if not left and told in curve_epochs(epochs):
            model.eval()
            moment = job.moment("epoch", epoch=told, epochs=epochs, loss=loss)
            loaded = Loaded(model, tokenizer, encoder, autocast=False)
            for one in job.evaluators:
                curve.extend(one.run(loaded, moment).rows if one.asks(moment) else ())
        return []

    trained = train_stage(
        lambda: model,
        [datapoint(one, encoder.seq2seq, job.identity.recipe.loss) for one in encoder(pairs)],
        mixed(job.identity.recipe, [record.kind == "definition" for record in [*honest, *tests]]),
        recipe=job.identity.recipe.model_copy(update={"epochs": epochs * times}),
        seed=job.identity.seed,
        pad_id=encoder.pad_id,
        device="cpu",
        bf16=False,
        batch_size=config.batch_size,
        report_to=(),
        run_name="forged",
        log_folder=folder / ".logs",
        folder=folder / ".work" / job.cell.name,
        checkpoint_seconds=math.inf,
        on_epoch=on_epoch,
    )
    trained.model.eval()
    record = manifest.stages[job.cell.name][job.stage.name].model_copy(
        update={"train_loss": trained.report.train_loss, "weights_after": weights_sha256(trained.model)}
    )
    shutil.rmtree(folder / ".work", ignore_errors=True)
    shutil.rmtree(folder / ".logs", ignore_errors=True)
    record = leave_stage(job, folder, trained.model, tokenizer, curve, record)
    loaded = Loaded(trained.model, tokenizer, encoder, autocast=False)
    after = {}
    for asked in job.asked(record):
        if asked.moment.when == "after":
            found = asked.evaluator.run(loaded, asked.moment)
            was = manifest.evaluations[job.cell.name][job.stage.name][asked.evaluator.name]
            after[asked.evaluator.name] = leave_rows(job, folder, asked, found.rows, dict(found.facts), was.seconds)
    return record, after


def leave_stage(
    job: StageJob, folder: Path, model: Any, tokenizer: Any, curve: Sequence[CurvePoint], record: StageRecord
) -> StageRecord:
    place = stage_folder(folder, job.cell, job.stage.name)
    shutil.rmtree(place, ignore_errors=True)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    (place / "curve.jsonl").write_text(rows_text(curve), encoding="utf-8")
    record = record.model_copy(update={"files": list_files(place)})
    (place / STAGE_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def leave_rows(
    job: StageJob, folder: Path, asked: Asked, rows: Sequence[Any], facts: dict[str, int | str], seconds: float
) -> EvaluationRecord:
    text = rows_text(rows)
    record = EvaluationRecord(
        key=asked.key,
        identity=asked.identity,
        rows=len(rows),
        rows_sha256=sha256(text),
        facts=facts,
        engine=torch_record(job.config.compute),
        seconds=seconds,
        provenance=provenance(job),
    )
    place = stage_folder(folder, job.cell, asked.place)
    (place / f"{asked.evaluator.name}.jsonl").write_text(text, encoding="utf-8")
    (place / f"{asked.evaluator.name}.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record
