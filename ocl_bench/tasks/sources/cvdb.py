"""Famous people: the Cross-verified database of notable people (Laouenan et al. 2022, Scientific Data 9:290).

The recipe is the paper's (appendix A.1): the most read 2000 men and 2000 women, six questions each.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.tasks.sources import Entity, Question
from ocl_bench.tasks.sources.published import PublishedData, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa

PER_GENDER = 2000

QUESTIONS = {
    "birth": "When was {entity} born?",
    "death": "When did {entity} die?",
    "region": "In which region did {entity} live?",
    "occupation": "What did {entity} do?",
    "nationality": "What was the nationality of {entity}?",
    "gender": "What was the gender of {entity}?",
}


class CvdbSource(PublishedData):
    """People such as `Marie Curie`, questions such as `When was Marie Curie born?`."""

    name = "cvdb"
    # The digest is the one that other users of the file have published.
    files = (
        RemoteFile(
            "https://data.sciencespo.fr/api/access/datafile/4432",
            "cross-verified-database.csv.gz",
            sha256="fe44aa6f97cf9f6c12d040137f92a9f4d0fd1f50e28f7f5d80eeae29b487828d",
        ),
    )
    table_version = 1
    small = "cvdb_sample"

    class Args(Contract):
        num_entities: int = Field(
            2 * PER_GENDER, ge=2, le=2 * PER_GENDER, multiple_of=2, description="people, half men and half women"
        )

    def prepare(self, *raw: Path) -> "pa.Table":
        """The 2000 most read men and women with their six answers."""
        from ocl_bench.tasks.sources.cvdb_people import people

        return people(raw[0], PER_GENDER)

    def entities(self, args: Args) -> list[Entity]:
        """The most read people, men first. Chance is the share of a question's most common answer."""
        return _entities(self.table(), args.num_entities // 2)


class CvdbSampleSource:
    """The same of 200 very famous people, whose facts were compiled by hand and come with the package."""

    class Args(Contract):
        num_entities: int = Field(200, ge=2, le=200, multiple_of=2, description="people, half men and half women")

    def entities(self, args: Args) -> list[Entity]:
        """The most famous people, men first. Chance is the share of a question's most common answer."""
        from ocl_bench.tasks.sources.cvdb_people import people

        return _entities(people(SAMPLE, 100), args.num_entities // 2)


SAMPLE = Path(__file__).parent / "cvdb_sample.csv"


def _entities(table: "pa.Table", per_gender: int) -> list[Entity]:
    rows = table.to_pylist()
    men, women = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    chosen = [*men[:per_gender], *women[:per_gender]]
    answers = {group: [_as_tuple(row[group]) for row in chosen] for group in QUESTIONS}
    chance = {
        group: max(Counter(answer[0] for answer in found).values()) / len(chosen) for group, found in answers.items()
    }
    return [
        Entity(
            row["name"],
            tuple(
                Question(group, template, answers[group][number], chance[group])
                for group, template in QUESTIONS.items()
            ),
        )
        for number, row in enumerate(chosen)
    ]


def _as_tuple(answer: str | list[str]) -> tuple[str, ...]:
    return (answer,) if isinstance(answer, str) else tuple(answer)
