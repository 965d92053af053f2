"""The faults: what is injected, how, and how often in the short and in the long form."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from torture import crowds, damages, disks, failures, kills
from torture.runs import EPOCHS, Bench, Lost

Cases = dict[str, Callable[[Bench], Lost]]
RANDOM_KILLS, POSITIONS, CROWD = 32, 4, 8
ALL_EPOCHS = 2 * EPOCHS[0] + 4 * EPOCHS[1]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: what the command line calls it.
        title: what the page calls it.
        how: how it is injected.
        expected: what has to be true after it, besides what is true after all of them.
        long: the cases of the long form.
        short: those of the short form; what hits a run of another fault's has none of its own.
    """

    name: str
    title: str
    how: str
    expected: str
    long: Cases
    short: Cases


def _named(**cases: Callable[[Bench], Lost]) -> Cases:
    return cases


def _damages() -> Cases:
    files = ("model.safetensors", "config.json", "curve.jsonl", "stage.json")
    kinds = (damages.truncated, damages.edited, damages.missing)
    return {f"{name}-{kind.__name__}": damages.stage_file(name, kind) for name in files for kind in kinds} | {
        f"rows.jsonl-{kind.__name__}": damages.rows_file(kind) for kind in kinds
    }


# What hits one run in the short form, start after start, before a worker of its last start is killed.
HITS = (
    kills.signalled(signal.SIGINT, 130, 10),
    kills.struck("worker", "replace", 0.25, "before", "all"),
    kills.signalled(signal.SIGKILL, -signal.SIGKILL, 30),
)

