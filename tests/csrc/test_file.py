"""Pieces of files read past the system's cache, against the bytes that were written."""

import errno
import mmap
import os

import numpy as np
import pytest

from eeg import _native

BLOCK = 4096


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    contents = [random.integers(0, 256, n, dtype=np.uint8) for n in (10 * BLOCK + 1000, 7)]
    paths = [str(tmp_path / str(i)) for i in range(2)]
    for path, content in zip(paths, contents):
        content.tofile(path)
    try:
        return contents, paths, _native.DirectFiles(paths, 70)
    except (OSError, AttributeError) as e:
        pytest.skip(f"files in {tmp_path} cannot be read past the system's cache: {e}")


def room(rows, blocks):
    """(rows, blocks * BLOCK) uint8 that begins on a block."""
    memory = np.frombuffer(mmap.mmap(-1, max(1, rows * blocks) * BLOCK), np.uint8)
    return memory[: rows * blocks * BLOCK].reshape(rows, blocks * BLOCK)


@pytest.mark.parametrize("n", [0, 1, 6, 70])
def test_pieces_of_files_ends_included(files, n):
    contents, _, opened = files
    rng = np.random.default_rng(n)
    which = rng.integers(0, 2, n, dtype=np.int32)
    offset, size = rng.integers(0, 13, n) * BLOCK, rng.integers(0, 4, n) * BLOCK
    for _ in range(3):
        out, got = room(n, 3), np.full(n, 77)
        out[:] = 99
        opened.read(which, offset, size, out, got)
        for row, w, begin, count, found in zip(out, which, offset, size, got):
            wanted = contents[w][begin : begin + count]
            assert found == len(wanted)
            np.testing.assert_array_equal(row[:found], wanted)
            assert (row[count:] == 99).all()


def test_what_the_system_says_of_one_is_said_of_that_one(files):
    contents, _, opened = files
    out, got = room(4, 2), np.zeros(4, np.int64)
    offset, size = np.array([0, 100, -BLOCK, BLOCK]), np.full(4, 2 * BLOCK)
    opened.read(np.zeros(4, np.int32), offset, size, out, got)
    assert got.tolist() == [2 * BLOCK, -errno.EINVAL, -errno.EINVAL, 2 * BLOCK]
    np.testing.assert_array_equal(out[3], contents[0][BLOCK : 3 * BLOCK])


def test_a_file_that_is_not_there_leaves_none_open(files):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError) as e:
        _native.DirectFiles([files[1][0], files[1][0] + "x"], 1)
    assert e.value.filename == files[1][0] + "x" and len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "change, error",
    [
        (dict(bytes=np.array([2 * BLOCK, 0])), IndexError),
        (dict(bytes=np.array([-1, 1])), IndexError),
        (dict(which=np.array([0, 2], np.int32)), IndexError),
        (dict(which=np.array([0, -1], np.int32)), IndexError),
        (dict(got=np.zeros(3, np.int64)), ValueError),
        (dict(offset=np.zeros(1, np.int64)), ValueError),
        (dict(out=np.zeros(16, np.uint8)), ValueError),
        (dict(out=np.zeros((2, 8), np.float32)), TypeError),
        (dict(which=np.zeros(2, np.int64)), TypeError),
    ],
)
def test_bad_arguments(files, change, error):
    arguments = dict(which=np.zeros(2, np.int32), offset=np.zeros(2, np.int64))
    arguments |= dict(bytes=np.full(2, BLOCK), out=room(2, 1), got=np.zeros(2, np.int64))
    files[2].read(**arguments)
    with pytest.raises(error):
        files[2].read(**arguments | change)


def test_too_many_and_too_few_pieces(files):
    which, numbers = np.zeros(71, np.int32), np.zeros(71, np.int64)
    with pytest.raises(IndexError, match="71 pieces, at most 70"):
        files[2].read(which, numbers, numbers, room(71, 1), numbers.copy())
    with pytest.raises(ValueError, match="most must be 1"):
        _native.DirectFiles(files[1], 0)
