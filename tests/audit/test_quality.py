"""Bad electrodes and line noise, on signals that are spoilt here in known ways."""

from types import SimpleNamespace

import numpy as np
import pytest

from eeg.audit.overview import line_noise_of_files, plot_overview
from eeg.audit.quality import contrast_name, electrodes, folded, measure, original_line_db
from eeg.data.cache import Cache
from eeg.data.release import find_release
from tests.audit.test_audit import EVENTS
from tests.conftest import bdf_bytes, trial_events, write_participants, write_recording
from tests.data.helpers import command, made
from tests.raw.helpers import write_release

SFREQ = 100


def noise(seed=0, windows=6, channels=128, samples=200, scale=10.0):
    return np.random.default_rng(seed).normal(0, scale, (windows, channels, samples))


def names(rows):
    return np.flatnonzero(rows).tolist()


def test_nothing_is_bad_in_noise():
    for kind in (np.float32, np.float16):
        flat, noisy, clipped, line_db = electrodes(noise().astype(kind), SFREQ)
        assert not (flat | noisy | clipped).any() and abs(line_db) < 0.5


def test_each_kind_is_found_where_it_is():
    X = noise()
    X[:, 3] = 7.5  # a constant
    X[:, 4] *= 0.001
    X[:2, 5] = 0  # in a few windows alone
    X[:, 10] *= 6
    X[:, 11] *= 4.5
    X[:2, 12] *= 100
    X[:, 20] = np.clip(X[:, 20], -12, 12)
    X[0, 21] = np.minimum(X[0, 21], 12)
    X[:, 22, 50:54] = 90.0
    X[:, 23, 50:53] = 90.0
    X[:, 24, 50:54] = 5.0  # held, but not at an extreme
    X[:, 30] = np.nan
    X[1, 31, 7] = np.inf
    flat, noisy, clipped, _ = electrodes(X, SFREQ)
    assert names(flat) == [3, 4] and names(noisy) == [10, 30]
    held = [i for i in (20, 21) if _holds(X[:, i])]
    assert names(clipped) == [*held, 22] and 20 in held


def _holds(x):
    """Whether a window stays at its largest or smallest value, sample by sample."""
    for window in x:
        for value in (window.max(), window.min()):
            run = 0
            for sample in window:
                run = run + 1 if sample == value else 0
                if run == 4:
                    return True
    return False


def test_recordings_in_which_everything_is_bad():
    flat, noisy, clipped, line_db = electrodes(np.zeros((3, 128, 200)), SFREQ)
    assert flat.all() and not (noisy | clipped).any() and np.isnan(line_db)
    flat, noisy, clipped, line_db = electrodes(np.full((3, 128, 200), np.nan), SFREQ)
    assert noisy.all() and not (flat | clipped).any() and np.isnan(line_db)


@pytest.mark.parametrize(
    "sfreq, at", [(100, 40), (500, 60), (250, 60), (128, 60), (120, 60), (80, 20)]
)
def test_where_60_hz_is_seen(sfreq, at):
    t = np.arange(10 * sfreq) / sfreq
    power = np.abs(np.fft.rfft(np.cos(2 * np.pi * 60 * t)))
    assert folded(sfreq) == at == pytest.approx(np.fft.rfftfreq(len(t), 1 / sfreq)[power.argmax()])


@pytest.mark.parametrize("sfreq", (100, 500))
@pytest.mark.parametrize("amplitude", (1, 5, 30))
def test_line_noise_in_db_is_what_the_sine_adds(sfreq, amplitude):
    """The window is Hann's: its line is 3 bins of 1, 1/4 and 1/4 of (amplitude x sum / 2)^2."""
    samples, scale = 2 * sfreq, 10.0
    X = noise(windows=40, samples=samples, scale=scale)
    t = np.arange(samples) / sfreq
    X += amplitude * np.sin(2 * np.pi * 60 * t + 0.3)
    window = np.hanning(samples)
    sine = 1.5 / 3 * (amplitude * window.sum() / 2) ** 2
    expected = 10 * np.log10(1 + sine / (scale**2 * (window**2).sum()))
    assert electrodes(X, sfreq)[3] == pytest.approx(expected, abs=0.4)


def test_flicker_over_the_occipital_lobe_is_no_line_noise():
    from eeg.models.montage import CHANNELS, GROUPS

    X = noise(windows=40)
    flicker = 50 * np.sin(2 * np.pi * 40 * np.arange(200) / SFREQ)
    occipital = [CHANNELS.index(name) for name in GROUPS["occipital"]]
    X[:, occipital] += flicker
    X[:, [i for i in range(5, 128) if i not in occipital]] = 0  # so that few others are good
    assert abs(electrodes(X, SFREQ)[3]) < 0.5


def test_names_of_recordings():
    contrast = "task-contrastChangeDetection"
    assert contrast_name(f"sub-NDARAA_{contrast}_run-2_eeg.bdf") == ("NDARAA", 2)
    assert contrast_name(f"sub-NDARAA_{contrast}_eeg.set") == ("NDARAA", 0)
    assert contrast_name("sub-NDARAA_task-RestingState_eeg.bdf")[0] != "NDARAA"


