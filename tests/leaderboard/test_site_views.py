"""What a reader sees of the board: one task and division at a time, entries side by side, answers, pictures, data."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import Watched, launched, needs_browser
from playwright.sync_api import Browser, expect
from pyarrow import parquet
from scipy.stats import ttest_ind

from ocl_bench.evaluate.answers import Answer
from ocl_bench.leaderboard.checks.reading import Checked, read_all
from ocl_bench.leaderboard.data import COLUMNS, data_rows
from ocl_bench.leaderboard.site import write_site
from ocl_bench.leaderboard.table import Entry, markdown, ranked
from ocl_bench.leaderboard.validate import find_submissions
from ocl_bench.report.figures import ON_BLACK, PALETTE
from ocl_bench.score.samples import Sample
from ocl_bench.tasks.records import Record

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"


def answered(subset: str, generated: str) -> Sample:
    record = Record(
        id=f"{subset}-{generated}", subset=subset, split="test", kind="qa", prompt="Q: home <|x|>\nA:", entity="Ann",
        completion=" Cork\n", answers=("Cork", "the Cork"), variable="<|x|>", group="home", options=("Cork", "Delft"),
    )  # fmt: skip
    answer = Answer(id=record.id, em_forced=0, logprob=-1.25, generated=generated, choice=int(generated != "Cork"))
    return Sample(record, answer, ("cork", "delft"), 0.5, "x2", 0, 0)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """The board's own entries as they say of themselves, and one of `attributes` moved to the open division."""
    found = []
    for folder in find_submissions(RESULTS):
        one = Checked(folder)
        read_all(one)
        found.append(one)
    first = found[0]
    assert first.manifest is not None and first.submission is not None
    first.samples = [answered("d1_cons", "Cork"), answered("d1_cons", "Delft"), answered("unseen", "Delft")]
    first.submission = first.submission.model_copy(update={"division": "open"})
    config = first.manifest.config.model_copy(update={"seeds": (0, 1, 2)})
    first.manifest = first.manifest.model_copy(update={"config": config})
    return ranked(found)


