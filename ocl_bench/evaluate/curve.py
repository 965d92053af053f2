"""The point of a learning curve."""

from pydantic import Field

from ocl_bench.contract import Contract


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
