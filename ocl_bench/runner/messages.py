"""What a run's processes tell each other, and what a run tells whoever watches it."""

import msgspec


class Where(msgspec.Struct, frozen=True):
    """One stage of one cell: its seeds, the stage's number, and what people call it."""

    seed: int
    stage2_seed: int
    stage: int
    name: str


class OfStage(msgspec.Struct, tag=True, frozen=True):
    """Whatever concerns one stage of one cell."""

    where: Where


class Ready(msgspec.Struct, tag=True, frozen=True):
    """A worker is up, on this hardware."""

    hardware: dict[str, str]


class EpochDone(OfStage, frozen=True):
    """So many epochs of `epochs` are trained; the loss is the last one's."""

    epoch: int
    epochs: int
    loss: float


class Stepped(OfStage, frozen=True):
    """A stage is at an optimizer step; told about once a second.

    Attributes:
        step, steps: the last step's number, and how many the stage has.
        tokens_per_second: tokens without padding, since the stage began or went on, learning curves aside.
        memory: bytes that the process has by now, of a card if it trains on one.
        device: what it trains on.
        loss: of that step; None if it is no number.
    """

    step: int
    steps: int
    tokens_per_second: float
    memory: int
    device: str
    loss: float | None


class Answered(OfStage, frozen=True):
    """So many further questions are answered (negative: to be asked again), of `of` in all."""

    questions: int
    of: int


class StageDone(OfStage, frozen=True):
    """A stage is trained and evaluated, or was found so; `key` is what it is found by."""

    key: str
    seconds: float
    reused: bool


class Generate(OfStage, frozen=True):
    """Asks the run's vLLM engine for a checkpoint's answers to prompts of token ids; `Tokens` comes back."""

    checkpoint: str
    prompts: list[list[int]]
    max_new_tokens: list[int]
    stop_ids: list[int]


class Waiting(OfStage, frozen=True):
    """A worker waits with a stage, and why."""

    reason: str


class JobFailed(OfStage, frozen=True):
    """A job has failed; the worker goes on. `exit_code` as of `processes.Failed`."""

    message: str
    exit_code: int | None


class JobLost(OfStage, frozen=True):
    """A job cannot begin, because the weights that it starts from are gone or damaged."""

    reason: str


class Note(msgspec.Struct, tag=True, frozen=True):
    """A line for whoever watches.

    Attributes:
        text: the line.
        ended: the stage that is no longer under way, if that is what it says: it failed, or begins again.
    """

    text: str
    ended: Where | None = None


class Job(OfStage, frozen=True):
    """What a worker is to do.

    Attributes:
        folder: the run folder; `store`: the output folder.
        base: JSON of the identity of the model that the cell's first stage starts from.
        parent: key of the stage before; None for the first.
        weights: whether a later stage needs this one's weights, which were there once.
        log: file for what libraries print.
        device: the worker's, as people call it.
    """

    folder: str
    store: str
    base: str
    parent: str | None
    weights: bool
    log: str
    device: str


class Tokens(msgspec.Struct, tag=True, frozen=True):
    """Answers `Generate`: token ids, and the engine's version and dtype; None if the worker has to generate itself."""

    tokens: list[list[int]] | None
    version: str = ""
    dtype: str = ""


class EngineChosen(msgspec.Struct, tag=True, frozen=True):
    """The engine that generates the run's answers, as far as is known by now."""

    engine: str
    reason: str


class Beat(msgspec.Struct, tag=True, frozen=True):
    """Nothing has happened for a while, and the run is there."""


class TrainingBegins(msgspec.Struct, tag=True, frozen=True):
    """A run begins to train.

    Attributes:
        done, of: stages that are done, and all.
        steps: optimizer steps of those that are not.
        parameters: of the model.
        slots: devices of the stages that are trained at a time.
    """

    done: int
    of: int
    steps: int
    parameters: int
    slots: tuple[str, ...]


FromWorker = Ready | Stepped | EpochDone | Answered | StageDone | Generate | Waiting | JobFailed | JobLost | Note
ToWorker = Job | Tokens
FromRun = FromWorker | EngineChosen | TrainingBegins | Beat
