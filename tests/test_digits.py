"""A tiny run has the same bits twice on one machine; whether it has those of other machines, the warning says."""

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from digits import RESULTS, SETTINGS, measure

SETTING = "all alike"  # every library uses the code that all x86 processors have


def test_a_tiny_run_has_the_same_bits_again_and_tells_whether_other_machines_gave_them() -> None:
    bits = [{name: measure(SETTINGS[SETTING])[name] for name in ("weights", "answers")} for _ in range(2)]
    assert bits[0] == bits[1]
    for other in json.loads(RESULTS.read_text()):
        if other["setting"] == SETTING:
            same = (
                "the same bits as"
                if all(other[name] == value for name, value in bits[0].items())
                else "other bits than"
            )
            warnings.warn(f"a tiny run has {same} on {other['processor']}, torch {other['torch']}", stacklevel=1)
