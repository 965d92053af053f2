"""A real browser opens the built site, as files: it sorts, filters, links and copies, and asks no network."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ocl_bench.leaderboard.preview import serve
from ocl_bench.leaderboard.site import embedded, publish, write_site
from ocl_bench.leaderboard.table import Entry, load_entries, markdown, ranked
from ocl_bench.score.comparisons import standings
from ocl_bench.score.statistics import least_detectable

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "leaderboard" / "results"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None and ("CI" not in os.environ or sys.platform == "darwin"),
    reason="needs a browser: apt-get install chromium",
)


@pytest.fixture(scope="module")
def accepted() -> list[Entry]:
    """The leaderboard's own submissions, checked."""
    return load_entries(RESULTS)


@pytest.fixture(scope="module")
def entries(accepted: list[Entry]) -> list[Entry]:
    """Those of one task, as if all but the one of the smallest gap had been replayed, so that they are ranked."""
    own = [entry for entry in accepted if entry.submission.task == "world"]
    last = min(own, key=lambda entry: entry.gap.mean if entry.gap else 0)

    def level(folder: Path, _: Any) -> tuple[str, None, None]:
        return "checked" if folder == last.checked.folder else "replayed", None, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ocl_bench.leaderboard.table.level_of", level)
        return ranked([entry.checked for entry in own])


@pytest.fixture(scope="module")
def index(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(entries, tmp_path_factory.mktemp("board") / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def models(self) -> list[str]:
        return self.page.locator("#board tbody td:nth-child(2) a").all_inner_texts()

    def finish(self) -> None:
        """Nothing was asked of a network, nothing complained of."""
        outside = [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))]
        self.context.close()
        assert (outside, self.complaints) == ([], [])


@pytest.fixture
def board(browser: Browser, index: Path) -> Iterator[Watched]:
    watched = Watched(browser, index.as_uri(), viewport={"width": 1280, "height": 900})
    yield watched
    watched.finish()


@needs_browser
def test_the_table_has_every_submission_the_largest_gap_first(board: Watched, entries: list[Entry]) -> None:
    ordered = sorted(entries, key=lambda entry: -entry.gap.mean if entry.gap else 0)
    assert board.models() == [entry.name for entry in ordered]
    first = board.page.locator("#board tbody tr").first
    assert ordered[0].gap is not None
    expect(first).to_contain_text(f"+{ordered[0].gap.mean:.3f}".replace("0.", "."))
    expect(board.page.locator("#count")).to_have_text(f"{len(entries)} of {len(entries)} submissions")
    expect(first.locator("td.form")).to_have_text(ordered[0].controls["form"])
    expect(first.locator("td.recall")).to_have_text(ordered[0].controls["recall"])
    assert all(re.fullmatch(r"(1|)\.\d{3} / (1|)\.\d{3}", text) for text in ordered[0].controls.values())


@needs_browser
def test_columns_sort_by_mouse_and_by_keyboard(board: Watched, entries: list[Entry]) -> None:
    by_size = [entry.name for entry in sorted(entries, key=lambda entry: entry.manifest.parameters)]
    board.page.get_by_role("button", name="parameters", exact=True).click()
    assert board.models() == by_size[::-1]
    expect(board.page.locator("th[aria-sort=descending]")).to_have_text("parameters")
    board.page.keyboard.press("Enter")  # the button kept the focus
    assert board.models() == by_size
    expect(board.page.locator("th[aria-sort=ascending]")).to_have_text("parameters")


@needs_browser
def test_filters_leave_what_fits_in_table_charts_and_address(board: Watched, entries: list[Entry]) -> None:
    family = entries[0].family
    fitting = sorted(entry.name for entry in entries if entry.family == family)
    board.page.locator("#family").select_option(family)
    assert sorted(board.models()) == fitting
    expect(board.page.locator("#forest .mark-symbol path")).to_have_count(len(fitting))
    assert f"family={family}" in board.page.url
    board.page.locator("#family").select_option("")
    board.page.locator("#size").select_option("below 1 M")
    assert sorted(board.models()) == sorted(one.name for one in entries if one.manifest.parameters < 10**6)
    board.page.locator("#size").select_option("from 1 B")
    assert board.models() == [one.name for one in entries if one.manifest.parameters >= 10**9]
    board.page.locator("#size").select_option("all")
    board.page.locator("#since").fill("2999-01-01")
    assert board.models() == [] and "since=2999-01-01" in board.page.url
    expect(board.page.locator("#forest")).to_have_text("Nothing to draw.")
    board.page.locator("#since").fill("2020-01-01")
    assert len(board.models()) == len(entries)
    board.page.locator("#since").fill("")
    board.page.locator("#since").blur()
    board.page.locator("body").press("/")
    board.page.keyboard.type("t5")
    assert board.models() == [entry.name for entry in entries if "t5" in entry.name]
    board.page.keyboard.press("Escape")
    assert len(board.models()) == len(entries)


