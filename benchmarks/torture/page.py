"""docs/reliability.md: what was injected, what it cost, and how it ended, from what the last long form measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from torture.faults import ALL_EPOCHS, FAULTS, Fault
from torture.runs import RUN, SEEDS, STAGES

Found = Mapping[str, Any]  # what became of one case

HEAD = """# What a run survives

Made by `make torture`, which injects every fault below into real runs and compares the end with a run that nothing
interrupted; every number here is measured by it. After a fault, the same command is typed again. Then answers, learning
curves, data, `results.json`, `model.safetensors` and the checksum of the weights in every `stage.json` are equal to the
last byte (CPU, same number of threads), every file of every stage and evaluation has the checksum that its record
tells, and no half-written file lies about.

The run has {stages} stages with {epochs} epochs in all, which two workers train, and took {seconds:.0f} s undisturbed
on {cores} cores ({date}):

    ocl-bench {command}

| fault | how | times | what was lost | result |
|---|---|---:|---|---|
"""

FOOT = """
“Trained again” counts epochs of one run that had been trained to their end, which happens where a worker is hit after
an epoch and before its checkpoint is whole. The epoch that a worker is at when it is killed is lost besides; with the
default `--checkpoint_seconds 60` so is what was trained since the last checkpoint, a minute or one epoch, whichever is
longer.

## What was not tested

A power cut cannot be made here. What is done for it: every file is written under another name, handed to the disk
(`fsync`), and only then renamed, so that a name never stands for half a file; a checkpoint counts only once its seal,
written last, has the checksum of every file in it. What a disk does that says so and has not written is beyond that.

A file of a finished stage that is edited without a change of its size is found once something is made from it: all
files but weights at every start, weights when the next stage is trained from them. An edit of what `stage.json` tells
of a stage beside its identity and the checksums of its files, such as its seconds, is not noticed.
"""


def page(cases: Mapping[str, Sequence[Found]], facts: Mapping[str, Any]) -> str:
    """The page.

    Args:
        cases: name of a fault → what became of its cases.
        facts: `seconds` of the undisturbed run, `cores`, `date`.
    """
    command = " ".join(f"'{part}'" if "[" in part else part for part in (*RUN, *SEEDS))
    head = HEAD.format(command=command, stages=STAGES, epochs=ALL_EPOCHS, **facts)
    return head + "".join(_row(fault, cases[fault.name]) for fault in FAULTS if fault.name in cases) + FOOT


def _row(fault: Fault, cases: Sequence[Found]) -> str:
    hit = [one for one in cases if one["lost"]]
    times = sum(one["lost"]["faults"] for one in hit)
    return f"| {fault.title} | {fault.how} | {times} | {_lost(hit)} | {_result(fault, cases)} |\n"


def _lost(hit: Sequence[Found]) -> str:
    if not hit:
        return "–"
    again = [one["lost"]["epochs_again"] for one in hit]
    told = [f"at most {max(again)} of {ALL_EPOCHS} epochs trained again ({sum(again) / len(again):.1f} on average)"]
    if not any(again):
        told = ["no finished epoch"]
    for name in hit[0]["lost"]["told"]:
        told.append(f"{name}: at most {max(one['lost']['told'][name] for one in hit):.3g}")
    return "; ".join(told)


def _result(fault: Fault, cases: Sequence[Found]) -> str:
    if skipped := [one["skipped"] for one in cases if one["skipped"]]:
        return f"not tested: {skipped[0]}"
    passed = sum(one["error"] is None for one in cases)
    failed = "".join(f"; **{one['name']}: {one['error'].splitlines()[0][:200]}**" for one in cases if one["error"])
    return f"{fault.expected}: {passed} of {len(cases)}{failed}"
