"""The submission: what lies in `results/<task>/<org>__<model>/<revision>/`, and how a run becomes one.

submission.json            who submits what, and the checksums of the other files
results.json               metrics and gaps, and what probes and gradients say, if the task asks for them
manifest.json              how the run was made, without paths of the machine that it was made on
config.json                the model's configuration
<cell>/samples.jsonl.gz    what the model said, an answer a line: whatever can be derived is left out
<cell>/curves.jsonl.gz     the learning curve
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.answers import ANSWERS, LOWEST_LOGPROB, Answer, read_answers
from ocl_bench.files import folder_atomic, sha256, to_json_lines
from ocl_bench.leaderboard.untrusted import list_files, pack
from ocl_bench.models.spec import ModelSpec
from ocl_bench.plugins import own_parts_only
from ocl_bench.runner.cells import stage_folder
from ocl_bench.runner.folder import score_run
from ocl_bench.runner.manifest import Evaluations, Manifest, read_manifest
from ocl_bench.score.result import Results
from ocl_bench.tasks.sources import SOURCES
from ocl_bench.text import MAX_HUB_NAME, FileName, Identifier, Line, ModelName, Prose, Sha256, TaskName, spelled_out

Division = Literal["standard", "open"]

SUBMISSION, RESULTS, MANIFEST, CONFIG = "submission.json", "results.json", "manifest.json", "config.json"
SAMPLES, CURVES = "samples.jsonl.gz", "curves.jsonl.gz"

# Said of a source that another package brings.
NOT_OWN = "is none of ocl-bench's; data are built again for a check, and no other package's code is run for that"

_PART: TypeAdapter[str] = TypeAdapter(ModelName)

# Keys of config.json that are not the model's own.
ORIGIN = (
    "_name_or_path", "name_or_path", "transformers_version", "auto_map", "custom_pipelines",
    "_attn_implementation_autoset",
)  # fmt: skip


class Card(Contract):
    """What the submitter says."""

    submitted_by: Line = Field(description="who submits")
    contact: Line = Field(description="where questions go: an address or a page")
    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$", description="SPDX name of the model's licence")
    notes: Prose = Field("", description="anything that a reader should know; in the open division, what differs")


class Submission(Card):
    """submission.json."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    division: Division = Field(
        description="standard: the task's released data, standard seeds and recipe, unchanged; open: anything, stated"
    )
    task: TaskName = Field(description="the task's name")
    org: ModelName = Field(description="who made the model: an organisation or user, as on the hub")
    model: ModelName = Field(description="the model's name")
    revision: str = Field(
        pattern=r"^(?:[0-9a-f]{40}|config-[0-9a-f]{12}|weights-[0-9a-f]{12})$",
        description="commit of a hub model; sha256 of a configuration, for random weights, or of the weights",
    )
    files: dict[FileName, Sha256] = Field(description="path of every other file → sha256 of its bytes")

    @model_validator(mode="after")
    def _as_long_as_on_the_hub(self) -> "Submission":
        if len(self.name) > MAX_HUB_NAME:
            raise ValueError(f"org and model have more than {MAX_HUB_NAME} characters together; use a shorter name")
        return self

    @property
    def name(self) -> str:
        """The model's name."""
        return f"{self.org}/{self.model}"

    @property
    def place(self) -> str:
        """Its folder below `results`."""
        return f"{self.task}/{self.org}__{self.model}/{self.revision}"


class SubmittedAnswer(Answer):
    """A line of samples.jsonl.gz: what the model said to one question at the end of a stage."""

    stage: Identifier = Field(description="the finetuning stage at whose end it was asked")


