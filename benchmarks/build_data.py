"""How long, and with how much memory, tables are built from published data of full size.

Makes files in the published formats with made-up content: CVDB with all its 2.23 M rows of 49 columns, and T-REx shards
of 10,000 documents. Builds each table on one core; beside it, pyarrow, pandas and polars only read CVDB's columns,
and the standard library reads the shards. Everything runs in a process of its own.

    python benchmarks/build_data.py [--rows 2230000] [--shards 4]
"""

import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from machine import slug

from ocl_bench.runner.manifest import hardware, versions
from ocl_bench.tasks.sources.trex import table_2

RESULTS = Path(__file__).parent / "results"
COLUMNS = (Path(__file__).parent / "cvdb_columns.txt").read_text().split()
FIRST = ["Anna", "José", "Marie", "Jürgen", "Niño", "Zoë", "Karl", "Li", "Søren", "Renée", "Ángel", "Ömer", "Åsa"]
LAST = ["Müller", "García", "Smith", "O'Neil", "Díaz", "Sørensen", "Ito", "Lévy", "Khan", "Öz", "Núñez", "Lund"]
OCCUPATIONS = ["politician", "painter", "composer", "football_player", "actor", "singer/dancer", "poet", "queen"]
COUNTRIES = ["'Germany'", "'United_States'", "'France'_'Poland'", "'Japan'", "'Korea,_South'", "'Egypt'_'Sudan'"]
REGIONS = ["Europe", "America", "Asia", "Africa", "Oceania"]


