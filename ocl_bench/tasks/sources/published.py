"""Sources made from published data: fetched once, reduced once to a small table, and read from there ever after."""

import io
import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import platformdirs
import pyarrow as pa
from filelock import FileLock
from pyarrow import parquet

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file, write_atomic
from ocl_bench.tasks.sources.fetch import Progress, download

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


class PublishedSource(ABC):
    """Base of sources that are made from a published file.

    Attributes:
        name: the source's name, and its folder in the cache.
        remote: the file's public home.
        table_version: goes up whenever `prepare` would make another table of the same file.
    """

    name: ClassVar[str]
    remote: ClassVar[RemoteFile]
    table_version: ClassVar[int]

    @abstractmethod
    def prepare(self, raw: Path) -> pa.Table:
        """Read the raw file into the table of entities. Raises OclBenchError if the file is not what it should be."""

    def table_path(self) -> Path:
        """The table, in the cache."""
        return cache_folder() / self.name / "table.parquet"

    def raw_path(self) -> Path:
        """The published file, in the cache."""
        return cache_folder() / self.name / self.remote.file_name

    def state(self) -> Literal["present", "fetched", "absent"]:
        """Whether the table is in the cache, or only the file that it is made from, or neither."""
        if self.table_path().is_file():
            return "present"
        return "fetched" if self.raw_path().is_file() else "absent"

    def fetch(self, origin: str | None, progress: Progress) -> Path:
        """Get the published file and make the table.

        Args:
            origin: None for the public home; another address; or a local file, which stays where it is. The checksum
                of the public file holds for every address. A local file may be another edition or unpacked, so its
                own checksum is kept with the table instead.
            progress: called with bytes fetched and bytes in all.

        Returns:
            The file that the table was made from.
        """
        if origin is not None and not origin.startswith(("http://", "https://")):
            raw = Path(origin)
            if not raw.is_file():
                raise OclBenchError(f"--from {origin}: there is no such file.")
        else:
            raw = self.raw_path()
            try:
                with self._lock():
                    download(
                        origin or self.remote.url,
                        raw,
                        sha256=self.remote.sha256,
                        size=self.remote.size,
                        progress=progress,
                    )
            except OclBenchError as error:
                raise OclBenchError(f"{str(error).removesuffix('.')}; {self._without_network()}.") from None
        with self._lock():
            self._make(raw)
        return raw

    def table(self) -> pa.Table:
        """The table of entities; made from the fetched file if it is not there yet.

        Raises:
            OclBenchError: if neither is there, or the table is of another version or damaged.
        """
        if self.state() == "absent":
            raise OclBenchError(f"the data of '{self.name}' is not here; {self._advice()}.")
        with self._lock():
            fault = self._fault()
            if fault is not None:
                if not self.raw_path().is_file():
                    raise OclBenchError(f"{self.table_path()} {fault}; {self._advice()}.")
                self._make(self.raw_path())
        return parquet.read_table(self.table_path())

    def _fault(self) -> str | None:
        """What is wrong with the table in the cache; None if nothing is."""
        path = self.table_path()
        if not path.is_file():
            return "is missing"
        try:
            about = json.loads((parquet.read_metadata(path).metadata or {})[METADATA])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return "is damaged or not a table of ocl-bench"
        if about.get("table_version") != self.table_version:
            return f"is of version {about.get('table_version')}, and this is version {self.table_version}"
        return None

    def _make(self, raw: Path) -> None:
        table = self.prepare(raw)
        about = {
            "table_version": self.table_version,
            "raw": raw.name,
            "sha256": sha256_of_file(raw),
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
        return f"fetch it from {self.remote.url} with `ocl-bench data fetch {self.name}`, {self._without_network()}"

    def _without_network(self) -> str:
        return (
            f"give a local copy with `ocl-bench data fetch {self.name} --from FILE`, "
            "or run the task cvdb_sample, which needs no download"
        )