class AnswerLine(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A `SubmittedAnswer` that is only read: in a fifth of the time, and a third of the memory."""

    id: str
    stage: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]{1,255}\Z")]
    em_forced: Annotated[int, msgspec.Meta(ge=0, le=1)]
    logprob: Annotated[float, msgspec.Meta(ge=LOWEST_LOGPROB, le=0)]
    generated: str
    choice: Annotated[int, msgspec.Meta(ge=0)] | None = None


_LINES = msgspec.json.Decoder(list[AnswerLine])


def decode_answers(lines: Iterable[bytes]) -> list[AnswerLine]:
    """Answers from lines as the suite writes them. Raises `msgspec.MsgspecError` or ValueError if any is none."""
    return _LINES.decode(b"[%b]" % b",".join(lines))


def answer_lines(answers: Iterable[SubmittedAnswer]) -> bytes:
    """The lines of samples.jsonl.gz: the same bytes for the same answers."""
    return to_json_lines(map(_line, answers)).encode()


def _line(one: SubmittedAnswer) -> dict[str, Any]:
    line = {"id": one.id, "stage": one.stage, "em_forced": one.em_forced, "logprob": one.logprob or 0}
    line["generated"] = one.generated
    return line if one.choice is None else line | {"choice": one.choice}


def write_submission(run: Path, folder: Path, division: Division, name: str | None, card: Card) -> Submission:
    """Write a finished run's submission into `folder/<place>`; a former one there is replaced.

    Args:
        run: a run folder.
        folder: the leaderboard's `results`.
        division: which one to submit to.
        name: `org/model` of a model that is not from the hub.
        card: what the submitter says.

    Raises:
        OclBenchError: if the run has not finished, the model needs a name, or the task's source is another package's.
    """
    manifest = read_manifest(run)
    if manifest.status != "complete":
        raise OclBenchError(f"{run}: the run's status is '{manifest.status}'; only a complete run can be submitted.")
    with own_parts_only():
        if manifest.config.task.source not in SOURCES:
            raise OclBenchError(f"{run}: source '{manifest.config.task.source}' {NOT_OWN}.")
    org, model = _name(manifest.config.model, name)
    config = _config(run, manifest)
    public = public_manifest(manifest, f"{org}/{model}")
    files = {
        MANIFEST: (public.model_dump_json(indent=2) + "\n").encode(),
        RESULTS: (_results(run, manifest, public).model_dump_json(indent=2) + "\n").encode(),
        CONFIG: config,
    }
    for cell in manifest.config.cells:
        stages = [stage_folder(run, cell, stage.name) for stage in cell.owned(manifest.config.task)]
        files[f"{cell.name}/{SAMPLES}"] = pack(answer_lines(_answers(stages)))
        curves = [folder / "curve.jsonl" for folder in stages]
        if all(path.is_file() for path in curves):
            files[f"{cell.name}/{CURVES}"] = pack(b"".join(path.read_bytes() for path in curves))
    said = {
        "schema_version": 1,
        "division": division,
        "task": manifest.config.task.task,
        "org": org,
        "model": model,
        "revision": revision(public, config),
        **card.model_dump(),
        "files": {path: sha256(content) for path, content in sorted(files.items())},
    }
    submission = Submission.parse(said, f"{run} as a submission")
    files[SUBMISSION] = (submission.model_dump_json(indent=2) + "\n").encode()
    with folder_atomic(folder / submission.place) as place:
        for path, content in files.items():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_bytes(content)
    return submission


def _results(run: Path, manifest: Manifest, public: Manifest) -> Results:
    """What the public manifest's answers give, and what was found in the models, which nobody can derive from these.

    What other packages' metrics and evaluators say stays out: the leaderboard runs none of them.
    """
    found = _evaluations(manifest, ("answers", "probes", "gradients"))
    with own_parts_only():
        return score_run(run, public.model_copy(update={"evaluations": found}))


def same_content(first: Path, second: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = list_files(first)[0]
    return names == list_files(second)[0] and all((first / n).read_bytes() == (second / n).read_bytes() for n in names)


def revision(manifest: Manifest, config: bytes) -> str:
    """What identifies the model exactly: its commit, its configuration, or the weights that it started from."""
    source = manifest.config.model.source
    if source == "hub":
        return manifest.model_revision or ""
    if source == "scratch":
        return f"config-{sha256(config)[:12]}"
    first = next(iter(next(iter(manifest.stages.values()), {}).values()), None)
    return f"weights-{(first.weights_before if first else '')[:12]}"


def public_manifest(manifest: Manifest, name: str) -> Manifest:
    """The manifest without what belongs to the machine that it was made on: paths, and lm-eval's tasks."""
    spec = manifest.config.model
    named = {"hub": spec.name, "scratch": f"scratch:{name}", "folder": name}[spec.source]
    model = spec.model_copy(update={"name": named, "location": named.removeprefix("scratch:")})
    config = manifest.config.model_copy(update={"model": model, "also_tasks": (), "also_path": ()})
    private = ("model", "output_path", "include_path", "also_tasks")
    passed = {key: value for key, value in manifest.passed.items() if key not in private}
    evaluations = _evaluations(manifest, ("answers",))
    return manifest.model_copy(update={"config": config, "passed": passed, "evaluations": evaluations})


def _evaluations(manifest: Manifest, names: Sequence[str]) -> Evaluations:
    """What some evaluators found, where there are answers."""
    return {
        cell: {
            place: {name: found[name] for name in names if name in found}
            for place, found in places.items()
            if "answers" in found
        }
        for cell, places in manifest.evaluations.items()
    }


def _answers(stages: Iterable[Path]) -> Iterator[SubmittedAnswer]:
    for folder in stages:
        yield from (SubmittedAnswer(stage=folder.name, **vars(one)) for one in read_answers(folder / ANSWERS))


def _config(run: Path, manifest: Manifest) -> bytes:
    """The configuration of the first checkpoint, without what is not the model's: where it came from, who saved it."""
    config = manifest.config
    path = stage_folder(run, config.cells[0], config.task.stages[0].name) / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{path}: the checkpoint's configuration cannot be read ({error}).") from None
    return (json.dumps(_without_origin(content), indent=2, sort_keys=True) + "\n").encode()


def _without_origin(value: Any) -> Any:
    """A configuration, at any depth, without where it came from and what code came along, which was not run."""
    if isinstance(value, dict):
        return {key: _without_origin(inner) for key, inner in value.items() if key not in ORIGIN}
    return [_without_origin(inner) for inner in value] if isinstance(value, list) else value


def _name(spec: ModelSpec, given: str | None) -> tuple[str, str]:
    name = given or (spec.name if spec.source == "hub" else "")
    if spec.source == "hub" and given not in (None, spec.name):
        raise OclBenchError(
            f"--name {spelled_out(given or '')}: the model is {spec.name} of the hub, and is called that; leave it out."
        )
    org, slash, model = name.rpartition("/")
    if not name or (spec.source != "hub" and not slash):
        raise OclBenchError(f"--name: {spec.name} is not from the hub; say how to call it, as --name org/model.")
    org = org or "hub"
    shown = spelled_out(name)
    if len(org) + 1 + len(model) > MAX_HUB_NAME:
        raise OclBenchError(f"--name {shown}: use at most {MAX_HUB_NAME} characters, as on the hub.")
    for part in (org, model):
        try:
            _PART.validate_python(part)
        except ValidationError:
            raise _bad_name(shown) from None
        if "__" in part:
            raise _bad_name(shown)
    return org, model


def _bad_name(shown: str) -> OclBenchError:
    return OclBenchError(
        f"--name {shown}: use letters, digits, dots and hyphens, as org/model; no '..', '__' or name of a device (con)."
    )
