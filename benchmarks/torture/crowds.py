"""Several processes at once in one output folder."""

from collections.abc import Callable, Sequence

from torture.runs import Bench, Ended, Lost, Place, check_whole


def seed_sets(count: int) -> list[tuple[str, ...]]:
    """So many seed sets, each of which shares stages with others, and all of which two workers train."""
    kinds = (("0,1", "0,1"), ("0,1", "0,"), ("0,1,2", "0,"), ("1,2", "0,1"))
    return [("--seeds", one, "--stage2_seeds", two) for one, two in (kinds * count)[:count]]


def same(count: int) -> Callable[[Bench], Lost]:
    """So many processes with the same command."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        lost = _together(place, [()] * count, [("--seeds", "2", "--stage2_seeds", "2")] * count)
        bench.check(place)
        return lost

    return case


def overlapping(count: int) -> Callable[[Bench], Lost]:
    """So many processes with seed sets that overlap."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        lost = _together(place, [()] * count, seed_sets(count))
        check_whole(place)
        whole = [folder for folder in place.run_folders() if bench.holds_all(folder)]
        assert len(whole) == 1, "the run with all seeds is not equal to the reference"
        return lost

    return case


def same_before(count: int) -> Callable[[Bench], Lost]:
    """So many processes that train otherwise, but ask the same model before they do."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        options = [("--set", f"recipe.epochs=[{number + 1},1]") for number in range(count)]
        lost = _together(place, options, [("--seeds", "1", "--stage2_seeds", "1")] * count, once=False)
        check_whole(place)
        return lost

    return case


def _together(
    place: Place, options: Sequence[Sequence[str]], seeds: Sequence[Sequence[str]], once: bool = True
) -> Lost:
    runs = [place.start(*more, seeds=chosen) for more, chosen in zip(options, seeds, strict=True)]
    ended: list[Ended] = [run.wait() for run in runs]
    for one in ended:
        assert one.code == 0, f"exit code {one.code}: {one.stderr}"
    twice = [epoch for epoch, count in place.epochs().items() if count > 1]
    assert not (once and twice), f"trained more than once: {twice}"
    again = place.epochs_again() if once else 0
    return Lost(len(runs), len(runs), again, {"seconds of the slowest process": max(one.seconds for one in ended)})
