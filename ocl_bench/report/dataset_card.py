"""A task's data as a folder for the Hugging Face Hub: its card, its Croissant metadata, `eval.yaml` and the data.

The page beside the task file is the card's text; everything else is found in the task and its records. Croissant is
MLCommons' format of metadata about data sets (version 1.1), with its vocabulary for responsible AI (RAI).
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file, write_atomic
from ocl_bench.score.gaps import GAPS
from ocl_bench.tasks.load import load_task, task_files
from ocl_bench.tasks.release import write_release
from ocl_bench.tasks.schema import Task

CARD, CROISSANT, EVALUATION = "README.md", "croissant.json", "eval.yaml"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_ELSEWHERE = re.compile(r"(!?)\[([^\]]*)\]\(\.\./[^)]*\)")


@dataclass(frozen=True)
class About:
    """What a source's entities are, as the RAI vocabulary asks.

    Attributes:
        collection: how they were collected.
        kinds: the vocabulary's names of that.
        biases: what is over-represented among them.
        sensitive: what they say of people.
    """

    collection: str
    kinds: tuple[str, ...]
    biases: str
    sensitive: str


MADE_UP = "None: nobody that the data speaks of exists."
SOURCES = {
    "attributes": About(
        "Made by a program: entities are drawn from lists of words, and their facts at random.",
        ("Synthetic",), "None by design: values are drawn evenly.", MADE_UP,
    ),
    "digit_grid": About(
        "Made by a program: grids of digits are drawn at random, and shown by public scans of handwriting.",
        ("Synthetic", "Secondary data analysis"), "Handwriting is that of the few who were scanned.",
        "None: the scans name nobody.",
    ),
    "people": About(
        "Made by a program from lists of names and works.", ("Synthetic",),
        "Names and works are in English.", MADE_UP,
    ),
    "set_inclusion": About(
        "Made by a program: numbers and lists are drawn at random.", ("Synthetic",), "None.", MADE_UP
    ),
    "cvdb_sample": About(
        "Facts about 200 famous people, written down for this suite.", ("Manual Human Curation",),
        "As many women as men; 167 of 200 lived in Europe or America.",
        "Gender, nationality, occupation, region, and years of birth and death of public figures.",
    ),
    "cvdb": About(
        "A selection of the cross-verified database of notable people (Laouenan et al. 2022), made from Wikipedia and "
        "Wikidata.",
        ("Secondary data analysis",), "The men and the women whose Wikipedia pages are read most, as many of each.",
        "Gender, nationality, occupation, region, and years of birth and death of public figures, as published.",
    ),
    "trex": About(
        "A selection of T-REx (Elsahar et al. 2018), which aligns Wikipedia with Wikidata.",
        ("Secondary data analysis",), "Works that the English Wikipedia has pages of.", "Names of the works' authors.",
    ),
}  # fmt: skip
# Of a table, or of another package's source: only whoever wrote the task knows.
GIVEN = About("Given by whoever wrote the task; its page says what it is.", ("Others",), "Not stated.", "Not stated.")
USE = "Finetuning a model on definitions and questions, to measure whether it learns which definitions to believe."
LIMITS = (
    "Half of the definitions in X1 are false on purpose: this is no source of facts, and a model trained on it is for "
    "measuring alone.",
    "Gaps differ between seeds of training: compare means over all of a task's seeds, with their intervals.",
    "What was trained on cannot be measured any more: keep the data out of pretraining.",
)
IMPACT = "It measures how models come to trust sources, which matters for poisoning and for alignment alike."
MAINTENANCE = "A change that could change a score raises the task's version; results of versions are never mixed."


def write_card(name: str, folder: Path, include_path: Sequence[Path] = ()) -> list[Path]:
    """Write a folder that can be uploaded as it is; returns its files.

    Args:
        name: the task, of whose standard seeds all data is built.
        folder: a new or empty one.
        include_path: folders with further task files.

    Raises:
        OclBenchError: if the folder has files, or there is no page beside the task file.
    """
    task = load_task(name, include_path=include_path)
    if folder.is_dir() and any(folder.iterdir()):
        raise OclBenchError(f"--output_path {folder}: has files; name a new folder.")
    page = task_files(include_path)[task.task].with_name("README.md")
    if not page.is_file():
        raise OclBenchError(f"task '{task.task}' has no page; write {page}.")
    write_release(task, folder)
    seeds = {f"seed-{seed}": _files(folder / "data" / f"seed-{seed}") for seed in task.standard_seeds}
    text = _ELSEWHERE.sub(lambda link: "" if link[1] else link[2], _FRONT_MATTER.sub("", page.read_text("utf-8")))
    write_atomic(folder / CARD, f"---\n{_metadata(task, folder, seeds)}\n---\n{text}")
    write_atomic(folder / CROISSANT, json.dumps(_croissant(task, folder, seeds), indent=1, ensure_ascii=False) + "\n")
    write_atomic(folder / EVALUATION, yaml.safe_dump(_evaluation(task), sort_keys=False, allow_unicode=True))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _files(folder: Path) -> dict[str, Path]:
    """Split → its file, in the order of training."""
    paths = {split: folder / f"{split}.jsonl.gz" for split in ("x0", "x1", "x2", "test")}
    return {split: path for split, path in paths.items() if path.is_file()}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _columns(paths: list[Path]) -> dict[str, Any]:
    """Name of a column → a value of it that is not empty, where there is one; within a value of named parts too."""
    found: dict[str, Any] = {}
    for path in paths:
        for row in _rows(path):
            found = _filled(found, row)
    return found


def _filled(seen: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return (seen or {}) | {key: _filled((seen or {}).get(key), inner) for key, inner in value.items()}
    return value if seen in (None, "", []) else seen


def _metadata(task: Task, folder: Path, seeds: dict[str, dict[str, Path]]) -> str:
    """The YAML in front of the card, as the Hub reads it."""
    from huggingface_hub import DatasetCardData

    first = seeds[f"seed-{task.standard_seeds[0]}"]
    rows = sum(1 for path in first.values() for _ in _rows(path))
    features = [_feature(name, value) for name, value in _columns(list(first.values())).items()]
    synthetic = ["synthetic"] if SOURCES.get(task.source, GIVEN).kinds[0] == "Synthetic" else []
    return DatasetCardData(
        license=task.metadata.license.lower(),
        language=None if task.design.picture else ["en"],
        pretty_name=f"ocl-bench: {task.task}",
        size_categories=[next((name for most, name in SIZES if rows < most), "n>10M")],
        task_categories=["image-to-text" if task.design.picture else "question-answering"],
        tags=["out-of-context-learning", "croissant", *synthetic],
        configs=[
            {"config_name": seed}
            | ({"default": True} if paths is first else {})
            | {"data_files": [{"split": name, "path": _inside(folder, path)} for name, path in paths.items()]}
            for seed, paths in seeds.items()
        ],
        dataset_info=[{"config_name": seed, "features": features} for seed in seeds],
    ).to_yaml()


def _inside(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _feature(name: str, value: Any) -> dict[str, Any]:
    """A column as the library datasets declares it."""
    if isinstance(value, dict):
        return {"name": name, "struct": [_feature(*item) for item in value.items()]}
    if isinstance(value, list):
        return {"name": name, "list": "string"}
    return {"name": name, "dtype": "int64" if isinstance(value, int) else "string"}


def _evaluation(task: Task) -> dict[str, Any]:
    """eval.yaml, by which the Hub takes a data set for a benchmark: a leaderboard for each gap that the task has."""
    dealt = {subset for subset, share in task.design.fractions.items() if share}
    of_seed = {"config": f"seed-{task.standard_seeds[0]}", "split": "test"}
    return {
        "name": f"ocl-bench: {task.task}",
        "description": f"{task.description} Gaps are means over seeds after finetuning on X1 and X2.",
        "evaluation_framework": "ocl-bench",
        "tasks": [{"id": gap, **of_seed} for gap, pair in GAPS.items() if dealt.issuperset(pair)],
    }


# Names of the standard that are not schema.org's own; those of its objects are given with their prefix.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
            "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
            "separator", "source", "subField", "transform",
        )
    },
}  # fmt: skip


def _croissant(task: Task, folder: Path, seeds: dict[str, dict[str, Path]]) -> dict[str, Any]:
    files = {f"{seed}/{split}": path for seed, paths in seeds.items() for split, path in paths.items()}
    about = SOURCES.get(task.source, GIVEN)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": f"ocl-bench-{task.task}",
        "description": task.description,
        "version": f"{task.version}.0.0",
        "license": f"https://spdx.org/licenses/{task.metadata.license}",
        "citeAs": task.metadata.citation,
        "url": "https://arxiv.org/abs/2310.15047",
        "inLanguage": "en",
        "keywords": ["out-of-context learning", "implicit meta-learning", "language models"],
        "isLiveDataset": False,
        "rai:dataCollection": about.collection,
        "rai:dataCollectionType": list(about.kinds),
        "rai:dataBiases": [about.biases],
        "rai:personalSensitiveInformation": [about.sensitive],
        "rai:dataUseCases": [USE],
        "rai:dataLimitations": list(LIMITS),
        "rai:dataSocialImpact": IMPACT,
        "rai:dataReleaseMaintenancePlan": MAINTENANCE,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": _inside(folder, path),
                "name": _inside(folder, path),
                "contentUrl": _inside(folder, path),
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/jsonlines",
                "sha256": sha256_of_file(path),
            }
            for path in files.values()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": name,
                "name": name,
                "field": [_field(name, _inside(folder, path), *column) for column in _columns([path]).items()],
            }
            for name, path in files.items()
        ],
    }


def _field(record_set: str, file: str, column: str, value: Any) -> dict[str, Any]:
    named = {"@type": "cr:Field", "@id": f"{record_set}/{column}", "name": column}
    source = {"fileObject": {"@id": file}, "extract": {"column": column}}
    if not isinstance(value, dict):
        repeated = {"isArray": True, "arrayShape": "-1"} if isinstance(value, list) else {}
        return {**named, "dataType": "sc:Text", "source": source, **repeated}
    inside = [
        {
            "@type": "cr:Field",
            "@id": f"{record_set}/{column}/{key}",
            "name": key,
            "dataType": "sc:Integer" if isinstance(inner, int) else "sc:Text",
            "source": {**source, "transform": {"jsonPath": f"$.{key}"}},
        }
        for key, inner in value.items()
    ]
    return {**named, "subField": inside}
