"""Simulated signals: the physiology that the table names, read off by other means."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from eeg.models.montage import CHANNELS
from eeg.synth import plot
from eeg.synth.artefacts import eyes
from eeg.synth.background import aperiodic, coloured, envelope
from eeg.synth.events import Scene, Trial
from eeg.synth.head import Head, electrodes
from eeg.synth.signals import Brain
from eeg.synth.subjects import HABITS, TRAITS, draw_subject, stream
from eeg.synth.table import ROWS
from eeg.synth.worlds import WORLDS

PZ, OZ, C3, C4 = (CHANNELS.index(name) for name in ("E62", "E75", "E36", "E104"))


def brain(index=20, age=10.0, world="real", snr=1.0, **changes):
    subject = dataclasses.replace(draw_subject("R1", index, 0), age=age)
    return Brain((0, "R1", index), subject, WORLDS[world], snr)


def trials_of(times, hand="right", gap=6.0):
    """A scene of answered trials with these response times in s."""
    stimuli = 5 + gap * np.arange(len(times))
    trials = [Trial(s, hand, s + t, hand, s + 2.4) for s, t in zip(stimuli, times)]
    return Scene(float(stimuli[-1] + gap), (), tuple(trials))


def test_every_number_has_a_source():
    names = [row[0] for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(len(row) == 4 and len(row[3]) > 5 for row in ROWS)


def test_coloured_noise_has_its_spectrum_and_unit_variance():
    x = coloured(np.random.default_rng(0), 40, 20011, aperiodic(2.0))
    assert x.dtype == np.float32 and (x**2).mean() == pytest.approx(1, rel=0.03)
    hertz, power = scipy.signal.welch(x, 100, nperseg=1000)
    power = power.mean(0)
    at = lambda f: power[np.abs(hertz - f).argmin()]
    assert at(10) / at(40) == pytest.approx((2.5**2 + 40**2) / (2.5**2 + 10**2), rel=0.1)
    assert at(0.2) < 0.05 * at(0.7)  # high-pass at 0.5 Hz


def test_an_envelope_keeps_power():
    course = np.concatenate([envelope(np.random.default_rng(i), 5000, 0.5) for i in range(20)])
    assert (course**2).mean() == pytest.approx(1, rel=1e-4) and course.std() > 0.2


def test_children_have_larger_and_slower_eeg():
    """Twice to three times an adult's amplitude, alpha from 8 to 10 Hz, 10 to 25 uV at Pz."""
    rms, peaks = [], []
    for age in (5.0, 10.0, 21.0):
        found, peak = [], []
        for index in range(20, 26):
            x = brain(index, age).signals(Scene(60.0, (), eyes_closed=((0.0, 60.0),)), 1)
            open_eyes = brain(index, age).signals(Scene(60.0, ()), 1)[PZ]
            found.append(np.median(open_eyes.reshape(-1, 200).std(1)))
            hertz, power = scipy.signal.welch(x[OZ], 100, nperseg=400)
            inside = (hertz > 6) & (hertz < 13)
            peak.append(hertz[inside][power[inside].argmax()])
        rms.append(np.median(found))
        peaks.append(np.mean(peak))
    assert 10 < rms[0] < 25 and 7 < rms[1] < 20 and 1.8 < rms[0] / rms[2] < 3.2
    assert 7 < peaks[0] < 8.9 and 9.2 < peaks[2] < 11.2 and peaks[0] < peaks[1] < peaks[2]


def test_closed_eyes_double_alpha():
    one = brain()
    shut = one.signals(Scene(60.0, (), eyes_closed=((0.0, 60.0),)), 1)[OZ]
    power = [
        scipy.signal.welch(x, 100, nperseg=400)[1][28:44].sum()
        for x in (shut, one.signals(Scene(60.0, ()), 1)[OZ])
    ]
    assert power[0] > 2 * power[1]


def locked(world="potentials", hand="right", times=None, before=60, after=20):
    """(129, T): what the label adds, on average around the responses: the same noise with and
    without it.
    """
    scene = trials_of(1.5 + 0.3 * np.sin(np.arange(24)) if times is None else times, hand)
    found = []
    for index in range(20, 24):
        added = brain(index, world=world).signals(scene, 1)
        added = added - brain(index, world=world, snr=0.0).signals(scene, 1)
        at = [round(trial.response_s * 100) for trial in scene.trials]
        found.append(np.mean([added[:, k - before : k + after] for k in at], 0))
    return np.median(found, 0)


def test_the_positivity_is_broad_and_peaks_at_the_response():
    x = locked("real")
    smooth = np.convolve(x[PZ], np.ones(15) / 15, "same")
    assert 3 < smooth[40:75].max() < 12 and 50 <= smooth.argmax() <= 75
    at_response = x[:, 55:65].mean(1)
    cpz, p3, p4 = (at_response[CHANNELS.index(name)] for name in ("E55", "E52", "E92"))
    assert cpz > 0.8 and p3 + p4 > 1.2  # over CPz and beside Pz too, against Cz
    assert at_response[128] == 0