@needs_browser
def test_a_deep_link_opens_just_that_view(browser: Browser, index: Path, entries: list[Entry]) -> None:
    address = f"{index.as_uri()}#family=gpt_neox&metric=logprob&sort=parameters&dir=asc&gap=ocl_gap"
    watched = Watched(browser, address)
    own = sorted((entry for entry in entries if entry.family == "gpt_neox"), key=lambda one: one.manifest.parameters)
    assert watched.models() == [entry.name for entry in own]
    cell = watched.page.locator("#board tbody tr").first.locator("td").nth(6)
    expect(cell).to_contain_text(f"+{own[0].results.gaps['ocl_gap']['logprob'].mean:.3f}")
    expect(watched.page.locator("#gap")).to_have_value("ocl_gap")
    watched.finish()


@needs_browser
def test_a_submission_opens_with_curves_examples_and_its_command(board: Watched, entries: list[Entry]) -> None:
    entry = entries[0]
    board.page.get_by_role("link", name=entry.name, exact=True).click()
    expect(board.page.locator("h1")).to_have_text(entry.name)
    expect(board.page.locator("#command")).to_have_text(entry.command)
    expect(board.page.locator("#learning svg")).to_be_visible()
    assert board.page.locator("tr.right").count() > 3 and board.page.locator("tr.wrong").count() > 3
    # The question itself, with its made-up name, and not what a browser makes of something like a tag.
    expect(board.page.locator("tr.right td.text").first).to_contain_text("<|")
    expect(board.page.locator("figure", has=board.page.locator("#learning"))).to_contain_text(
        "choice on a fixed sample"
    )
    board.page.go_back()
    assert len(board.models()) == len(entries)


@needs_browser
def test_the_forest_plot_says_which_are_clear_of_zero_and_which_differ(board: Watched, entries: list[Entry]) -> None:
    ordered = sorted(entries, key=lambda entry: -entry.gap.mean if entry.gap else 0)
    points = board.page.locator("#forest .mark-symbol path")
    expect(points).to_have_count(len(ordered))
    clear = [points.nth(place).get_attribute("fill") != "#ffffff" for place in range(len(ordered))]
    assert clear == [entry.standing is not None and entry.standing.clear for entry in ordered]
    assert any(clear) and not all(clear)
    first = ordered[0].standing
    assert first is not None
    expect(board.page.locator("#forest")).to_contain_text(f"{first.place} · {ordered[0].name}")
    points.first.hover()
    for place, entry in enumerate(ordered):
        stays = place == 0 or entry.slug in (*first.above, *first.below)
        expect(points.nth(place)).to_have_attribute("opacity", "1" if stays else "0.15")


@needs_browser
def test_a_submissions_page_names_those_that_it_differs_from(board: Watched, entries: list[Entry]) -> None:
    names = {entry.slug: entry.name for entry in entries}
    entry = max(entries, key=lambda one: len((*one.standing.above, *one.standing.below)) if one.standing else 0)
    assert entry.standing is not None and (entry.standing.above or entry.standing.below)
    board.page.get_by_role("link", name=entry.name, exact=True).click()
    linked = board.page.locator("#standing a").all_inner_texts()
    assert linked == [names[slug] for slug in (*entry.standing.above, *entry.standing.below)]
    board.page.locator("#standing a").first.click()
    expect(board.page.locator("h1")).to_have_text(linked[0])


@needs_browser
@pytest.mark.parametrize("kind", ["markdown", "latex", "csv"])
def test_the_table_is_copied(browser: Browser, index: Path, entries: list[Entry], kind: str) -> None:
    watched = Watched(browser, index.as_uri(), permissions=["clipboard-read", "clipboard-write"])
    watched.page.locator(f"[data-copy={kind}]").click()
    expect(watched.page.locator("#copied")).to_have_text("Copied.")
    text = watched.page.evaluate("navigator.clipboard.readText()")
    lines = [line for line in text.strip().splitlines() if any(entry.name in line for entry in entries)]
    assert len(lines) == len(entries)
    begins = {"markdown": "| rank | model |", "latex": "\\begin{tabular}", "csv": "rank,model,"}
    assert text.startswith(begins[kind])
    watched.finish()


