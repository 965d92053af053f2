"""The CVDB table: the paper's filters and texts, whatever the file looks like, and never a smaller or a torn one."""

import csv
import gzip
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ocl_bench.cli import main
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources.cvdb import CvdbSource
from ocl_bench.tasks.sources.cvdb_people import MISSING, people
from ocl_bench.tasks.sources.years import year_text

COLUMNS = (
    "wikidata_code", "birth", "death", "gender", "name", "level3_main_occ", "string_citizenship_raw_d", "un_region",
    "wiki_readers_2015_2018", "note",
)  # fmt: skip
PERSON = {
    "wikidata_code": "Q1",
    "birth": "1867",
    "death": "1934",
    "gender": "Female",
    "name": "Marie_Curie",
    "level3_main_occ": "physicist",
    "string_citizenship_raw_d": "'Poland'_'France'",
    "un_region": "Europe",
    "wiki_readers_2015_2018": "1000",
    "note": "",
}
MAN = PERSON | {"gender": "Male", "name": "Pierre_Curie", "level3_main_occ": "physical_chemist"}


def write(path: Path, rows: list[dict[str, str]], encoding: str = "ISO-8859-1", newline: str = "\n") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator=newline)
        writer.writeheader()
        writer.writerows(rows)
    return path


def names(path: Path, per_gender: int = 1) -> list[str]:
    return [str(name) for name in people(path, per_gender)["name"].to_pylist()]


def crowd(count: int) -> list[dict[str, str]]:
    """`count` men and as many women, each less read than the one before."""
    return [
        base | {"name": f"{base['gender']}_Nr{number}", "wiki_readers_2015_2018": str(10**6 - number)}
        for base in (MAN, PERSON)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("year", "text"),
    [
        (1812, "19 century"), (1900, "19 century"), (1801, "19 century"), (1800, "18 century"), (100, "1 century"),
        (101, "2 century"), (1, "1 century"), (0, "0 century"), (-1, "1 century BC"), (-100, "1 century BC"),
        (-101, "2 century BC"), (-122, "2 century BC"), (1901, "1900s"), (1923, "1920s"), (1999, "1990s"),
        (2000, "2000"), (2018, "2018"),
    ],
)  # fmt: skip
def test_years_are_worded_as_the_facts_page_says(year: int, text: str) -> None:
    assert year_text(year) == text


def test_a_person_becomes_six_answers(tmp_path: Path) -> None:
    rows = people(write(tmp_path / "raw.csv", [PERSON, MAN]), 1).to_pylist()
    assert rows == [
        {
            "name": name,
            "birth": "19 century",
            "death": "1930s",
            "region": "Europe",
            "occupation": occupation,
            "nationality": ["Poland", "France"],
            "gender": gender,
        }
        for name, gender, occupation in (
            ("Pierre Curie", "Male", "physical chemist"),
            ("Marie Curie", "Female", "physicist"),
        )
    ]


def test_the_most_read_of_each_gender_are_taken_and_ties_go_by_name(tmp_path: Path) -> None:
    women = [PERSON | {"name": name, "wiki_readers_2015_2018": str(n)} for name, n in (("C", 5), ("B", 9), ("A", 5))]
    path = write(tmp_path / "raw.csv", [*women, MAN, MAN | {"name": "Other", "wiki_readers_2015_2018": "2000"}])
    assert names(path, 2) == ["Other", "Pierre Curie", "B", "A"]


@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in ("wikidata_code", "note")])
@pytest.mark.parametrize("missing", MISSING)
def test_a_row_with_a_missing_value_is_dropped(column: str, missing: str, tmp_path: Path) -> None:
    better = PERSON | {"name": "Better", "wiki_readers_2015_2018": "5000", column: missing}
    assert names(write(tmp_path / "raw.csv", [better, PERSON, MAN])) == ["Pierre Curie", "Marie Curie"]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"name": "José_Núñez_Ñ"}, True),
        ({"name": "Anne-Marie_X"}, False),
        ({"name": "O'Neil"}, False),
        ({"name": "J._Smith"}, False),
        ({"name": 'The_"Great"'}, False),
        ({"name": "Smith,_Ann"}, False),
        ({"name": "X_(painter)"}, False),
        ({"level3_main_occ": "singer-songwriter"}, False),
        ({"level3_main_occ": "film_director"}, True),
        ({"string_citizenship_raw_d": "'Korea,_South'"}, False),
        ({"string_citizenship_raw_d": "'Côte_d'Ivoire'"}, True),
        ({"string_citizenship_raw_d": "France"}, True),
        ({"gender": "Other"}, False),
    ],
)
def test_names_occupations_and_citizenships_with_odd_characters_are_dropped(
    change: dict[str, str], kept: bool, tmp_path: Path
) -> None:
    better = PERSON | {"name": "Better", "wiki_readers_2015_2018": "5000"} | change
    chosen = names(write(tmp_path / "raw.csv", [better, PERSON, MAN]))[1]
    assert (chosen != "Marie Curie") == kept


