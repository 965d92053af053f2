"""Importing this makes transformers do without what it imports, where it is installed, for what the suite never does.

That is a quarter of the time until a process can train. To transformers these packages are absent as long as the
process lives: this is for processes of the suite's own, and for none that a user's code shares. All else has them.
"""

import sys

from transformers.utils import is_datasets_available, is_scipy_available, is_sklearn_available

# Trainer's data (with pandas), losses of object detection, assisted generation.
for _name, _is_available in (
    ("datasets", is_datasets_available),
    ("scipy", is_scipy_available),
    ("sklearn", is_sklearn_available),
):
    if _name not in sys.modules:
        sys.modules[_name] = None  # type: ignore[assignment]  # as Python has it of what cannot be imported
        _is_available()  # which it remembers
        del sys.modules[_name]
