"""Processes that are killed or interrupted."""

import json
import random
import signal
import time
from collections.abc import Callable

from torture.runs import Bench, Lost, Place, check_whole

SEED = 20251125
KILLS = 3  # of one run, at most
# Starts a run in a place, and ends it before it is complete.
Hit = Callable[[Bench, Place], None]


def moments(count: int) -> list[float]:
    """So many random moments of a run, as shares of its duration, one from each of as many equal parts."""
    chance = random.Random(SEED)
    return [(number + chance.random()) / count for number in range(count)]


def kill_run(share: float) -> Callable[[Bench], Lost]:
    """SIGKILL of the command's process after a share of the time that a whole run takes."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        run = place.start()
        time.sleep(share * bench.seconds)
        hit = run.process.poll() is None
        run.process.kill()
        run.process.wait()
        gone = run.gone()
        starts = 1 + place.finish()
        bench.check(place)
        return Lost(int(hit), starts, place.epochs_again(), {"seconds until its processes were gone": gone})

    return case


def strike(place: Place, role: str, call: str, number: int, when: str, whom: str, times: int = 1) -> dict[str, str]:
    """Environment of a run in which a process is killed at a call."""
    kill = {
        "role": role, "call": call, "number": number, "when": when, "whom": whom, "times": times,
        "marker": str(place.folder / "marker"),
    }  # fmt: skip
    return {"TORTURE_KILL": json.dumps(kill)}


def kill_at(role: str, call: str, share: float, when: str, whom: str, times: int) -> Callable[[Bench], Lost]:
    """SIGKILL before or after a call of the process in a role: the one that comes after a share of all of them.

    The same command again is killed at the call with the same number, as often as it gets there, but `times` at most.
    """

    def case(bench: Bench) -> Lost:
        number = 1 + int(share * bench.calls(role, call))
        place = bench.place()
        starts, before = 1, 0
        while (ended := place.run(environment=strike(place, role, call, number, when, whom, times))).code:
            assert place.strikes() > before, f"not killed, but ended with {ended.code}: {ended.stderr}"
            starts, before = starts + 1, place.strikes()
        bench.check(place)
        return Lost(place.strikes(), starts, place.epochs_again())

    return case


def struck(role: str, call: str, share: float, when: str, whom: str) -> Hit:
    """SIGKILL at a call, as `kill_at` has it."""

    def hit(bench: Bench, place: Place) -> None:
        number, before = 1 + int(share * bench.calls(role, call)), place.strikes()
        ended = place.run(environment=strike(place, role, call, number, when, whom))
        assert place.strikes() == before + 1, f"not killed, but ended with {ended.code}: {ended.stderr}"

    return hit


def kill_worker(share: float, *before: Hit) -> Callable[[Bench], Lost]:
    """SIGKILL of one worker: the command goes on without help. So it does in a run that others have hit `before`."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        for hit in before:
            hit(bench, place)
        number, strikes = 1 + int(share * bench.calls("worker", "fsync")), place.strikes()
        ended = place.run(environment=strike(place, "worker", "fsync", number, "after", "self", strikes + 1))
        assert ended.code == 0, ended.stderr
        killed = place.strikes() - strikes
        assert killed or not before, "what is left of a run that was hit has no such call"
        assert not killed or "trying it once more" in ended.stderr, ended.stderr
        bench.check(place)
        return Lost(len(before) + killed, len(before) + 1, place.epochs_again())

    return case


def kill_worker_twice(bench: Bench) -> Lost:
    """SIGKILL of the worker that has a job, and of the one that tries it again: the job fails, others are kept."""
    place = bench.place()
    ended = place.run(environment=strike(place, "worker", "fsync", 2, "before", "self", times=4))
    assert ended.code == 3, f"exit code {ended.code}: {ended.stderr}"
    starts = 1 + place.finish()
    bench.check(place)
    return Lost(place.strikes(), starts, place.epochs_again())


def signalled(number: signal.Signals, code: int, epochs: int) -> Hit:
    """A signal after so many epochs, those of former starts included; 0: before training has begun."""

    def hit(bench: Bench, place: Place) -> None:
        run = place.start()
        if epochs:
            assert run.until_epochs(epochs)
        else:
            time.sleep(0.4 * bench.seconds)
        run.process.send_signal(number)
        ended = run.wait()
        assert ended.code == code, f"exit code {ended.code}, not {code}: {ended.stderr}"
        assert "Traceback" not in ended.stderr, ended.stderr

    return hit


def interrupt(number: signal.Signals, code: int, epochs: int) -> Callable[[Bench], Lost]:
    """A signal after so many epochs, and the same command again."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        signalled(number, code, epochs)(bench, place)
        starts = 1 + place.finish()
        bench.check(place)
        return Lost(1, starts, place.epochs_again())

    return case


def kill_holder(same: bool) -> Callable[[Bench], Lost]:
    """SIGKILL of a run whose lock another waits for: that of the same run, or that of a stage that both have."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        holder = place.start()
        assert holder.until_epochs(2)
        held = holder.processes()
        for process in held:
            process.suspend()
        waiter = place.start() if same else place.start(seeds=("--seeds", "1", "--stage2_seeds", "1"))
        assert waiter.until(lambda: "wait" in waiter.stderr(), "the other to wait"), waiter.stderr()
        killed = time.perf_counter()
        for process in held:
            process.kill()
        holder.process.wait()
        ended = waiter.wait()
        assert ended.code == 0, ended.stderr
        told = {"seconds from the kill to the waiter's end": time.perf_counter() - killed}
        if same:
            bench.check(place)
        else:
            assert place.finish() == 1
            check_whole(place)
        return Lost(1, 1, place.epochs_again(), told)

    return case


def sweep(count: int) -> dict[str, Callable[[Bench], Lost]]:
    """Kills at `count` positions of each kind of call, before and after it in turn."""
    kinds = (
        ("run", "replace", "self"), ("run", "link", "self"), ("run", "rmtree", "self"), ("worker", "replace", "all"),
        ("worker", "fsync", "all"), ("worker", "rmtree", "all"), ("worker", "mkdir", "all"),
    )  # fmt: skip
    return {
        f"{role}-{call}-{number}": kill_at(
            role, call, (number + 0.5) / count, ("before", "after")[number % 2], whom, KILLS
        )
        for role, call, whom in kinds
        for number in range(count)
    }
