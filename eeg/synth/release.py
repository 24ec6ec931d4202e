"""A whole simulated release on disk: BDF or EEGLAB, and the tables and descriptions beside it.

Everything about subject i follows from (seed, release, i): the same bytes come out whatever the
number of subjects, threads or tasks. dataset_description.json says that it is simulated.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from eeg import UserError
from eeg.data.release import CONTRAST, DATASETS, FACTORS, TASKS, folder_names
from eeg.files import publishing, writing
from eeg.models.montage import CHANNELS, SFREQ
from eeg.raw import bdf
from eeg.raw.bdf import TOP_STEP
from eeg.raw.eeglab import write_set
from eeg.synth.events import Scene, events_text, scene
from eeg.synth.oracle import oracle
from eeg.synth.signals import RAW_SFREQ, Brain, as_recorded
from eeg.synth.subjects import Subject, draw_subject, stream
from eeg.synth.table import NUMBER
from eeg.synth.worlds import WORLDS

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
TOP_UV = 8388.6  # at both ends of the range
GENERATOR = "eeg simulation"
Totals = dict[str, int]


def simulate_release(
    data: Path,
    release: str,
    subjects: int = 20,
    *,
    seed: int = 0,
    world: str = "real",
    snr: float = 1.0,
    tasks: Sequence[str] = (CONTRAST,),
    runs: int = 3,
    mini: bool = False,
    raw: bool = False,
    jobs: int | None = None,
    force: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[Path, Totals | None]:
    """Write a simulated release into the data root. raw: at 500 Hz, not filtered yet.

    -> (its folder, {"recordings", "trials", "bytes", "subjects"}, or None if it was there already).
    """
    folder = Path(data) / folder_names(release, mini)[-1 if raw else 0]
    settings = {
        "world": world,
        "subjects": subjects,
        "seed": seed,
        "snr": snr,
        "tasks": sorted(tasks),
        "runs": runs,
        **({"raw500": True} if raw else {}),
    }
    if folder.exists() and is_there(folder, settings, force):
        return folder, None
    totals = {"recordings": 0, "trials": 0, "bytes": 0, "subjects": 0}
    # The size that a full disk would have needed, by what some subjects took.
    size = lambda: totals["bytes"] * subjects // max(1, totals["subjects"])
    with writing(folder, "--data DIR", size), publishing(folder) as partial:
        partial.mkdir(parents=True)
        _write_release(partial, release, settings, jobs, totals, progress)
    return folder, totals


def described(folder: Path) -> dict | None:
    """What made a release by this program: {"settings", "oracle", ...}; None for any other."""
    try:
        text = (folder / "dataset_description.json").read_text(encoding="utf-8")
        found = json.loads(text)["GeneratedBy"][0]
        return found if found["Name"] == GENERATOR else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def is_there(folder: Path, settings: dict, force: bool) -> bool:
    """Whether the folder holds just this release. Raises UserError where it may not be replaced."""
    found = described(folder)
    if found is None:
        raise UserError(
            f"{folder} exists and was not simulated by this program; it is left as it is (name "
            "another folder with --data)"
        )
    if force:
        return False
    if found.get("settings") != settings:
        raise UserError(
            f"{folder} exists, simulated with other settings ({found.get('settings')}); "
            "replace it with --force"
        )
    return True


def _write_release(folder, release, settings, jobs, totals, progress):
    """Write all files of a release; totals are counted as it goes."""
    rows, subjects = [], settings["subjects"]
    one = lambda index: write_subject(folder, release, index, settings)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for done, (row, *counts) in enumerate(pool.map(one, range(subjects)), 1):
            rows.append(row)
            for key, value in zip(totals, (*counts, 1)):
                totals[key] += value
            if progress:
                progress(done, subjects, counts[-1])
    generated_by = {
        "Name": GENERATOR,
        "Description": "No person was recorded: every signal, event and label is simulated.",
        "settings": settings,
        "oracle": {
            "Description": "NRMSE of a reader that sees the hidden sources without background, on "
            "further simulated subjects of this world. It bounds the world; it is no score.",
            **oracle(settings["world"], settings["snr"]),
        },
    }
    write_tables(folder, release, rows, generated_by, "raw500" in settings)


def write_subject(
    folder: Path, release: str, index: int, settings: dict
) -> tuple[str, int, int, int]:
    """Write one subject's recordings. -> (row of participants.tsv, recordings, trials, bytes)."""
    place = settings["seed"], release, index
    subject = draw_subject(release, index, settings["seed"])
    brain = Brain(place, subject, WORLDS[settings["world"]], settings["snr"])
    eeg = folder / f"sub-{subject.name}" / "eeg"
    eeg.mkdir(parents=True)
    made, trials, raw = [], 0, "raw500" in settings
    for task in settings["tasks"]:
        if task == CONTRAST:
            trials = _write_contrast(eeg, brain, settings["runs"], raw)
            made += [f"{task}_{run}" for run in range(1, settings["runs"] + 1)]
            continue
        part = 16 * TASKS.index(task)
        happened = scene(stream(*place, "events", part), subject, task, 0, 1)
        write_recording(eeg, brain, task, 0, brain.signals(happened, part), happened, raw)
        made.append(task)
    row = participant_row(stream(*place, "row"), release, subject, made)
    written = list(eeg.iterdir())
    recordings = sum(path.suffix in (".bdf", ".set") for path in written)
    return row, recordings, trials, sum(path.stat().st_size for path in written)


