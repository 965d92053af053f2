"""The data that a submission's models were trained on and asked, built again from its task."""

import math
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.questions import asked_after
from ocl_bench.evaluate.sampling import curve_sample
from ocl_bench.finetune.epoch import Pool, chosen, pools_of
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import CONFIG, MANIFEST
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.models.word_level import count_tokens, vocabulary
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.identity import vocabulary_sha256
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.metrics import group_values
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task, source_args, task_files
from ocl_bench.tasks.records import Record, dataset_sha256, texts
from ocl_bench.tasks.schema import Stage, Task
from ocl_bench.tasks.sources import SOURCES, published_source
from ocl_bench.tasks.subsets import SUBSETS, SWAPPED

# What may be built for one submission: `attributes` has 13,600 records a seed, which take half a second, and ten seeds.
MAX_RECORDS = 180_000
MAX_TASK_BYTES = 16_000  # the suite's have up to 2000
MAX_ARGUMENT = 20_000
MAX_PRODUCT = 10**7
# Last resort: some arguments make a source draw for ever. Ten seeds of `attributes` take 3 to 6 s.
BUILD_SECONDS = 12.0
# Five seeds of the suite's own tasks are always taken, but of `set_inclusion` at its full size, which takes gigabytes.
# `cvdb` and `trex` have up to 80,000 records a seed.
MAX_SUITE_RECORDS = 450_000


class Asked:
    """Questions that are asked together, and what several checks want of them."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self.by_id = {record.id: record for record in self.records}
        self._curves: dict[int, list[Record]] = {}

    @cached_property
    def ids(self) -> list[str]:
        """Their ids, in the order in which they are asked."""
        return list(self.by_id)

    @cached_property
    def sha256(self) -> str:
        """What `dataset_sha256` gives for them."""
        return dataset_sha256(self.by_id.values())

    def in_curves(self, per_subset: int) -> list[Record]:
        """Those that learning curves are of, of so many a subset."""
        if per_subset not in self._curves:
            numbers = curve_sample(self.records, per_subset)
            self._curves[per_subset] = [self.records[number] for number in numbers]
        return self._curves[per_subset]


class Dataset(list[Record]):
    """The records of a cell of a task. What several checks, or submissions of the same task, ask of it is found once.

    Nothing of it comes from a submission but the task that it was built of.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__(records)
        self._chosen: dict[str, list[tuple[Record, str]]] = {}
        self._trained: dict[str, tuple[list[Record], str]] = {}
        self._pools: dict[tuple[str, str], list[Pool]] = {}
        self._tokens: dict[tuple[str, str, int, bool], tuple[int, int]] = {}
        self._asked: dict[tuple[tuple[bool, bool], int | None, int], Asked] = {}

    def _chosen_by(self, stage: Stage) -> list[tuple[Record, str]]:
        key = stage.model_dump_json()
        if key not in self._chosen:
            self._chosen[key] = chosen(stage, self)
        return self._chosen[key]

    def trained_on(self, stage: Stage) -> tuple[list[Record], str]:
        """The records that a stage trains on, and their sha256."""
        key = stage.model_dump_json()
        if key not in self._trained:
            records = [record for record, _ in self._chosen_by(stage)]
            self._trained[key] = records, dataset_sha256(records)
        return self._trained[key]

    def pools(self, stage: Stage, recipe: StageRecipe) -> list[Pool]:
        """What an epoch of a stage has of them."""
        key = stage.model_dump_json(), recipe.model_dump_json()
        if key not in self._pools:
            self._pools[key] = pools_of(stage, recipe, self._chosen_by(stage))
        return self._pools[key]

    def asked_after(self, task: Task, stage: str, limit: int | None, seed: int) -> Asked:
        """The questions that are asked after a stage of the task that this is built of."""
        key = task.when([one.name for one in task.stages].index(stage)), limit, seed
        if key not in self._asked:
            self._asked[key] = Asked(asked_after(task, stage, self, limit, seed))
        return self._asked[key]

    @cached_property
    def values(self) -> dict[str, frozenset[str]]:
        """What answers may be; see `metrics.group_values`."""
        return group_values(self)

    def token_range(self, stage: Stage, recipe: StageRecipe, epochs: int, word_level: bool) -> tuple[int, int]:
        """Least and most tokens that a stage of so many epochs gives its model.

        Where each word is a token they are counted; other tokenizers have at most one for a byte, and three special
        ones. Over all epochs each record of a pool is used equally often, plus or minus one.
        """
        key = stage.model_dump_json(), recipe.model_dump_json(), epochs, word_level
        if key not in self._tokens:
            lengths = [
                (self.tokens[one.id],) * 2
                if word_level
                else (1, len(one.prompt.encode()) + len(one.completion.encode()) + 3)
                for one in self.trained_on(stage)[0]
            ]
            found = [0, 0]
            for pool in self.pools(stage, recipe):
                times, left = divmod(epochs * pool.per_epoch, max(1, len(pool.numbers)))
                for end in (0, 1):
                    own = [lengths[number][end] for number in pool.numbers]
                    found[end] += times * sum(own)
                    found[end] += sum(sorted(own, reverse=end == 1)[:left]) if left else 0
            self._tokens[key] = found[0], found[1]
        return self._tokens[key]

    @cached_property
    def words(self) -> list[str]:
        """What the suite's own tokenizer of these data has tokens for."""
        return vocabulary(texts(self))

    @cached_property
    def vocabulary(self) -> str:
        """Identity of the suite's own tokenizer of these data, which several checks ask for."""
        return vocabulary_sha256(self.words)

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Id → tokens that the suite's own tokenizer makes of a record that may be trained on, and of what ends it."""
        read = ((one, one.prompt if one.picture is None else "") for one in self if one.split != "test")
        return {one.id: count_tokens(prompt) + count_tokens(one.completion.strip()) + 1 for one, prompt in read}