@pytest.fixture(scope="module")
def index(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(entries, tmp_path_factory.mktemp("board") / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


def of(entries: list[Entry], task: str, division: str = "standard") -> list[Entry]:
    """The largest gap first, as on the page."""
    own = [one for one in entries if (one.submission.task, one.submission.division) == (task, division)]
    return sorted(own, key=lambda one: -one.gap.mean if one.gap else 0)


def test_a_rank_needs_the_tasks_standard_seeds_in_the_open_division_too(entries: list[Entry]) -> None:
    (moved,) = of(entries, "attributes", "open")
    assert moved.rank_text == "" and moved.unranked == "lacks 7 of its task's 10 seeds"
    assert all(one.rank_text for one in of(entries, "attributes"))
    first = of(entries, "digit_grid")[0]
    assert replace(first, level="checked").unranked == "checked only: nobody trained it again" and not first.unranked


@needs_browser
def test_tasks_versions_and_divisions_are_not_mixed_unless_asked_for(
    browser: Browser, index: Path, entries: list[Entry]
) -> None:
    watched = Watched(browser, index.as_uri())
    names = {division: [one.name for one in of(entries, "attributes", division)] for division in ("standard", "open")}
    assert watched.models() == [one.name for one in of(entries, "world")]  # it has most ranked entries
    watched.page.locator("#task").select_option("attributes v2")
    assert watched.models() == names["standard"]
    watched.page.locator("#division").select_option("open")
    assert watched.models() == names["open"]
    watched.page.locator("#task").select_option("world v2")  # which has none in the open division
    expect(watched.page.locator("#division")).to_have_value("standard")
    expect(watched.page.locator("#mixed")).to_be_hidden()
    watched.page.locator("#task").select_option("all")
    watched.page.locator("#division").select_option("all")
    watched.page.get_by_role("button", name="parameters", exact=True).click()
    expect(watched.page.locator("#mixed")).to_be_visible()
    boards = [
        tuple(line.locator("td").nth(place).inner_text() for place in columns) for line, columns in lines(watched)
    ]
    assert boards == sorted(boards, key=list(dict.fromkeys(boards)).index) and len(set(boards)) == 4
    expect(watched.page.locator("#scaling")).to_contain_text("not comparable")
    watched.finish()


def lines(watched: Watched) -> list[tuple[Any, tuple[int, int]]]:
    """Each line of the table, and where it has the task and the division."""
    heads = watched.page.locator("#board th").all_inner_texts()
    assert "division" in heads[:8]
    columns = heads.index("task"), heads.index("division")
    return [(line, columns) for line in watched.page.locator("#board tbody tr").all()]


@needs_browser
def test_entries_side_by_side_have_the_differences_that_welchs_test_gives(
    browser: Browser, index: Path, entries: list[Entry]
) -> None:
    first, second, *rest = of(entries, "world")
    watched = Watched(browser, index.as_uri())
    expect(watched.page.locator("#comparison")).to_be_hidden()
    for entry in (first, second):
        watched.page.locator(f'[data-entry="{entry.slug}"] input').check()
    shown = watched.page.locator("#comparison tbody tr").nth(2)
    expect(shown).to_contain_text(f"{first.submission.model} − {second.submission.model}")
    values = [list(one.gap.per_seed.values()) for one in (first, second) if one.gap]
    test = ttest_ind(*values, equal_var=False)
    low, high = test.confidence_interval(0.95)
    texts = [f"{'−' if value < 0 else '+'}{abs(value):.3f}".replace("0.", ".") for value in (low, high)]
    expect(shown.locator("td").nth(1)).to_contain_text(
        f"[{texts[0]}, {texts[1]}] p {test.pvalue:.3f}".replace("p 0", "p ")
    )
    # A link leads to just this; four are the most.
    again = Watched(browser, watched.page.url)
    assert (
        again.page.locator("#comparison tbody").inner_text() == watched.page.locator("#comparison tbody").inner_text()
    )
    for entry in rest[:2]:
        again.page.locator(f'[data-entry="{entry.slug}"] input').check()
    expect(again.page.locator(f'[data-entry="{rest[2].slug}"] input')).to_be_disabled()
    expect(again.page.locator("#comparison tbody tr")).to_have_count(4 + 6)
    again.page.locator("#none").click()
    expect(again.page.locator("#comparison")).to_be_hidden()
    again.finish()
    # Entries of two tasks are shown, and not subtracted.
    both = Watched(browser, f"{index.as_uri()}#compare={first.slug},{of(entries, 'attributes')[0].slug}")
    expect(both.page.locator("#comparison tbody tr").nth(2)).to_contain_text("of different tasks")
    both.finish()
    watched.finish()


@needs_browser
def test_the_pages_statistics_are_those_of_python(browser: Browser, index: Path, entries: list[Entry]) -> None:
    """Of every pair of the world's entries in every gap, and of few seeds that differ much in number and spread."""
    pairs = [
        ([0.0, 0.1], [0.5, 0.7]),
        ([0.0, 0.3], [0.1, 0.2, 0.2]),
        ([0.2] * 3, [0.1, 0.4]),
        ([1e-4, 2e-4] * 40, [0.9, 1]),
    ]
    for gap in ("meta_ocl_gap", "ocl_gap", "internalisation"):
        values = [list(one.results.gaps[gap]["choice"].per_seed.values()) for one in of(entries, "world")]
        pairs += [(a, b) for place, a in enumerate(values) for b in values[place + 1 :]]
    watched = Watched(browser, index.as_uri())
    found = watched.page.evaluate(
        """pairs => pairs.map(pair => welch(...pair.map(values => {
            const mean = values.reduce((a, b) => a + b) / values.length;
            const squares = values.reduce((sum, one) => sum + (one - mean) ** 2, 0);
            return { mean, seeds: values.length, sd: Math.sqrt(squares / (values.length - 1)) };
        })))""",
        pairs,
    )
    for (a, b), own in zip(pairs, found, strict=True):
        test = ttest_ind(a, b, equal_var=False)
        assert own["p"] == pytest.approx(test.pvalue, rel=1e-6)
        assert (own["low"], own["high"]) == pytest.approx(test.confidence_interval(0.95), rel=1e-7, abs=1e-9)
    same = watched.page.evaluate(
        "[[.2, .2], [.2, .3]].map(([a, b]) => welch(...[a, b].map(mean => ({ mean, sd: 0, seeds: 3 }))).p)"
    )
    assert same == [1, 0]
    watched.finish()


@needs_browser
def test_a_narrow_screen_shows_the_gap_and_folds_filters_and_labels_do_not_touch(
    browser: Browser, index: Path, entries: list[Entry]
) -> None:
    watched = Watched(browser, index.as_uri(), viewport={"width": 390, "height": 844})
    box = watched.page.locator("#board tbody tr").first.locator("td.meta_ocl_gap").bounding_box()
    assert box is not None and box["x"] + box["width"] <= 390
    expect(watched.page.locator("#family")).to_be_hidden()
    watched.page.locator("#fold").click()
    expect(watched.page.locator("#family")).to_be_visible()
    watched.page.wait_for_selector("#scaling svg")
    places = [one.bounding_box() for one in watched.page.locator("#scaling .role-axis-label text").all()]
    level = [
        one for one in places if one and one["width"] and abs(one["y"] - max(two["y"] for two in places if two)) < 2
    ]
    ends = [(one["x"], one["x"] + one["width"]) for one in sorted(level, key=lambda one: one["x"])]
    assert len(ends) > 1 and all(end < start for (_, end), (start, _) in pairwise(ends))
    watched.finish()


@needs_browser
def test_answers_are_shown_with_choice_and_log_probability_and_filtered(
    browser: Browser, index: Path, entries: list[Entry]
) -> None:
    (moved,) = of(entries, "attributes", "open")
    watched = Watched(browser, (index.parent / f"{moved.slug}.html").as_uri())
    visible = watched.page.locator("#answers tbody tr:visible")
    assert visible.count() == 3
    cells = visible.first.locator("td").all_inner_texts()
    assert cells == ["d1_cons", "Q: home <|x|>\nA:", "Cork or the Cork", "Cork", "Cork", "−1.250", "right"]
    watched.page.locator("#of-outcome").select_option("wrong")
    assert visible.count() == 2
    watched.page.locator("#of-subset").select_option("unseen")
    expect(watched.page.locator("#answered")).to_have_text("1 of 3 answers shown")
    assert visible.first.locator("td").all_inner_texts()[3:5] == ["Delft", "Delft"]
    watched.finish()


@needs_browser
@pytest.mark.parametrize("chart", ["forest", "scaling"])
def test_a_chart_is_taken_away_as_a_picture_of_a_papers_width_and_as_numbers(
    browser: Browser, index: Path, entries: list[Entry], chart: str
) -> None:
    watched = Watched(browser, index.as_uri(), color_scheme="dark")
    take = watched.page.locator("figure", has=watched.page.locator(f"#{chart}")).locator(".take")
    texts = []
    for name in ("SVG", "CSV"):
        with watched.page.expect_download() as download:
            take.get_by_role("button", name=name).click()
        texts.append(Path(download.value.path()).read_text())
    assert texts[0].startswith("<svg") and 'width="648"' in texts[0]
    second = PALETTE[1]  # what the first is on black is another one on paper
    assert second in texts[0] and ON_BLACK[second] not in texts[0]  # for paper, whatever the screen is
    rows = list(csv.DictReader(io.StringIO(texts[1])))
    assert [float(row["mean"]) for row in rows] == [one.gap.mean for one in of(entries, "world") if one.gap]
    watched.finish()


def test_the_whole_table_is_there_as_csv_json_and_parquet(index: Path, entries: list[Entry]) -> None:
    described = json.loads((index.parent / "leaderboard.json").read_text())
    table = parquet.read_table(index.parent / "leaderboard.parquet")
    rows: list[dict[str, Any]] = described["rows"]
    assert rows == table.to_pylist() == list(data_rows(entries))
    assert all(list(row) == list(COLUMNS) for row in rows) and described["columns"] == COLUMNS
    assert {field.name: field.metadata[b"description"].decode() for field in table.schema} == COLUMNS
    with (index.parent / "leaderboard.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    # They are the numbers of the results, the page's and the table's.
    by_key = {(row["entry"], row["gap"], row["metric"]): row for row in rows}
    assert len(by_key) == len(rows) == sum(len(metrics) for one in entries for metrics in one.results.gaps.values())
    page = index.read_text()
    for entry in entries:
        assert entry.gap is not None
        row = by_key[entry.slug, "meta_ocl_gap", entry.metric]
        assert (row["mean"], row["low"], row["high"]) == (entry.gap.mean, *entry.gap.ci95)
        assert row["rank"] == row["place"] == entry.rank_text
        assert f'"mean": {row["mean"]}' in page
        assert f"| {row['rank']:6} | [{row['model']}]" in markdown(entries)
    assert all(
        f'href="{index.stem and name}"' in page for name in ("leaderboard.csv", "leaderboard.parquet", "data.html")
    )
