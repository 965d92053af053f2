"""The data that a submission's models were trained on and asked, built again from its task."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.sampling import subset_sample
from ocl_bench.files import sha256
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import CONFIG, MANIFEST
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.models.word_level import vocabulary
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import Manifest
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task, source_args, task_files
from ocl_bench.tasks.records import Record, serialize, texts
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import published_source

# A submission of an own task may ask for data of this size to be built.
MAX_ARGUMENT = 20_000
MAX_PRODUCT = 2 * 10**8


class Dataset(list[Record]):
    """The records of a cell. Each is serialised once, because parts of them are hashed again and again."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__(records)
        self._lines = {record.id: serialize([record]) for record in self}

    def sha256(self, records: Iterable[Record]) -> str:
        """What `dataset_sha256` gives for some of the records."""
        return sha256("".join(self._lines[record.id] for record in records))


@lru_cache(maxsize=64)
def _built(task: str, seed: int, stage2_seed: int) -> tuple[Dataset, str]:
    dataset = Dataset(build(Task.model_validate_json(task), seed, stage2_seed))
    return dataset, dataset.sha256(dataset)


def rebuild(checked: Checked, manifest: Manifest) -> dict[Cell, Dataset] | None:
    """The data of every cell, built from the task; None if they cannot be."""
    config = manifest.config
    own = config.task.task in task_files() and config.task == load_task(config.task.task)
    assert checked.submission is not None
    if not own and checked.submission.division == "standard":
        return None  # said already
    try:
        source_args(config.task)
        numbers = [value for value in config.task.source_args.values() if isinstance(value, int)]
        if any(number > MAX_ARGUMENT for number in numbers) or math.prod(numbers) > MAX_PRODUCT:
            raise OclBenchError("asks for more data than are built for a check.")
        source = published_source(config.task.source)
        if source is not None and source.state() == "absent":
            raise OclBenchError(
                f"its data are not here; run `ocl-bench data fetch {config.task.task}`, then check again."
            )
        datasets: dict[Cell, Dataset] = {}
        text = config.task.model_dump_json()
        for cell in config.cells:
            datasets[cell], digest = _built(text, cell.seed, cell.stage2_seed)
            if manifest.datasets.get(cell.name) != digest:
                checked.add(MANIFEST, f"datasets.{cell.name}", "is not what the task builds for this seed")
                if not own:
                    return None
        names = [cell.name for cell in datasets]
        if sorted(manifest.datasets) != sorted(names):
            checked.add(MANIFEST, "datasets", f"has not exactly the cells {', '.join(names)}")
    except OclBenchError as error:
        checked.add(MANIFEST, "config.task", printable(str(error)))
        return None
    return datasets


def check_vocabulary(checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset]) -> None:
    """In the standard division, a model from random weights has the task's own words for tokens."""
    standard = checked.submission is not None and checked.submission.division == "standard"
    if not standard or manifest.config.model.source != "scratch":
        return
    first = manifest.config.cells[0]
    words, tokens = len(vocabulary(texts(datasets[first]))), checked.config.get("vocab_size")
    if tokens != words:
        checked.add(CONFIG, "vocab_size", f"is {printable(str(tokens))}; the task's own tokenizer has {words} tokens")


def questions_of(records: Sequence[Record], manifest: Manifest, cell: Cell) -> list[Record]:
    """The questions that a cell was asked at the end of each of its stages."""
    tests = [one for one in records if one.split == "test"]
    if manifest.config.limit is None:
        return tests
    return [tests[n] for n in subset_sample(tests, manifest.config.limit, cell.seed)]
