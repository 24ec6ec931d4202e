"""Reading scattered pieces of files, against the bytes that were written."""

import errno

import numpy as np
import pytest

from eeg import _native


@pytest.fixture
def files(tmp_path):
    contents = [np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8) for i, size in enumerate((1000, 7))]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content.tobytes())
    opened = [open(tmp_path / str(i), "rb", buffering=0) for i in range(2)]
    yield contents, np.array([f.fileno() for f in opened], np.int32)
    for f in opened:
        f.close()


def test_pieces_of_files_ends_included(files):
    contents, numbers = files
    which, offset, size = np.array([0, 1, 0, 0, 1, 0]), np.array([3, 0, 0, 990, 7, 5000]), np.array([64, 7, 0, 64, 64, 1])
    out, got = np.full((6, 70), 99, np.uint8), np.full(6, 77)
    _native.read_rows(numbers[which], offset, size, out, got)
    assert got.tolist() == [64, 7, 0, 10, 0, 0]
    for row, w, begin, n in zip(out, which, offset, got):
        np.testing.assert_array_equal(row[:n], contents[w][begin : begin + n])
        assert (row[n:] == 99).all()


def test_what_the_system_says_of_one_is_said_of_that_one(files):
    _, numbers = files
    out, got = np.zeros((3, 8), np.uint8), np.zeros(3, np.int64)
    _native.read_rows(np.array([numbers[0], 10**6, numbers[1]], np.int32), np.array([0, 0, -5]), np.full(3, 7), out, got)
    assert got.tolist() == [7, -errno.EBADF, -errno.EINVAL]


@pytest.mark.parametrize(
    "change, error",
    [
        (dict(bytes=np.array([9, 1])), IndexError),
        (dict(bytes=np.array([-1, 1])), IndexError),
        (dict(got=np.zeros(3, np.int64)), ValueError),
        (dict(offset=np.zeros(1, np.int64)), ValueError),
        (dict(out=np.zeros(16, np.uint8)), ValueError),
        (dict(out=np.zeros((2, 8), np.float32)), TypeError),
        (dict(fd=np.zeros(2, np.int64)), TypeError),
    ],
)
def test_bad_arguments(files, change, error):
    arguments = dict(fd=files[1], offset=np.zeros(2, np.int64), bytes=np.ones(2, np.int64), out=np.zeros((2, 8), np.uint8), got=np.zeros(2, np.int64))
    _native.read_rows(**arguments)
    with pytest.raises(error):
        _native.read_rows(**arguments | change)
