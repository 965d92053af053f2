"""What a run's processes tell each other, and what a run tells whoever watches it."""

import msgspec


class OfStage(msgspec.Struct, tag=True, frozen=True):
    """Whatever concerns one stage of one cell."""

    seed: int
    stage2_seed: int
    stage: str


class Ready(msgspec.Struct, tag=True, frozen=True):
    """A worker is up, on this hardware."""

    hardware: dict[str, str]


class EpochDone(OfStage, frozen=True):
    """So many epochs of `epochs` are trained; the loss is the last one's."""

    epoch: int
    epochs: int
    loss: float


class Answered(OfStage, frozen=True):
    """So many further questions are answered (negative: to be asked again), of `of` in all."""

    questions: int
    of: int


class StageDone(OfStage, frozen=True):
    """A stage is trained and evaluated, or was found finished; `key` addresses its content."""

    key: str
    seconds: float
    reused: bool


class Generate(OfStage, frozen=True):
    """Asks the run's vLLM engine for a checkpoint's answers to prompts of token ids; `Tokens` comes back."""

    of: int
    checkpoint: str
    prompts: list[list[int]]
    max_new_tokens: list[int]
    stop_ids: list[int]


class Waiting(OfStage, frozen=True):
    """A worker waits with a stage, and why."""

    reason: str


class Note(msgspec.Struct, tag=True, frozen=True):
    """A line for whoever watches."""

    text: str


class SeedDone(msgspec.Struct, tag=True, frozen=True):
    """All cells of a stage-1 seed are done, and the worker is free."""

    seed: int


class Job(msgspec.Struct, tag=True, frozen=True):
    """What a worker is to do."""

    folder: str
    seed: int
    stage2_seed: int
    stage: int


class Tokens(msgspec.Struct, tag=True, frozen=True):
    """Token ids that answer `Generate`; None if the worker has to generate by itself."""

    tokens: list[list[int]] | None


class EngineChosen(msgspec.Struct, tag=True, frozen=True):
    """The engine that generates the run's answers, as far as is known by now."""

    engine: str
    reason: str


FromWorker = Ready | EpochDone | Answered | StageDone | Generate | Waiting | Note | SeedDone
ToWorker = Job | Tokens
FromRun = FromWorker | EngineChosen
