"""The sample: what one model answered to one question, and how that was scored."""

from pydantic import Field

from ocl_bench.contract import Contract


class Sample(Contract):
    """One answered question. Every score of the suite is computed from these lines alone."""

    id: str = Field(description="the record's id")
    subset: str = Field(description="the record's subset")
    group: str = Field(description="which question of the entity it is")
    entity: str = Field(description="the entity that the question is about")
    stage: str = Field(description="the finetuning stage at whose end it was asked")
    seed: int = Field(description="stage-1 seed")
    stage2_seed: int = Field(description="stage-2 seed")
    chance: float = Field(description="accuracy of the best guess that does not look at the entity")
    em_forced: float = Field(description="1 if every token of an accepted answer, and its end, is the most likely one")
    logprob: float = Field(description="natural log-probability of the first answer and its end")
    generated: str = Field(description="greedy answer, cut at the first newline")
    em: float = Field(description="exact match of the greedy answer with an accepted one, normalised")
    f1: float = Field(description="word F1 of the greedy answer, best over the accepted ones, normalised")
