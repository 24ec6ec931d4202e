"""A simulated release: files that a reader cannot tell from real ones, signals with known
physiology in them.

For work without data and for tests whose answer is known. Everything about subject i follows from
(seed, release, i):
the same bytes come out whatever the number of subjects or threads. dataset_description.json says
that it is simulated.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft

from eeg import UserError
from eeg.data.release import DATASETS, TASKS, folder_names
from eeg.files import publishing, writing
from eeg.models.montage import CHANNELS, SFREQ

COLUMNS = (
    "participant_id",
    "release_number",
    "sex",
    "age",
    "ehq_total",
    "commercial_use",
    "full_pheno",
    "p_factor",
    "attention",
    "internalizing",
    "externalizing",
    "RestingState",
    "DespicableMe",
    "FunwithFractals",
    "ThePresent",
    "DiaryOfAWimpyKid",
    "contrastChangeDetection_1",
    "contrastChangeDetection_2",
    "contrastChangeDetection_3",
    "surroundSupp_1",
    "surroundSupp_2",
    "seqLearning6target",
    "seqLearning8target",
    "symbolSearch",
)
CODES = {
    "contrastChangeB1_start": 94,
    "contrastChangeB2_start": 95,
    "contrastChangeB3_start": 96,
    "contrastTrial_start": 5,
    "left_target": 8,
    "right_target": 9,
    "left_buttonPress": 12,
    "right_buttonPress": 13,
    "video_start": 82,
    "resting_start": 90,
    "instructed_toOpenEyes": 20,
    "instructed_toCloseEyes": 30,
}


@dataclass
class Subject:
    name: str
    sex: str
    age: float
    trait: float  # N(0, 1), seen in frontal theta and, weakly, in externalizing
    factors: list  # p_factor, attention, internalizing, externalizing
    oddity: str  # which of the irregularities of real releases this subject shows
    rng: np.random.Generator


ODDITIES = (
    "copied block",
    "fast time line",
    "no factors",
    "past the end",
    "no valid trial",
    "missing file",
)


def draw_subject(release, index, seed):
    """Who subject `index` of this release is. The first six show one oddity each, a fifth of the
    others one by chance.
    """
    rng = np.random.default_rng([seed, int(release[1:]), index])
    letters, digits = "ABCDEFGHJKLMNPRTUVWXYZ", "0123456789"
    pick = lambda pool, n: "".join(rng.choice(list(pool), n))
    # the release and the index are in the name, so no two subjects share one
    number = int(release[1:]) * 5000 + index
    tag = letters[number // 484 % 22] + letters[number // 22 % 22] + digits[int(rng.integers(10))]
    name = f"NDAR{pick(letters, 2)}{pick(digits, 3)}{tag[0]}{tag[1]}{letters[number % 22]}"
    age = float(np.clip(5 + rng.gamma(2.3, 2.3), 5, 21.9))
    older, trait, own = (age - 10.2) / 3.4, rng.standard_normal(), rng.standard_normal(4)
    externalizing = -0.24 * older + 0.2 * trait + 0.95 * own[3]
    factors = [
        float(x)
        for x in (0.9 * own[0], 0.9 * own[1] + 0.1 * older, 0.9 * own[2], 0.85 * externalizing)
    ]
    oddity = (
        ODDITIES[index]
        if index < len(ODDITIES)
        else str(rng.choice(ODDITIES))
        if rng.random() < 0.2
        else ""
    )
    return Subject(
        name, "M" if rng.random() < 0.65 else "F", round(age, 4), float(trait), factors, oddity, rng
    )


# ------------------------------------------------------------------------------------------- events


def contrast_block(rng, subject, number, begin, fast=False, answers=True):
    """One block of 24 trials from `begin` s. -> (events [(onset, value, feedback)], trials
    [(stimulus, side, response or nan, hand)], end).
    """
    pace = 0.68 if fast else 1.0
    events, trials = [(begin, f"contrastChangeB{number}_start", "n/a")], []
    t = begin + 5.9 * pace
    slow = (
        1.69
        + 0.01 * (10 - subject.age)
        + 0.17 * np.random.default_rng(abs(hash_of(subject.name))).standard_normal()
    )  # a subject keeps a pace
    spread = 0.36 * (1.15 if subject.age < 9 else 0.95)
    for side in rng.permutation(["left"] * 12 + ["right"] * 12):
        events.append((t, "contrastTrial_start", "n/a"))
        stimulus = t + pace * rng.choice([2.8, 4.4, 6.0]) + rng.integers(0, 3) * 0.002
        if rng.random() < 0.12:  # a press too early
            events.append(
                (
                    t + rng.uniform(0.2, 0.9) * (stimulus - t),
                    f"{rng.choice(['left', 'right'])}_buttonPress",
                    "non_target",
                )
            )
        events.append((stimulus, f"{side}_target", "n/a"))
        rt = pace**0.75 * (
            rng.uniform(0, 0.5) if rng.random() < 0.024 else slow + spread * rng.standard_normal()
        )
        hand = side if rng.random() > 0.07 else {"left": "right", "right": "left"}[side]
        stop = stimulus + pace * 2.40 + rng.integers(0, 16) * 0.002
        response = np.nan
        if answers and rng.random() > 0.11 and 0 <= rt < pace * 2.38:
            response = stimulus + rt
            events.append(
                (response, f"{hand}_buttonPress", "smiley_face" if hand == side else "sad_face")
            )
            if rng.random() < 0.07 and rt < pace * 1.6:  # a second press
                events.append(
                    (
                        response + rng.uniform(0.2, 0.7) * pace,
                        f"{rng.choice(['left', 'right'])}_buttonPress",
                        "non_target",
                    )
                )
        trials.append((stimulus, side, response, hand))
        t = stop
    events.append((t, "contrastTrial_start", "n/a"))
    return events, trials, t


def hash_of(text):
    """A number from a text, the same in every process."""
    return int.from_bytes(text.encode()[-8:], "little")


def contrast_recording(rng, subject, run, runs):
    """-> (events, trials, seconds, fast): one run with the irregularities of its subject."""
    fast = subject.oddity == "fast time line" and run > 1
    events, trials, end = contrast_block(
        rng,
        subject,
        run,
        rng.uniform(8, 40),
        fast,
        answers=not (subject.oddity == "no valid trial" and run == runs),
    )
    events.append((0.0, "break cnt", "n/a"))
    if rng.random() < 0.05:
        events.append(
            (0.0, str(rng.choice(["left_target", "contrastTrial_start"])), "n/a")
        )  # strays
    if (
        subject.oddity == "past the end" and run == runs
    ):  # the trial that follows the recording's end is still among the events
        last = max((t for t in trials if not np.isnan(t[2])), key=lambda t: t[0])
        return events, trials, np.ceil(last[0] + 1.4), fast
    tail = end + rng.uniform(2, 20)
    if rng.random() < 0.9:
        events.append((tail, "9999", "n/a"))
    return events, trials, np.ceil(tail + rng.uniform(1, 5)), fast


def rest_recording(rng):
    """-> (events, closed [(from, to)], seconds): eyes open and closed in turn."""
    events, t = [(0.0, "break cnt", "n/a"), (1.8, "resting_start", "n/a")], rng.uniform(5, 30)
    if rng.random() < 0.1:
        events.append((2.4, "resting_start", "n/a"))
    closed = []
    for _ in range(3):
        events += [(t, "instructed_toOpenEyes", "n/a"), (t + 20, "instructed_toCloseEyes", "n/a")]
        closed.append((t + 20, t + 60))
        t += 60
    return [*events, (t, "instructed_toOpenEyes", "n/a")], closed, np.ceil(t + 22)


def other_recording(rng):
    seconds = np.ceil(rng.uniform(120, 200))
    return [
        (0.0, "break cnt", "n/a"),
        (rng.uniform(2, 6), "video_start", "n/a"),
        (seconds - 1.5, "boundary", "n/a"),
    ], seconds


def events_text(events, feedback):
    """events.tsv as the 100 Hz tree has it: no sample column, onsets on the 2 ms grid of the 500 Hz
    originals.
    """
    lines = ["onset\tduration\tvalue\tevent_code" + "\tfeedback" * feedback]
    for onset, value, answer in sorted(events, key=lambda e: round(e[0] * 500)):
        onset = f"{round(onset * 500) / 500:.3f}".rstrip("0").rstrip(".")
        lines.append(f"{onset}\tn/a\t{value}\t{CODES.get(value, value)}" + f"\t{answer}" * feedback)
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------ signals


class Head:
    """Where the electrodes are, and smooth topographies over them. xyz (129, 3) on the unit sphere:
    x right, y front, z up.
    """

    def __init__(self):
        import mne

        positions = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
        xyz = np.array([positions[name] for name in CHANNELS])
        xyz -= xyz.mean(0) * [1, 1, 0]
        self.xyz = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)

    def over(self, *names, width=0.5):
        """(129,): a bump of this width (radians) over the mean place of these electrodes, 1 at its
        top.
        """
        centre = self.xyz[[CHANNELS.index(name) for name in names]].mean(0)
        return self.around(centre / np.linalg.norm(centre), width)

    def around(self, centre, width):
        return np.exp(-0.5 * (np.arccos(np.clip(self.xyz @ centre, -1, 1)) / width) ** 2).astype(
            np.float32
        )


def coloured(rng, rows, n, shape):
    """(rows, n) float32 noise of unit variance; its amplitude spectrum is shape(hertz)."""
    m = scipy.fft.next_fast_len(n, real=True)
    spectrum = rng.standard_normal((rows, m // 2 + 1, 2), dtype=np.float32).view(np.complex64)[
        ..., 0
    ]
    f = scipy.fft.rfftfreq(m, 1 / SFREQ).astype(np.float32)
    x = scipy.fft.irfft(spectrum * shape(np.maximum(f, 1e-3)) * (f >= 0.5), m, axis=1)[:, :n]
    return x / x.std(1, keepdims=True)


def band(centre, width):
    return lambda f: np.exp(-0.5 * ((f - centre) / width) ** 2)


def ramp(t, points):
    """Piecewise linear through (time, value), 0 outside."""
    times, values = zip(*points)
    return np.interp(t, times, values, left=0, right=0).astype(np.float32)


def signals(rng, head, subject, seconds, trials=(), closed=(), fast=False, snr=1.0):
    """(129, N) float32 microvolts against Cz. trials as contrast_block makes them; closed: spans of
    closed eyes.
    """
    n = int(round(seconds * SFREQ))
    t = np.arange(n) / SFREQ
    young = np.exp(-(subject.age - 5) / 6)
    x = np.zeros((129, n), np.float32)
    _add_background(x, rng, head, young)
    peak = _add_alpha_and_theta(x, rng, head, subject, closed)

    # motor rhythms over each hand's cortex, and what a contrast trial does
    pace = 0.68 if fast else 1.0
    hands = {
        "right": head.over("E36", width=0.35),
        "left": head.over("E104", width=0.35),
    }  # the other side's
    level, contrast, parietal, potential = _trial_courses(rng, t, trials, pace)
    for hand, place in hands.items():
        rhythm = (
            3.5 * coloured(rng, 1, n, band(peak + 0.8, 0.8))[0]
            + 1.5 * coloured(rng, 1, n, band(20 + rng.standard_normal(), 2.0))[0]
        )
        x += place[:, None] * (rhythm * np.maximum(level[hand], 0.1))
    if len(trials):
        flicker = sum(
            contrast[side] * np.sin(2 * np.pi * hz * t + rng.uniform(0, 2 * np.pi))
            for side, hz in (("left", 20), ("right", 25))
        )
        x += head.over("E75", width=0.35)[:, None] * (1.5 * snr * flicker).astype(np.float32)
        x += head.over("E62", "E72", width=0.35)[:, None] * (10 * snr * parietal)
        for hand, place in hands.items():
            x -= place[:, None] * (3.5 * snr * potential[hand])
    _add_artefacts(x, rng, head, seconds)
    return x


def _add_background(x, rng, head, young):
    """30 sources of 1/f noise, steeper and larger in the young."""
    n = x.shape[1]
    centres = rng.standard_normal((30, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    maps = np.stack(
        [head.around(c, w) for c, w in zip(centres, rng.uniform(0.3, 0.9, 30))], 1
    ) * rng.choice([-1, 1], 30)
    slope = 0.55 + 0.3 * young + 0.03 * rng.standard_normal()
    x += maps @ (coloured(rng, 30, n, lambda f: f**-slope) * np.float32(3.0 + 2.0 * young))


def _add_alpha_and_theta(x, rng, head, subject, closed):
    """Alpha, stronger with closed eyes, and frontal theta, which carries the trait.

    -> alpha's peak in Hz, from 8 Hz at 5 years to 10 Hz grown up.
    """
    n, age, young = x.shape[1], subject.age, np.exp(-(subject.age - 5) / 6)
    open_eyes = np.ones(n, np.float32)
    for a, b in closed:
        open_eyes[int(a * SFREQ) : int(b * SFREQ)] = 2.2
    peak = 10.2 - 2.3 * young + 0.3 * rng.standard_normal()
    alpha = (
        coloured(rng, 3, n, band(peak, 0.6))
        * open_eyes
        * np.float32(5 + 2 * np.exp(-(((age - 9) / 5) ** 2)))
    )
    x += (
        np.stack(
            [
                head.over("E75", width=0.5),
                head.over("E70", "E65", width=0.4),
                head.over("E83", "E90", width=0.4),
            ],
            1,
        )
        @ alpha
    )
    x += (
        head.over("E11", width=0.5)[:, None]
        * coloured(rng, 1, n, band(5.5, 0.8))
        * np.float32(3.5 * np.exp(0.25 * subject.trait) * (0.8 + 0.5 * young))
    )
    return peak


def _trial_courses(rng, t, trials, pace):
    """What the trials do over time t (n): rhythm, contrast, parietal, motor."""
    n, hands = len(t), ("right", "left")
    level = {hand: np.ones(n, np.float32) for hand in hands}
    contrast = {"left": np.full(n, 0.5, np.float32), "right": np.full(n, 0.5, np.float32)}
    parietal, potential = np.zeros(n, np.float32), {hand: np.zeros(n, np.float32) for hand in hands}
    for stimulus, side, response, hand in trials:
        near = slice(max(0, int((stimulus - 0.5) * SFREQ)), max(0, int((stimulus + 4) * SFREQ)))
        s = t[near]
        for which, to in ((side, 0.5), ({"left": "right", "right": "left"}[side], -0.5)):
            contrast[which][near] += to * ramp(
                s, [(stimulus, 0), (stimulus + 1.6 * pace, 1), (stimulus + 2.4 * pace, 0)]
            )
        strength = (
            0.35 if rng.random() < 0.08 else rng.lognormal(0, 0.25)
        )  # some trials hardly show it
        if np.isnan(response):
            peak_at, strength = stimulus + pace * rng.uniform(1.5, 2.2), 0.5 * strength
        else:
            peak_at = max(response + 0.09 * rng.standard_normal(), stimulus + 0.12)
        onset = stimulus + min(0.25 * pace, 0.5 * (peak_at - stimulus))
        parietal[near] += strength * ramp(
            s,
            [
                (onset, 0),
                (onset + 0.55 * (peak_at - onset), 0.35),
                (peak_at, 1),
                (peak_at + 0.18, 0.35),
                (peak_at + 0.5, 0),
            ],
        )
        if not np.isnan(response):
            moved = response + 0.06 * rng.standard_normal()
            potential[hand][near] += rng.lognormal(0, 0.3) * ramp(
                s, [(moved - 0.55, 0), (moved, 1), (moved + 0.15, 0.5), (moved + 0.4, 0)]
            )
            for which, depth in ((hand, 0.6), ({"left": "right", "right": "left"}[hand], 0.35)):
                level[which][near] -= depth * ramp(
                    s,
                    [
                        (moved - 0.7, 0),
                        (moved - 0.1, 1),
                        (moved + 0.4, 1),
                        (moved + 0.9, -0.3),
                        (moved + 1.6, 0),
                    ],
                )
    return level, contrast, parietal, potential


def _add_artefacts(x, rng, head, seconds):
    """Blinks, the amplifier, a noisy and a flat electrode in some recordings; Cz becomes 0."""
    n = x.shape[1]
    lids = np.zeros(n, np.float32)
    at = np.cumsum(rng.exponential(rng.uniform(3, 8), int(seconds)))
    shape = np.hanning(32).astype(np.float32)
    for begin in (at[at < seconds - 0.4] * SFREQ).astype(int):
        lids[begin : begin + 32] += shape * np.float32(rng.uniform(60, 140))
    x += (head.over("E17", width=0.55) + head.over("E126", "E127", width=0.4))[:, None] * lids
    x += rng.standard_normal(x.shape, dtype=np.float32)
    if rng.random() < 0.4:
        x[rng.integers(128)] += np.float32(rng.uniform(30, 150)) * rng.standard_normal(
            n, dtype=np.float32
        )
    x -= x[128].copy()
    if rng.random() < 0.15:
        x[rng.integers(128)] = 0


# -------------------------------------------------------------------------------------------- files

TOP, DIGITAL = (
    8388.6,
    8388607,
)  # microvolts and digital steps at both ends of the range: 0 is exactly 0


def write_bdf(path, x):
    """Write (129, N) microvolts as 24-bit BDF, in records of 1 s (N is a multiple of 100)."""
    channels, n = x.shape
    text = lambda value, width: str(value).ljust(width).encode("ascii")
    header = (
        b"\xffBIOSEMI"
        + text("X X X X", 80)
        + text("Startdate X X X simulated", 80)
        + b"01.01.1500.00.00"
    )
    header += (
        text(256 * (channels + 1), 8)
        + text("24BIT", 44)
        + text(n // SFREQ, 8)
        + text(1, 8)
        + text(channels, 4)
    )
    for value, width in (
        ("", 80),
        ("uV", 8),
        (-TOP, 8),
        (TOP, 8),
        (-DIGITAL, 8),
        (DIGITAL, 8),
        ("HP:0.5Hz LP:50Hz", 80),
        (SFREQ, 8),
        ("", 32),
    ):
        if width == 80 and not value:
            header += b"".join(text(name, 16) for name in CHANNELS)
        header += text(value, width) * channels
    digital = np.clip(np.rint(x * (DIGITAL / TOP)), -DIGITAL, DIGITAL).astype("<i4")
    records = np.ascontiguousarray(digital.reshape(channels, -1, SFREQ).transpose(1, 0, 2))
    path.write_bytes(header + records.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())


def write_recording(folder, subject, task, run, x, events):
    stem = f"sub-{subject.name}_task-{task}" + (f"_run-{run}" if run else "")
    write_bdf(folder / f"{stem}_eeg.bdf", x)
    (folder / f"{stem}_events.tsv").write_text(
        events_text(events, task == "contrastChangeDetection"), encoding="utf-8"
    )
    (folder / f"{stem}_channels.tsv").write_text(
        "name\ttype\tunits\n" + "".join(f"{name}\tEEG\tuV\n" for name in CHANNELS), encoding="utf-8"
    )
    about = {
        "TaskName": task,
        "PowerLineFrequency": 60,
        "EEGChannelCount": 129,
        "EEGReference": "Cz",
        "RecordingType": "continuous",
    }
    about |= {
        "RecordingDuration": x.shape[1] / SFREQ,
        "SamplingFrequency": SFREQ,
        "SoftwareFilters": "n/a",
    }
    (folder / f"{stem}_eeg.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def simulate_subject(folder, head, release, index, seed, snr, tasks, runs):
    """Write one subject's recordings. -> (row of participants.tsv, recordings, trials, bytes)."""
    subject = draw_subject(release, index, seed)
    rng = subject.rng
    eeg = folder / f"sub-{subject.name}" / "eeg"
    eeg.mkdir(parents=True)
    made, n_trials = [], 0
    # In a fixed order and with a generator each: one task's signals do not depend on the others.
    for task in TASKS:
        own = np.random.default_rng([seed, int(release[1:]), index, TASKS.index(task)])
        if task not in tasks:
            continue
        if task != "contrastChangeDetection":
            events, closed, seconds = (
                rest_recording(own)
                if task == "RestingState"
                else (*other_recording(own)[:1], (), None)
            )
            seconds = seconds or events[-1][0] + 1.5
            write_recording(
                eeg,
                subject,
                task,
                0,
                signals(own, head, subject, seconds, closed=closed, snr=snr),
                events,
            )
            made.append(task)
            continue
        previous = None
        for run in range(1, runs + 1):
            events, trials, seconds, fast = contrast_recording(own, subject, run, runs)
            x = signals(own, head, subject, seconds, trials, fast=fast, snr=snr)
            # The next run, whole, once more at the end of this one: real releases hold it so.
            if previous is not None:
                before, earlier_events = previous
                at = before.shape[1] / SFREQ
                earlier_events += [(at + onset, value, answer) for onset, value, answer in events]
                write_recording(
                    eeg, subject, task, run - 1, np.concatenate([before, x], 1), earlier_events
                )
                previous = None
            if subject.oddity == "copied block" and run == 2 and runs > 2:
                previous = x, events
            if (
                not (subject.oddity == "missing file" and run == runs and runs > 1)
                and previous is None
            ):
                write_recording(eeg, subject, task, run, x, events)
            made.append(f"{task}_{run}")
            n_trials += len(trials)
    return (
        participant_row(rng, release, subject, made),
        len(list(eeg.glob("*.bdf"))),
        n_trials,
        sum(p.stat().st_size for p in eeg.iterdir()),
    )


