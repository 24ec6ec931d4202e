"""The competition's own code on the same files: what it said once, in tests/fixtures, and what it
says where its environment is.
"""

import json
import re

import numpy as np
import pytest

from eeg import _native
from eeg.bench.data import same_windows
from eeg.bench.models import same_tcn
from eeg.bench.peers import PEERS, Peer
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.data.trials import build_trials, read_events
from eeg.synth.release import simulate_release
from tests.fixtures import make
from tests.fixtures.odd_release import SIX_CHANNELS, write_release


@pytest.fixture(scope="module")
def peer():
    if not PEERS.exists():
        pytest.skip(
            "no peers' environment in build/peers (make it with `make peers`); "
            "their stored answers are in tests/fixtures"
        )
    with Peer() as child:
        yield child


@pytest.fixture(scope="module")
def odd_windows(tmp_path_factory):
    """The data root of the odd release without the recording of six channels, which stops the start
    kit.
    """
    data = tmp_path_factory.mktemp("windows")
    write_release(data, without=[SIX_CHANNELS])
    return data


def same_trials(path, theirs):
    ours = build_trials(*read_events(path))
    assert len(ours) == len(theirs), path
    for t, row in zip(ours, theirs):
        numbers = [np.nan if value is None else value for value in row[:5]]
        found = [
            t[name]
            for name in ("start", "stimulus", "response", "rt_from_stimulus", "rt_from_trialstart")
        ]
        np.testing.assert_allclose(found, numbers, rtol=1e-12, atol=1e-12)
        assert t["correct"] == (-1 if row[5] is None else int(row[5]))
        assert t["side"].decode() == (row[6] or "").removesuffix("_buttonPress")


# ----------------------------------------------------------------------------------- what is stored


STALE = "the release is not the one that the peers were given; run: python tests/fixtures/make.py"


def test_trials_equal_what_the_public_builder_made_of_odd_events(odd_release):
    stored = json.loads((make.HERE / "trials.json").read_text())
    assert make.digest(odd_release, "sub-*/eeg/*_events.tsv") == stored["events"], STALE
    files = {path.name: path for path in odd_release.glob("sub-*/eeg/*_events.tsv")}
    assert files.keys() == stored["tables"].keys() and len(files) == 19
    for name, theirs in stored["tables"].items():
        same_trials(files[name], theirs)
    assert sum(map(len, stored["tables"].values())) > 140


@pytest.mark.parametrize("challenge", [1, 2])
def test_windows_equal_what_the_start_kit_cut(odd_windows, tmp_path, challenge):
    stored = np.load(make.HERE / "windows.npz")
    assert make.digest(odd_windows / "EEG2025r1", "**/*") == stored["release"], STALE
    names, starts, y, sketch, lost = (
        stored[f"{challenge}_{key}"] for key in ("names", "starts", "y", "sketch", "lost")
    )
    release = find_release("R1", odd_windows)
    cache = Cache(build(release, Settings(challenge), tmp_path).path)
    files = np.array([r.signal.name for r in release.recordings(("contrastChangeDetection",))])
    ours = files[cache.metadata["recording"]]
    kept = np.flatnonzero(
        ~np.isin(ours, lost)
    )  # a recording that the kit gives up, we keep but for one window
    np.testing.assert_array_equal(ours[kept], names)
    np.testing.assert_array_equal(cache.metadata["start"][kept], starts)
    np.testing.assert_allclose(cache.y[kept], y, rtol=1e-6)
    np.testing.assert_allclose(
        make.sketch_windows(cache.parts[0].astype(float))[kept], sketch, rtol=1e-6, atol=1e-3
    )
    assert (len(cache), len(kept)) == {1: (116, 110), 2: (455, 455)}[challenge]


def test_the_stored_answers_are_of_the_versions_that_are_installed_for_comparison():
    """Those that the Makefile names; a new one needs new answers: python tests/fixtures/make.py."""
    pins = re.search(r"^PEERS := (.*)$", (make.ROOT / "Makefile").read_text(), re.M)[1]
    pinned = dict(pin.split("==") for pin in pins.split())
    abouts = [
        json.loads((make.HERE / f"{name}.json").read_text())
        for name in ("trials", "features", "eegnex", "published")
    ]
    abouts += [
        json.loads(str(np.load(make.HERE / f"{name}.npz")["about"]))
        for name in ("windows", "scoring")
    ]
    for about in abouts:
        assert {name: about["versions"][name].split("+")[0] for name in pinned} == pinned


def test_features_equal_what_mne_features_found():
    stored = json.loads((make.HERE / "features.json").read_text())
    ours = np.empty((3, 5, 10), np.float32)
    _native.channel_features(make.feature_windows().astype(np.float32), 0, 200, ours, 1)
    mobility, complexity, line_length, bands = (
        ours[:, :, 6],
        ours[:, :, 7],
        ours[:, :, 8],
        ours[:, :, :5].reshape(3, -1),
    )
    np.testing.assert_allclose(
        np.concatenate([mobility, complexity, line_length, bands], 1), stored["values"], rtol=1e-5
    )


# ---------------------------------------------------------------------------- and what they say now


def test_the_stored_answers_are_those_of_these_peers(peer, odd_release, odd_windows):
    """Trials, windows and features; EEGNeX's are in tests/models/test_eegnex.py."""
    stored = json.loads((make.HERE / "trials.json").read_text())
    now = make.trials(peer, odd_release)
    assert now == {key: stored[key] for key in now}
    stored = np.load(make.HERE / "windows.npz")
    for key, value in make.windows(peer, odd_windows).items():
        same = (
            np.array_equal
            if np.asarray(value).dtype.kind != "f"
            else lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-3)
        )
        assert same(stored[key], value), key
    np.testing.assert_allclose(
        json.loads((make.HERE / "features.json").read_text())["values"],
        make.features(peer)["values"],
        rtol=1e-9,
    )


def test_trials_equal_the_public_builder_on_all_real_files(peer, hbn):
    files = sorted(hbn.glob("R*/sub-*/eeg/*contrastChangeDetection*_events.tsv"))
    for file, theirs in zip(
        files, peer("kit_trials", files=[str(f) for f in files])["tables"], strict=True
    ):
        same_trials(file, theirs)


@pytest.mark.parametrize("challenge", [1, 2])
def test_windows_equal_the_start_kits(peer, tmp_path, challenge):
    simulate_release(tmp_path, "R1", 6)
    (tmp_path / "EEG2025r1").symlink_to("R1_L100_bdf")
    report = build(find_release("R1", tmp_path), Settings(challenge), tmp_path)
    answer = peer("kit_windows", root=str(tmp_path), challenge=challenge)
    same, why = same_windows(peer, report.path, answer["lost"])
    assert same, why
    assert answer["windows"] >= report.windows - 24 * len(answer["lost"]) > 200


@pytest.mark.parametrize("batch", [1, 5])
def test_tcn_equals_the_same_network_in_plain_convolutions(batch):
    assert same_tcn(batch) < 1e-4
