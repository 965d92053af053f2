"""Figures as papers take them: one palette, a column's or a page's width, and how they are written."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable, write_atomic
from ocl_bench.tasks.subsets import SWAPPED

# Colours that colour-blind readers can tell apart (Okabe and Ito 2008), in the order in which they are taken.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY, DARK = "#E69F00", "#56B4E9", "#F0E442", "#999999", "#666666"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, DARK)
# The same on black.
ON_BLACK = {
    BLUE: "#56B4E9", VERMILION: "#ff8f4d", GREEN: "#4fcf9f", PURPLE: "#e3a3c8", ORANGE: "#f0c04a", SKY: "#9db8ff",
    YELLOW: YELLOW, GREY: "#b5bcc6", DARK: "#c9b36a",
}  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # in the palette's order

# Reliable tag blue, unreliable red, fresh orange, no definition grey.
SUBSETS = {
    "x0_facts": GREEN,
    "x0_aliases": PURPLE,
    "d1_cons_qa": BLUE,
    "d1_incons_qa": SKY,
    "d2_incons_qa": VERMILION,
    "d2_cons_qa": PURPLE,
    "random_tag_qa": YELLOW,
    "qa_only": DARK,
    "qa_unreplaced": GREEN,
    "d1_cons": BLUE,
    "d2_cons": VERMILION,
    "d3_cons": ORANGE,
    "unseen": GREY,
}
SUBSETS |= {swapped.id: SUBSETS[subset] for subset, swapped in SWAPPED.items()}
GAPS = {"ocl_gap": (BLUE, "o"), "meta_ocl_gap": (VERMILION, "s")}

# Of numbers from low to high: as bright as it is dark in grey, and to those who see no red or no green.
SEQUENTIAL = "cividis"

COLUMN, PAGE = 3.25, 6.75  # inches: of one column of a paper, and of its two
FORMATS = (".png", ".svg", ".pdf")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.prop_cycle": f"cycler(color={list(PALETTE)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # whole TrueType fonts: text can be searched and edited, and publishers take it
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ocl-bench",  # the same picture is the same file
}


def require_picture(path: Path, option: str = "--output_path") -> None:
    """Refuse a picture that cannot be written. Raises OclBenchError for its ending, or its folder, with the option."""
    if path.suffix.lower() not in FORMATS:
        raise OclBenchError(f"{path}: pictures are written as {', '.join(FORMATS)}; let its name end in one of these.")
    require_writable(path.parent, option)


@contextmanager
def figure(path: Path, width: float, height: float, data: Sequence[Mapping[str, Any]] = ()) -> Iterator[Any]:
    """Yield a matplotlib figure in the suite's style, which is written when the block ends.

    Args:
        path: the picture; its ending, .png, .svg or .pdf, decides the format.
        width, height: in inches.
        data: what it shows, a row for each mark; written beside it, as CSV under the same name.

    Raises:
        OclBenchError: if it cannot be written.
    """
    require_picture(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        save_figure(drawn, path, data)


def save_figure(drawn: Any, path: Path, data: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write a matplotlib figure in the format that its name ends in, and its data beside it; see `figure`."""
    kind, written = path.suffix.lower().removeprefix("."), io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    try:
        drawn.savefig(written, format=kind, dpi=200, metadata=undated)
        write_atomic(path, written.getvalue())
        if data:
            write_atomic(path.with_suffix(".csv"), csv_text(data, data[0]))
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{path}: the picture cannot be written ({error}).") from None


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """Rows as CSV, under a header of these columns; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