@given(st.characters(codec="iso-8859-1"))
def test_a_character_of_a_name_is_odd_exactly_if_python_says_so(character: str) -> None:
    import pyarrow.compute as pc

    from ocl_bench.tasks.sources.cvdb_people import ODD_CHARACTER, ODD_IN_CITIZENSHIP

    odd = pc.match_substring_regex([character], ODD_CHARACTER)[0].as_py()
    assert odd == bool(re.search(r"[^\w\s_]", character))
    assert pc.match_substring_regex([character], ODD_IN_CITIZENSHIP)[0].as_py() == (odd and character != "'")


def test_of_one_name_the_first_row_counts_even_where_it_cannot_be_used(tmp_path: Path) -> None:
    first = PERSON | {"name": "Twice", "wiki_readers_2015_2018": "10"}
    again = first | {"wiki_readers_2015_2018": "9000"}
    assert names(write(tmp_path / "a.csv", [first, again, PERSON, MAN])) == ["Pierre Curie", "Marie Curie"]
    odd = first | {"level3_main_occ": "singer-songwriter"}
    assert names(write(tmp_path / "b.csv", [odd, again, PERSON, MAN])) == ["Pierre Curie", "Marie Curie"]
    incomplete = first | {"death": ""}
    assert names(write(tmp_path / "c.csv", [incomplete, again, PERSON, MAN])) == ["Pierre Curie", "Twice"]


def test_names_that_differ_in_an_underscore_only_are_one(tmp_path: Path) -> None:
    rows = [PERSON | {"name": "Ann Lee"}, PERSON | {"name": "Ann_Lee", "wiki_readers_2015_2018": "5000"}, PERSON, MAN]
    assert sorted(names(write(tmp_path / "raw.csv", rows)))[0] == "Ann Lee"
    with pytest.raises(OclBenchError, match="only 2 people with gender Female"):
        people(write(tmp_path / "raw.csv", [*rows, MAN | {"name": "B"}, MAN | {"name": "C"}]), 3)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_accents_quotes_commas_and_newlines_in_fields_and_windows_newlines_are_read(
    newline: str, tmp_path: Path
) -> None:
    odd = {"note": 'a "quoted", long\nnote'}
    rows = [PERSON | odd | {"name": "Édith_Piaf"}, MAN | odd]
    assert names(write(tmp_path / "raw.csv", rows, newline=newline)) == ["Pierre Curie", "Édith Piaf"]


def test_a_gzipped_file_is_read_by_its_content(tmp_path: Path) -> None:
    plain = write(tmp_path / "raw.csv", [PERSON, MAN])
    packed = tmp_path / "packed.csv"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert names(packed) == names(plain)


def spoil(kind: str, content: bytes) -> bytes:
    """A file of accents and many rows, spoilt."""
    text = content.decode("ISO-8859-1")
    return {
        "utf-8": text.encode(),
        "utf-8 with a mark": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "no newline at the end": content[:-1],
        "last line cut to two fields": content[: content.rstrip().rfind(b"\n")] + b"\nQ1,1900\n",
        "a column renamed": content.replace(b"level3_main_occ", b"occupation", 1),
        "a line too long": content.replace(b"Male_Nr1,", b"Male_Nr1,extra,", 1),
        "a year that is a word": content.replace(b",1867,", b",late,", 1),
        "cut gzip": gzip.compress(content)[:-20],
        "damaged gzip": gzip.compress(content)[:40] + b"damage" + gzip.compress(content)[46:],
        "empty": b"",
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("utf-8", "in UTF-8, the original is in ISO-8859-1"),
        ("utf-8 with a mark", "saved again in another encoding"),
        ("utf-16", "saved again in another encoding"),
        ("no newline at the end", "the last line is cut off"),
        ("last line cut to two fields", "not a whole CSV file"),
        ("a column renamed", "column 'level3_main_occ' is missing"),
        ("a line too long", "not a whole CSV file"),
        ("a year that is a word", "not a whole CSV file"),
        ("cut gzip", "not a whole CSV file"),
        ("damaged gzip", "not a whole CSV file|cannot be read"),
        ("empty", "column 'name' is missing"),
        ("a picture", "column 'name' is missing"),
    ],
)
def test_a_spoilt_file_is_refused_in_one_sentence(kind: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "raw.csv", [PERSON | {"name": "Édith_Piaf"}, *crowd(20)])
    path.write_bytes(spoil(kind, path.read_bytes()))
    with pytest.raises(OclBenchError, match=message) as error:
        people(path, 5)
    assert "\n" not in str(error.value)


