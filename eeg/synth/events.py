"""What happened in a recording: events with the irregularities of real releases, as text too."""

from dataclasses import dataclass, replace

import numpy as np

from eeg.data.release import CONTRAST
from eeg.synth.subjects import Subject
from eeg.synth.table import NUMBER

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
OTHER = {"left": "right", "right": "left"}
FAST = 0.68  # time line of some recordings: HBN metadata, 235 of 5,390


@dataclass(frozen=True)
class Trial:
    stimulus_s: float
    side: str  # of the target
    response_s: float  # NaN without a response
    hand: str
    end_s: float  # when the next trial starts


@dataclass(frozen=True)
class Scene:
    """What a recording is made from. events: (onset in s, value, feedback)."""

    seconds: float
    events: tuple[tuple[float, str, str], ...]
    trials: tuple[Trial, ...] = ()
    eyes_closed: tuple[tuple[float, float], ...] = ()  # from, to, in s
    fast: bool = False

    @property
    def pace(self) -> float:
        return FAST if self.fast else 1.0

    def followed_by(self, other: "Scene") -> "Scene":
        """Both scenes in one recording. The trials are not needed any more, so they are lost."""
        moved = [(self.seconds + onset, *rest) for onset, *rest in other.events]
        seconds, events = self.seconds + other.seconds, (*self.events, *moved)
        return replace(self, seconds=seconds, events=events, trials=())


def scene(rng: np.random.Generator, subject: Subject, task: str, run: int, runs: int) -> Scene:
    """What happens in one recording of a task; run counts from 1 in the contrast-change task."""
    if task == CONTRAST:
        return _contrast(rng, subject, run, runs)
    return _rest(rng) if task == "RestingState" else _film(rng)


def _contrast(rng, subject, run, runs):
    fast = subject.oddity == "fast time line" and run > 1
    answers = not (subject.oddity == "no valid trial" and run == runs)
    begin = rng.uniform(8, 40)
    events, trials = _block(rng, subject, run, begin, FAST if fast else 1.0, answers)
    events.append((0.0, "break cnt", "n/a"))
    if rng.random() < 0.05:
        events.append((0.0, str(rng.choice(["left_target", "contrastTrial_start"])), "n/a"))
    tail = trials[-1].end_s + rng.uniform(2, 20)
    has_end, seconds = rng.random() < 0.9, np.ceil(tail + rng.uniform(1, 5))
    if subject.oddity == "past the end" and run == runs:
        # The recording stops within the window of its last answered trial; the events go on.
        last = max(trial.stimulus_s for trial in trials if not np.isnan(trial.response_s))
        seconds = np.ceil(last + 1.4)
    elif has_end:
        events.append((tail, "9999", "n/a"))
    return Scene(float(seconds), tuple(events), tuple(trials), fast=fast)


def _block(rng, subject, number, begin, pace, answers):
    """24 trials from `begin` s. -> (events, trials)."""
    events, trials = [(begin, f"contrastChangeB{number}_start", "n/a")], []
    start = begin + 5.9 * pace
    for side in rng.permutation(["left"] * 12 + ["right"] * 12):
        trial, presses = _trial(rng, subject, start, str(side), pace, answers)
        events.append((start, "contrastTrial_start", "n/a"))
        events.append((trial.stimulus_s, f"{side}_target", "n/a"))
        events += presses
        trials.append(trial)
        start = trial.end_s
    events.append((start, "contrastTrial_start", "n/a"))
    return events, trials


def _trial(rng, subject, start, side, pace, answers):
    """-> (Trial, [press])."""
    stimulus = start + pace * rng.choice([2.8, 4.4, 6.0]) + rng.integers(0, 3) * 0.002
    press = lambda hand: f"{hand}_buttonPress"
    presses = []
    if rng.random() < 0.12:  # too early
        early = start + rng.uniform(0.2, 0.9) * (stimulus - start)
        presses.append((early, press(rng.choice(["left", "right"])), "non_target"))
    spread = NUMBER["trial_sd_s"] * (1.15 if subject.age < 9 else 0.95)
    time = subject.pace_s + spread * rng.standard_normal()
    if rng.random() < 0.024:  # before the window opens
        time = rng.uniform(0, 0.5)
    time *= pace**0.75
    hand = side if rng.random() > 0.07 else OTHER[side]
    end = stimulus + pace * 2.40 + rng.integers(0, 16) * 0.002
    response = np.nan
    if answers and rng.random() > 0.11 and 0 <= time < pace * 2.38:
        response = stimulus + time
        feedback = "smiley_face" if hand == side else "sad_face"
        presses.append((response, press(hand), feedback))
        if rng.random() < 0.07 and time < pace * 1.6:
            again = response + rng.uniform(0.2, 0.7) * pace
            presses.append((again, press(rng.choice(["left", "right"])), "non_target"))
    return Trial(float(stimulus), side, float(response), hand, float(end)), presses


def _rest(rng):
    """Eyes open for 20 s and closed for 40 s, in turn."""
    events, start = [(0.0, "break cnt", "n/a"), (1.8, "resting_start", "n/a")], rng.uniform(5, 30)
    if rng.random() < 0.1:
        events.append((2.4, "resting_start", "n/a"))
    closed = []
    for _ in range(3):
        events.append((start, "instructed_toOpenEyes", "n/a"))
        events.append((start + 20, "instructed_toCloseEyes", "n/a"))
        closed.append((start + 20, start + 60))
        start += 60
    events.append((start, "instructed_toOpenEyes", "n/a"))
    return Scene(float(np.ceil(start + 22)), tuple(events), eyes_closed=tuple(closed))


def _film(rng):
    """A film, or another task whose events nobody reads."""
    seconds = float(np.ceil(rng.uniform(120, 200)))
    start = (rng.uniform(2, 6), "video_start", "n/a")
    end = (seconds - 1.5, "boundary", "n/a")
    return Scene(seconds, ((0.0, "break cnt", "n/a"), start, end))


def events_text(scene: Scene, feedback: bool, raw: bool = False) -> str:
    """events.tsv as the 100 Hz tree has it: no sample column, onsets on the 2 ms grid of the 500 Hz
    originals. raw: as the originals have it, with that column.
    """
    names = ["onset", "duration", *["sample"] * raw, "value", "event_code"]
    lines = ["\t".join(names) + "\tfeedback" * feedback]
    for onset, value, answer in sorted(scene.events, key=lambda event: round(event[0] * 500)):
        shown = f"{round(onset * 500) / 500:.3f}".rstrip("0").rstrip(".")
        sample = f"{round(onset * 500)}\t" * raw
        line = f"{shown}\tn/a\t{sample}{value}\t{CODES.get(value, value)}"
        lines.append(line + f"\t{answer}" * feedback)
    return "\n".join(lines) + "\n"