def participant_row(rng, release, subject, made):
    factors = (
        ["n/a"] * 4
        if subject.oddity == "no factors"
        else [f"{value:.3f}" for value in subject.factors]
    )
    handedness = (
        round(float(np.clip(rng.normal(70, 40), -100, 100)), 2) if rng.random() > 0.02 else "n/a"
    )
    row = [
        f"sub-{subject.name}",
        release,
        subject.sex,
        subject.age,
        handedness,
        "Yes",
        "Yes" if rng.random() < 0.8 else "No",
        *factors,
    ]
    return "\t".join(
        map(
            str,
            row
            + [
                ("caution" if rng.random() < 0.05 else "available")
                if column in made
                else "unavailable"
                for column in COLUMNS[11:]
            ],
        )
    )


def simulate_release(
    data,
    release,
    subjects=20,
    seed=0,
    snr=1.0,
    tasks=("contrastChangeDetection",),
    runs=3,
    mini=False,
    jobs=None,
    force=False,
    progress=None,
):
    """Write a simulated release into the data root. -> (its folder, {"recordings", "trials",
    "bytes"}, or None if it was there already).
    """
    folder = data / folder_names(release, mini)[0]
    settings = {
        "subjects": subjects,
        "seed": seed,
        "snr": snr,
        "tasks": sorted(tasks),
        "runs": runs,
    }
    about = folder / "dataset_description.json"
    if folder.exists():
        try:
            found = json.loads(about.read_text(encoding="utf-8"))["GeneratedBy"][0]
            simulated = found["Name"] == "eeg simulation"
        except (OSError, ValueError, LookupError, TypeError):
            simulated = False
        if not simulated:
            raise UserError(
                f"{folder} exists and was not simulated by this program; it is left as it is (name "
                "another folder with --data)"
            )
        if found.get("settings") == settings and not force:
            return folder, None
        if not force:
            raise UserError(
                f"{folder} exists, simulated with other settings ({found.get('settings')}); "
                "replace it with --force"
            )
    totals = {"recordings": 0, "trials": 0, "bytes": 0, "subjects": 0}
    with writing(
        folder, "--data DIR", lambda: totals["bytes"] * subjects // max(1, totals["subjects"])
    ):  # by what some of them took
        _write_release(folder, release, settings, tasks, jobs, totals, progress)
    return folder, totals


