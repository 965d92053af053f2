"""Take weights that a submitter handed over into the store of a run, as stages that are trained already.

Of what was handed over only tensors are read. Configuration and tokenizer are the run's own, and the weights have to be
those whose sha256 the submission named before anybody could know which seeds would be asked for.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ocl_bench.errors import OclBenchError
from ocl_bench.files import folder_atomic
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import StageRecord

INDEX = "model.safetensors.index.json"


class Handed(msgspec.Struct, frozen=True):
    """The weights that one stage of one seed left.

    Attributes:
        seed: stage-1 seed.
        stage: number of the stage, from 0.
        files: its *.safetensors.
        record: what the submission says of the stage, as JSON.
    """

    seed: int
    stage: int
    files: list[str]
    record: str


def take_in(request: dict[str, Any], handed: Sequence[Handed]) -> None:
    """Put handed weights into the store that a run is about to use.

    Args:
        request: arguments of `ocl_bench.run`, its model arguments among them.
        handed: every stage before X2 of each seed, in order; those that seeds share, once.

    Raises:
        OclBenchError: if weights cannot be loaded, or are not those of the submission.
    """
    from ocl_bench.runner.identity import base_identity
    from ocl_bench.runner.jobs import StageJob, cell_evaluators
    from ocl_bench.runner.plan import choose, make_plan
    from ocl_bench.runner.request import RunRequest
    from ocl_bench.runner.store import Store

    run = RunRequest.from_options(**request)
    plan = make_plan(choose(run), run, lambda: None)
    store = Store(run.output_path.absolute())
    config, task = plan.config, plan.config.task
    first = {cell.seed: cell for cell in config.cells if cell.shares is None}
    left: dict[tuple[Cell, int], StageRecord] = {}
    for one in handed:
        # What seeds share was trained by a seed that need not be one of those challenged.
        shared = one.stage < task.shared_stages and not config.own_x0
        cell = config.cells[0] if shared else first[one.seed]
        begun, before = cell.owner(task, 0), (cell.owner(task, max(0, one.stage - 1)), one.stage - 1)
        base = base_identity(config.model, plan.records[begun], begun.init_seed(task))
        evaluators = cell_evaluators(config, cell, plan.records[cell], base)
        job = StageJob(config, cell, one.stage, plan.records[cell], base, evaluators, left.get(before))
        left[cell, one.stage] = _write(job, store, one)


def _write(job: Any, store: Any, handed: Handed) -> StageRecord:
    """Leave a complete stage folder, all of it made here but the numbers in the weights."""
    from ocl_bench.models.load import checkpoint_spec, fitted, load_config, load_model, load_tokenizer, weights_sha256
    from ocl_bench.runner.store import STAGE_FILE, list_files
    from ocl_bench.tasks.records import texts

    said = StageRecord.model_validate_json(handed.record)
    tokenizer = load_tokenizer(job.config.model, texts(job.records))
    config = fitted(job.config.model, load_config(job.config.model), tokenizer)
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _copy(handed.files, folder)
        try:
            model = load_model(checkpoint_spec(folder, job.config.model), tokenizer, job.cell.seed)
        except Exception as error:  # whatever is in the files
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OclBenchError(f"the weights of {job.name} cannot be loaded ({reason}).") from None
    if weights_sha256(model) != said.weights_after:
        raise OclBenchError(f"the weights of {job.name} are not those whose sha256 the submission has.")
    with folder_atomic(store.stage_path(job.key)) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        record = said.model_copy(
            update={"key": job.key, "identity": job.identity, "files": list_files(folder), "rows": {}}
        )
        (folder / STAGE_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def _copy(files: Sequence[str], folder: Path) -> None:
    """Copy weights, and write which tensor is in which file, where there are several."""
    import json

    from safetensors import safe_open

    if len(files) == 1:
        shutil.copyfile(files[0], folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, path in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        shutil.copyfile(path, folder / name)
        with safe_open(folder / name, framework="pt") as tensors:
            places |= dict.fromkeys(tensors.keys(), name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
