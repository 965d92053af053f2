"""Names of a leaderboard's folders: each place once, each model's name spelled in one way."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ocl_bench.text import spelled_otherwise, spelled_out


def model_folders(results: Path) -> Iterator[str]:
    """Names of the folders of models, org__model, of every task below `results`."""
    for model in sorted(results.glob("*/*")):
        if "__" in model.name and model.is_dir():
            yield model.name


def name_taken(place: str, folders: Iterable[str]) -> str | None:
    """What is wrong with a place's model name beside others: one that differs in upper and lower case only.

    Some file systems would have both in one folder, and readers would take one for the other.

    Args:
        place: task/org__model/revision.
        folders: names of the other models' folders.
    """
    other = spelled_otherwise(place.split("/")[1], folders)
    if other is None:
        return None
    return (
        f"{spelled_out(other).replace('__', '/')} is there, and differs in upper and lower case only; use one spelling"
    )


def misplaced(results: Path, folder: Path, place: str) -> str | None:
    """What is wrong with where a submission lies: links and pages would lead elsewhere."""
    return None if folder == results / place else f"belongs into {spelled_out(str(results / place))}"
