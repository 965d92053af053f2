"""A tiny run has the bits that one had before; whether it has those of other machines, the warning says."""

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from digits import RESULTS, SETTINGS, measure

SETTING = "all alike"  # every library uses the code that all x86 processors have


def bits() -> dict[str, str]:
    measured = measure(SETTINGS[SETTING])
    return {name: measured[name] for name in ("weights", "answers")}


def test_a_tiny_run_has_the_same_bits_again_and_tells_whether_other_machines_gave_them() -> None:
    found, same = bits(), False
    for other in json.loads(RESULTS.read_text()):
        if other["setting"] == SETTING:
            alike = all(other[name] == value for name, value in found.items())
            said = "the same bits as" if alike else "other bits than"
            warnings.warn(f"a tiny run has {said} on {other['processor']}, torch {other['torch']}", stacklevel=1)
            same |= alike
    assert same or bits() == found  # those of a run that is recorded, or of one here
