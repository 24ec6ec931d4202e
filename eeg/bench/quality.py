"""Row `quality`: how good each recipe is on simulated worlds.

A cell is one training and its score on other subjects of the same world. It becomes one JSON file,
published by rename: a call that is stopped loses the cells it was in, and the next one skips those
that are there. A cell whose recipe, defaults included, or whose simulated data has changed is
measured again.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from eeg import UserError, cli
from eeg.bench.measure import script
from eeg.bench.recipes import OF_THE_CELL, RECIPES, SHUFFLED, Cell, Plan, fingerprint
from eeg.data.release import CONTRAST, FACTORS, cache_path
from eeg.files import locked, publishing, remove, write_json, writing
from eeg.runs.run import find_runs
from eeg.score.baselines import TRAINING_MEAN
from eeg.synth.oracle import oracle
from eeg.synth.release import write_subject

TRAIN, TEST = "R1", "R6"
TEST_SUBJECTS = 24
RUNS = 2  # of contrast change, a subject; challenge 2 takes its windows from the first
SNR = 1.0


def quality(plan: Plan) -> bool:
    """Measures what is not there yet, then prints the table. -> whether its goals are met."""
    from eeg.bench.quality_table import publish

    with writing(plan.out, "--out DIR"):
        plan.out.mkdir(parents=True, exist_ok=True)
    if plan.hours:
        with locked(plan.out / "lock", wait=False) as held:
            if held is None:
                raise UserError(
                    f"another call is measuring in {plan.out}; --hours 0 prints what it has, or "
                    "name another --out DIR"
                )
            Measurement(plan).run()
    found = {cell: read(plan, cell) for cell in plan.cells()}
    return publish(plan, {cell: about for cell, about in found.items() if about})


def source(world: str) -> str:
    """The world whose recordings a world of the table has."""
    return "real" if world == SHUFFLED else world


@functools.cache
def fingerprint_of_data(world: str) -> str:
    """What changes when the simulation of a world does: the first training subject's files."""
    tasks = {"tasks": [CONTRAST], "runs": 1}
    settings = {"world": source(world), "subjects": 1, "seed": 0, "snr": SNR, **tasks}
    with tempfile.TemporaryDirectory() as folder:
        made = write_subject(Path(folder), TRAIN, 0, settings)
        seen = hashlib.sha256(repr((world, TEST_SUBJECTS, RUNS, made)).encode())
        for path in sorted(Path(folder).rglob("*.*")):
            seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def read(plan: Plan, cell: Cell) -> dict | None:
    """What is known of a cell, or that its training failed; None where it is not measured, or was
    with other options or data."""
    try:
        about = json.loads((plan.out / cell.file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    now = fingerprint(cell.recipe, cell.challenge, fingerprint_of_data(cell.world))
    return about if about["fingerprint"] == now else None


class Measurement:
    """Measures the cells of a plan that are not there, several at once.

    Windows take gigabytes and seconds to make: they are kept while cells of their world and size
    are measured, and removed after them.
    """

    def __init__(self, plan: Plan):
        self.plan, self.running, self.stopped = plan, set(), False
        self.lock = threading.Lock()
        self.deadline = time.monotonic() + 3600 * plan.hours
        self.done = 0

    def run(self) -> None:
        known = {cell: read(self.plan, cell) for cell in self.plan.cells()}
        todo = [cell for cell, about in known.items() if not about or "failed" in about]
        measured = len(known) - len(todo)
        print(f"quality: {measured:,} of {len(known):,} cells are measured (simulated data)")
        remove(self.plan.out / "work")
        caches, groups = self.plan.out / "caches", itertools.groupby(todo, _place)
        for (world, size), cells in groups:
            if self.late():
                break
            challenges = "".join(map(str, sorted(self.plan.challenges)))
            folder = caches / f"{world}_{size}_{challenges}_{fingerprint_of_data(world)}"
            for other in caches.glob("*"):
                if other != folder:
                    remove(other)
            self.make_caches(folder, world, size)
            self.measure_all(folder, cells, len(todo))
        if left := len(todo) - self.done:
            print(f"{cli.counted(left, 'cell')} left; the same command measures them")
        remove(caches)
        remove(self.plan.out / "work")

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def stop(self) -> None:
        """Ends what runs; nothing begins any more."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()

    def measure_all(self, folder, cells, total):
        """Measures cells that read the same caches, `jobs` at once."""
        left, futures = iter(cells), set()
        with ThreadPoolExecutor(self.plan.jobs) as pool:
            try:
                while True:
                    free = 0 if self.late() else self.plan.jobs - len(futures)
                    more = itertools.islice(left, free)
                    futures |= {pool.submit(self.measure, folder, cell) for cell in more}
                    if not futures:
                        return
                    ended, futures = wait(futures, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self.done += 1
                        print(f"{self.done}/{total}  {future.result()}", flush=True)
            except BaseException:  # Ctrl-C too
                self.stop()
                raise

    def command(self, name: str, *words) -> str:
        """Runs a script in one thread. -> "", or the last line of what it said when it failed"""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.lock:
            if self.stopped:
                raise UserError("stopped")
            process = subprocess.Popen(
                script(name, *words),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            self.running.add(process)
        try:
            said = process.communicate()[1].strip().splitlines()
        except BaseException:  # Ctrl-C: what it writes into is removed next
            process.terminate()
            process.wait()
            raise
        with self.lock:
            self.running.remove(process)
            if self.stopped:
                raise UserError("stopped")
        if not process.returncode:
            return ""
        last = said[-1].removeprefix("error: ") if said else f"exit code {process.returncode}"
        return f"run/{name}.py: {last}"

    def must(self, name: str, *words) -> None:
        """Runs a script that no cell can do without. Raises UserError where it fails."""
        if wrong := self.command(name, *words):
            raise UserError(wrong)

    # --------------------------------------------------------------------------- windows

    def make_caches(self, folder: Path, world: str, size: int) -> None:
        """Simulates both releases and cuts their windows, where that has not been done."""
        if folder.is_dir():
            return
        folder.parent.mkdir(exist_ok=True)
        jobs = ("--jobs", self.plan.jobs)
        with publishing(folder) as new:
            data = new / "data"
            for release, subjects in ((TRAIN, size), (TEST, TEST_SUBJECTS)):
                place = ("--release", release, "--data", data, *jobs)
                many = ("--subjects", subjects, "--runs", RUNS, "--snr", SNR)
                self.must("synth", *place, *many, "--world", source(world))
                for challenge in (1, 2):
                    if challenge == 2:
                        for path in data.rglob("*_run-[2-9]_*"):
                            path.unlink()
                    if challenge in self.plan.challenges:
                        self.must("cache", *place, "--challenge", challenge, "--cache", new)
                shutil.rmtree(data)
            for challenge in self.plan.challenges:
                asked = ("--release", TRAIN, TEST, "--challenge", challenge)
                self.must("features", *asked, "--cache", new)
                for release in (TRAIN, TEST):
                    if world == SHUFFLED:
                        shuffle(cache_path(new, challenge, release))

    # --------------------------------------------------------------------------- one cell

    def measure(self, folder: Path, cell: Cell) -> str:
        """Trains and scores one cell, and publishes what was found. -> a line about it"""
        work = self.plan.out / "work" / cell.file.with_suffix("").relative_to("cells")
        target = self.plan.out / cell.file
        now = fingerprint(cell.recipe, cell.challenge, fingerprint_of_data(cell.world))
        about = {"simulated": True, **asdict(cell), "fingerprint": now}
        about["recipe_words"] = RECIPES[cell.recipe]
        start = time.monotonic()
        try:
            about |= self.train_and_score(folder, cell, work)
        finally:
            remove(work)
        about["seconds"] = round(time.monotonic() - start, 1)
        with writing(target, "--out DIR"):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, about)
        return f"{cell}: {_words(about)}, {cli.clock(about['seconds'])}"

    def train_and_score(self, folder, cell, work):
        """-> what was found, or {"failed": why}"""
        work.mkdir(parents=True)
        places = ("--challenge", cell.challenge, "--cache", folder, "--out", work)
        words = RECIPES[cell.recipe].split()
        own = ("--seed", cell.seed, "--train", TRAIN, "--threads", 1)
        if failed := self.command("train", *places, *words, *own):
            return {"failed": failed}
        scores = work / "scores.json"
        (run,) = find_runs(work)
        check_options(run.config["train"], cell)
        scored = (run.folder, *places, "--release", TEST, "--json", scores)
        if failed := self.command("evaluate", *scored):
            return {"failed": failed}
        return of_run(run, cell) | of_scores(json.loads(scores.read_text()), cell)


def _place(cell):
    return cell.world, cell.size


def _words(about):
    if "failed" in about:
        return f"FAILED: {about['failed']}"
    mean = next(line["nrmse"] for line in about["baselines"] if line["name"] == TRAINING_MEAN)
    kept = f"epoch {about['best_epoch']} of {about['epochs']}"
    return f"NRMSE {about['test']['nrmse']:.3f} (the mean {mean:.3f}), {kept}"


def check_options(trained: dict, cell: Cell) -> None:
    """Raises UserError where run/train.py, which starts anew for each cell, has other defaults than
    this process, by which the cell is named."""
    wanted = json.loads(json.dumps(cell.options().kept()))
    names = [name for name in wanted if name not in OF_THE_CELL]
    if changed := [name for name in names if trained.get(name) != wanted[name]]:
        name = changed[0]
        raise UserError(
            f"run/train.py trained with {name} {trained.get(name)}, expected {wanted[name]}: the "
            "program has changed since this began; start it again"
        )


def of_run(run, cell) -> dict:
    """What a cell keeps of its run."""
    history, config = run.history["epochs"], run.config
    curve = lambda side: [entry.get(side, {}).get("nrmse") for entry in history]
    chosen = next(entry for entry in history if entry["epoch"] == run.best[0])
    return {
        "best_epoch": run.best[0],
        "epochs": config["train"]["epochs"],
        "curves": {"train": curve("train"), "valid": curve("valid")},
        "weights": {name: chosen.get(name) for name in ("shrink", "share")},
        "oracle": None if cell.world == SHUFFLED else _oracle(cell),
        "settings": config["train"] | {"cache": None},
        "model": config["model"],
        "precision": config.get("precision"),
        "versions": config["versions"],
    }


def _oracle(cell):
    return oracle(cell.world, SNR)[f"challenge{cell.challenge}"]


def of_scores(scores: dict, cell: Cell) -> dict:
    """What a cell keeps of `run/evaluate.py --json`: the run's line and the label-only ones."""
    found = scores[f"challenge{cell.challenge}"]
    known = ("name", "nrmse", "low", "high")
    lines = [{name: line.get(name) for name in known} for line in found["table"]]
    label_only = lambda name: name == TRAINING_MEAN or name.startswith("label-only")
    test = {name: lines[0][name] for name in known[1:]}
    test |= {name: found[name] for name in ("windows", "subjects")}
    return {"test": test, "baselines": [line for line in lines if label_only(line["name"])]}


# --------------------------------------------------------------------------- shuffled labels


def shuffle(path: Path) -> None:
    """Exchanges the labels of a cache between subjects, so that the EEG says nothing about them.

    Challenge 1: the response times of all subjects, one subject after the other in a random order,
    are moved on by half their number, so each window has one of another subject and none is lost.
    Challenge 2: each subject has the factors of the next one in a random order.
    """
    with h5py.File(path, "r+", locking=False) as f:
        metadata, y = f["metadata"][()], f["y"][()]
        names, which = np.unique(metadata["subject"], return_inverse=True)
        order = np.random.default_rng(0).permutation(len(names))
        if f.attrs["challenge"] == 1:
            rows = np.argsort(order[which], kind="stable")
            y[rows] = np.roll(y[rows], len(y) // 2)
        else:
            first = np.unique(which, return_index=True)[1]  # a window of each subject
            takes = np.empty(len(names), int)
            takes[order] = np.roll(order, 1)
            rows = first[takes[which]]
            y = y[rows]
            for name in FACTORS:
                metadata[name] = metadata[name][rows]
        f["y"][...], f["metadata"][...] = y, metadata
        f.attrs["fingerprint"] = f"{f.attrs['fingerprint']}, labels shuffled"
