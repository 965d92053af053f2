"""Makes the finished stage that comes with a task: what `make release-model` calls."""

import shutil
import tempfile
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.files import folder_atomic
from ocl_bench.runner.execute import execute
from ocl_bench.runner.plan import choose, make_plan
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.schedule import Schedule
from ocl_bench.runner.store import STAGE_FILE, Store
from ocl_bench.runner.workers import Workers
from ocl_bench.tasks.load import TASK_FOLDER

CARD = "README.md"


def release_stage(name: str) -> Path:
    """Train what all seeds of a task share, and put it where runs look for it, beside the task file.

    The model card that lies there stays.

    Args:
        name: one of the suite's tasks, with an X0.

    Raises:
        OclBenchError: if the task has no stage that all seeds share.
    """
    with tempfile.TemporaryDirectory() as output, Workers() as workers:
        request = RunRequest.from_options(task=name, seeds=1, keep="all", output_path=Path(output), fresh=True)
        plan = make_plan(choose(request), request, lambda: None)
        task = plan.config.task
        if not task.shared_stages:
            raise OclBenchError(f"task '{name}' has no stage that trains on x0 alone; there is nothing to release.")
        execute(plan, request, workers, lambda message: None)
        store = Store(Path(output).absolute())
        schedule = Schedule(plan, store, adopts=False)
        schedule.look()
        job, record = next(done for done in schedule.done() if done[0].number == task.shared_stages - 1)
        place = TASK_FOLDER / task.task / job.stage.name
        card = (place / CARD).read_bytes() if (place / CARD).is_file() else None
        shutil.rmtree(place, ignore_errors=True)
        with folder_atomic(place) as folder:
            for file in (*record.files, STAGE_FILE):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(store.stage_path(record.key) / file, folder / file)
            if card is not None:
                (folder / CARD).write_bytes(card)
    return place