def test_the_motor_potential_is_over_the_other_hemisphere():
    right, left = (locked(hand=hand) for hand in ("right", "left"))
    side = lambda x: (x[C3] - x[C4])[52:62].mean()
    assert side(right) < -0.7 and side(left) > 0.7


def test_flicker_follows_the_target():
    """20 Hz grows with the left target, 25 Hz with the right one."""
    ratio = {}
    for side in ("left", "right"):
        scene = trials_of([1.8] * 24, side)
        x = brain(22).signals(scene, 1)[OZ]
        parts = [x[round(t.stimulus_s * 100) + 80 :][:80] for t in scene.trials]
        power = np.mean(np.abs(np.fft.rfft(np.array(parts) * np.hanning(80), axis=1)) ** 2, 0)
        ratio[side] = power[16] / power[20]
    assert ratio["left"] > 1.3 * ratio["right"]


def test_blinks_have_opposite_signs_above_and_below_the_eye():
    traits = dict.fromkeys((*TRAITS, *HABITS), 0.0)
    head = Head(0, "R1", 3)
    parts, _ = eyes(np.random.default_rng(0), head, traits, np.zeros(6000, np.float32))
    up = parts[0][0]
    for above, below in (("E25", "E127"), ("E8", "E126")):
        assert up[CHANNELS.index(above)] > 0.4 and up[CHANNELS.index(below)] < -0.2
    assert parts[0][1].max() > 60 and np.abs(up[CHANNELS.index("E62")]) < 0.05
    beside = parts[1][0]  # a look to the side: opposite signs beside the two eyes
    assert beside[CHANNELS.index("E125")] * beside[CHANNELS.index("E128")] < -0.1
    heights = electrodes()[[CHANNELS.index(name) for name in ("E25", "E127")], 2]
    assert heights[0] > heights[1]


def test_a_subject_keeps_its_fingerprint():
    """Spectra of two recordings of one subject are more alike than those of two subjects."""
    spectra = np.array(
        [
            [
                np.log(scipy.signal.welch(x[[PZ, OZ, C3]], 100, nperseg=200)[1])[:, 2:40].ravel()
                for x in (brain(i).signals(Scene(60.0, ()), part) for part in (1, 2))
            ]
            for i in range(20, 28)
        ]
    )
    own = np.square(spectra[:, 0] - spectra[:, 1]).mean(1)
    others = [np.square(a[0] - b[1]).mean() for a in spectra for b in spectra if a is not b]
    assert np.median(own) < 0.3 * np.median(others)


def test_artefacts_of_uncleaned_recordings_are_there():
    flat = noisy = 0
    for index in range(20, 60):
        x = brain(index).signals(Scene(20.0, ()), 1)[:128]
        spread = x.std(1)
        flat += (spread == 0).any()
        noisy += (spread > 4 * np.median(spread)).any()
    assert 1 <= flat <= 14 and 6 <= noisy <= 34


def test_the_figure_beside_the_real_recording(tmp_path, monkeypatch, eeglab_visual):
    monkeypatch.setattr(plot, "SUBJECTS", 2)
    plot.draw(tmp_path / "a.png", "real", 1.0, 0, eeglab_visual)
    assert (tmp_path / "a.png").stat().st_size > 20000
    adult = plot.real(eeglab_visual)
    assert adult.rms() == pytest.approx(22.8, abs=1.5)  # as measured by others
    assert len(adult.amplitudes()) > 60


def test_our_spectrum_falls_as_the_real_one_does(eeglab_visual, monkeypatch):
    monkeypatch.setattr(plot, "SUBJECTS", 5)
    ours, real = plot.simulated("real", 1.0, 0)[0], plot.real(eeglab_visual)

    def slope(one):
        inside = (one.hertz > 14) & (one.hertz < 38) | (one.hertz > 2) & (one.hertz < 6)
        power = np.log(one.power).mean(0)[inside]
        return np.polyfit(np.log(one.hertz[inside]), power, 1)[0]

    assert slope(ours) == pytest.approx(slope(real), abs=0.35)


@pytest.mark.parametrize("name, why", [("none.set", "cannot be read"), ("empty.set", "cannot be")])
def test_a_recording_that_cannot_be_drawn(tmp_path, name, why):
    from eeg import UserError

    if name == "empty.set":
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=why):
        plot.real(Path(tmp_path / name))


def test_streams_of_one_recording_are_its_own():
    one = brain()
    first, second = (one.signals(Scene(20.0, ()), part) for part in (1, 2))
    assert abs(np.corrcoef(first[PZ], second[PZ])[0, 1]) < 0.3
    assert (one.signals(Scene(20.0, ()), 1) == first).all()
    assert (
        stream(0, "R1", 20, "background", 1).random()
        != stream(0, "R1", 20, "background", 2).random()
    )
