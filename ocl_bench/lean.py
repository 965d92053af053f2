"""Importing this makes transformers do without what it imports, where it is installed, for what the suite never does.

That is a quarter of the time until a process can train. To transformers these packages are absent as long as the
process lives: this is for processes of the suite's own, and for none that a user's code shares. All else has them.
"""

import sys

# Trainer's own data (with pandas), losses of object detection, assisted generation.
_hidden = [name for name in ("datasets", "scipy", "sklearn") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]  # as Python has it of what cannot be imported
try:
    from transformers.utils import is_datasets_available, is_scipy_available, is_sklearn_available

    for _is_available in (is_datasets_available, is_scipy_available, is_sklearn_available):
        _is_available()  # which it remembers
finally:
    for _name in _hidden:
        del sys.modules[_name]