def _write_contrast(eeg, brain, runs, raw):
    """Write the runs of the contrast-change task. -> how many trials they have."""
    subject, trials, waiting = brain.subject, 0, None
    for run in range(1, runs + 1):
        part = 16 * TASKS.index(CONTRAST) + run
        happened = scene(stream(*brain.place, "events", part), subject, CONTRAST, run, runs)
        x = brain.signals(happened, part)
        trials += len(happened.trials)
        if waiting is not None:  # real releases hold the next run once more at this one's end
            before, earlier = waiting
            both = np.concatenate([before, x], 1)
            again = earlier.followed_by(happened)
            write_recording(eeg, brain, CONTRAST, run - 1, both, again, raw)
            waiting = None
        missing = subject.oddity == "missing file" and run == runs > 1
        if subject.oddity == "copied block" and run == 2 < runs:
            waiting = x, happened
        elif not missing:
            write_recording(eeg, brain, CONTRAST, run, x, happened, raw)
    return trials


def write_bdf(path: Path, x: np.ndarray) -> None:
    """Write (129, N) microvolts as 24-bit BDF, in records of 1 s (N is a multiple of 100)."""
    steps = np.rint(x * (TOP_STEP / TOP_UV))  # here, where x is single precision
    uv = steps * np.float64(TOP_UV / TOP_STEP)
    bdf.write_bdf(path, uv, [str(TOP_UV)] * len(x), "simulated", "HP:0.5Hz LP:50Hz")


def write_recording(
    folder: Path, brain: Brain, task: str, run: int, x: np.ndarray, scene: Scene, raw: bool
) -> None:
    """Write the files of one recording; run is 0 where the task has no runs."""
    stem = f"sub-{brain.subject.name}_task-{task}" + (f"_run-{run}" if run else "")
    if raw:
        rng = stream(*brain.place, "amplifier", 16 * TASKS.index(task) + run)
        write_set(folder / f"{stem}_eeg.set", CHANNELS, RAW_SFREQ, as_recorded(rng, x))
    else:
        write_bdf(folder / f"{stem}_eeg.bdf", x)
    events = events_text(scene, feedback=task == CONTRAST, raw=raw)
    channels = "name\ttype\tunits\n" + "".join(f"{name}\tEEG\tuV\n" for name in CHANNELS)
    about = _about_task(task, raw) | {
        "EEGChannelCount": len(CHANNELS),
        "RecordingType": "continuous",
        "RecordingDuration": x.shape[1] / SFREQ,
        "SoftwareFilters": "n/a",
    }
    _write(folder / f"{stem}_events.tsv", events)
    _write(folder / f"{stem}_channels.tsv", channels)
    _write(folder / f"{stem}_eeg.json", json.dumps(about, indent=2))


def _about_task(task, raw):
    return {
        "TaskName": task,
        "PowerLineFrequency": 60,
        "EEGReference": "Cz",
        "SamplingFrequency": RAW_SFREQ if raw else SFREQ,
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


def write_tables(
    folder: Path, release: str, rows: list[str], generated_by: dict, raw: bool
) -> None:
    """Write what a release has beside its subjects."""
    _write(folder / "participants.tsv", "\n".join(["\t".join(COLUMNS), *sorted(rows)]) + "\n")
    _write(folder / f"task-{CONTRAST}_eeg.json", json.dumps(_about_task(CONTRAST, raw), indent=2))
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