@lru_cache(maxsize=64)
def suite_task(name: str) -> Task | None:
    """The suite's own task of this name."""
    return load_task(name) if name in task_files() else None


def is_own(task: Task) -> bool:
    """Whether a task is the suite's own, as far as it decides what is trained and scored."""
    own = suite_task(task.task)
    return own is not None and task.scored == own.scored


@lru_cache(maxsize=10)  # the standard seeds, which most submissions share
def _built(task: str, seed: int, stage2_seed: int, x0_seed: int) -> tuple[Dataset, str]:
    dataset = Dataset(build(Task.model_validate_json(task), seed, stage2_seed, x0_seed))
    return dataset, dataset_sha256(dataset)


def rebuild(checked: Checked, manifest: Manifest) -> dict[Cell, Dataset] | None:
    """The data of every cell, built from the task; None if they cannot be."""
    config = manifest.config
    own = is_own(config.task)
    assert checked.submission is not None
    if config.task.source not in SOURCES or (not own and checked.submission.division == "standard"):
        return None  # said already
    try:
        with nullcontext() if own else at_most(BUILD_SECONDS):
            _require_small(config.task, len(config.cells), own)
            datasets: dict[Cell, Dataset] = {}
            text = config.task.scored.model_dump_json()
            for cell in config.cells:
                datasets[cell], digest = _built(text, cell.seed, cell.stage2_seed, cell.x0_seed)
                if manifest.datasets.get(cell.name) != digest:
                    checked.add(MANIFEST, f"datasets.{cell.name}", "is not what the task builds for this seed")
                    if not own or len(datasets[cell]) * len(config.cells) > MAX_RECORDS:
                        return None
        names = [cell.name for cell in datasets]
        if sorted(manifest.datasets) != sorted(names):
            checked.add(MANIFEST, "datasets", f"has not exactly the cells {', '.join(names)}")
    except OclBenchError as error:
        checked.add(MANIFEST, "config.task", printable(str(error)))
        return None
    return datasets


