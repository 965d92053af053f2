"""What runs and evaluations were asked and have answered, read back from their folders."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import ANSWERS, Answer, read_answers
from ocl_bench.runner.cells import stage_folder
from ocl_bench.runner.checkpoint import DATA
from ocl_bench.runner.folder import read_data, read_results
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.score.gaps import final_stages
from ocl_bench.score.samples import Sample
from ocl_bench.tasks.records import Record, read_dataset


def beside(
    answers: list[Answer], records: Mapping[str, Record], stage: str, seeds: tuple[int, int], where: Path
) -> Iterator[Sample]:
    """Put answers beside their questions. Raises OclBenchError if one was not asked."""
    for answer in answers:
        if answer.id not in records:
            raise OclBenchError(f"{where}: holds an answer to '{answer.id}', which the data beside it do not ask.")
        yield Sample(records[answer.id], answer, stage, *seeds)


class RunSamples:
    """Those of a run, as far as it has come; see `ocl_bench.score.selection.SampleSource`.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config = read_manifest(folder).config
        self.where, self.task = f"{self._config.model.name} ({folder})", self._config.task.task
        self.seeds, self.stages = self._config.seeds, [stage.name for stage in self._config.task.stages]
        self.scored_at: Mapping[str, str] = final_stages(self._config.task)

    def of_seed(self, seed: int) -> Iterator[Sample]:
        """All samples of a seed, in the order of stage-2 seeds and stages."""
        for cell in (cell for cell in self._config.cells if cell.seed == seed):
            records: dict[str, Record] = {}
            for stage in cell.owned(self._config.task):
                path = stage_folder(self.folder, cell, stage.name) / ANSWERS
                if path.is_file():
                    records = records or {record.id: record for record in read_data(self.folder, cell)}
                    yield from beside(read_answers(path), records, stage.name, (cell.seed, cell.stage2_seed), path)


class EvaluationSamples:
    """Those of a checkpoint that was evaluated as it is; see `ocl_bench.score.selection.SampleSource`.

    Args:
        folder: what `ocl-bench eval` made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        results = read_results(folder)
        self.where, self.task = f"{results.model} ({folder})", results.task
        for name in (ANSWERS, DATA):
            if not (folder / name).is_file():
                raise OclBenchError(f"{folder}: there is no {name}; name a folder of a run, evaluation or submission.")
        values = (
            one
            for scores in (results.metrics, *(own.metrics for own in results.sets.values()))
            for metrics in scores.values()
            for one in metrics.values()
        )
        self._stage = next(one.stage for one in values)
        self._stage2_seed = results.stage2_seeds[0]
        self.seeds, self.stages = results.seeds, [self._stage]
        self._records = {record.id: record for record in read_dataset(folder / DATA)}
        self.scored_at: Mapping[str, str] = dict.fromkeys(
            (record.subset for record in self._records.values()), self._stage
        )

    def of_seed(self, seed: int) -> Iterator[Sample]:
        """All samples."""
        path = self.folder / ANSWERS
        yield from beside(read_answers(path), self._records, self._stage, (seed, self._stage2_seed), path)
