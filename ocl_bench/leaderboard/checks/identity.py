"""Submission, place, manifest and configuration speak of the same run, and it is one that its division takes."""

from collections.abc import Iterator, Mapping

from ocl_bench.leaderboard.checks.data import is_own, suite_task
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import (
    CONFIG,
    CURVES,
    MANIFEST,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    Submission,
    revision,
)
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.runner.manifest import Manifest, Provenance
from ocl_bench.runner.plan import is_standard


def check_place(checked: Checked) -> None:
    """It lies where its task, model and revision belong."""
    assert checked.submission is not None
    if "__" in checked.submission.org or "__" in checked.submission.model:
        checked.add(SUBMISSION, "model", "__ separates organisation and model; leave it out of both")
    there = "/".join(checked.folder.resolve().parts[-3:])
    if there != checked.submission.place:
        checked.add(SUBMISSION, "", f"belongs into {checked.submission.place}, not {printable(there)}")


def check_identity(checked: Checked, contents: Mapping[str, bytes]) -> None:
    """Submission, manifest, results and configuration speak of the same run."""
    submission, manifest = checked.submission, checked.manifest
    assert submission is not None and manifest is not None
    spec, task = manifest.config.model, manifest.config.task
    name = f"{submission.org}/{submission.model}"
    if spec.source == "hub":
        fits = spec.name == name or (submission.org == "hub" and spec.name == submission.model)
        fits = fits and spec.location == spec.name
    else:
        fits = spec.name == ("scratch:" if spec.source == "scratch" else "") + name and spec.location == name
    if not fits:
        checked.add(MANIFEST, "config.model.name", f"is not that of the submission, {name}")
    if task.task != submission.task:
        checked.add(MANIFEST, "config.task.task", f"is not that of the submission, {submission.task}")
    if CONFIG in contents and submission.revision != revision(manifest, contents[CONFIG]):
        checked.add(SUBMISSION, "revision", "is not that of the model")
    if manifest.status != "complete":
        checked.add(MANIFEST, "status", f"is '{manifest.status}'; only a complete run is taken")
    for package in ("python", "ocl-bench", "torch", "transformers"):
        if package not in manifest.versions:
            checked.add(MANIFEST, f"versions.{package}", "is missing")
    for key in ("also_tasks", "also_path"):
        if getattr(manifest.config, key):
            checked.add(MANIFEST, f"config.{key}", "is not part of a submission")


def check_files(checked: Checked, contents: Mapping[str, bytes]) -> None:
    """Every file that the run gives is there, and no other."""
    assert checked.manifest is not None
    names = [cell.name for cell in checked.manifest.config.cells]
    needed = {SUBMISSION, MANIFEST, RESULTS, CONFIG, *(f"{cell}/{SAMPLES}" for cell in names)}
    allowed = needed | {f"{cell}/{CURVES}" for cell in names}
    for name in sorted(set(contents) - allowed):
        checked.add(name, "", "does not belong into this submission")
    for name in sorted(needed - set(contents)):
        if not any(problem.file == name for problem in checked.problems):
            checked.add(name, "", "is missing")


def check_division(checked: Checked, submission: Submission, manifest: Manifest) -> None:
    """The run is one that its division takes."""
    config = manifest.config
    modified = not is_standard(config.model, config.task, config.recipe)
    if config.modified != modified:
        checked.add(MANIFEST, "config.modified", f"should be {str(modified).lower()}")
    if config.limit is not None:
        checked.add(
            MANIFEST, "config.limit", f"only {config.limit} questions per subset were asked; run without a limit"
        )
    if submission.division == "open":
        if not submission.notes:
            checked.add(SUBMISSION, "notes", "say what differs from the standard division")
        return
    name, own = config.task.task, suite_task(config.task.task)
    if own is None:
        checked.add(
            MANIFEST, "config.task.task", f"'{printable(name)}' is not a task of the suite; use the open division"
        )
    elif not is_own(config.task):
        versions = config.task.version, own.version
        what = "was changed" if versions[0] == versions[1] else "is version {}, the suite's is {}".format(*versions)
        checked.add(MANIFEST, "config.task", f"the task {what}; run the suite's own")
    elif modified:
        checked.add(MANIFEST, "config", "recipe or model loading differ from the suite's own; use the open division")
    missing = sorted(set(config.task.standard_seeds) - set(config.seeds))
    if missing:
        checked.add(MANIFEST, "config.seeds", f"lacks the standard seeds {', '.join(map(str, missing))}")
    if 0 not in config.stage2_seeds:
        checked.add(MANIFEST, "config.stage2_seeds", "lacks the standard stage-2 seed 0")
    if config.model.source == "folder":
        checked.add(
            MANIFEST, "config.model.source", "nobody else has these weights; publish them, or use the open division"
        )
    if manifest.dirty or any(one.dirty for one in provenances(manifest)):
        checked.add(
            MANIFEST, "dirty", "code or tasks had uncommitted changes; run again, with --fresh, from a clean checkout"
        )


def provenances(manifest: Manifest) -> Iterator[Provenance]:
    """Where each stage and each evaluation was made."""
    for stages in manifest.stages.values():
        yield from (record.provenance for record in stages.values())
    for places in manifest.evaluations.values():
        for found in places.values():
            yield from (record.provenance for record in found.values())
