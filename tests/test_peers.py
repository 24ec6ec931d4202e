"""The competition's own code on the same files, where `make bench` has made the peers' environment."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from eeg.data.cache import Settings, build
from eeg.data.release import find_release
from eeg.data.synth import simulate_release
from eeg.data.trials import build_trials, read_events

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", ROOT / "run" / "bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peer(bench):
    if not bench.PEERS.exists():
        pytest.skip("no peers' environment (build/peers): `make bench` makes it")
    child = bench.Peer()
    yield child
    child.close()


def test_trials_equal_the_public_builder_on_all_real_files(peer, hbn):
    files = sorted(hbn.glob("R*/sub-*/eeg/*contrastChangeDetection*_events.tsv"))
    for file, theirs in zip(files, peer("trials", files=[str(f) for f in files])["tables"]):
        ours = build_trials(*read_events(file))
        assert len(ours) == len(theirs), file
        for t, row in zip(ours, theirs):
            numbers = [np.nan if value is None else value for value in row[:5]]
            np.testing.assert_allclose([t["start"], t["stimulus"], t["response"], t["rt_from_stimulus"], t["rt_from_trialstart"]], numbers, rtol=1e-12, atol=1e-12)
            assert t["correct"] == (-1 if row[5] is None else int(row[5])) and t["side"].decode() == (row[6] or "").removesuffix("_buttonPress")


@pytest.mark.parametrize("challenge", [1, 2])
def test_windows_equal_the_start_kits(bench, peer, tmp_path, challenge):
    simulate_release(tmp_path, "R1", 6)
    (tmp_path / "EEG2025r1").symlink_to("R1_L100_bdf")
    report = build(find_release("R1", tmp_path), Settings(challenge), tmp_path)
    answer = peer("windows", root=str(tmp_path), challenge=challenge)
    same, why = bench.same_windows(peer, report.path, answer["lost"])
    assert same, why
    assert answer["windows"] >= report.windows - 24 * len(answer["lost"]) > 200


@pytest.mark.parametrize("batch", [1, 5])
def test_tcn_equals_the_same_network_in_plain_convolutions(bench, batch):
    assert bench.same_tcn(batch) < 1e-4
