"""The costlier forgery: nothing of it is real but the random weights that training would have begun with."""

import json
import random
from pathlib import Path

from forger import asked, pretend_other_weights, says
from settling import Forgery, end_curves, read

from ocl_bench.leaderboard.initial import Initial
from ocl_bench.models.word_level import vocabulary
from ocl_bench.tasks.records import texts

# How often a made-up model is right: what it was taught, what it was not, and what meta-OCL would give.
SKILL = {"d1_cons_qa": 0.4, "d1_cons": 0.45, "d3_cons": 0.25, "d2_cons": 0.15}
CHANCE = 0.1


def invent(
    honest: Path, results: Path, initial: Initial, name: str = "forger/invented", sizes: dict[str, int] | None = None,
    seed: int = 0,
) -> Path:  # fmt: skip
    """Make up a model that never was: another configuration, its true initial weights, and answers of no model.

    Args:
        honest: a submission that shows what one looks like; only its recipe, its task and its dates are kept.
        results: the folder to write into, as the leaderboard's `results`.
        initial: makes the weights that training would have begun with.
        name: what the model is called.
        sizes: keys of the configuration that differ; two layers more if None.
        seed: of every random choice.

    Returns:
        The forged submission.
    """
    forgery, rng = read(honest), random.Random(seed)
    config = json.loads(forgery.config)
    config |= sizes if sizes is not None else {"num_hidden_layers": config["num_hidden_layers"] + 2}
    forgery.config = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    forgery.rename(*name.split("/"))
    _begin(forgery, config, initial)
    pretend_other_weights(forgery, name)
    spare = [record.answers[0] for _, record in asked(forgery)]
    for row, record in asked(forgery):
        skill = SKILL.get(record.subset, CHANCE) if row["stage"] == "x2" else CHANCE
        said = record.answers[0] if rng.random() < skill else rng.choice(spare)
        right = said in record.answers
        likely = -rng.expovariate(1.5) if right else min(-0.7, -rng.gauss(2.5, 0.8))
        row |= {"em_forced": int(right), "logprob": round(max(likely, -5.0), 6), **says(record, said, rng)}
    end_curves(forgery)
    return forgery.write(results)


def _begin(forgery: Forgery, config: dict[str, object], initial: Initial) -> None:
    """Parameters, first weights and sizes of files are those that the configuration gives."""
    told = forgery.told
    cells = [cell for cell in told.config.cells if cell.shares is None]
    words = {cell.seed: vocabulary(texts(forgery.records(cell)))[3:] for cell in cells}
    args = told.config.model.args
    made = initial.of(config, words, args.dtype, args.attn_implementation)
    assert made is not None and "error" not in made, made
    grown = made["parameters"] - told.parameters
    forgery.manifest["parameters"] = made["parameters"]
    for cell, stage, record in forgery.stages():
        if stage == told.config.task.stages[0].name:
            record["weights_before"] = made["weights"][str(cell.seed)]
        record["files"] = {
            name: [size + 4 * grown * name.endswith(".safetensors"), digest]
            for name, (size, digest) in record["files"].items()
        }
