"""What is asked of the hub before anything is loaded from it: once, for a few bytes, so that a miss is told at once.

Its libraries ask again and again, for minutes, for whatever they neither get nor have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, first_clause


def commit_of(repository: str, file: str, revision: str, asked_by: str) -> str:
    """The commit that a revision of a model stands for, by the hub or else by the local cache.

    Args:
        repository: a hub id.
        file: one that it must have.
        revision: a branch, a tag or a commit.
        asked_by: the option that names it.

    Raises:
        OclBenchError: if neither has it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(repository, file, revision=revision)
    except HFValidationError as error:
        raise OclBenchError(f"{asked_by}: this is no name of the hub ({first_clause(error)}).") from None
    try:
        if commit := get_hf_file_metadata(hf_hub_url(repository, file, revision=revision)).commit_hash:
            return commit
        reason = "it tells no commit"
    except HfHubHTTPError as error:
        reason = f"it says: {first_clause(error.server_message or str(error.response.status_code))}"
    except Exception as error:  # of whatever carries the question
        reason = _unreachable(error)
    if isinstance(cached, str):
        return Path(cached).parent.name  # the cache keeps each commit's files in a folder of its name
    raise OclBenchError(f"{asked_by}: neither the hub nor the local cache has it ({reason}).")


def _unreachable(error: Exception) -> str:
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "the hub is not asked, as HF_HUB_OFFLINE says"
    return f"the hub cannot be reached: {first_clause(error)}"


@contextmanager
def cache_if_unreachable() -> Iterator[str | None]:
    """Within the block the hub's libraries take what the local cache has, if the hub cannot be reached; yields why."""
    import datasets
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # of whatever carries the question
        reason = _unreachable(error)
    else:
        yield None
        return
    places: tuple[Any, ...] = (constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield reason
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
