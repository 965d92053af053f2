"""Downloads against a real server on loopback: ranges, cut connections, wrong bytes, refusals."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_cvdb import crowd, write

from ocl_bench.cli import main
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import fetch
from ocl_bench.tasks.sources.cvdb import CvdbSource
from ocl_bench.tasks.sources.fetch import download
from ocl_bench.tasks.sources.published import RemoteFile

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, badly where its server's settings say so."""

    server: Any

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        same = self.headers.get("If-Range") in (None, server.etag)
        ranged = asked is not None and server.ranges and same
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if ranged and asked else 0
        body = server.content[start:]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.cuts:
            self.wfile.write(body[: server.cuts.pop(0)])
            self.wfile.flush()
            self.connection.close()
            return
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.01)
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.etag, running.ranges = CONTENT, '"one"', True
    running.cuts, running.statuses, running.asked = [], [], []
    running.url = f"http://127.0.0.1:{running.server_address[1]}/file"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def get(server: Any, target: Path, **checks: Any) -> list[tuple[int, int | None]]:
    seen: list[tuple[int, int | None]] = []
    expected = {"sha256": DIGEST, "size": len(CONTENT), **checks}
    download(server.url, target, progress=lambda done, total: seen.append((done, total)), **expected)
    return seen


def test_a_file_comes_whole_with_progress_and_leaves_nothing_else(server: Any, tmp_path: Path) -> None:
    seen = get(server, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_redirects_are_followed(server: Any, tmp_path: Path) -> None:
    server.url = server.url.replace("/file", "/moved")
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_cut_connection_goes_on_where_it_was(server: Any, tmp_path: Path) -> None:
    server.cuts = [100_000, 200_000]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=300000-"]


def test_an_interrupted_download_goes_on_in_the_next_call(server: Any, tmp_path: Path) -> None:
    server.cuts = [100_000] + [0] * (fetch.ATTEMPTS - 1)
    with pytest.raises(OclBenchError, match="cannot be reached"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    server.asked.clear()
    get(server, tmp_path / "file")
    assert server.asked == ["bytes=100000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_has_changed_meanwhile_is_fetched_from_its_start(server: Any, tmp_path: Path) -> None:
    server.cuts = [100_000] + [0] * (fetch.ATTEMPTS - 1)
    with pytest.raises(OclBenchError):
        get(server, tmp_path / "file")
    server.content, server.etag = CONTENT[::-1], '"two"'
    get(server, tmp_path / "file", sha256=hashlib.sha256(CONTENT[::-1]).hexdigest())
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_way_to_tell_that_it_is_the_same_file_nothing_is_resumed(
    etag: str, server: Any, tmp_path: Path
) -> None:
    server.etag, server.cuts = etag, [100_000]
    get(server, tmp_path / "file")
    assert server.asked == [None, None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_again_from_the_start(server: Any, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("checks", "message"),
    [({"size": 5}, "1024000 bytes instead of 5"), ({"sha256": "0" * 64}, f"sha256 {DIGEST} instead of 000")],
)
def test_wrong_bytes_are_removed_and_named(checks: dict[str, Any], message: str, server: Any, tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match=message):
        get(server, tmp_path / "file", **checks)
    assert list(tmp_path.iterdir()) == []


def test_trouble_of_the_server_that_passes_is_waited_for(server: Any, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_refusal_is_final_and_says_the_status(server: Any, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(OclBenchError, match="answers with status 404"):
        get(server, tmp_path / "file")
    assert server.asked == [None]


def test_a_range_that_is_not_there_starts_again(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.part.validator").write_text('"one"')
    server.statuses = [416]
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_nobody_there_is_one_sentence(server: Any, tmp_path: Path) -> None:
    server.url = "http://127.0.0.1:9/file"
    with pytest.raises(OclBenchError, match=r"127\.0\.0\.1:9/file cannot be reached"):
        get(server, tmp_path / "file")


def test_a_run_fetches_the_published_data_that_its_task_needs_once(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    server.content = write(tmp_path / "raw.csv", crowd(2000)).read_bytes()
    home = RemoteFile(server.url, "raw.csv", sha256=hashlib.sha256(server.content).hexdigest())
    monkeypatch.setattr(CvdbSource, "files", (home,))
    small = ["--set", "source_args.num_entities=60", "--set", "recipe.epochs=[1,1]", "--limit", "2", "--no_curves"]
    options = ["--tasks", "cvdb", "--model", "scratch:tiny", "--seeds", "1", "--output_path", str(tmp_path / "out")]
    for _ in range(2):
        result = CliRunner().invoke(main, ["run", *options, *small])
        assert result.exit_code == 0, result.stderr
        assert "d1_cons_qa" in result.stdout
    assert server.asked == [None]
