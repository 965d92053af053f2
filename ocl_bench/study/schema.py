"""The study file: which runs, and what is drawn of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ocl_bench.contract import Contract, read_yaml
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.tasks.load import TASK_FOLDER


class Variant(Contract):
    """What differs between models from random weights and pretrained ones."""

    task: str | None = Field(None, description="the task; null: that of the whole study")
    model: str | None = Field(None, description="the model; null: the one that the study is run with")
    set: tuple[str, ...] = Field((), description="overrides of the task or recipe")


class Point(Contract):
    """One run of a study."""

    label: str = Field(description="what the figure calls it")
    set: tuple[str, ...] = Field((), description="overrides that make it this point, as for `run --set`")
    scratch: Variant | None = Field(
        Variant(), description="further, for models from random weights; null: not a point of theirs"
    )
    pretrained: Variant | None = Field(
        Variant(), description="further, for pretrained models; null: not a point of theirs"
    )


class Study(Contract):
    """A study."""

    schema_version: Literal[1] = Field(1, description="version of this file format")
    study: str = Field(pattern=r"^[a-z0-9_]+$", description="the study's name")
    description: str = Field(description="one sentence for `ocl-bench ls`")
    paper: str = Field(description="what the paper reports, and where")
    axis: str = Field(description="what differs from point to point")
    ordered: bool = Field(True, description="whether the points follow one another, so that the figure joins them")
    points: tuple[Point, ...] = Field(min_length=1, description="the runs, in the order of the figure")
    scratch: Variant | None = Field(
        None, description="task and overrides of all points, for models from random weights; null: not for them"
    )
    pretrained: Variant | None = Field(
        None, description="task and overrides of all points, for pretrained models; null: not for them"
    )
    figure: Literal["gaps", "subsets", "mechanism"] = Field(
        description="gaps against the axis; subsets as bars, a panel a point; or what probes and gradients show of it"
    )

    @property
    def default_model(self) -> str | None:
        """The model to run it with when none is given; None where the points do not name theirs."""
        if self.scratch is not None:
            return self.scratch.model or "scratch:tiny"
        return next((point.pretrained.model for point in self.points if point.pretrained), None)

    def runs(self, pretrained: bool) -> list["Run"]:
        """The runs for a kind of model. Raises OclBenchError if the study is not for it."""
        kind = "pretrained" if pretrained else "scratch"
        common: Variant | None = getattr(self, kind)
        points = [] if common is None else [point for point in self.points if getattr(point, kind) is not None]
        if common is None or not points:
            raise OclBenchError(
                f"study '{self.study}' has no runs for {kind} models; give a --model of the other kind."
            )
        runs = []
        for point in points:
            own: Variant = getattr(point, kind)
            task = own.task or common.task
            if task is None:
                raise OclBenchError(f"study '{self.study}' names no task for {kind} models; add {kind}.task.")
            runs.append(Run(label=point.label, task=task, model=own.model, set=(*common.set, *point.set, *own.set)))
        return runs


class Run(Contract):
    """A point of a study, resolved for a kind of model."""

    label: str = Field(description="what the figure calls it")
    task: str = Field(description="the task")
    model: str | None = Field(description="the model; null: the one that the study is run with")
    set: tuple[str, ...] = Field(description="all overrides")


def study_files(include_path: Sequence[Path] = ()) -> dict[str, Path]:
    """Every study's name and file: `studies/*.yaml` in the suite's task folder and in those of `include_path`."""
    folders = [folder / "studies" for folder in (TASK_FOLDER, *include_path)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load_study(name: str, include_path: Sequence[Path] = ()) -> Study:
    """Load a study by name or by file. Raises OclBenchError naming the file, the key and the fix."""
    files = study_files(include_path)
    if name not in files and not name.endswith((".yaml", ".yml")):
        raise OclBenchError(f"unknown study '{name}'; {did_you_mean(name, files)}")
    path = files.get(name) or Path(name)
    study = Study.parse(read_yaml(path), str(path))
    if study.study != path.stem:
        raise OclBenchError(f"{path}: study is '{study.study}', but the file is called {path.name}; make them agree.")
    labels = [point.label for point in study.points]
    if len(set(labels)) < len(labels):
        raise OclBenchError(f"{path}: two points have the same label; rename one.")
    return study
