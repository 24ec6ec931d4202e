"""A whole simulated release on disk.

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
from eeg.data.release import CONTRAST, TASKS, folder_names
from eeg.files import publishing, writing
from eeg.synth import files
from eeg.synth.events import scene
from eeg.synth.oracle import oracle
from eeg.synth.signals import Brain
from eeg.synth.streams import stream
from eeg.synth.subjects import draw_subject
from eeg.synth.worlds import WORLDS

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
    jobs: int | None = None,
    force: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[Path, Totals | None]:
    """Write a simulated release into the data root.

    -> (its folder, {"recordings", "trials", "bytes", "subjects"}, or None if it was there already).
    """
    folder = Path(data) / folder_names(release, mini)[0]
    settings = {
        "world": world,
        "subjects": subjects,
        "seed": seed,
        "snr": snr,
        "tasks": sorted(tasks),
        "runs": runs,
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
    files.write_tables(folder, release, rows, generated_by)


def write_subject(
    folder: Path, release: str, index: int, settings: dict
) -> tuple[str, int, int, int]:
    """Write one subject's recordings. -> (row of participants.tsv, recordings, trials, bytes)."""
    place = settings["seed"], release, index
    subject = draw_subject(release, index, settings["seed"])
    brain = Brain(place, subject, WORLDS[settings["world"]], settings["snr"])
    eeg = folder / f"sub-{subject.name}" / "eeg"
    eeg.mkdir(parents=True)
    made, trials = [], 0
    for task in settings["tasks"]:
        if task == CONTRAST:
            trials = _write_contrast(eeg, brain, settings["runs"])
            made += [f"{task}_{run}" for run in range(1, settings["runs"] + 1)]
            continue
        part = 16 * TASKS.index(task)
        happened = scene(stream(*place, "events", part), subject, task, 0, 1)
        files.write_recording(eeg, subject, task, 0, brain.signals(happened, part), happened)
        made.append(task)
    row = files.participant_row(stream(*place, "row"), release, subject, made)
    written = list(eeg.iterdir())
    recordings = sum(path.suffix == ".bdf" for path in written)
    return row, recordings, trials, sum(path.stat().st_size for path in written)


def _write_contrast(eeg, brain, runs):
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
            files.write_recording(
                eeg, subject, CONTRAST, run - 1, both, earlier.followed_by(happened)
            )
            waiting = None
        missing = subject.oddity == "missing file" and run == runs > 1
        if subject.oddity == "copied block" and run == 2 < runs:
            waiting = x, happened
        elif not missing:
            files.write_recording(eeg, subject, CONTRAST, run, x, happened)
    return trials
