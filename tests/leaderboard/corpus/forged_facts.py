"""Dates, hashes, versions and sizes that no run writes."""

from settling import Forgery

from corpus.attack import Attack
from corpus.changes import Act, forged, manifest, put, set_config, stage

EARLIER = "2026-01-02T03:04:05+00:00"  # than the run, but of the suite's first year
PROVENANCE = ("stages", "seed-0", "x1", "provenance")
ANSWERS = ("evaluations", "seed-0", "x1", "answers")


def weights_after(sha256: str) -> Act:
    """A training ended with weights of this hash."""
    return stage("weights_after", sha256)


def weights_before(sha256: str) -> Act:
    return forged(lambda forgery: put(forgery.manifest, "stages", "seed-0", "x1", "weights_before", to=sha256))


def prompts(forgery: Forgery) -> None:
    for found in forgery.manifest["evaluations"].values():
        for one in found.values():
            one["answers"]["facts"]["prompts_sha256"] = "b"


def files(change: object) -> Act:
    return stage("files", change)


def larger(forgery: Forgery) -> None:
    set_config(forgery, lambda config: config.update(hidden_size=4096))


def engine(**of: str) -> Act:
    """Another engine, everywhere."""

    def change(forgery: Forgery) -> None:
        forgery.manifest["engine"] |= of
        for found in forgery.manifest["evaluations"].values():
            for one in found.values():
                one["answers"]["engine"] |= of

    return forged(change)


FACTS: dict[str, tuple[Act, str]] = {
    "a run of the year 9999": (manifest("started", to="9999-12-31T23:59:59+00:00"), r"started"),
    "a run of the year 1": (manifest("started", to="0001-01-01T00:00:00+00:00"), r"started"),
    "a run of yesterday": (manifest("started", to="yesterday"), r"started"),
    "a run of the 30th of February": (manifest("started", to="2026-02-30T10:00:00+00:00"), r"started"),
    "a run without a time zone": (manifest("started", to="2026-11-20T10:00:00"), r"started"),
    "a run of no date": (manifest("started", to=""), r"started"),
    "a training before its run": (manifest(*PROVENANCE, "made", to=EARLIER), r"is before the run was started"),
    "X2 before X1": (
        manifest("stages", "seed-0", "x2", "provenance", "made", to=EARLIER), r"is before the stage before was trained"
    ),
    "answers before the training": (
        manifest(*ANSWERS, "provenance", "made", to=EARLIER), r"is before the stage was trained"
    ),
    "a training made in words": (manifest(*PROVENANCE, "made", to="long ago"), r"made"),
    "weights called a": (weights_after("a"), r"weights_after"),
    "weights of an uppercase hash": (weights_after("A" * 64), r"weights_after"),
    "weights of 63 digits": (weights_after("a" * 63), r"weights_after"),
    "weights of full-width digits": (weights_after("１" * 64), r"weights_after"),
    "weights with a newline behind": (weights_after("a" * 64 + "\n"), r"weights_after"),
    "weights before that no seed gives": (weights_before("e" * 64), r"weights_before"),
    "a key of the run that is none": (manifest("key", to="a"), r"key"),
    "prompts of a hash that is none": (forged(prompts), r"prompts_sha256"),
    "a file of a hash that is none": (
        files(lambda was: was | {"model.safetensors": [was["model.safetensors"][0], "x"]}), r"files"
    ),
    "a commit that is none": (manifest("commit", to="HEAD"), r"commit"),
    "a commit with an option": (manifest("commit", to="--upload-pack=touch x"), r"commit"),
    "weights of no bytes": (
        files(lambda was: was | {"model.safetensors": [0, was["model.safetensors"][1]]}), r"files|size|bytes"
    ),
    "weights of fewer bytes than none": (
        files(lambda was: was | {"model.safetensors": [-5, was["model.safetensors"][1]]}), r"files|size|bytes"
    ),
    "weights smaller than the parameters": (
        files(lambda was: was | {"model.safetensors": [1000, was["model.safetensors"][1]]}), r"files|size|bytes|param"
    ),
    "weights that lie elsewhere": (
        files(lambda was: was | {"../../model.safetensors": was["model.safetensors"]}), r"files"
    ),
    "a configuration of another size": (forged(larger), r"parameters|files|config"),
    "another torch than the engine's": (manifest("versions", "torch", to="1.0.0"), r"torch|version"),
    "another torch in training": (
        manifest(*PROVENANCE, "versions", "torch", to="1.0.0"), r"torch|version"
    ),
    "a version of three words": (manifest("versions", "numpy", to="the newest one"), r"versions\.numpy"),
    "no version at all": (manifest("versions", "torch", to=""), r"versions\.torch|torch"),
    "an engine that there is not": (engine(name="oracle"), r"engine"),
    "an engine of another version": (engine(version="9.9.9"), r"engine|torch"),
    "an engine of no known number format": (engine(dtype="float99"), r"dtype|engine"),
    "a precision that is not the run's": (engine(dtype="bfloat16"), r"dtype|engine"),
    "a task of version 0": (manifest("config", "task", "version", to=0), r"version"),
    "no hardware": (manifest("hardware", to={}), r"hardware"),
}  # fmt: skip

ATTACKS = [Attack("forged facts", name, act, said) for name, (act, said) in FACTS.items()]
