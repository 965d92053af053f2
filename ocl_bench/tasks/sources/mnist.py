"""MNIST: 70,000 scans of handwritten digits (LeCun, Cortes and Burges 1998), from its four files in the IDX format."""

import math
import struct
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources.published import PublishedData, RemoteFile

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

HOME = "https://storage.googleapis.com/cvdf-datasets/mnist"
SIDE = 28
MAX_BYTES = 10**9  # what a file may hold; the largest of the public ones has 47 million
UNSIGNED_BYTES = 8  # how IDX says that a value is a byte


# sha256 of the unpacked files, by name. Records hold no pixels, so that nothing else tells one edition from another.
CONTENTS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Mnist(PublishedData):
    """The scans, from the files that everybody has: images and labels for training, and for tests."""

    name = "mnist"
    files = (
        RemoteFile(
            f"{HOME}/train-images-idx3-ubyte.gz",
            "train-images-idx3-ubyte.gz",
            sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            size=9_912_422,
        ),
        RemoteFile(
            f"{HOME}/train-labels-idx1-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            size=28_881,
        ),
        RemoteFile(
            f"{HOME}/t10k-images-idx3-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            size=1_648_877,
        ),
        RemoteFile(
            f"{HOME}/t10k-labels-idx1-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
            sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            size=4_542,
        ),
    )
    table_version = 1
    rows = "scans"
    small = "digit_grid"

    def prepare(self, *raw: Path) -> "pa.Table":
        """Table of scans: `pixels`, 784 bytes row after row, 0 for paper; `digit`; and whether it is for a `test`."""
        import pyarrow as pa

        return pa.concat_tables([_split(raw[0], raw[1], test=False), _split(raw[2], raw[3], test=True)])


def _split(images: Path, labels: Path, test: bool) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    pixels, digits = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise OclBenchError(f"{images}: scans are {pixels.shape[1]} × {pixels.shape[2]}; MNIST's are {SIDE} × {SIDE}.")
    if len(pixels) != len(digits):
        raise OclBenchError(f"{images} has {len(pixels)} scans, and {labels} {len(digits)} labels.")
    if digits.size and digits.max() > 9:
        raise OclBenchError(f"{labels}: a label is {digits.max()}, which is no digit.")
    missing = sorted(set(range(10)) - set(digits.tolist()))
    if missing:
        raise OclBenchError(f"{labels}: there is no scan of a {missing[0]}; each digit needs one at least.")
    for path, values in ((images, pixels), (labels, digits)):
        found = sha256(_header(values.shape) + values.tobytes()).hexdigest()
        if found != CONTENTS[path.name.removesuffix(".gz")]:
            raise OclBenchError(f"{path}: is another edition than MNIST's own (sha256 {found} of its content).")
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(SIDE * SIDE), len(pixels), [None, pa.py_buffer(np.ascontiguousarray(pixels))]
    )
    return pa.table({"pixels": column, "digit": pa.array(digits), "test": pa.array([test] * len(digits))})


def read_idx(path: Path, dimensions: int) -> "np.ndarray":
    """Read a file of bytes in the IDX format, gzipped or not.

    Args:
        path: the file.
        dimensions: how many it has to have.

    Raises:
        OclBenchError: if it is another format, has another length than its header says, or is damaged.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            unpacked = zlib.decompressobj(wbits=31)
            content = unpacked.decompress(content, MAX_BYTES)
            if not unpacked.eof:
                raise OclBenchError(f"{path}: is cut off, or unpacks to more than {MAX_BYTES:,} bytes.")
    except zlib.error as error:
        raise OclBenchError(f"{path}: is damaged ({error}).") from None
    except OSError as error:
        raise OclBenchError(f"{path}: cannot be read ({error.strerror or error}).") from None
    header = len(_header((0,) * dimensions))
    if len(content) < header or content[:4] != _header((0,) * dimensions)[:4]:
        raise OclBenchError(f"{path}: is not an IDX file of bytes in {dimensions} dimensions.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise OclBenchError(f"{path}: has {len(content)} bytes, and its header says {expected}.")
    import numpy as np

    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _header(shape: Sequence[int]) -> bytes:
    """How a file of this shape begins."""
    return bytes((0, 0, UNSIGNED_BYTES, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