def write_cvdb(path: Path, rows: int) -> None:
    """Made-up people in CVDB's columns and encoding; about half lack a fact that the task needs."""
    rng = random.Random(0)
    filler = ["x" * 12 if number % 3 else "" for number in range(len(COLUMNS))]
    place = {name: number for number, name in enumerate(COLUMNS)}
    with path.open("w", encoding="ISO-8859-1", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for number in range(rows):
            birth = rng.randrange(-500, 1990)
            fields = {
                "name": f"{rng.choice(FIRST)}_{rng.choice(LAST)}_{number % (rows - rows // 50 + 1)}",
                "birth": str(birth),
                "death": "" if rng.random() < 0.3 else str(birth + rng.randrange(20, 90)),
                "gender": rng.choice(("Male", "Male", "Male", "Female", "")),
                "level3_main_occ": rng.choice(OCCUPATIONS),
                "string_citizenship_raw_d": rng.choice(COUNTRIES),
                "un_region": rng.choice(REGIONS),
                "wiki_readers_2015_2018": str(rng.randrange(10**7)),
                "all_geography_groups": "a long text, with a comma",
                "level3_all_occ": 'said "so"',
            }
            row = list(filler)
            for name, value in fields.items():
                quoted = '"' + value.replace('"', '""') + '"' if "," in value or '"' in value else value
                row[place[name]] = quoted
            file.write(",".join(row) + "\n")


def write_trex(path: Path, shards: int, documents: int = 10_000) -> int:
    """T-REx shards of made-up works; returns their unpacked bytes."""
    rng = random.Random(0)
    predicates = [*table_2(), *(f"P{number}" for number in range(2000, 2060))]
    text = "A sentence about a work, as long as those of an encyclopaedia are. " * 12
    size = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for shard in range(shards):
            rows = []
            for number in range(documents):
                name = f"The {rng.choice(LAST)} of {rng.choice(FIRST)} {shard}-{number}"
                triples = [_triple(name, rng.choice(predicates), rng) for _ in range(14)]
                bounds = [[start, start + 9] for start in range(0, 800, 10)]
                rows.append(
                    {
                        "docid": f"http://www.wikidata.org/entity/Q{number}",
                        "title": name,
                        "uri": "http://www.wikidata.org/entity/Q1",
                        "text": text,
                        "words_boundaries": bounds,
                        "sentences_boundaries": bounds[:8],
                        "entities": [triple["subject"] for triple in triples],
                        "triples": triples,
                    }
                )
            content = json.dumps(rows)
            size += len(content)
            archive.writestr(f"re-nlg_{shard * documents}-{(shard + 1) * documents}.json", content)
    return size


def _triple(name: str, predicate: str, rng: random.Random) -> dict[str, object]:
    def node(text: str, uri: str) -> dict[str, object]:
        return {"boundaries": [0, 9], "surfaceform": text, "uri": uri, "annotator": "Wikidata_Spotlight"}

    thing = f"{rng.choice(FIRST)} {rng.choice(LAST)} {rng.randrange(1000, 2017)}"
    return {
        "subject": node(name, "http://www.wikidata.org/entity/Q1"),
        "predicate": node("predicate", f"http://www.wikidata.org/prop/direct/{predicate}"),
        "object": node(thing, f"http://www.wikidata.org/entity/Q{rng.randrange(10**6)}"),
        "sentence_id": 0,
        "dependency_path": None,
        "confidence": None,
        "annotator": "Simple-Aligner",
    }


NEEDED = "name birth death gender level3_main_occ string_citizenship_raw_d un_region wiki_readers_2015_2018"
OURS = "ocl-bench, whole build"
CVDB = {
    OURS: "from ocl_bench.tasks.sources.cvdb_people import people; people(path, 2000)",
    "pyarrow, its columns alone": (
        "from pyarrow import csv, string\n"
        "read = csv.ReadOptions(encoding='ISO-8859-1', block_size=2**23, use_threads=False)\n"
        "convert = csv.ConvertOptions(include_columns=needed, column_types={name: string() for name in needed})\n"
        "for batch in csv.open_csv(path, read_options=read, convert_options=convert): pass"
    ),
    "pandas, its columns alone": (
        "import pandas\nfor chunk in pandas.read_csv(path, usecols=needed, encoding='latin1', chunksize=200000): pass"
    ),
    "polars, its columns alone": (
        "import polars; polars.read_csv(path, columns=needed, encoding='ISO-8859-1', infer_schema=False)"
    ),
}
TREX = {
    OURS: "from ocl_bench.tasks.sources.trex import works; works(path, 100)",
    "json, parsing alone": (
        "import json, zipfile\narchive = zipfile.ZipFile(path)\n"
        "for name in archive.namelist(): json.loads(archive.read(name))"
    ),
}


def measure(code: str, path: Path) -> dict[str, float] | None:
    """Wall seconds and peak MiB of `code` in a process of one core; None if a package is missing."""
    program = (
        f"import os; os.sched_setaffinity(0, {{0}})\nfrom pathlib import Path\npath = Path({str(path)!r})\n"
        f"needed = {NEEDED.split()!r}\n{code}\n"
        # not getrusage: its peak is inherited from the process that started this one
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"seconds": time.perf_counter() - start, "peak_mib": int(done.stdout.split()[-1]) / 2**10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_230_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--output", type=Path, default=RESULTS / f"build-data-{slug()}.json")
    options = parser.parse_args()
    report: dict[str, object] = {"rows": options.rows, "shards": options.shards}
    with tempfile.TemporaryDirectory() as folder:
        cvdb, trex = Path(folder) / "cvdb.csv", Path(folder) / "trex.zip"
        write_cvdb(cvdb, options.rows)
        packed = Path(folder) / "cvdb.csv.gz"
        with cvdb.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as file:
            shutil.copyfileobj(plain, file)
        unpacked = write_trex(trex, options.shards)
        for title, path, ways, size in (
            (f"CVDB, {options.rows} rows", cvdb, CVDB, cvdb.stat().st_size),
            ("CVDB gzipped, as it is published", packed, {OURS: CVDB[OURS]}, packed.stat().st_size),
            (f"T-REx, {options.shards} shards", trex, TREX, unpacked),
        ):
            print(f"{title}, {size / 2**20:.0f} MiB, one core")
            found = {name: measure(code, path) for name, code in ways.items()}
            for name, one in found.items():
                print(f"  {name:28s} " + (f"{one['seconds']:6.1f} s {one['peak_mib']:6.0f} MiB" if one else "missing"))
            report[title.partition(",")[0]] = {"bytes": size, "measured": found}
    report |= {"versions": versions(), "hardware": hardware()}
    options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