@needs_browser
def test_dark_mode_follows_the_reader_and_can_be_chosen(browser: Browser, index: Path) -> None:
    watched = Watched(browser, index.as_uri(), color_scheme="dark")

    def background() -> str:
        return str(watched.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = background()
    watched.page.locator("#theme").click()
    light = background()
    assert dark == "rgb(20, 23, 28)" and light == "rgb(255, 255, 255)"
    watched.page.reload()
    assert background() == light
    watched.finish()


@needs_browser
def test_a_narrow_screen_scrolls_the_table_and_not_the_page(browser: Browser, index: Path) -> None:
    watched = Watched(browser, index.as_uri(), viewport={"width": 360, "height": 700})
    watched.page.wait_for_selector("#scaling svg")
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
    watched.finish()


def test_the_leaderboards_page_is_that_of_its_results(accepted: list[Entry]) -> None:
    assert (REPOSITORY / "leaderboard" / "README.md").read_text() == markdown(accepted)


def test_the_first_content_is_standard_and_of_several_architectures(accepted: list[Entry]) -> None:
    standard = [entry for entry in accepted if entry.submission.division == "standard"]
    assert {entry.submission.task for entry in standard} == {"attributes", "digit_grid", "world"}
    assert len({entry.family for entry in standard}) >= 3
    assert all(entry.results.submittable and len(entry.results.seeds) >= 10 for entry in standard)


def test_only_ranked_entries_are_compared_and_ranks_leave_no_finer_places(entries: list[Entry]) -> None:
    compared = [entry for entry in entries if entry.level != "checked"]
    assert 0 < len(compared) < len(entries)
    assert [entry.standing is not None for entry in entries] == [entry in compared for entry in entries]
    for entry in compared:
        assert entry.standing is not None and set(entry.standings) == {
            (gap, metric) for gap, metrics in entry.results.gaps.items() for metric in metrics
        }
        others = {one.slug: one.gap.mean for one in compared if one.gap and one is not entry}
        assert entry.gap is not None and {*entry.standing.above, *entry.standing.below} <= set(others)
        assert all(others[slug] < entry.gap.mean for slug in entry.standing.above)
        assert all(others[slug] > entry.gap.mean for slug in entry.standing.below)
        assert entry.standing.rank == (1 + len(entry.standing.below), len(compared) - len(entry.standing.above))
        assert entry.rank_text == entry.standing.place
    # It is what comparing their seeds gives, and no entry that was only checked changes it.
    again = standings({one.slug: list(one.gap.per_seed.values()) for one in compared if one.gap})
    assert again == {entry.slug: entry.standing for entry in compared}


def test_a_table_shows_what_each_entry_could_have_detected(entries: list[Entry]) -> None:
    table = markdown(entries).splitlines()
    column = next(line for line in table if line.startswith("| rank")).split("|").index(" detectable   ")
    for entry in entries:
        assert entry.gap is not None
        (line,) = [line for line in table if f"[{entry.name}]" in line]
        least = least_detectable(list(entry.gap.per_seed.values()))
        assert float(line.split("|")[column]) == pytest.approx(least, abs=0.0005)


def test_data_in_a_page_cannot_end_its_script() -> None:
    text = embedded({"name": "</script><script>alert(1)</script>&<!--"})
    assert not set("<>&") & set(text)
    assert json.loads(text)["name"] == "</script><script>alert(1)</script>&<!--"


def test_a_site_that_cannot_be_built_leaves_the_old_one(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(entries[:1], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    last = replace(entries[1], checked=replace(entries[1].checked, config={"not": {1, 2}}))  # no JSON
    with pytest.raises(TypeError):
        publish([*entries[:1], last], tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    move, moved = Path.replace, []

    def once_refused(path: Path, target: Any) -> Path:
        if path.name == "new" and path.parent.name != "new" and Path(target) == tmp_path / "site":
            moved.append(path)
            raise PermissionError(13, "no")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", once_refused)
    with pytest.raises(PermissionError):
        publish(entries[1:2], tmp_path)
    assert moved and before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_new_site_has_nothing_of_the_old_one(entries: list[Entry], tmp_path: Path) -> None:
    publish(entries[:1], tmp_path)
    publish(entries[1:2], tmp_path)
    assert not (tmp_path / "site" / f"{entries[0].slug}.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "site"]


@pytest.fixture(scope="module")
def preview(index: Path) -> Iterator[int]:
    (index.parents[1] / "secret").write_text("secret")
    (index.parent / "link.html").symlink_to(index.parents[1] / "secret")
    with serve(index.parent, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def asked(port: int, request: str) -> int:
    """The status of a request, sent as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8000", 200), ("[::1]:1", 200),
        ("evil.example", 421), ("127.0.0.1.evil.org", 421),
        ("localhost@evil.org", 421), ("", 421),
    ],
)  # fmt: skip
def test_the_preview_answers_only_to_names_of_this_machine(preview: int, host: str, status: int) -> None:
    assert asked(preview, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n") == status


@pytest.mark.parametrize(
    "path",
    [
        "/%00", "/%ff", "/%ed%a0%80", "/../secret", "/%2e%2e/secret", "/link.html", "/vendor", "/vendor/", "//vendor",
        "/a" * 3000,
        "/..%5csecret", "/" + "x" * 300, "http://evil.example/",
    ],
)  # fmt: skip
def test_the_preview_has_nothing_but_the_sites_files(
    preview: int, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert asked(preview, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n") in (400, 404)
    assert asked(preview, "HEAD /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
    assert asked(preview, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n") == 501
    assert capfd.readouterr().err == ""


def test_serve_shows_the_site_on_loopback(index: Path) -> None:
    command = [sys.executable, "-m", "ocl_bench.cli", "leaderboard", "serve", "--port", "0"]
    folder = str(index.parents[1])
    with subprocess.Popen([*command, "--leaderboard", folder], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert b"Which models learn whom to believe?" in answer.read()
        finally:
            server.terminate()
