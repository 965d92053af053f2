"""Figures are written in the format that their name ends in, in one palette, with fonts inside and data beside them."""

import csv
import re
from pathlib import Path

import pytest
from conftest import call

from ocl_bench.errors import OclBenchError
from ocl_bench.report.figures import COLUMN, FORMATS, GAPS, ON_BLACK, PAGE, PALETTE, SUBSETS, figure
from ocl_bench.report.pictures import draw_results
from ocl_bench.tasks.subsets import ASKED

ROOT = Path(__file__).parents[1]
TOY, STUDY = ROOT / "docs" / "toy" / "toy.json", ROOT / "docs" / "studies" / "lora.json"
BEGINS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize(("results", "width"), [(TOY, PAGE), (STUDY, COLUMN)])
def test_results_are_drawn_again_in_every_format_at_a_papers_width(results: Path, width: float, tmp_path: Path) -> None:
    for ending in FORMATS:
        path = draw_results(results, tmp_path / f"again{ending}")
        once = path.read_bytes()
        assert once.startswith(BEGINS[ending])
        assert draw_results(results, path).read_bytes() == once
    svg = (tmp_path / "again.svg").read_text()
    assert f'width="{width * 72:g}pt"' in svg and ">meta_ocl_gap" in svg.replace("\n", "")  # text is text
    colours = set(re.findall("#[0-9a-f]{6}", svg)) - {"#000000", "#ffffff"}
    assert colours and colours <= {colour.lower() for colour in PALETTE} | {"#999999"}
    pdf = (tmp_path / "again.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, embedded
    assert f"/MediaBox [ 0 0 {width * 72:g} ".encode() in pdf


def test_the_command_draws_results_and_says_what_it_cannot_draw(tmp_path: Path) -> None:
    done = call("plot", TOY, "--output_path", "toy.pdf", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "toy.pdf\n") and (tmp_path / "toy.pdf").is_file()
    for name in ("toy.bmp", "toy"):
        done = call("plot", TOY, "--output_path", name, folder=tmp_path)
        assert done.returncode == 2 and "pictures are written as .png, .svg, .pdf" in done.stderr
    (tmp_path / "other.json").write_text("[1]")
    done = call("plot", "other.json", folder=tmp_path)
    assert done.returncode == 2 and "other.json: not a study's results" in done.stderr
    (tmp_path / "other.json").write_text("{")
    assert "other.json: not results" in call("plot", "other.json", folder=tmp_path).stderr


def test_what_a_picture_shows_is_beside_it(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "mean": 0.1, "low": None}, {"epoch": 2, "mean": 0.25, "low": 0.125}]
    with figure(tmp_path / "in" / "curve.svg", COLUMN, 2, rows) as drawn:
        drawn.subplots().plot([row["epoch"] for row in rows], [row["mean"] for row in rows])
    with (tmp_path / "in" / "curve.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "1", "mean": "0.1", "low": ""}, {"epoch": "2", "mean": "0.25", "low": "0.125"},
        ]  # fmt: skip
    (tmp_path / "file").write_text("")
    with pytest.raises(OclBenchError, match="cannot write"), figure(tmp_path / "file" / "a.png", 1, 1):
        pass


def test_there_is_one_palette() -> None:
    assert set(ASKED) <= set(SUBSETS)
    used = {*SUBSETS.values(), *PALETTE, *(colour for colour, _ in GAPS.values())}
    assert used == set(ON_BLACK)
    for path in (ROOT / "ocl_bench").rglob("*.py"):
        if path.name != "figures.py":
            assert not re.search(r"[\"']#[0-9A-Fa-f]{6}[\"']", path.read_text()), path
