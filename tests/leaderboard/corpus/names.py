"""Names that lead elsewhere, that some system cannot hold, or that look like another's."""

from corpus.attack import Attack, Bench
from corpus.changes import Act, card, manifest
from corpus.doors import checked
from corpus.outcome import Outcome

ORG, MODEL = r"submission\.json: org", r"submission\.json: model"


def named(org: str, model: str) -> Act:
    """The honest entry under another name, with all that is derived made to fit."""

    def act(bench: Bench) -> Outcome:
        forgery = bench.forgery()
        forgery.rename(org, model)
        return checked(forgery.write(bench.results), bench.folder)

    return act


def moved(*place: str) -> Act:
    """The honest entry in another folder than its own."""

    def act(bench: Bench) -> Outcome:
        copy = bench.copy()
        there = bench.results.joinpath(*place)
        aside = copy.path.rename(bench.folder / "aside")
        copy.path.parent.rmdir()
        there.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(there)
        return checked(there, bench.folder)

    return act


def beside_another_spelling(bench: Bench) -> Outcome:
    bench.copy()
    return named("Someone", "SMALL")(bench)


NAMES: dict[str, tuple[Act, str]] = {
    "a device": (named("con", "model"), ORG),
    "a device with an ending": (named("someone", "nul.txt"), MODEL),
    "a device's number": (named("com1", "model"), ORG),
    "two dots inside": (named("someone", "a..b"), MODEL),
    "an option": (named("-rf", "model"), ORG),
    "a hyphen at the end": (named("someone", "model-"), MODEL),
    "a hidden folder": (named(".git", "model"), ORG),
    "a dot at the end, which Windows drops": (named("someone", "model."), MODEL),
    "what separates organisation and model": (named("some__one", "model"), r"__ separates"),
    "a space": (named("some one", "model"), ORG),
    "a percent sign": (named("someone", "%2e%2e"), MODEL),
    "a colon, which names a stream": (named("someone", "model:x"), MODEL),
    "a letter of another alphabet": (named("som\u0435one", "small"), ORG),
    "a letter of full width": (named("\uff53omeone", "small"), ORG),
    "a sharp s, which folds to two": (named("someone", "stra\u00dfe"), MODEL),
    "a letter and its mark": (named("someone", "e\u0301"), MODEL),
    "a line": (named("someone", "model\n"), MODEL),
    "a command of a terminal": (named("someone", "\x1b[2Jmodel"), MODEL),
    "a formula of a spreadsheet": (named("someone", "=1+1"), MODEL),
    "longer than the hub's": (named("a" * 60, "b" * 60), r"more than 96 characters"),
    "nothing": (card("model", ""), MODEL),
    "a path up": (card("org", "../.."), ORG),
    "an absolute path": (card("model", "/etc"), MODEL),
    "a task that is a path": (card("task", "../attributes"), r"submission\.json: task"),
    "a task that is not the run's": (card("task", "reversal"), r"belongs into reversal"),
    "a revision that is a path": (card("revision", "../../x"), r"submission\.json: revision"),
    "a revision of uppercase": (card("revision", "config-5F782986EF1E"), r"submission\.json: revision"),
    "a revision that is another's": (card("revision", "config-0123456789ab"), r"revision: is not that of the model"),
    "a branch as revision": (card("revision", "main"), r"submission\.json: revision"),
    "a model that the manifest calls otherwise": (
        manifest("config", "model", "name", to="scratch:google/gemma"), r"is not that of the submission"
    ),
    "a model of another place than its name": (
        manifest("config", "model", "location", to="google/gemma"), r"is not that of the submission"
    ),
    "another's folder": (moved("attributes", "google__gemma", "config-0123456789ab"), r"belongs into"),
    "another task's folder": (moved("reversal", "someone__small", "config-0123456789ab"), r"belongs into"),
    "a folder too high": (moved("attributes", "someone__small"), r"belongs into"),
    "a folder too deep": (moved("attributes", "someone__small", "a", "b"), r"belongs into"),
    "a name that differs in case only": (beside_another_spelling, r"differs in upper and lower case only"),
}  # fmt: skip

ATTACKS = [Attack("names", name, act, said) for name, (act, said) in NAMES.items()]
