"""A picture that answers: is it like real EEG? Simulated recordings, beside a real one if given."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal

from eeg import UserError
from eeg.data.plots import draw_scalp
from eeg.data.release import CONTRAST
from eeg.models.montage import CHANNELS, SFREQ
from eeg.synth.events import scene
from eeg.synth.signals import Brain
from eeg.synth.subjects import ODDITIES, draw_subject, stream
from eeg.synth.worlds import WORLDS

SUBJECTS = 12
PZ = CHANNELS.index("E62")
BEFORE_S, AFTER_S = 1.2, 0.6  # around a response
BASE_S = 0.3  # at the beginning of that stretch


@dataclass
class Locked:
    """Stretches around responses, without their first 0.3 s' mean."""

    label: str
    time_s: np.ndarray
    trials: list[np.ndarray]  # for each subject (trials, samples), uV at Pz
    hertz: np.ndarray
    power: np.ndarray  # (subjects, hertz), uV^2/Hz at Pz

    def amplitudes(self) -> np.ndarray:
        """Of each trial: the mean from -0.1 to 0.1 s around the response."""
        near = np.abs(self.time_s) <= 0.1
        return np.concatenate([one[:, near].mean(1) for one in self.trials])

    def rms(self) -> float:
        """At Pz in a stretch of 1.8 s, after its mean; the median of all."""
        return float(np.median(np.concatenate([one.std(1) for one in self.trials])))


def cut(x: np.ndarray, rate: float, moments_s) -> np.ndarray:
    """(..., samples) -> (moments, ..., stretch); moments too close to an end are left out."""
    before, after, base = (round(span * rate) for span in (BEFORE_S, AFTER_S, BASE_S))
    found = []
    for moment in moments_s:
        at = round(moment * rate)
        if before <= at and at + after <= x.shape[-1]:
            part = x[..., at - before : at + after]
            found.append(part - part[..., :base].mean(-1, keepdims=True))
    return np.array(found)


def simulated(world: str, snr: float, seed: int) -> tuple[Locked, np.ndarray]:
    """-> (what is at Pz, the average map at the response (129,))."""
    trials, powers, maps = [], [], []
    for index in range(len(ODDITIES), len(ODDITIES) + SUBJECTS):
        subject = draw_subject("R1", index, seed)
        brain = Brain((seed, "R1", index), subject, WORLDS[world], snr)
        happened = scene(stream(seed, "R1", index, "events"), subject, CONTRAST, 1, 3)
        x = brain.signals(happened, 0)
        responses = [each.response_s for each in happened.trials if np.isfinite(each.response_s)]
        parts = cut(x, SFREQ, responses)
        if not len(parts):
            continue
        trials.append(parts[:, PZ])
        at = round(BEFORE_S * SFREQ)
        maps.append(np.median(parts[:, :, at - 10 : at + 10].mean(2), 0))
        hertz, power = scipy.signal.welch(x[PZ], SFREQ, nperseg=4 * SFREQ)
        powers.append(power)
    time_s = np.arange(-BEFORE_S, AFTER_S - 1e-9, 1 / SFREQ)
    label = f"simulated, world {world}, {len(trials)} subjects"
    return Locked(label, time_s, trials, hertz, np.array(powers)), np.mean(maps, 0)


def real(path: Path) -> Locked:
    """A recording of EEGLAB with responses called `rt` and an electrode Pz."""
    import mne
    from scipy.io.matlab import MatReadError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coordinates that are not needed here
            raw = mne.io.read_raw_eeglab(path, preload=True, verbose="error")
    except (OSError, ValueError, KeyError, TypeError, MatReadError) as error:
        raise UserError(f"{path} cannot be read as an EEGLAB recording: {error}") from None
    responses = raw.annotations.onset[raw.annotations.description == "rt"]
    if "Pz" not in raw.ch_names or not len(responses):
        raise UserError(
            f"{path} needs an electrode Pz and events rt to be drawn beside simulated recordings"
        )
    raw.filter(0.5, 50, verbose="error")
    x, rate = raw.get_data(picks=["Pz"])[0] * 1e6, raw.info["sfreq"]
    parts = cut(x, rate, responses)
    hertz, power = scipy.signal.welch(x, rate, nperseg=round(4 * rate))
    time_s = np.arange(parts.shape[1]) / rate - BEFORE_S
    return Locked(f"real: {path.stem}, 1 adult", time_s, [parts], hertz, power[None])


def draw(file: Path, world: str, snr: float, seed: int, beside: Path | None) -> None:
    """Write the figure: spectrum, single trials, average, map."""
    from matplotlib.figure import Figure

    ours, topography = simulated(world, snr, seed)
    shown = [ours, *([real(beside)] if beside else [])]
    figure = Figure(figsize=(12, 8), layout="constrained")
    ((spectrum, histogram), (average, scalp)) = figure.subplots(2, 2)
    for one, colour in zip(shown, ("tab:blue", "tab:red")):
        label = f"{one.label}; {one.rms():.0f} uV rms in {BEFORE_S + AFTER_S:.1f} s"
        typical = np.exp(np.log(one.power[:, 1:] + 1e-9).mean(0))
        for each in one.power if len(one.power) > 1 else ():
            spectrum.loglog(one.hertz[1:], each[1:], color=colour, lw=0.4, alpha=0.4)
        spectrum.loglog(one.hertz[1:], typical, color=colour, label=label)
        values = one.amplitudes()
        label = f"mean {values.mean():.1f}, std {values.std():.1f} uV"
        histogram.hist(values, np.arange(-80, 81, 8), density=True, alpha=0.5, color=colour,
                       label=label)  # fmt: skip
        for each in one.trials:
            average.plot(one.time_s, each.mean(0), color=colour, lw=0.4, alpha=0.5)
        means = np.mean([each.mean(0) for each in one.trials], 0)
        average.plot(one.time_s, means, color=colour, lw=2)
    spectrum.set(xlim=(0.5, 50), ylim=(1e-2, 1e3), xlabel="Hz", ylabel="uV^2/Hz at Pz")
    spectrum.legend(fontsize=8)
    histogram.set(xlabel="uV at Pz, 0.1 s around the response", ylabel="share of trials per uV")
    histogram.legend(fontsize=8)
    average.set(xlabel="s from the response", ylabel="uV at Pz: each subject, and all")
    limit = np.abs(topography).max()
    shown = {"E62": "Pz", "E55": "CPz", "Cz": "Cz", "E11": "Fz"}
    look = {"vlim": (-limit, limit), "cmap": "RdBu_r", "extrapolate": "local", "sensors": False}
    look["names"] = [shown.get(name, "") for name in CHANNELS]
    draw_scalp(scalp, topography, CHANNELS, "uV", **look)
    scalp.set_title("at the response, against Cz: uV, typical of subjects")
    figure.suptitle(f"simulated EEG, world {world}" + (" beside a real recording" * bool(beside)))
    figure.savefig(file, dpi=110, format=file.suffix[1:] or "png")
