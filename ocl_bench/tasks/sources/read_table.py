"""Read a table of text: CSV, JSON lines, Parquet, Arrow, or a folder that `datasets` has saved.

Cells of a column come as text, or as several texts where the column holds lists.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError, did_you_mean, first_clause
from ocl_bench.files import read_json_lines

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ".csv, .tsv, .jsonl, .parquet or .arrow, or a folder that `datasets` has saved"
SEPARATORS = {".csv": ",", ".tsv": "\t"}

Text = str | tuple[str, ...]


def read_columns(path: Path, wanted: Sequence[str], most: int | None) -> dict[str, list[Text]]:
    """The columns that are wanted, of the first `most` rows or of all.

    Raises:
        OclBenchError: if the file is not there, is no such table, lacks a column or rows, or has an empty cell.
    """
    if not path.exists():
        raise OclBenchError(f"{path}: there is no such file; source_args.path is relative to the task file.")
    names, columns, rows = _of_json_lines(path) if _kind(path) == ".jsonl" else _of_arrow(path, wanted)
    if len(names) == 1 and (other := {";", "\t", "|"} & set(names[0])):
        raise OclBenchError(
            f"{path}: its columns are parted by {min(other)!r}; save it with commas, or as .tsv with tabs."
        )
    for name in wanted:
        if names.count(name) != 1:
            raise OclBenchError(
                f"{path}: column '{name}' is there twice; rename one."
                if name in names
                else f"{path}: there is no column '{name}'; {did_you_mean(name, names)}"
            )
    if rows < (most or 2):
        asked = "at least 2 are needed" if most is None else f"source_args.num_entities is {most}; lower it or add rows"
        raise OclBenchError(f"{path}: the table has {rows} rows, and {asked}.")
    return {
        name: [_text(value, f"{path} row {row}: column '{name}'") for row, value in enumerate(columns[name][:most], 1)]
        for name in wanted
    }


def _text(value: Any, where: str) -> Text:
    if isinstance(value, list) and value:
        return tuple(_plain(one, where) for one in value)
    return _plain(value, where)


def _plain(value: Any, where: str) -> str:
    """A cell as text; 3.0 is 3, because a column of whole numbers may have come as one of floats."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value in (None, [], "") or not (text := str(value).strip()):
        raise OclBenchError(f"{where} is empty; fill it, or leave the row out.")
    if isinstance(value, (dict, list, bytes)):
        raise OclBenchError(f"{where} holds neither text nor a number, nor a list of such; write it as text.")
    if len(text.splitlines()) > 1:
        raise OclBenchError(f"{where} has a line break; names and answers are one line.")
    return text


def _kind(path: Path) -> str:
    return path.suffix.lower()


Columns = tuple[list[str], dict[str, list[Any]], int]  # names of all, values of those that are wanted, and rows


def _of_json_lines(path: Path) -> Columns:
    _utf8(path)
    rows = list(read_json_lines(path))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, {name: [row.get(name) for row in rows] for name in names}, len(rows)


def _of_arrow(path: Path, wanted: Sequence[str]) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    labels: dict[str, list[str]] = {}
    try:
        if path.is_dir():
            table, labels = _saved(path)
        elif _kind(path) in SEPARATORS:
            table = _csv(path, wanted)
        elif _kind(path) == ".parquet":
            table = parquet.read_table(path)
        elif _kind(path) == ".arrow":
            table = _arrow(path)
        else:
            raise OclBenchError(f"{path}: this is no table that can be read; give {KINDS}.")
    except (pa.ArrowException, OSError) as error:
        raise OclBenchError(f"{path}: this is not a whole table ({first_clause(error)}).") from None
    columns = {name: table[name].to_pylist() for name in wanted if table.column_names.count(name) == 1}
    for name in labels.keys() & columns.keys():
        columns[name] = [
            labels[name][number] if number is not None and number >= 0 else None for number in columns[name]
        ]
    return table.column_names, columns, table.num_rows


def _csv(path: Path, wanted: Sequence[str]) -> "pa.Table":
    """All that is wanted as it is written: 007 stays, and NA is no missing value."""
    import pyarrow as pa
    from pyarrow import csv

    text = dict.fromkeys(wanted, pa.string())
    return csv.read_csv(
        pa.BufferReader(_utf8(path)),
        parse_options=csv.ParseOptions(delimiter=SEPARATORS[_kind(path)], newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=text),
    )


def _utf8(path: Path) -> bytes:
    """A file's bytes. Raises OclBenchError, naming the line, if they are text in another encoding."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise OclBenchError(f"{path} line {line}: the file is not in UTF-8; save it in that encoding.") from None
    return content


def _arrow(path: Path) -> "pa.Table":
    """A file of Arrow's IPC, or a stream, which `datasets` writes."""
    import pyarrow as pa

    with path.open("rb") as file:
        whole = file.read(6) == b"ARROW1"
    with pa.memory_map(str(path)) as source:
        return (pa.ipc.open_file if whole else pa.ipc.open_stream)(source).read_all()


def _saved(folder: Path) -> "tuple[pa.Table, dict[str, list[str]]]":
    """What `Dataset.save_to_disk` left, and the names of the classes of each column that numbers them."""
    import pyarrow as pa

    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        raise OclBenchError(f"{folder}: the folder holds splits; name one of them, such as {folder / splits[0]}.")
    try:
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
        features = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, KeyError):
        raise OclBenchError(
            f"{folder}: the folder was not made by `Dataset.save_to_disk`; name a file in it."
        ) from None
    labels = {name: one["names"] for name, one in features.items() if "names" in one}
    return pa.concat_tables(_arrow(folder / one["filename"]) for one in files), labels