def dataset_of(manifest: Manifest, cell: Cell) -> Dataset:
    """The data of one cell, built from the task. Raises OclBenchError if they are not those that were trained on."""
    task = manifest.config.task
    own = is_own(task)
    with nullcontext() if own else at_most(BUILD_SECONDS):
        _require_small(task, 1, own)
        dataset, digest = _built(task.scored.model_dump_json(), cell.seed, cell.stage2_seed, cell.x0_seed)
    if manifest.datasets.get(cell.name) != digest:
        raise OclBenchError(f"its task builds other data for {cell.name} than its manifest tells of.")
    return dataset


def _require_small(task: Task, cells: int, own: bool) -> None:
    """Refuse a task before it is built, if its data are too large or not here. Raises OclBenchError."""
    large = OclBenchError("asks for more data than are built for a check.")
    args = task.source_args.values()
    if not own:
        numbers = [abs(value) for value in args if isinstance(value, int)]
        if len(task.model_dump_json().encode()) > MAX_TASK_BYTES or any(number > MAX_ARGUMENT for number in numbers):
            raise large
        if math.prod(number for number in numbers if number) > MAX_PRODUCT:
            raise large
    source_args(task)
    source = published_source(task.source)
    if source is not None and source.state() == "absent":
        raise OclBenchError(f"its data are not here; run `ocl-bench data fetch {task.task}`, then check again.")
    records = expected_records(task)
    # Of the suite's own, a standard submission is always taken, unless it takes gigabytes.
    most = max(MAX_RECORDS, min(task.seeds * records, MAX_SUITE_RECORDS) if own else 0)
    if records * cells > most:
        raise OclBenchError(
            f"has about {records * cells} records in {cells} trainings, and at most {most} are built for a check; "
            "submit fewer."
        )


def expected_records(task: Task) -> int:
    """How many records a cell of a task has, but for rounding, without building them."""
    args = source_args(task)
    few = args.model_copy(update={"num_entities": 2})
    questions = max(len(entity.questions) for entity in SOURCES.load(task.source)().entities(few))
    design, sets = task.design, task.evaluate.sets
    recall = design.phrasings * ("recall" in sets)
    tags = {SUBSETS[name].tag for name, share in design.fractions.items() if share > 0} & {1, 2, 3}
    total = 0.0
    for name, share in design.fractions.items():
        subset, asked = SUBSETS[name], questions
        if subset.replaced:
            asked += len(task.evaluate.attribution) * (1 if subset.consistent else 2) * ("attribution" in sets)
            asked += ("bare_variable" in sets) + len(tags) * ("cloze" in sets)
        told = design.phrasings if subset.tag is not None and not design.in_context else 0
        recalled = recall * (subset.replaced and subset.tag is not None)
        total += share * (told + recalled + asked * (2 if name in SWAPPED and "swapped" in sets else 1))
    x0 = design.x0
    before = 0 if x0 is None else 2 * questions + x0.aliases * (questions + x0.definitions)
    return round((total * design.variables_per_entity + before) * int(args.num_entities))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End a block that takes more processor time, with an OclBenchError. Only the main thread can: others wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise OclBenchError(f"takes more than {seconds:g} s of processor time to build.")

    former = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def check_vocabulary(checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset]) -> None:
    """In the standard division, a model from random weights has the task's own words for tokens."""
    standard = checked.submission is not None and checked.submission.division == "standard"
    if not standard or manifest.config.model.source != "scratch":
        return
    first = manifest.config.cells[0]
    words, tokens = len(datasets[first].words), checked.config.get("vocab_size")
    if tokens != words:
        checked.add(CONFIG, "vocab_size", f"is {printable(str(tokens))}; the task's own tokenizer has {words} tokens")


def questions_of(records: Dataset, manifest: Manifest, cell: Cell, stage: str) -> Asked:
    """The questions that a cell was asked at the end of one of its stages."""
    return records.asked_after(manifest.config.task, stage, manifest.config.limit, cell.seed)
