"""Examples of a task's records: lines in which colours tell tag, variable and entity, and a sheet of pictures."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import load_entities, names_of
from ocl_bench.tasks.pictures import Picture
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

TAG, VARIABLE, ENTITY = "magenta", "cyan", "green"
SHEET_COLUMNS = 6


def examples(records: Sequence[Record]) -> list[Record]:
    """The first record of each subset, kind and split, in their order."""
    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        found.setdefault((record.subset, record.kind, record.split), record)
    return list(found.values())


def example_lines(task: Task, records: Sequence[Record], seed: int) -> Iterator[str]:
    """An example a line: split, subset, kind, and the prompt with its answer behind a bar.

    Args:
        task, records: the task, and what `build` made of it.
        seed: stage-1 seed that they were built for.
    """
    shown = examples(records)
    names = names_of(task, seed, load_entities(task))
    tags = {*names.tags, *names.random_tags}
    for wording in (task.design.wording or {}).values():
        tags |= {*wording.sources, *wording.phrases}
    widths = [max(len(getattr(one, name)) for one in shown) for name in ("split", "subset", "kind")]
    for one in shown:
        head = "  ".join(
            f"{getattr(one, name):{width}}" for name, width in zip(("split", "subset", "kind"), widths, strict=True)
        )
        yield f"{head}  {_coloured(one, tags)}"


def _coloured(record: Record, tags: set[str]) -> str:
    """A record's text on one line."""
    colours = {**dict.fromkeys(tags, TAG), record.entity: ENTITY, record.variable: VARIABLE}
    text = f"{record.prompt.rstrip(' ')} │ {record.completion.strip()}".replace("\n", "⏎")
    present = sorted((name for name in colours if name and name in text), key=len, reverse=True)
    if not present:
        return text
    # Whole words: a source or a phrase may be part of one.
    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in present)
    return re.sub(pattern, lambda found: click.style(found[0], fg=colours[found[0]]), text)


def contact_sheet(records: Sequence[Record], path: Path) -> Path | None:
    """Draw the pictures of some definitions and questions with what is to be answered, as the paper's Figure 5.

    Args:
        records: of a dataset.
        path: the picture; its ending decides the format.

    Returns:
        The path; None if the records have no pictures.

    Raises:
        OclBenchError: if it cannot be written.
    """
    shown = [record for record in examples(records) if record.picture is not None]
    if not shown:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    images = [_pixels(record.picture) for record in shown if record.picture is not None]
    rows = -(-len(shown) // SHEET_COLUMNS)
    figure, axes = pyplot.subplots(rows, SHEET_COLUMNS, figsize=(2 * SHEET_COLUMNS, 3.1 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, record, image in zip(axes.flat, shown, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"{record.subset}\n{record.kind}, {record.split}", fontsize=8)
        axis.text(
            0.5,
            -0.06,
            _in_rows(record),
            transform=axis.transAxes,
            ha="center",
            va="top",
            family="monospace",
            fontsize=9,
        )
    figure.tight_layout(h_pad=2.5)
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{path}: cannot be written ({error}).") from None
    finally:
        pyplot.close(figure)
    return path


def data_uri(picture: Picture) -> str:
    """A picture as a PNG inside an address, for pages; empty if its scans are not here."""
    import numpy as np
    from PIL import Image

    try:
        image = _pixels(picture)
    except OclBenchError:
        return ""
    content = io.BytesIO()
    Image.fromarray((255 * image).round().astype(np.uint8)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _pixels(picture: Picture) -> Any:
    """Shape (height, width), from 0 to 1; of those that show other scans each time, the first."""
    from ocl_bench.models.pictures import Album, Shown, pixels

    return pixels([Shown(Album([picture]), 0)])[0, 0].numpy()


def _in_rows(record: Record) -> str:
    """An answer, a row of the grid a line."""
    assert record.picture is not None
    words, columns = record.completion.split(), record.picture.columns
    return "\n".join(" ".join(words[start : start + columns]) for start in range(0, len(words), columns))
