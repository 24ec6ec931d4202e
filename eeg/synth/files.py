"""The files of a simulated release: BDF, and the tables and descriptions beside it."""

import json
from pathlib import Path

import numpy as np

from eeg.data.release import CONTRAST, DATASETS, FACTORS
from eeg.models.montage import CHANNELS, SFREQ
from eeg.synth.events import Scene, events_text
from eeg.synth.subjects import Subject
from eeg.synth.table import NUMBER

RECORDINGS = (  # columns of participants.tsv that say which there are
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
COLUMNS = (
    *("participant_id", "release_number", "sex", "age", "ehq_total"),
    *("commercial_use", "full_pheno"),
    *FACTORS,
    *RECORDINGS,
)
# Microvolts and digital steps at both ends of the range: 0 is exactly 0.
TOP_UV, TOP_STEP = 8388.6, 8388607


def write_bdf(path: Path, x: np.ndarray) -> None:
    """Write (129, N) microvolts as 24-bit BDF, in records of 1 s (N is a multiple of 100)."""
    channels, samples = x.shape
    fields: list[tuple[object, int]] = [("X X X X", 80), ("Startdate X X X simulated", 80)]
    header = b"\xffBIOSEMI" + _text(fields) + b"01.01.1500.00.00"
    size = 256 * (channels + 1)
    header += _text([(size, 8), ("24BIT", 44), (samples // SFREQ, 8), (1, 8), (channels, 4)])
    header += _text([(name, 16) for name in CHANNELS])
    for value, width in (
        ("", 80),  # transducer
        ("uV", 8),
        (-TOP_UV, 8),
        (TOP_UV, 8),
        (-TOP_STEP, 8),
        (TOP_STEP, 8),
        ("HP:0.5Hz LP:50Hz", 80),
        (SFREQ, 8),
        ("", 32),
    ):
        header += _text([(value, width)] * channels)
    steps = np.clip(np.rint(x * (TOP_STEP / TOP_UV)), -TOP_STEP, TOP_STEP).astype("<i4")
    records = np.ascontiguousarray(steps.reshape(channels, -1, SFREQ).transpose(1, 0, 2))
    path.write_bytes(header + records.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())


def _text(fields):
    return b"".join(str(value).ljust(width).encode("ascii") for value, width in fields)


def write_recording(
    folder: Path, subject: Subject, task: str, run: int, x: np.ndarray, scene: Scene
) -> None:
    """Write the four files of one recording; run is 0 where the task has no runs."""
    stem = f"sub-{subject.name}_task-{task}" + (f"_run-{run}" if run else "")
    write_bdf(folder / f"{stem}_eeg.bdf", x)
    events = events_text(scene, feedback=task == CONTRAST)
    channels = "name\ttype\tunits\n" + "".join(f"{name}\tEEG\tuV\n" for name in CHANNELS)
    about = _about_task(task) | {
        "EEGChannelCount": len(CHANNELS),
        "RecordingType": "continuous",
        "RecordingDuration": x.shape[1] / SFREQ,
        "SoftwareFilters": "n/a",
    }
    _write(folder / f"{stem}_events.tsv", events)
    _write(folder / f"{stem}_channels.tsv", channels)
    _write(folder / f"{stem}_eeg.json", json.dumps(about, indent=2))


def _about_task(task):
    return {
        "TaskName": task,
        "PowerLineFrequency": 60,
        "EEGReference": "Cz",
        "SamplingFrequency": SFREQ,
    }


def participant_row(
    rng: np.random.Generator, release: str, subject: Subject, made: list[str]
) -> str:
    """A line of participants.tsv; made: the recordings that it calls available."""
    unknown = subject.oddity == "no factors" or rng.random() < NUMBER["no_factors"]
    factors = ["n/a"] * 4 if unknown else [f"{value:.3f}" for value in subject.factors]
    handedness = f"{np.clip(rng.normal(70, 40), -100, 100):.2f}"
    row = [f"sub-{subject.name}", release, subject.sex, subject.age]
    row += [handedness if rng.random() > 0.02 else "n/a", "Yes"]
    row += ["Yes" if rng.random() < 0.8 else "No", *factors]
    for column in RECORDINGS:
        there = "caution" if rng.random() < 0.05 else "available"
        row.append(there if column in made else "unavailable")
    return "\t".join(map(str, row))


def write_tables(folder: Path, release: str, rows: list[str], generated_by: dict) -> None:
    """Write what a release has beside its subjects."""
    _write(folder / "participants.tsv", "\n".join(["\t".join(COLUMNS), *sorted(rows)]) + "\n")
    _write(folder / f"task-{CONTRAST}_eeg.json", json.dumps(_about_task(CONTRAST), indent=2))
    description = {
        "Name": f"Simulated EEG in the layout of HBN-EEG {release}",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": [generated_by],
        "SourceDatasets": [
            {"DOI": "none", "Version": f"layout of {DATASETS.get(release, release)}"}
        ],
    }
    _write(folder / "dataset_description.json", json.dumps(description, indent=2))


def _write(path, text):
    path.write_text(text, encoding="utf-8")
