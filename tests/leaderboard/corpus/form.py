"""Texts that a reader would not see as what they are, or that a page, a table or a terminal would obey."""

from collections.abc import Callable
from typing import Any

from settling import Forgery

from corpus.attack import Attack, Bench
from corpus.changes import Act, card, manifest, put, set_config
from corpus.doors import built, checked
from corpus.outcome import Outcome

MARKUP, LINES, MARKS, SPACE = r"holds <, >", r"more than one line", r"combining marks", r"begins or ends with a space"

# name → (what the submitter is called, what has to be said)
CALLED: dict[str, tuple[str, str]] = {
    "a second line": ("A\nB", LINES),
    "a line for another system": ("A\r\nB", MARKUP),
    "a tab": ("A\tB", MARKUP),
    "a bar of a table": ("A | B", MARKUP),
    "a link": ("[A](https://example.org)", MARKUP),
    "an image": ("![A](https://example.org/a.png)", MARKUP),
    "a reference": ("[A][1]", MARKUP),
    "an element": ("<b>A</b>", MARKUP),
    "a comment that never ends": ("A <!-- ", MARKUP),
    "code": ("`A`", MARKUP),
    "an end of the page's script": ("</script><script>alert(1)</script>", MARKUP),
    "text that runs backwards": ("\u202egnp.A", MARKUP),
    "an isolate": ("\u2066A\u2069", MARKUP),
    "a mark of direction": ("A\u200f", MARKUP),
    "a NUL": ("A\0", MARKUP),
    "a command of a terminal": ("A\x1b[2J", MARKUP),
    "a command of a terminal, in one byte": ("A\x9b2J", MARKUP),
    "a link of a terminal": ("\x1b]8;;https://example.org\x07A\x1b]8;;\x07", MARKUP),
    "a backspace": ("AB\b", MARKUP),
    "a space of no width": ("A\u200bB", MARKUP),
    "a joiner": ("A\u200dB", MARKUP),
    "a soft hyphen": ("A\u00adB", MARKUP),
    "a mark of byte order": ("\ufeffA", MARKUP),
    "a filler": ("\u3164", MARKUP),
    "an empty cell of braille": ("\u2800", MARKUP),
    "a selector": ("A\ufe0f", MARKUP),
    "tags, which spell unseen": ("A\U000e0041\U000e0042", MARKUP),
    "selectors, which hold bytes unseen": ("A\U000e0100\U000e0155", MARKUP),
    "a private character": ("\ue000", MARKUP),
    "an unassigned character": ("\u0378", MARKUP),
    "no character at all": ("\uffff", MARKUP),
    "a separator of lines": ("A\u2028B", MARKUP),
    "a next line": ("A\x85B", MARKUP),
    "a space that does not break": ("A\u00a0B", MARKUP),
    "a heap of marks": ("A" + "\u0301" * 30, MARKS),
    "a space at the end": ("A ", SPACE),
    "only a space": (" ", SPACE),
    "nothing": ("", r"at least 1"),
    "more than a line": ("A" * 201, r"at most 200"),
    "a number": (7, r"submitted_by"),
}


def half(bench: Bench) -> Outcome:
    """Half a character, which JSON can spell and UTF-8 cannot."""
    copy = bench.copy()
    copy.replace("submission.json", "A. Researcher", "A\\ud83d")
    return checked(copy.path, bench.folder)


def cut(bench: Bench) -> Outcome:
    """A byte that begins a character which does not follow."""
    copy = bench.copy()
    content = (copy.path / "submission.json").read_bytes()
    copy.write("submission.json", content.replace(b"A. Researcher", b"A\xff", 1))
    return checked(copy.path, bench.folder)


# Where else a text stands → (the change, what has to be said)
PLACES: dict[str, tuple[Act, str]] = {
    "half a character": (half, r"surrogate"),
    "a byte that is none": (cut, r"UTF-8"),
    "an address that is a link": (card("contact", "<https://example.org>"), r"contact"),
    "an address of two lines": (card("contact", "a@example.org\nBcc: b@example.org"), r"contact"),
    "a licence in words": (card("license", "see the page"), r"license"),
    "a licence that is a link": (card("license", "[MIT](https://example.org)"), r"license"),
    "notes with an image": (card("notes", "few ![](https://example.org/x.png)"), r"notes"),
    "notes that run backwards": (card("notes", "\u202efew"), r"notes"),
    "notes that never end": (card("notes", "few " * 600), r"notes"),
    "a key that nobody knows": (card("rank", 1), r"rank"),
    "a version of the format to come": (card("schema_version", 2), r"schema_version"),
    "a division of its own": (card("division", "gold"), r"division"),
    "a processor with an element": (manifest("hardware", "processor", to="<img src=x onerror=alert(1)>"), r"hardware"),
    "a processor of two lines": (manifest("hardware", "processor", to="Xeon\n| 1 | winner |"), r"hardware"),
    "hardware of an odd kind": (manifest("hardware", to={"<b>": "x"}), r"hardware"),
    "a version with a command of a terminal": (manifest("versions", "torch", to="2.13\x1b[2J"), r"versions"),
    "a version with a space": (manifest("versions", "numpy", to="2.3 .5"), r"versions"),
    "a package of two lines": (manifest("versions", to=lambda was: was | {"a\nb": "1"}), r"versions"),
    "an engine with markup": (manifest("engine", "name", to="[torch](https://example.org)"), r"engine"),
    "a device of two words": (manifest("config", "compute", "device", to="cpu; x"), r"device"),
    "a tracker with markup": (manifest("config", "report_to", to=["<b>"]), r"report_to"),
    "a stage with markup": (
        manifest("stages", "seed-0", to=lambda was: {"<i>": was["x1"], "x2": was["x2"]}), r"stages"
    ),
    "a value of the task with an element": (
        manifest("config", "task", "source_args", "attributes", "colour", to=lambda was: ["<b>", *was[1:]]),
        r"is not one word of letters",
    ),
    "a cell with a path": (manifest("stages", to=lambda was: was | {"../seed-7": was["seed-0"]}), r"stages"),
}  # fmt: skip


