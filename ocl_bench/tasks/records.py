"""The record: one datapoint, trained on or tested, as one JSON line."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import structs
from pydantic import ValidationError

from ocl_bench.collection import without_collection
from ocl_bench.contract import explain
from ocl_bench.errors import OclBenchError
from ocl_bench.files import json_text, read_json_lines, sha256
from ocl_bench.frames import Rows
from ocl_bench.tasks.pictures import Picture
from ocl_bench.tasks.subsets import Split

Kind = Literal["definition", "qa", "attribution", "attribution_qa", "bare_variable", "cloze", "recall"]


# A struct, as a run has 100,000. `dict` is for its line.
class Record(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """One datapoint. `prompt + completion` is the whole text; a seq2seq model reads the one and writes the other.

    Attributes:
        id: unique within a dataset, the same for the same task, seed and stage-2 seed.
        subset: the data subset it belongs to.
        split: x0, x1 or x2: trained on in that split; test: only asked.
        kind: definition; qa: a question of the source; the other kinds are only asked. attribution is answered by the
            entity that the variable's definition names, attribution_qa by the one that its questions are about; recall
            is what was trained on, asked again.
        prompt: the text before the part that is to be produced.
        completion: the text to be produced, with its leading space and its final newline.
        answers: accepted answers, at least one; training uses the first.
        entity: the entity that the datapoint is truly about.
        variable: the variable that stands for the entity.
        group: which question of its kind it is; empty where there is one only.
        options: what the answer is chosen from; none where it is open.
        picture: what a model sees instead of reading the prompt; None for text.
    """

    id: str
    subset: str
    split: Split
    kind: Kind
    prompt: str
    completion: str
    answers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    entity: str
    variable: str
    group: str
    options: tuple[str, ...] = ()
    picture: Picture | None = None

    @property
    def given(self) -> "str | Picture":
        """What a model is given: the prompt, or the picture in its place."""
        return self.prompt if self.picture is None else self.picture

    @cached_property
    def line(self) -> str:
        """It as JSON, made once, as seeds share records. Neither a copy, which may be changed, nor a pickle has it."""
        return _line_of(self)

    @property
    def set(self) -> str:
        """What it belongs to, as results name it: the source's questions (`qa`), or such as `attribution/name`."""
        return self.kind if self.kind in ("qa", "recall") or not self.group else f"{self.kind}/{self.group}"


class Records(Rows[Record]):
    """Records, in the order of a dataset; `to_pandas()` and `to_datasets()` make columns of their fields."""

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__(records, _columns)

    def __repr__(self) -> str:
        counts = Counter(record.split for record in self)
        return f"{len(self)} records: {', '.join(f'{count} {split}' for split, count in counts.items())}"


def _columns(record: Record) -> dict[str, Any]:
    """Every field: `_row` leaves out what is empty, and a table has the same columns in each row."""
    return structs.asdict(record) | {
        "answers": list(record.answers),
        "options": list(record.options),
        "picture": record.picture and record.picture.model_dump(),
    }


def answer_text(answer: str) -> str:
    """An answer as the text that follows a prompt: what is trained on, scored, and ends what is generated."""
    return f" {answer}\n"


def texts(records: Iterable[Record]) -> Iterator[str]:
    """Every text that a model may read or have to write: what a word-level vocabulary is made of."""
    told: set[tuple[str, ...]] = set()
    for record in records:
        yield record.prompt + record.completion if record.picture is None else record.completion
        yield from record.answers[1:]
        if record.options not in told:  # which very many questions share
            told.add(record.options)
            yield from record.options


def serialize(records: Iterable[Record]) -> str:
    """The records as JSON lines: the bytes whose SHA-256 identifies a dataset."""
    return "".join([record.line for record in records])


def _line_of(one: Record) -> str:
    answers = ", ".join(map(json_text, one.answers))
    options = f', "options": [{", ".join(map(json_text, one.options))}]' if one.options else ""
    picture = "" if one.picture is None else f', "picture": {json.dumps(one.picture.model_dump(), ensure_ascii=False)}'
    return (
        f'{{"id": {json_text(one.id)}, "subset": {json_text(one.subset)}, "split": {json_text(one.split)}, '
        f'"kind": {json_text(one.kind)}, "prompt": {json_text(one.prompt)}, "completion": {json_text(one.completion)}, '
        f'"answers": [{answers}], "entity": {json_text(one.entity)}, "variable": {json_text(one.variable)}, '
        f'"group": {json_text(one.group)}{options}{picture}}}\n'
    )


def dataset_sha256(records: Iterable[Record]) -> str:
    """Identity of a dataset."""
    return sha256(serialize(records))


@without_collection()
def read_dataset(path: Path) -> list[Record]:
    """Read a dataset. Raises OclBenchError, naming file and line, if it holds anything else."""
    return [_read(row, f"{path} line {line}") for line, row in enumerate(read_json_lines(path), start=1)]


def _read(row: object, where: str) -> Record:
    try:
        return msgspec.convert(row, Record, dec_hook=_part)
    except msgspec.ValidationError as error:
        said = str(error)
        raise OclBenchError(f"{where}: {said[0].lower()}{said[1:].removesuffix('.')}.") from None


def _part(kind: type, value: object) -> Picture:
    """A record's picture, which is no struct."""
    try:
        return Picture.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(explain(Picture, error).removesuffix(".")) from None