@pytest.fixture
def folder(tmp_path):
    """R1, two subjects with two runs: the last has 5 flat and 2 clipped electrodes."""
    folder = tmp_path / "data" / "R1_L100_bdf"
    subjects = ["NDARAA001AAA", "NDARBB002BBB"]
    write_participants(folder, subjects)
    rng = np.random.default_rng(1)
    for subject in subjects:
        for run in (1, 2):
            digital = rng.integers(-30000, 30000, (129, 4000))
            digital[128] = 0
            if (subject, run) == (subjects[1], 2):
                digital[40:45] = 0
                digital[90:92] = digital[90:92].clip(-3000, 3000)
            write_recording(folder, subject, trial_events(), digital, run)
    return folder


def test_recordings_of_a_cache(folder):
    report, cache = made(folder)
    quality = measure(cache)
    names_of = [name.split("/")[-1] for _, name in quality.names]
    assert [name.split("_")[0] for name in names_of] == ["sub-NDARAA001AAA"] * 2 + [
        "sub-NDARBB002BBB"
    ] * 2
    assert [name.split("run-")[1][0] for name in names_of] == list("1212")
    assert quality.flat.sum(1).tolist() == [0, 0, 0, 5] and names(quality.flat[3]) == list(
        range(40, 45)
    )
    assert quality.clipped.sum(1).tolist() == [0, 0, 0, 2] and names(quality.clipped[3]) == [90, 91]
    assert not quality.noisy.any() and quality.windows_read == len(cache) == 24
    assert quality.line_hz == 40


def test_two_releases_are_kept_apart(folder, tmp_path):
    report, _ = made(folder)
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    folder.rename(other / "data" / "R2_L100_bdf")
    from eeg.data.build import Settings, build

    second = build(find_release("R2", other / "data"), Settings(), other / "cache")
    quality = measure(Cache([report.path, second.path]))
    assert [release for release, _ in quality.names] == ["R1"] * 4 + ["R2"] * 4
    assert quality.bad.sum(1).tolist() == [0, 0, 0, 7] * 2


def test_the_overview_names_the_worst_as_lines_for_a_list(folder, tmp_path):
    picture, bad = tmp_path / "o.png", tmp_path / "bad.tsv"
    done = command(folder, "--release", "R1", "--plot", picture)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("worst")]
    assert line.endswith("run-2   5 flat, 2 clipped, 6 of 6 trials valid")
    assert picture.read_bytes().startswith(b"\x89PNG")
    bad.write_text(line.removeprefix("worst").strip() + "\n")
    again = command(folder, "--release", "R1", "--exclude", bad, "--plot", picture)
    assert "excluded  1 recording" in again.stdout and "worst" not in again.stdout
    assert "sub-NDARBB002BBB contrastChangeDetection run 2: 5 flat" in again.stdout


def test_an_overview_without_a_release_or_trials(folder, tmp_path):
    """The release is not on disk, as after --stream; a recording has no events; challenge 2."""
    report, cache = made(folder, challenge=2)
    assert plot_overview(cache, [], tmp_path / "o.png")[0].endswith("run-2   5 flat, 2 clipped")
    events = next(folder.glob("sub-NDARAA001AAA/eeg/*run-1_events.tsv"))
    events.write_text(EVENTS)
    next(folder.glob("sub-NDARAA001AAA/eeg/*run-2_events.tsv")).unlink()
    lines = plot_overview(cache, [find_release("R1", folder.parent)], tmp_path / "o.svg")
    assert len(lines) == 1 and (tmp_path / "o.svg").stat().st_size > 10_000


def test_line_noise_of_files_at_500_hz(tmp_path):
    """60 Hz of 6 uV in noise of 10 uV: in the file, whatever a filter leaves of it in a cache."""
    rng = np.random.default_rng(3)
    t = np.arange(500 * 40) / 500
    files, expected = [], []
    for i, amplitude in enumerate((0, 6)):
        x = rng.normal(0, 10, (129, len(t))) + amplitude * np.sin(2 * np.pi * 60 * t)
        x[10] = 0  # E11 is dead
        step = 10000 / (2**24 - 1)
        path = tmp_path / f"{i}.bdf"
        path.write_bytes(bdf_bytes((x / step).round().astype(int), record=500))
        window = np.hanning(1000)
        sine = 0.5 * (amplitude * window.sum() / 2) ** 2
        expected.append(10 * np.log10(1 + sine / (100 * (window**2).sum())))
        files.append(path)
    slow = tmp_path / "slow.bdf"
    slow.write_bytes(bdf_bytes(rng.integers(-30000, 30000, (129, 2000))))
    broken = tmp_path / "broken.bdf"
    broken.write_bytes(b"no recording")
    found = original_line_db([slow, files[0], broken, files[1]])
    assert set(found) == {1, 3}
    assert [found[1], found[3]] == pytest.approx(expected, abs=0.7)


def test_line_noise_of_files_beside_a_release_at_100_hz(tmp_path):
    for name in ("NDARAA", "NDARBB"):
        write_recording(tmp_path / "R1_L100_bdf", name, trial_events())
    write_release(tmp_path / "cmi_bids_R2", subjects=2, seconds=12)
    releases = [find_release(name, tmp_path) for name in ("R1", "R2")]
    paths = [(each, path) for each in releases for path in each.folder.rglob("*_eeg.[bs][de][ft]")]
    names = [(each.name, str(path.relative_to(each.folder))) for each, path in paths]
    found = line_noise_of_files(SimpleNamespace(names=names), releases)
    assert set(found) == {2, 3} and min(found.values()) > 10  # 30 microvolts at 60 Hz
