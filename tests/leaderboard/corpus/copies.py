"""An accepted entry's work under another name. Both lie in the board, as a maintainer would check them."""

import random
from collections.abc import Callable
from typing import Any

from forger import change_answers, copy, pretend_other_weights, says
from settling import Forgery

from corpus.attack import Attack, Bench
from corpus.changes import Act, set_config
from corpus.doors import validated
from corpus.outcome import Outcome

NAME = "another/model"
SAID = r"its (answers|weights) are those of"


def beside(*makers: Callable[[Bench], Any]) -> Act:
    """The honest entry, and what is made of it."""

    def act(bench: Bench) -> Outcome:
        bench.copy()
        for make in makers:
            make(bench)
        return validated(bench.results, within=bench.folder)

    return act


def renamed(change: Callable[[Forgery], Any], name: str = NAME) -> Act:
    """The honest entry under another name, changed."""

    def make(bench: Bench) -> None:
        forgery = bench.forgery()
        change(forgery)
        forgery.rename(*name.split("/"))
        forgery.write(bench.results)

    return beside(make)


def only_generated(forgery: Forgery) -> None:
    pretend_other_weights(forgery, NAME)
    for rows in forgery.answers.values():
        for row in rows[::7]:
            row["generated"] = row["generated"] if row["em_forced"] else "nothing"


def only_weights(forgery: Forgery) -> None:
    change_answers(forgery, lambda row: round(row["logprob"] * 1.37, 6))


def one_seed(forgery: Forgery) -> None:
    pretend_other_weights(forgery, NAME)
    forgery.manifest["config"]["seeds"] = [0]
    for part in (forgery.manifest["stages"], forgery.manifest["evaluations"], forgery.answers, forgery.curves):
        del part["seed-1"]


def other_order(forgery: Forgery) -> None:
    pretend_other_weights(forgery, NAME)
    forgery.manifest["config"]["seeds"] = [1, 0]


def one_stage(forgery: Forgery) -> None:
    """X1 has other answers; those of X2 are another's."""
    pretend_other_weights(forgery, NAME)
    for rows in forgery.answers.values():
        for row in rows:
            if row["stage"] == "x1":
                row["logprob"] = round(row["logprob"] * 1.37, 6)


def shifted(forgery: Forgery) -> None:
    pretend_other_weights(forgery, NAME)
    change_answers(forgery, lambda row: round(row["logprob"] - 0.25, 6))


def other_configuration(forgery: Forgery) -> None:
    pretend_other_weights(forgery, NAME)
    set_config(forgery, lambda config: config.update(classifier_dropout=0.2))


def fewer_questions(forgery: Forgery) -> None:
    """A smaller limit, and of the answers those that it asks."""
    pretend_other_weights(forgery, NAME)
    forgery.manifest["config"]["limit"] = 8
    rows = {cell: {(row["stage"], row["id"]): row for row in own} for cell, own in forgery.answers.items()}
    for cell in forgery.told.config.cells:
        forgery.answers[cell.name] = [
            rows[cell.name].get((stage, id))
            or {"id": id, "stage": stage, "em_forced": 0, "logprob": -2.5, **says(record, "nothing", random.Random(id))}
            for stage in ("x1", "x2")
            for id, record in forgery.questions(cell, stage).items()
        ]


def many(bench: Bench) -> None:
    for number in range(6):
        copy(bench.honest, bench.results, f"org-{number}/model", noise=0.002, seed=number)


COPIES: dict[str, Act] = {
    "another's run, to the last byte": renamed(lambda forgery: None),
    "another's answers, with weights of its own": renamed(lambda forgery: pretend_other_weights(forgery, NAME)),
    "another's answers, with a little noise": beside(lambda b: copy(b.honest, b.results, NAME, noise=0.002)),
    "another's answers, each a quarter less likely": renamed(shifted),
    "another's log-probabilities, with other words": renamed(only_generated),
    "another's weights, with answers of its own": renamed(only_weights),
    "one seed of another's": renamed(one_seed),
    "another's seeds, in another order": renamed(other_order),
    "another's X2, after an X1 of its own": renamed(one_stage),
    "another's answers, for a model that differs by name": renamed(other_configuration),
    "another's answers, fewer of them": renamed(fewer_questions),
    "another's run, under a name that differs in case": renamed(lambda forgery: None, "Someone/Small"),
    "another's run, as another model of the same maker": renamed(lambda forgery: None, "someone/small-2"),
    "six copies with noise": beside(many),
}

# Only entries that were asked the same questions are compared, which is why nobody may leave some out.
OTHERWISE = {
    "another's answers, fewer of them": r"config\.limit: only 8 questions per subset",
    "another's run, under a name that differs in case": rf"{SAID}|upper and lower case only",
}
ATTACKS = [
    Attack("copies", name, act, OTHERWISE.get(name, SAID), allowed=8.0 if "six copies" in name else 3.0)
    for name, act in COPIES.items()
]
