"""Ways to change a submission: as files, and in memory with all that is derived made to fit."""

import json
from collections.abc import Callable
from typing import Any

from settling import Forgery, Row
from tampering import Copy

from corpus.attack import Bench
from corpus.doors import checked
from corpus.outcome import Outcome

Act = Callable[[Bench], Outcome]


def forged(change: Callable[[Forgery], Any]) -> Act:
    """Change a submission in memory, write it with all that is derived made to fit, and have it checked."""

    def act(bench: Bench) -> Outcome:
        forgery = bench.forgery()
        change(forgery)
        return checked(forgery.write(bench.results), bench.folder)

    return act


def tampered(change: Callable[[Copy], Any]) -> Act:
    """Change the files of a submission, make the checksums fit, and have it checked."""

    def act(bench: Bench) -> Outcome:
        copy = bench.copy()
        change(copy)
        copy.rehash()
        return checked(copy.path, bench.folder)

    return act


def put(value: Any, *keys: Any, to: Any) -> None:
    """Set what lies at some keys; a function as `to` gets what is there."""
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = to(value[keys[-1]]) if callable(to) else to


def manifest(*keys: Any, to: Any) -> Act:
    """Another value in manifest.json, of which nothing else is derived."""
    return tampered(lambda copy: copy.edit("manifest.json", lambda value: put(value, *keys, to=to)))


def stage(key: str, to: Any, name: str = "x1", cell: str = "seed-0") -> Act:
    """Another value in what the manifest says of a training."""
    return manifest("stages", cell, name, key, to=to)


def card(key: str, to: Any) -> Act:
    """Another value in submission.json."""
    return tampered(lambda copy: copy.edit("submission.json", lambda value: put(value, key, to=to)))


def every_answer(change: Callable[[Row], Any]) -> Act:
    """Change each answer."""
    return forged(lambda forgery: [change(row) for rows in forgery.answers.values() for row in rows])


def every_point(change: Callable[[Row], Any]) -> Act:
    """Change each point of the learning curves."""
    return forged(lambda forgery: [change(row) for rows in forgery.curves.values() for row in rows])


def config(change: Callable[[Row], Any]) -> Act:
    """Change the model's configuration; revision and place fit it."""
    return forged(lambda forgery: set_config(forgery, change))


def set_config(forgery: Forgery, change: Callable[[Row], Any]) -> None:
    """Change the configuration of a submission in memory."""
    value = json.loads(forgery.config)
    change(value)
    forgery.config = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
