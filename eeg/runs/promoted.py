"""The promoted run of each challenge: the one that run/compare.py --promote chose.

It lies in <out>/promoted_challenge_1/ (or 2), one level above other run folders, so that lists of
runs do not count it twice. It holds the run's config, history, state and weights; promoted.json
says where it came from. Every command takes it as a RUN, as in
`python run/evaluate.py promoted_challenge_1`.
"""

import shutil
from pathlib import Path

from eeg.files import publishing, write_json
from eeg.runs.run import Run


def promoted_folder(out: Path, challenge: int) -> Path:
    return Path(out) / f"promoted_challenge_{challenge}"


def promote(run: Run, out: Path, note: dict) -> Path:
    """Make a run the promoted one of its challenge, in one step. -> the promoted folder

    note: what promoted.json keeps beside the run's name.
    """
    place = promoted_folder(out, run.challenge)
    with publishing(place) as partial:
        partial.mkdir(parents=True)
        for name in ("config.json", "history.json", "state.json"):
            shutil.copy2(run.folder / name, partial)
        shutil.copy2(run.weights, partial)
        write_json(partial / "promoted.json", {"run": run.name} | note)
    return place
