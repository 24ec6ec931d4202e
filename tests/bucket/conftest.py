"""What the tests of buckets share: a server that fails when told to, with a small release in it."""

import numpy as np
import pytest

from eeg.bucket.patience import Patience
from eeg.bucket.server import Server
from tests.bucket.s3 import BUCKET, S3
from tests.conftest import trial_events, write_participants, write_recording

PREFIX = "NeurIPS25/R1_L100_bdf/"


@pytest.fixture
def patience(monkeypatch):
    """That of a test: no long pauses."""
    monkeypatch.setattr("eeg.bucket.patience.MOST_S", 0.01)
    monkeypatch.setattr("eeg.bucket.patience.MOST_ASKED_S", 0.2)
    return Patience(timeout_s=2, attempts=4)


@pytest.fixture
def s3():
    with S3() as one:
        yield one
        one.shutdown()


@pytest.fixture
def server(s3, patience):
    return Server(BUCKET, s3.url, patience)


@pytest.fixture
def original(tmp_path_factory):
    """A release of 3 subjects with 5 recordings of two tasks: its folder."""
    folder = tmp_path_factory.mktemp("original") / "R1_L100_bdf"
    write_participants(folder, ["NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC"])
    (folder / "dataset_description.json").write_text('{"Name": "made by a test"}')
    (folder / "task-RestingState_eeg.json").write_text("{}")
    write_recording(folder, "NDARAA001AAA", trial_events(), seed=1)
    write_recording(folder, "NDARAA001AAA", trial_events(rt=1.1), seed=2, run=2)
    write_recording(folder, "NDARBB002BBB", trial_events(rt=1.2), seed=3)
    write_recording(folder, "NDARCC003CCC", trial_events(rt=1.3), seed=4, seconds=60)
    write_recording(folder, "NDARCC003CCC", "onset\n", seed=5, run=0, task="RestingState")
    return folder


@pytest.fixture
def bucket(s3, original):
    """The server with that release in its bucket."""
    s3.put_folder(original, PREFIX)
    return s3


def random_bytes(size, seed=0):
    return np.random.default_rng(seed).bytes(size)
