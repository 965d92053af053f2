"""Text that nobody vouches for is refused, or is inert wherever it is shown."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec import structs
from pydantic import TypeAdapter, ValidationError

from ocl_bench import text
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.site import write_site
from ocl_bench.leaderboard.submission import MANIFEST, RESULTS, SUBMISSION, Submission
from ocl_bench.leaderboard.table import escaped, markdown, ranked
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.result import Results

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FILES: dict[str, Any] = {SUBMISSION: Submission, MANIFEST: Manifest, RESULTS: Results}
NASTY = (
    "<script>alert(1)</script>", "</script>", "a|b", "![x](http://x)", "[x](javascript:alert(1))", "`x`", "a\nb", "a\n",
    "a\u202eb", "a\u2028b", "\x1b[2J", "a\u200bb", "*a*", "_a_", "http://a.org", "www.a.org", "a\\", "\ud800", "é" * 90,
    "a" + "\u0301" * 9, "\U000e0041a", "\ue000", "\u3164", '" onclick="x', "{{ entry }}", "$(id)", "@a", "#1", "&lt;",
)  # fmt: skip
texts = st.text(min_size=1, max_size=40) | st.sampled_from(NASTY)


def fits(kind: Any, value: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (text.Sha256, "0" * 64),
        (text.Commit, "a" * 40),
        (text.Version, "2.13.0+cpu"),
        (text.Version, "0.4.dev3+g1234"),
        (text.Timestamp, "2026-11-21T12:55:36+00:00"),
        (text.Device, "cuda:1"),
        (text.Device, "mps"),
        (text.Words, "bfloat16 autocast"),
        (text.Words, "lm-eval hf"),
        (text.ModelName, "pythia-6.9b"),
        (text.HubName, "EleutherAI/pythia-6.9b"),
        (text.CellName, "seed-3-stage2-1"),
        (text.FileName, "seed-0/samples.jsonl.gz"),
        (text.Line, "Intel(R) Xeon(R) Processor @ 2.50GHz"),
        (text.Line, "Linux-6.18.44-fc-v595-x86_64-with-glibc2.36"),
        (text.Line, "Zoë Müller, 東京大学, Universität"),
        (text.Prose, "Two lines:\nthe second."),
    ],
)
def test_what_honest_runs_write_fits_and_nothing_with_a_newline_behind_it(kind: Any, value: str) -> None:
    assert fits(kind, value)
    assert not fits(kind, value + "\n")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (text.Timestamp, "2026-02-30T12:00:00+00:00"),
        (text.Timestamp, "2026-11-21T12:55:36"),
        (text.ModelName, "a..b"),
        (text.ModelName, "--a"),
        (text.ModelName, "con"),
        (text.ModelName, "Com1.x"),
        (text.ModelName, "a."),
        (text.TaskName, "nul"),
        (text.FileName, "../a"),
        (text.FileName, "/a"),
        (text.Line, "a" * 201),
        (text.Line, " a"),
        (text.Line, ""),
        *((text.Line, one) for one in ("a|b", "<b>", "`a`", "[a]", "a\u202eb", "a\u200bb", "\ue000", "\u3164")),
        (text.Line, "a" + "\u0301" * 9),
    ],
)  # fmt: skip
def test_what_could_be_taken_for_something_else_does_not_fit(kind: Any, value: str) -> None:
    assert not fits(kind, value)


@QUICK
@given(texts)
def test_what_a_machine_tells_of_itself_is_made_to_fit(value: str) -> None:
    assert fits(text.Line, text.fitted(value))


@QUICK
@given(texts)
def test_what_fits_already_stays_as_it_is(value: str) -> None:
    if fits(text.Line, value):
        assert text.fitted(value) == value


@QUICK
@given(texts | st.lists(st.sampled_from(NASTY), min_size=1, max_size=3).map(" ".join))
@example("a_b www.evil.org <http://evil.org> me@evil.org")
def test_a_cell_of_a_markdown_table_holds_its_text_and_nothing_else(value: str) -> None:
    parsed = MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n|---|---|\n| {escaped(value)} | c |\n")
    assert sum(token.type == "td_open" for token in parsed) == 2
    kinds = {inner.type for token in parsed for inner in token.children or []}
    assert kinds <= {"text", "text_special"}
    assert all(text.shows(char) for char in escaped(value))


class Shape(HTMLParser):
    """Tags and names of attributes, and the attributes that could run or load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            assert not (name in ("href", "src") and (value or "").lower().strip().startswith("javascript"))


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where text stands in a file: values, and keys (marked by a last None). The task's wording is free."""
    if where in (("config", "task"), ("passed",)):
        return
    if isinstance(value, str):
        yield where
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*where, key, None)
            yield from places(inner, (*where, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*where, number))


