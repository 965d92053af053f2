"""What a submission's models were asked and have answered: the questions are built again from its task."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.checks.data import dataset_of
from ocl_bench.leaderboard.submission import SAMPLES, SubmittedAnswer
from ocl_bench.leaderboard.untrusted import Unreadable, printable, read_bytes, unpack
from ocl_bench.runner.answered import beside
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.score.gaps import final_stages
from ocl_bench.score.samples import Sample

_ROWS = TypeAdapter(list[SubmittedAnswer])


class SubmissionSamples:
    """Those of a submission, which need not have passed the checks; see `ocl_bench.score.selection.SampleSource`.

    Args:
        folder: the submission.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest = read_manifest(folder)
        config = self._manifest.config
        self.where, self.task = f"{config.model.name} ({folder})", config.task.task
        self.seeds, self.stages = config.seeds, [stage.name for stage in config.task.stages]
        self.scored_at: Mapping[str, str] = final_stages(config.task)

    def of_seed(self, seed: int) -> Iterator[Sample]:
        """All samples of a seed, in the order of stage-2 seeds and stages."""
        for cell in (cell for cell in self._manifest.config.cells if cell.seed == seed):
            try:
                records = {record.id: record for record in dataset_of(self._manifest, cell)}
            except OclBenchError as error:
                raise OclBenchError(f"{self.folder}: {printable(str(error))}") from None
            path = self.folder / cell.name / SAMPLES
            for one in self._answers(cell):
                yield from beside([one], records, one.stage, (cell.seed, cell.stage2_seed), path)

    def _answers(self, cell: Cell) -> list[SubmittedAnswer]:
        path = self.folder / cell.name / SAMPLES
        try:
            lines = unpack(read_bytes(path)).removesuffix(b"\n").split(b"\n")
            return _ROWS.validate_json(b"[%b]" % b",".join(lines), strict=True)
        except (Unreadable, ValidationError) as error:
            raise OclBenchError(
                f"{path}: not the answers of a submission ({printable(str(error).splitlines()[0])})."
            ) from None
