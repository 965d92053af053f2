"""Published data: fetched once, reduced once to a small table, and read from there ever after."""

import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import platformdirs
from filelock import FileLock

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file, write_atomic
from ocl_bench.tasks.sources.fetch import Progress, download

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"ocl_bench"


def cache_folder() -> Path:
    """Where fetched data and tables are kept: OCL_BENCH_CACHE, else the platform's cache folder."""
    return Path(os.environ.get("OCL_BENCH_CACHE") or platformdirs.user_cache_dir("ocl-bench", appauthor=False))


@dataclass(frozen=True)
class RemoteFile:
    """A published file. `sha256` and `size` are None where no trustworthy number is known to us."""

    url: str
    file_name: str
    sha256: str | None = None
    size: int | None = None


class PublishedData(ABC):
    """Base of what is made from published files: entities, or scans that pictures are made of.

    Attributes:
        name: the data's name, and its folder in the cache.
        files: the files' public homes.
        table_version: goes up whenever `prepare` would make another table of the same files.
        rows: what a row of the table is.
        small: the task that shows the same without a download.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[RemoteFile, ...]]
    table_version: ClassVar[int]
    rows: ClassVar[str] = "entities"
    small: ClassVar[str]

    @abstractmethod
    def prepare(self, *raw: Path) -> "pa.Table":
        """Read the raw files into a table. Raises OclBenchError if they are not what they should be."""

    def table_path(self) -> Path:
        """The table, in the cache."""
        return cache_folder() / self.name / "table.parquet"

    def raw_paths(self) -> tuple[Path, ...]:
        """The published files, in the cache."""
        return tuple(cache_folder() / self.name / file.file_name for file in self.files)

    def state(self) -> Literal["present", "fetched", "absent"]:
        """Whether the table is in the cache, or only the files that it is made from, or neither."""
        if self.table_path().is_file():
            return "present"
        return "fetched" if all(path.is_file() for path in self.raw_paths()) else "absent"

    def fetch(self, origin: str | None, progress: Progress) -> tuple[Path, ...]:
        """Get the published files and make the table.

        Args:
            origin: None for the public home; another address; or a local file, which stays where it is; of several
                files the folder that they are in, or its address. The checksums of the public files hold for every
                address. A local file may be another edition or unpacked, so its own checksum is kept with the table
                instead.
            progress: called with bytes fetched and bytes in all.

        Returns:
            The files that the table was made from.
        """
        if origin is not None and not origin.startswith(("http://", "https://")):
            raw = self._local(Path(origin))
        else:
            raw = self.raw_paths()
            urls = [file.url if origin is None else self._in(origin, file) for file in self.files]
            try:
                with self._lock():
                    for file, url, path in zip(self.files, urls, raw, strict=True):
                        download(url, path, sha256=file.sha256, size=file.size, progress=progress)
            except OclBenchError as error:
                raise OclBenchError(f"{str(error).removesuffix('.')}; {self._without_network()}.") from None
        with self._lock():
            self._make(raw)
        return raw

    def _in(self, origin: str, file: RemoteFile) -> str:
        return origin if len(self.files) == 1 else f"{origin.rstrip('/')}/{file.file_name}"

    def _local(self, origin: Path) -> tuple[Path, ...]:
        """The files at a place of this machine, packed or not."""
        if len(self.files) == 1:
            if not origin.is_file():
                raise OclBenchError(f"--from {origin}: there is no such file.")
            return (origin,)
        if not origin.is_dir():
            raise OclBenchError(f"--from {origin}: there is no such folder; give the one that holds the files.")
        found = []
        for file in self.files:
            names = (file.file_name, file.file_name.removesuffix(".gz"))
            here = next((origin / name for name in names if (origin / name).is_file()), None)
            if here is None:
                raise OclBenchError(f"--from {origin}: has no {' and no '.join(names)}.")
            found.append(here)
        return tuple(found)

    def table(self) -> "pa.Table":
        """The table; made from the fetched files if it is not there yet.

        Raises:
            OclBenchError: if neither is there, or the table is of another version or damaged.
        """
        if self.state() == "absent":
            raise OclBenchError(f"the data of '{self.name}' is not here; {self._advice()}.")
        with self._lock():
            fault = self._fault()
            if fault is not None:
                if not all(path.is_file() for path in self.raw_paths()):
                    raise OclBenchError(f"{self.table_path()} {fault}; {self._advice()}.")
                self._make(self.raw_paths())
        from pyarrow import parquet

        return parquet.read_table(self.table_path())

    def _fault(self) -> str | None:
        """What is wrong with the table in the cache; None if nothing is."""
        path = self.table_path()
        if not path.is_file():
            return "is missing"
        import pyarrow as pa
        from pyarrow import parquet

        try:
            about = json.loads((parquet.read_metadata(path).metadata or {})[METADATA])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return "is damaged or not a table of ocl-bench"
        if about.get("table_version") != self.table_version:
            return f"is of version {about.get('table_version')}, and this is version {self.table_version}"
        return None

    def _make(self, raw: Sequence[Path]) -> None:
        from pyarrow import parquet

        table = self.prepare(*raw)
        about = {
            "table_version": self.table_version,
            "raw": {path.name: sha256_of_file(path) for path in raw},
        }
        stream = io.BytesIO()
        parquet.write_table(table.replace_schema_metadata({METADATA: json.dumps(about)}), stream)
        try:
            write_atomic(self.table_path(), stream.getvalue())
        except OSError as error:
            raise OclBenchError(
                f"{self.table_path()}: cannot be written ({error.strerror}); make room there."
            ) from None

    def _lock(self) -> FileLock:
        folder = self.table_path().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OclBenchError(f"{folder}: cannot be made ({error.strerror}); set OCL_BENCH_CACHE.") from None
        return FileLock(folder / "lock")

    def _advice(self) -> str:
        home = self.files[0].url if len(self.files) == 1 else self.files[0].url.rpartition("/")[0]
        return f"fetch it from {home} with `ocl-bench data fetch {self.name}`, {self._without_network()}"

    def _without_network(self) -> str:
        origin = "FILE" if len(self.files) == 1 else "FOLDER"
        return (
            f"give a local copy with `ocl-bench data fetch {self.name} --from {origin}`, "
            f"or run the task {self.small}, which needs no download"
        )
