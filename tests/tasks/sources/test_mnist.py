"""MNIST's four files become one table, from a folder or an address, and what is not them is refused in a sentence."""

import functools
import gzip
import hashlib
import re
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ocl_bench.cli import main
from ocl_bench.models.pictures import Album, Shown, pixels, scans
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources.mnist import CONTENTS, Mnist

TRAIN, TEST = 40, 20
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = (file.file_name.removesuffix(".gz") for file in Mnist.files)


def idx(values: np.ndarray) -> bytes:
    """The format: two zeros, 8 for bytes, the number of dimensions, each of them in four bytes, the values."""
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_files(folder: Path, packed: bool = True) -> Path:
    """Files of random scans in MNIST's format, all digits in both halves; scans of tests are brighter."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for names, count, least in (((IMAGES, LABELS), TRAIN, 0), ((TEST_IMAGES, TEST_LABELS), TEST, 128)):
        images = rng.integers(least, least + 128, (count, 28, 28), np.uint8)
        for name, values in zip(names, (images, np.arange(count, dtype=np.uint8) % 10), strict=True):
            content = idx(values)
            (folder / f"{name}.gz" if packed else folder / name).write_bytes(
                gzip.compress(content) if packed else content
            )
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    scans.cache_clear()
    yield tmp_path / "cache"
    scans.cache_clear()


@pytest.fixture
def known(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the suite take the files of a folder, as they are, for MNIST's own."""

    def take(folder: Path) -> None:
        for name in CONTENTS:
            packed = folder / f"{name}.gz"
            content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / name).read_bytes()
            monkeypatch.setitem(CONTENTS, name, hashlib.sha256(content).hexdigest())

    return take


def fetch(origin: Path | str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["data", "fetch", "mnist", "--from", str(origin)])
    return done.exit_code, done.output


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_the_four_files_becomes_scans_for_training_and_for_tests(
    packed: bool, known: Callable[[Path], None], tmp_path: Path
) -> None:
    known(write_files(tmp_path / "raw", packed))
    code, printed = fetch(tmp_path / "raw")
    assert code == 0 and f"{TRAIN + TEST} scans" in printed, printed
    trained, kept = scans("mnist", test=False), scans("mnist", test=True)
    assert (len(trained.images), len(kept.images)) == (TRAIN, TEST)
    assert trained.images.max() < 0.5 <= kept.images.min()  # tests' are the brighter
    assert trained.counts.tolist() == [4] * 10 and kept.counts.tolist() == [2] * 10


def test_pictures_of_the_task_have_its_size_and_tests_show_scans_of_the_test_half(
    known: Callable[[Path], None], tmp_path: Path
) -> None:
    known(write_files(tmp_path / "raw"))
    fetch(tmp_path / "raw")
    records = build(load_task("mnist", ("source_args.num_entities=20",)), 0)
    test = next(one for one in records if one.split == "test" and one.kind == "qa")
    train = next(one for one in records if one.split == "x1" and one.kind == "definition")
    for record, brighter in ((test, True), (train, False)):
        assert record.picture is not None
        (found,) = pixels([Shown(Album([record.picture]), 0)])
        assert found.shape == (1, 2 + 3 * 28, 3 * 28)
        digits = found[0, 3:]
        inner = digits[(digits > 0) & (digits < 1)]
        assert bool(inner.min() >= 0.5) == brighter


def truncated(folder: Path) -> None:
    path = folder / IMAGES
    path.write_bytes(path.read_bytes()[:-1])


def cut_archive(folder: Path) -> None:
    packed = gzip.compress((folder / IMAGES).read_bytes())
    (folder / f"{IMAGES}.gz").write_bytes(packed[: len(packed) // 2])


def damaged_archive(folder: Path) -> None:
    packed = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    packed[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    (folder / f"{IMAGES}.gz").write_bytes(packed)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file missing": (lambda folder: (folder / LABELS).unlink(), f"has no {LABELS}.gz and no {LABELS}"),
    "a length other than the header's": (truncated, f"{IMAGES}: has {15 + TRAIN * 784} bytes, and its header says"),
    "another format": (lambda folder: (folder / LABELS).write_bytes(b"P5 28 28 255"), "is not an IDX file of bytes"),
    "images for labels": (lambda f: (f / LABELS).write_bytes((f / IMAGES).read_bytes()), "in 1 dimensions"),
    "a torn archive": (cut_archive, "is cut off"),
    "a damaged archive": (damaged_archive, "is damaged"),
    "other sizes": (lambda f: (f / IMAGES).write_bytes(idx(np.zeros((TRAIN, 32, 28), np.uint8))), "scans are 32 × 28"),
    "fewer labels": (lambda f: (f / LABELS).write_bytes(idx(np.arange(10, dtype=np.uint8))), "and .* 10 labels"),
    "no digit": (lambda f: (f / LABELS).write_bytes(idx(np.full(TRAIN, 10, np.uint8))), "a label is 10"),
    "another edition": (
        lambda f: (f / LABELS).write_bytes(idx(np.arange(1, TRAIN + 1, dtype=np.uint8) % 10)),
        "another edition",
    ),
    "a digit without scans": (lambda f: (f / LABELS).write_bytes(idx(np.zeros(TRAIN, np.uint8))), "no scan of a 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_are_not_mnists_are_refused_in_one_sentence_and_leave_no_table(
    fault: str, cache: Path, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "raw", packed=False)
    spoil, sentence = FAULTS[fault]
    spoil(folder)
    code, printed = fetch(folder)
    assert code == 2 and len(printed.strip().splitlines()) == 1
    assert re.search(sentence, printed), printed
    assert Mnist().state() == "absent"


def test_without_the_files_the_sentence_names_the_command_and_the_small_task(cache: Path) -> None:
    code, printed = fetch(Path("nowhere"))
    assert code == 2 and "--from nowhere: there is no such folder" in printed
    with pytest.raises(Exception, match=r"data fetch mnist --from FOLDER.*or run the task digit_grid"):
        Mnist().table()


def test_files_of_an_address_have_to_be_the_public_ones(cache: Path, tmp_path: Path) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(write_files(tmp_path / "raw")))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, printed = fetch(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert code == 2 and f"{IMAGES}.gz gave" in printed and "instead of 440fcabf73cc" in printed, printed
    assert Mnist().state() == "absent" and not list(cache.rglob("*.gz*"))
