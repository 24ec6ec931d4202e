"""MD5 of many pieces at a time, against hashlib."""

import hashlib
import random

import numpy as np
import pytest

from eeg import _native

CHUNK = 1 << 15  # bytes that are read at a time


def md5(paths, pieces):
    which, offset, size = (np.array(column) for column in zip(*pieces))
    out = np.zeros((len(pieces), 16), np.uint8)
    _native.md5([str(path) for path in paths], which.astype(np.int32), offset, size, out)
    return [row.tobytes() for row in out]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("md5")
    contents = [np.random.default_rng(i).bytes(n) for i, n in enumerate((300_000, 70, 0))]
    paths = [folder / str(i) for i in range(3)]
    for path, content in zip(paths, contents):
        path.write_bytes(content)
    return paths, contents


def test_every_length_around_a_block_and_a_chunk(files):
    paths, contents = files
    sizes = [*range(0, 200), *range(CHUNK - 70, CHUNK + 70), *range(2 * CHUNK - 3, 2 * CHUNK + 3)]
    pieces = [(0, size % 1000, size) for size in sizes]
    expected = [hashlib.md5(contents[0][at : at + size]).digest() for _, at, size in pieces]
    assert md5(paths, pieces) == expected


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 40])
def test_pieces_of_several_files(files, count):
    draw, (paths, contents) = random.Random(count), files
    pieces = []
    for _ in range(count):
        which = draw.randrange(3)
        at = draw.randint(0, len(contents[which]))
        pieces.append((which, at, draw.randint(0, len(contents[which]) - at)))
    expected = [hashlib.md5(contents[w][at : at + size]).digest() for w, at, size in pieces]
    assert md5(paths, pieces) == expected


def test_what_cannot_be_read(files, tmp_path):
    paths, _ = files
    with pytest.raises(OSError):
        md5(paths, [(1, 60, 11)])  # the file ends before
    with pytest.raises(FileNotFoundError):
        md5([tmp_path / "absent"], [(0, 0, 1)])
    with pytest.raises(IndexError):
        md5(paths, [(3, 0, 1)])
    with pytest.raises(IndexError):
        md5(paths, [(0, -1, 1)])
    with pytest.raises(ValueError):
        _native.md5([], *(np.zeros(1, t) for t in (np.int32, int, int)), np.zeros(16, np.uint8))