def put(value: Any, where: tuple[Any, ...], new: str) -> None:
    for key in where[: -2 if where[-1] is None else -1]:
        value = value[key]
    if where[-1] is None:
        value[new] = value.pop(where[-2])
    else:
        value[where[-1]] = new


@cache
def original(
    folder: Path,
) -> tuple[Checked, dict[str, Any], list[tuple[str, tuple[Any, ...]]], dict[str, Shape], tuple[int, list[str]]]:
    files = {name: json.loads((folder / name).read_text()) for name in FILES}
    where = [(name, place) for name, content in files.items() for place in places(content)]
    checked = check(folder)
    pages, table = shown(checked)
    return checked, files, where, {name: Shape(page) for name, page in pages.items()}, cells(table)


def shown(checked: Checked) -> tuple[dict[str, str], str]:
    entries = ranked([checked])
    with tempfile.TemporaryDirectory() as folder:
        site = write_site(entries, Path(folder, "site")).parent
        return {
            "index" if "index" in page.name else "page": page.read_text()
            for page in site.glob("*.html")
            if page.name != "data.html"
        }, markdown(entries)


def cells(table: str) -> tuple[int, list[str]]:
    """Cells of a board's README.md, and what it has inside its lines besides text."""
    parsed = MarkdownIt("commonmark").enable("table").parse(table)
    inner = (one.type for token in parsed for one in token.children or [])
    return sum(token.type == "td_open" for token in parsed), [kind for kind in inner if kind[:4] != "text"]


@settings(QUICK, max_examples=60)
@given(st.data())
def test_any_text_in_any_field_is_refused_or_inert(small_submission: Path, data: st.DataObject) -> None:
    checked, files, where, shapes, count = original(small_submission)
    # Short paths are those of single fields; of many thousands, the deep ones would else be all that is drawn.
    depth = data.draw(st.sampled_from(sorted({len(place) for _, place in where})))
    name, place = data.draw(st.sampled_from([one for one in where if len(one[1]) == depth]))
    changed = json.loads(json.dumps(files[name]))
    put(changed, place, data.draw(texts))
    try:
        made = FILES[name].model_validate_json(json.dumps(changed), strict=True)
    except ValidationError:
        return
    field = {SUBMISSION: "submission", MANIFEST: "manifest", RESULTS: "results"}[name]
    try:
        pages, table = shown(replace(checked, **{field: made}))
    except KeyError:  # a metric or subset of another name: results are those that are computed again, or refused
        assert name == RESULTS
        return
    assert cells(table) == count
    for page, content in pages.items():
        assert {*Shape(content).tags} <= {*shapes[page].tags}
        assert all(text.shows(char) or char == "\n" for char in content)
    assert all(text.shows(char) or char == "\n" for char in table)


@pytest.mark.parametrize("nasty", [one for one in NASTY if one != "\ud800"])
def test_answers_and_recipe_are_shown_spelled_out(small_submission: Path, nasty: str) -> None:
    checked, _, _, shapes, _ = original(small_submission)
    assert checked.manifest is not None
    samples = [one._replace(answer=structs.replace(one.answer, generated=nasty)) for one in checked.samples]
    recipe = checked.manifest.config.recipe.model_copy(update={"description": nasty})
    config = checked.manifest.config.model_copy(update={"recipe": recipe})
    manifest = checked.manifest.model_copy(update={"config": config})
    own = {**checked.config, "note": nasty}
    pages, _ = shown(replace(checked, samples=samples, manifest=manifest, config=own))
    assert {*Shape(pages["page"]).tags} <= {*shapes["page"].tags}
    assert all(text.shows(char) or char == "\n" for char in pages["page"])