def _write_release(folder, release, settings, tasks, jobs, totals, progress):
    """Write all subjects' files beside `folder`, then put them in its place. totals: counted as it
    goes.
    """
    subjects, seed, snr, runs = (settings[name] for name in ("subjects", "seed", "snr", "runs"))
    head, rows = Head(), []
    with publishing(folder) as partial:
        partial.mkdir(parents=True)
        with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
            for done, (row, *counts) in enumerate(
                pool.map(
                    lambda i: simulate_subject(partial, head, release, i, seed, snr, tasks, runs),
                    range(subjects),
                ),
                1,
            ):
                rows.append(row)
                for key, value in zip(totals, (*counts, 1)):
                    totals[key] += value
                if progress:
                    progress(done, subjects, counts[-1])
        (partial / "participants.tsv").write_text(
            "\n".join(["\t".join(COLUMNS), *sorted(rows)]) + "\n", encoding="utf-8"
        )
        (partial / "task-contrastChangeDetection_eeg.json").write_text(
            json.dumps(
                {
                    "TaskName": "contrastChangeDetection",
                    "SamplingFrequency": SFREQ,
                    "PowerLineFrequency": 60,
                    "EEGReference": "Cz",
                },
                indent=2,
            ),
            encoding="utf-8",
        )
        description = {
            "Name": f"Simulated EEG in the layout of HBN-EEG {release}",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "CC0",
        }
        description["GeneratedBy"] = [
            {
                "Name": "eeg simulation",
                "Description": "No person was recorded: every signal, event and label is "
                "simulated.",
                "settings": settings,
            }
        ]
        description["SourceDatasets"] = [
            {"DOI": "none", "Version": f"layout of {DATASETS.get(release, release)}"}
        ]
        (partial / "dataset_description.json").write_text(
            json.dumps(description, indent=2), encoding="utf-8"
        )