def shown(change: Callable[[Forgery], Any]) -> Act:
    """Change a submission in memory, have it checked, and if it passes, shown."""

    def act(bench: Bench) -> Outcome:
        forgery = bench.forgery()
        change(forgery)
        forgery.write(bench.results)
        return built(bench.board, bench.folder)

    return act


def said(key: str, text: str) -> Act:
    return shown(lambda forgery: put(forgery.card, key, to=text))


def generated(text: str) -> Act:
    """Every wrong answer is this text."""

    def change(forgery: Forgery) -> None:
        for rows in forgery.answers.values():
            for row in rows:
                row["generated"] = row["generated"] if row["em_forced"] else text

    return shown(change)


def configured(**keys: Any) -> Act:
    return shown(lambda forgery: set_config(forgery, lambda config: config.update(keys)))


def worded(*keys: str, to: Any) -> Act:
    """The task's own wording, which an open division may change, and which is in every question."""
    return shown(lambda forgery: put(forgery.manifest, "config", "task", *keys, to=to))


# What is text that anybody may write, and has to be shown as text; or it is refused.
INERT: dict[str, Act] = {
    "a bare address, which pages make a link of": said("notes", "few; see www.example.org and https://example.org"),
    "people who would be told": said("notes", "few; @everyone #1 owner/repository#2"),
    "a formula": said("notes", "few $\\href{https://example.org}{x}$ $$x$$"),
    "emphasis, struck out": said("notes", "few **best** ~~worst~~ __all__ &lt;b&gt;"),
    "a command of a runner": said("notes", "::error file=x::few\n##[error]few"),
    "a heading of a table": said("notes", "few\n# Leaderboard\n---\n- 1"),
    "an address that is a script": said("contact", "javascript:alert(1)"),
    "an address that closes what holds it": said("contact", "\" onmouseover=\"alert(1)"),
    "a template": said("notes", "few {{ 7 * 7 }} {% raw %} ${7*7}"),
    "letters that look like others": said("submitted_by", "\u0410. Researcher"),
    "answers that are elements": generated("<script>alert(1)</script>"),
    "answers that are commands of a terminal": generated("\x1b[2Jred"),
    "answers that run backwards": generated("\u202eder"),
    "answers that close the page's data": generated("</script><!--<script>"),
    "answers of two lines": generated("red\nblue"),
    "answers with a separator of lines": generated("red\u2028blue"),
    "answers of half a character": generated("\ufffd"),
    "an element in the configuration": configured(problem="<img src=x onerror=alert(1)>"),
    "a command of a terminal in the configuration": configured(problem="\x1b[2J"),
    "a key of the configuration with an element": configured(**{"<b onmouseover=alert(1)>": 1}),
    "a configuration of other labels": configured(id2label={"0": "<b>", "1": "\u202e"}),
    "a question with an element": worded("design", "question_format", to="<b>{question}</b>\nA:"),
    "a question that runs backwards": worded("design", "question_format", to="\u202e{question}\nA:"),
    "a question with an image": worded("design", "question_format", to="![x](https://example.org/x) {question}\nA:"),
    "a description of the task with an element": worded("description", to="<script>alert(1)</script>"),
    "a task's citation with an element": worded("metadata", "citation", to="</script><b onclick=alert(1)>"),
    "what was passed, with an element": shown(
        lambda forgery: put(forgery.manifest, "passed", "model", to="<script>alert(1)</script>\x1b[2J")
    ),
}  # fmt: skip


def plain_board(bench: Bench) -> Outcome:
    """A folder of the board whose name is a command of a runner and of a terminal, beside the submissions."""
    bench.copy()
    (bench.results / "::error::x\x1b[2J" / "a__b").mkdir(parents=True)
    (bench.results / "::error::x\x1b[2J" / "a__b" / "c").write_text("")
    return built(bench.board, bench.folder)


ATTACKS = [
    *(
        Attack("form", f"a submitter: {name}", card("submitted_by", text), said)
        for name, (text, said) in CALLED.items()
    ),
    *(Attack("form", name, act, said) for name, (act, said) in PLACES.items()),
    *(Attack("form, to be shown", name, act, ".", refused=False) for name, act in INERT.items()),
    Attack("form", "a folder whose name is a command", plain_board, r"is not a folder of a submission"),
]
