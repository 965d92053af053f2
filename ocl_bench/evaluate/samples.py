"""What evaluation leaves behind: the sample (one answered question) and the point of a learning curve."""

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.tasks.records import Kind


class Sample(Contract):
    """One answered question. Every score of the suite is computed from these lines alone."""

    id: str = Field(description="the record's id")
    subset: str = Field(description="the record's subset")
    kind: Kind = Field("qa", description="the record's kind: a question of the source, or of an evaluation set")
    group: str = Field(description="which question of its kind it is")
    entity: str = Field(description="the entity that the question is about")
    stage: str = Field(description="the finetuning stage at whose end it was asked")
    seed: int = Field(description="stage-1 seed")
    stage2_seed: int = Field(description="stage-2 seed")
    chance: float = Field(ge=0, le=1, description="accuracy of the best guess that does not look at the entity")
    em_forced: float = Field(
        ge=0, le=1, description="1 if every token of an accepted answer, and its end, is the most likely one"
    )
    logprob: float = Field(le=0, description="natural log-probability of the first answer and its end")
    generated: str = Field(description="greedy answer, cut at the first newline")
    em: float = Field(ge=0, le=1, description="exact match of the greedy answer with an accepted one, normalised")
    f1: float = Field(ge=0, le=1, description="word F1 of the greedy answer, best over the accepted ones, normalised")

    @property
    def set(self) -> str:
        """The evaluation set, as results name it: `qa`, or for example `attribution/name`."""
        return set_name(self.kind, self.group)


def set_name(kind: Kind, group: str) -> str:
    """The source's questions are one set, and each phrasing of another kind is one."""
    return kind if kind == "qa" or not group else f"{kind}/{group}"


class CurvePoint(Contract):
    """One point of a learning curve: a subset after an epoch, on a fixed sample of its questions."""

    stage: str = Field(description="the finetuning stage")
    epoch: int = Field(ge=1, description="epochs of the stage that are over")
    loss: float = Field(description="mean training loss of the epoch, in nats per labelled token")
    subset: str = Field(description="the questions' subset")
    set: str = Field("qa", description="what was asked: the source's questions (qa), or an evaluation set")
    em_forced: float = Field(ge=0, le=1, description="mean em_forced")
    logprob: float = Field(le=0, description="mean log-probability of the answers")
    n: int = Field(ge=1, description="questions asked")
