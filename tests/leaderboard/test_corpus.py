"""The corpus of hostile inputs: each is refused for its own cause, or contained, within time and memory."""

import importlib
import pkgutil
import re
from pathlib import Path

import corpus
import pytest
from corpus.attack import Attack, Bench
from corpus.doors import built
from corpus.inert import complaints, hides
from corpus.outcome import Outcome
from tampering import Copy

WHOLE = 10.0  # seconds that an attack may take which is a whole entry of ten seeds; it may take twice the memory
MEGABYTES = 400  # above what the process holds before, of which a command of its own takes about 100
PRINTED = 60  # lines
RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
ACCEPTED = next((RESULTS / "attributes" / "ocl-bench__gpt-neox-1x16").iterdir())
SMALL = next((RESULTS / "digit_grid" / "ocl-bench__resnet-1x32").iterdir())


def attacks() -> list[Attack]:
    """Those of every module of the corpus."""
    modules = [importlib.import_module(f"corpus.{found.name}") for found in pkgutil.iter_modules(corpus.__path__)]
    return [attack for module in modules for attack in getattr(module, "ATTACKS", [])]


ATTACKS = attacks()


@pytest.fixture
def bench(small_submission: Path, small_run: Path, tmp_path: Path) -> Bench:
    return Bench(tmp_path, small_submission, small_run, ACCEPTED, SMALL)


@pytest.fixture(scope="session")
def pages(small_submission: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of an honest board: kind → page."""
    folder = tmp_path_factory.mktemp("honest")
    Copy(small_submission, folder / "leaderboard" / "results")
    shown = built(folder / "leaderboard", folder).shown
    return {"entry" if "config-" in path.stem else path.stem: path for path in shown}


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_board_is_not_fooled(attack: Attack, bench: Bench, pages: dict[str, Path]) -> None:
    outcome = attack.act(bench)
    # How long it takes is measured by benchmarks/validate.py; here only what hangs fails, on any machine.
    assert outcome.seconds < 5 * attack.allowed, f"took {outcome.seconds:.1f} s of processor time; {outcome.said}"
    assert outcome.megabytes < MEGABYTES * (2 if attack.allowed >= WHOLE else 1), f"took {outcome.megabytes:.0f} MB"
    assert_readable(outcome)
    if attack.refused or outcome.code:
        assert outcome.code in (1, 2), f"not refused: {outcome.said}"
        assert re.search(attack.said, outcome.said), f"refused for another cause: {outcome.said}"
        assert outcome.changed == (), "refused, and yet something was written"
    for path in outcome.shown:
        like = pages.get("entry" if "config-" in path.stem else path.stem)
        assert complaints(path, like) == []


def assert_readable(outcome: Outcome) -> None:
    """What is printed is sentences: a few lines of characters that can be seen, and no command to a log's reader."""
    lines = outcome.said.splitlines()
    assert "Traceback" not in outcome.said and "the checks failed" not in outcome.said, outcome.said
    assert len(lines) <= PRINTED and max(map(len, lines), default=0) < 1200
    assert not any(hides(char) for char in outcome.said), ascii(outcome.said)
    assert not any(re.match(r"\s*::|.*##\[", line) for line in lines), outcome.said


def test_there_are_two_hundred_hostile_inputs_each_with_a_name_of_its_own() -> None:
    names = list(map(str, ATTACKS))
    assert len(names) >= 200 and len(set(names)) == len(names)