def test_too_few_people_of_a_gender_are_refused_with_the_count(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.csv", [*crowd(5), PERSON])
    with pytest.raises(OclBenchError, match="only 5 people with gender Male have all six facts, and 6 are needed"):
        people(path, 6)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cvdb"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cvdb") / "database.csv", crowd(2100))


def fetch(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["data", "fetch", "cvdb", *map(str, arguments)])


def test_without_data_the_sentence_names_the_ways_to_get_it(cache: Path) -> None:
    with pytest.raises(OclBenchError) as error:
        build(load_task("cvdb"), 0)
    for way in ("ocl-bench data fetch cvdb`", "ocl-bench data fetch cvdb --from FILE", "cvdb_sample"):
        assert way in str(error.value)


def test_a_local_copy_becomes_the_task_and_is_not_needed_again(cache: Path, database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(database.read_bytes())
    result = fetch("--from", copy)
    assert result.exit_code == 0, result.stderr
    assert "4000 entities" in result.stdout
    copy.unlink()
    records = build(load_task("cvdb"), 0)
    assert sum(record.split == "x1" for record in records) == 2000 + 2800 * 5
    assert sum(record.split == "x2" for record in records) == 960
    assert {record.prompt.replace(record.variable, "X") for record in records if record.kind == "qa"} >= {
        "Q: When was X born?\nA:", "Q: When did X die?\nA:", "Q: In which region did X live?\nA:",
        "Q: What did X do?\nA:", "Q: What was the nationality of X?\nA:", "Q: What was the gender of X?\nA:",
    }  # fmt: skip
    smaller = CvdbSource().entities(CvdbSource.Args(num_entities=4))
    assert [entity.name for entity in smaller] == ["Male Nr0", "Male Nr1", "Female Nr0", "Female Nr1"]
    assert "already there" in fetch().stdout


def test_a_missing_local_copy_and_a_spoilt_one_leave_no_table(cache: Path, tmp_path: Path) -> None:
    assert "there is no such file" in fetch("--from", tmp_path / "nowhere.csv").stderr
    spoilt = tmp_path / "spoilt.csv"
    spoilt.write_text("a,b\n1,2\n")
    result = fetch("--from", spoilt)
    assert (result.exit_code, CvdbSource().state()) == (2, "absent")


@pytest.mark.parametrize("fault", ["older version", "torn", "other file"])
def test_a_table_that_is_not_this_versions_is_refused_or_made_again(
    fault: str, cache: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "older version":
        with monkeypatch.context() as older:
            older.setattr(CvdbSource, "table_version", 0)
            fetch("--from", database)
    else:
        fetch("--from", database)
        table = cache / "table.parquet"
        table.write_bytes(table.read_bytes()[:-100] if fault == "torn" else b"something else")
    with pytest.raises(OclBenchError, match=r"version 0, and this is version 1|is damaged"):
        CvdbSource().table()
    (cache / CvdbSource.files[0].file_name).write_bytes(database.read_bytes())
    assert CvdbSource().table().num_rows == 4000


@pytest.mark.parametrize("end", ["full disk", "killed"])
def test_a_build_that_ends_while_it_writes_leaves_no_table_and_the_next_one_is_right(
    end: str, cache: Path, database: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / CvdbSource.files[0].file_name).write_bytes(database.read_bytes())
    # Past the limit the system sends a signal, which kills the process or, if ignored, makes the write fail.
    code = (
        f"import signal; signal.signal(signal.SIGXFSZ, signal.{'SIG_DFL' if end == 'killed' else 'SIG_IGN'})\n"
        "from ocl_bench.tasks.sources.cvdb import CvdbSource; CvdbSource().table()"
    )
    limit = (10_000, 10_000)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        check=False,
    )
    if end == "killed":
        assert done.returncode == -signal.SIGXFSZ
    else:
        assert "OclBenchError" in done.stderr
        assert "make room there" in done.stderr
    assert not (cache / "table.parquet").exists()
    assert CvdbSource().table().num_rows == 4000


def test_the_sample_is_a_hundred_women_and_men_of_every_region() -> None:
    records = build(load_task("cvdb_sample"), 0)
    gender = {record.entity: record.answers[0] for record in records if record.group == "gender"}
    assert Counter(gender.values()) == {"Male": 100, "Female": 100}
    regions = {record.answers[0] for record in records if record.group == "region"}
    assert regions == {"Europe", "America", "Asia", "Africa", "Oceania"}
