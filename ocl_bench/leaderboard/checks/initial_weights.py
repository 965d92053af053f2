"""A model of random weights has the parameters and began with the weights that its configuration and seeds give."""

from collections.abc import Mapping

from ocl_bench.leaderboard.checks.consistency import is_word_level
from ocl_bench.leaderboard.checks.data import Dataset
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.initial import Initial
from ocl_bench.leaderboard.submission import CONFIG, MANIFEST
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.manifest import Manifest, Provenance, StageRecord, processor, versions
from ocl_bench.text import fitted


def begun_with(manifest: Manifest, datasets: Mapping[Cell, Dataset]) -> dict[int, list[str]]:
    """Seed of each initial weights → the words that its tokens are; empty if the tokenizer is not the suite's own."""
    first = _first(manifest)
    if not all(is_word_level(manifest, cell, datasets[cell]) for cell in first):
        return {}
    # Without pad, unknown and end.
    return {cell.init_seed(manifest.config.task): datasets[cell].words[3:] for cell in first}


def _first(manifest: Manifest) -> list[Cell]:
    """Cells that train the first stage themselves."""
    return [cell for cell in manifest.config.cells if cell.owner(manifest.config.task, 0) == cell]


def check_initial(checked: Checked, initial: Initial) -> None:
    """Make the initial weights again and compare; only of models with the suite's own tokenizer (`begun_with`).

    Weights are compared with those of the same processor, by name and vector units (older runs do not tell theirs: they
    are taken for those of here), and the same versions; and of another processor, if those of
    any of its seeds agree. Normal and uniform numbers are the same on every x86 processor that was tried, but Mamba's
    weights go through exp and log, whose last digits are not.
    """
    manifest = checked.manifest
    assert manifest is not None
    task, first = manifest.config.task, _first(manifest)
    args = manifest.config.model.args
    made = initial.of(checked.config, checked.begun_with, args.dtype, args.attn_implementation)
    if made is None:
        return
    if "error" in made:
        checked.add(CONFIG, "", f"no model can be made of it ({printable(str(made['error']))})")
        return
    if made["parameters"] != manifest.parameters:
        checked.add(MANIFEST, "parameters", f"is {manifest.parameters}; the configuration gives {made['parameters']}")
    name = task.stages[0].name
    again = {cell: made["weights"].get(str(cell.init_seed(task))) for cell in first}
    told = {cell: manifest.stages[cell.name][name] for cell in first}
    # Where one seed's are the same, its processor draws as this one does.
    here = made["vector_units"]
    alike = {_processor(told[cell], here) for cell, weights in again.items() if told[cell].weights_before == weights}
    alike.add((fitted(processor()), here))
    for cell, weights in again.items():
        comparable = _draws_the_same(told[cell].provenance) and _processor(told[cell], here) in alike
        if comparable and weights is not None and told[cell].weights_before != weights:
            where = f"stages.{cell.name}.{name}.weights_before"
            checked.add(MANIFEST, where, "is not what configuration and seed give")


def _draws_the_same(provenance: Provenance) -> bool:
    """Whether random weights were drawn with the versions that are here."""
    here = versions()
    same = (
        provenance.versions.get(package, "").partition("+")[0] == here.get(package, "").partition("+")[0]
        for package in ("torch", "transformers")
    )
    return all(same)


def _processor(record: StageRecord, here: str) -> tuple[str | None, str]:
    """Its name and vector units: virtual machines give one name to processors that have others."""
    hardware = record.provenance.hardware
    return hardware.get("processor"), hardware.get("vector_units", here)
