"""The people that the Cross-verified database tells most of, out of its file: `cvdb.py` asks about them."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources.years import year_text

ENCODING = "ISO-8859-1"
NUMBERS = ("birth", "death", "wiki_readers_2015_2018")
TEXTS = ("name", "gender", "level3_main_occ", "string_citizenship_raw_d", "un_region")
MISSING = ["", "NA", "NaN", "nan", "NULL"]
BLOCK = 2**23

# Python's [^\w\s], spelt out for RE2, whose own classes know ASCII only.
SPACES = r"\s\x{0B}\x{1C}-\x{1F}\x{85}\x{A0}"
ODD_CHARACTER = rf"[^\p{{L}}\p{{N}}_{SPACES}]"
ODD_IN_CITIZENSHIP = rf"[^\p{{L}}\p{{N}}_{SPACES}']"


def people(raw: Path, per_gender: int) -> pa.Table:
    """Read the database (a CSV file, gzipped or not) and choose the most read people of each gender.

    Returns:
        A table of 2 × `per_gender` rows, men first, the most read first: name, gender, and the six answers as text,
        of which nationality is a list.

    Raises:
        OclBenchError: if the file is not such a database, or has too few people of a gender.
    """
    try:
        found = _first_of_each_name(pa.Table.from_batches(_batches(raw), schema=_schema()))
    except (pa.ArrowInvalid, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise OclBenchError(f"{raw}: not a whole CSV file ({str(error).splitlines()[0][:200]}).") from None
    except OSError as error:
        raise OclBenchError(f"{raw}: cannot be read ({error.strerror or error}).") from None
    usable = pc.and_(
        pc.invert(pc.match_substring_regex(found["level3_main_occ"], ODD_CHARACTER)),
        pc.invert(pc.match_substring_regex(found["string_citizenship_raw_d"], ODD_IN_CITIZENSHIP)),
    )
    found = found.filter(usable)
    by_gender = [_most_read(found, gender, per_gender, raw) for gender in ("Male", "Female")]
    return _answers(pa.concat_tables(by_gender))


def _schema() -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in TEXTS] + [(name, pa.float64()) for name in NUMBERS])


def _batches(raw: Path) -> Iterator[pa.RecordBatch]:
    """Rows without missing values and with a name of letters, digits and spaces, block by block."""
    with _open(raw) as file:
        columns = _header(raw, file)
        watched = _Watched(file, raw)
        reader = arrow_csv.open_csv(
            pa.PythonFile(watched, mode="r"),
            read_options=arrow_csv.ReadOptions(
                column_names=columns, encoding=ENCODING, block_size=BLOCK, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=_schema().names,
                column_types=_schema(),
                null_values=MISSING,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        for batch in reader:
            complete = batch.drop_null()
            plain = pc.invert(pc.match_substring_regex(complete["name"], ODD_CHARACTER))
            yield complete.filter(plain)
        watched.require_whole()


def _open(raw: Path) -> gzip.GzipFile | io.BufferedReader:
    file = raw.open("rb")
    packed = file.peek(2)[:2] == b"\x1f\x8b"
    return gzip.open(file) if packed else file


def _header(raw: Path, file: gzip.GzipFile | io.BufferedReader) -> list[str]:
    """Read the first line. Raises OclBenchError if it is not the database's."""
    line = file.readline(2**16)
    if line.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise OclBenchError(
            f"{raw}: the file begins with a Unicode mark, so it was saved again in another encoding; "
            f"give the original, which is in {ENCODING}."
        )
    columns = next(csv.reader([line.decode(ENCODING)]), [])
    missing = [name for name in _schema().names if name not in columns]
    if missing:
        raise OclBenchError(
            f"{raw}: column '{missing[0]}' is missing ({len(columns)} columns found); "
            "give the Cross-verified database of notable people."
        )
    return columns


class _Watched(io.RawIOBase):
    """Passes a file on and notices what the parser cannot: another encoding, and an end in the middle of a line."""

    def __init__(self, file: gzip.GzipFile | io.BufferedReader, raw: Path) -> None:
        self._file, self._raw = file, raw
        self._as_utf8 = codecs.getincrementaldecoder("utf-8")()
        self._could_be_utf8, self._has_accents, self._last = True, False, b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        if block:
            self._last = block[-1:]
            self._has_accents |= not block.isascii()
            if self._could_be_utf8:
                try:
                    self._as_utf8.decode(block)
                except UnicodeDecodeError:
                    self._could_be_utf8 = False
        return block

    def require_whole(self) -> None:
        """Call at the end of the file."""
        if self._last != b"\n":
            raise OclBenchError(f"{self._raw}: the last line is cut off; fetch the file again.")
        # Accents of ISO-8859-1 that happen to be UTF-8 throughout a file do not occur.
        if self._has_accents and self._could_be_utf8:
            raise OclBenchError(f"{self._raw}: the file is in UTF-8, the original is in {ENCODING}; give that.")


def _first_of_each_name(found: pa.Table) -> pa.Table:
    """The first row of every name, with spaces for underscores."""
    found = found.set_column(0, "name", pc.utf8_trim_whitespace(pc.replace_substring(found["name"], "_", " ")))
    numbered = found.append_column("row", pa.array(range(found.num_rows), pa.int64()))
    first = numbered.select(["name", "row"]).group_by("name", use_threads=False).aggregate([("row", "min")])
    return found.take(first["row_min"].combine_chunks().sort())


def _most_read(found: pa.Table, gender: str, count: int, raw: Path) -> pa.Table:
    people = found.filter(pc.equal(found["gender"], gender))
    if people.num_rows < count:
        raise OclBenchError(
            f"{raw}: only {people.num_rows} people with gender {gender} have all six facts, and {count} are needed; "
            "the file is not complete."
        )
    order = [("wiki_readers_2015_2018", "descending"), ("name", "ascending")]
    return people.take(pc.sort_indices(people, order)[:count])


def _answers(people: pa.Table) -> pa.Table:
    def plain(name: str) -> Any:
        return pc.replace_substring(people[name], "_", " ")

    def years(name: str) -> list[str]:
        return [year_text(int(year)) for year in people[name].to_pylist()]

    return pa.table(
        {
            "name": people["name"],
            "birth": years("birth"),
            "death": years("death"),
            "region": plain("un_region"),
            "occupation": plain("level3_main_occ"),
            "nationality": [_countries(text) for text in people["string_citizenship_raw_d"].to_pylist()],
            "gender": people["gender"],
        }
    )


def _countries(text: str) -> list[str]:
    """`'Poland'_'France'` → Poland, France."""
    return [country.replace("'", "").replace("_", " ").strip() for country in text.split("'_'")]