FAULTS = (
    Fault(
        "kill",
        "SIGKILL of the command at a random moment",
        f"one moment drawn from each of {RANDOM_KILLS} equal parts of a run's duration (seeded), a run each",
        "no process of it is left; the same command completes",
        {f"at-{one:.2f}": kills.kill_run(one) for one in kills.moments(RANDOM_KILLS)},
        {},
    ),
    Fault(
        "moment",
        "SIGKILL at the worst moments: between temporary file and rename, in a checkpoint, under a lock, between "
        "removal and replacement",
        "before or after the n-th `os.replace`, `os.link` or `shutil.rmtree` of the command's process, or the n-th "
        "`os.replace`, `os.fsync`, `os.mkdir` or `shutil.rmtree` of a worker, which takes the command with it; n at "
        f"{POSITIONS} positions over all calls that an undisturbed run makes, up to {kills.KILLS} times in each run",
        "the same command completes",
        kills.sweep(POSITIONS),
        {},
    ),
    Fault(
        "worker",
        "SIGKILL of a worker",
        "after an `os.fsync` in a worker, at four positions",
        "another worker tries the job once more; the command completes by itself",
        {f"at-{share}": kills.kill_worker(share) for share in (0.05, 0.35, 0.65, 0.95)},
        _named(last=kills.kill_worker(0.05, *HITS)),
    ),
    Fault(
        "workers",
        "SIGKILL of a worker, and of the one that tries its job again",
        "at the second `os.fsync` of every worker, four times",
        "exit code 3; the same command completes",
        _named(twice=kills.kill_worker_twice),
        {},
    ),
    Fault(
        "interrupt",
        "Ctrl-C",
        "SIGINT to the command's process, before training and after 10 and 39 of 40 epochs",
        "exit code 130, no traceback, no process is left; the same command completes",
        {f"after-{epochs}": kills.interrupt(signal.SIGINT, 130, epochs) for epochs in (0, 10, 39)},
        {},
    ),
    Fault(
        "terminate",
        "SIGTERM, as cluster schedulers send it",
        "SIGTERM to the command's process, before training and after 10 and 39 of 40 epochs",
        "exit code 143, no traceback, no process is left; the same command completes",
        {f"after-{epochs}": kills.interrupt(signal.SIGTERM, 143, epochs) for epochs in (0, 10, 39)},
        {},
    ),
    Fault(
        "disk",
        "The disk is full",
        "the output folder is on a tmpfs, filled up after 1 to 40 epochs but for 0 to 100 KB; then made larger",
        "one sentence on stderr, exit code 3, no traceback; the same command completes",
        {
            f"after-{epochs}-spare-{spare}": disks.disk_full(epochs, spare)
            for epochs, spare in ((1, 0), (8, 100_000), (15, 0), (30, 10_000), (40, 0))
        },
        _named(middle=disks.disk_full(15, 0)),
    ),
    Fault(
        "readonly",
        "The disk takes no more writes",
        "all folders below the output folder are made read-only after 1 to 40 epochs (a file system with open files "
        "cannot be mounted anew as read-only), for a process without the right to write nevertheless; later undone",
        "one sentence on stderr, exit code 3, no traceback; the same command completes",
        {f"after-{epochs}": disks.read_only(epochs) for epochs in (1, 20, 40)},
        {},
    ),
    Fault(
        "damage",
        "A finished file is truncated, edited in one byte, or missing",
        "`model.safetensors`, `config.json`, `curve.jsonl` or `stage.json` of a finished stage from which another has "
        "to start, or `rows.jsonl` of an evaluation, in place, so that hard links in the run folder are hit too",
        "named on stderr; made again, and the run folder is whole",
        _damages(),
        {name: _damages()[name] for name in ("model.safetensors-edited",)},
    ),
    Fault(
        "diverge",
        "The loss is no number",
        "`--set recipe.learning_rate=1e30` in the folder of a finished run",
        "one sentence with step and learning rate, exit code 3; what is finished is not trained again",
        _named(once=failures.diverging),
        {},
    ),
    Fault(
        "memory",
        "Memory runs out",
        "the address space of a worker is limited (`RLIMIT_AS`) once its libraries are imported, so that "
        f"{failures.LARGE} datapoints do not fit",
        "the micro-batch is halved until it fits, `manifest.json` tells how often; the command completes by itself",
        _named(once=failures.out_of_memory),
        _named(once=failures.out_of_memory),
    ),
    Fault(
        "same",
        "Eight processes with the same command at once",
        "started at the same time in one output folder",
        "all exit with 0; every epoch of every stage is trained once",
        _named(eight=crowds.same(CROWD)),
        {},
    ),
    Fault(
        "overlap",
        "Eight processes with overlapping seeds at once",
        "started at the same time in one output folder, four different seed sets",
        "all exit with 0; every epoch of every stage is trained once",
        _named(eight=crowds.overlapping(CROWD)),
        _named(two=crowds.overlapping(2)),
    ),
    Fault(
        "before",
        "Four processes with different recipes at once",
        "started at the same time in one output folder; they share what the untrained model answers",
        "all exit with 0",
        _named(four=crowds.same_before(4)),
        {},
    ),
    Fault(
        "holder",
        "SIGKILL of a process whose lock another waits for",
        "the holder of the run folder's lock, or of a stage's, is stopped until another waits, then killed",
        "the other takes over and completes by itself",
        _named(run=kills.kill_holder(True), stage=kills.kill_holder(False)),
        _named(stage=kills.kill_holder(False)),
    ),
    Fault(
        "vllm",
        "The vLLM process is killed once",
        "SIGKILL as soon as it is up",
        "it is replaced, `manifest.json` says so; the command completes by itself",
        _named(once=failures.vllm_lost(1)),
        {},
    ),
    Fault(
        "vllm2",
        "The vLLM process is killed twice",
        "SIGKILL of it and of its replacement as soon as they are started",
        "one sentence, exit code 3; the same command completes",
        _named(twice=failures.vllm_lost(2)),
        {},
    ),
    Fault(
        "engine_args",
        "Wrong `--engine_args`",
        "`max_model_len=1`",
        "one sentence, exit code 2",
        _named(once=failures.wrong_engine_args),
        {},
    ),
)
