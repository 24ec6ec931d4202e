"""Row `foundation`: what a pretrained encoder is worth, by the number of labelled subjects.

In each simulated world an encoder is pretrained once, without labels, on subjects of its own. Then
the same network is trained on few labelled subjects of challenge 1, from random weights and from
the encoder's, with the same budget, and scored on further subjects. Each seed has labelled subjects
of its own. A cell is one of these trainings; it becomes one JSON file, published by rename, and a
call that is stopped loses only the cell it was in.
"""

import json
import shutil
import time
from pathlib import Path

from eeg import UserError, cli
from eeg.bench.foundation.plan import (
    LABELLED,
    PRETRAIN,
    STARTS,
    TEST,
    TEST_SUBJECTS,
    TUNE,
    UNLABELLED,
    UNLABELLED_SUBJECTS,
    Cell,
    Plan,
)
from eeg.bench.foundation.table import described
from eeg.bench.quality import Measurement
from eeg.files import locked, publishing, remove, write_json, write_whole, writing
from eeg.runs.run import find_runs
from eeg.score.metrics import nrmse
from eeg.score.predict import predict_run
from eeg.score.sides import scored_side


def foundation(given: dict) -> bool:
    """Measures what is not there yet, then prints the table. -> whether its goal is met. given:
    fields of a Plan."""
    plan = Plan(**given)
    with writing(plan.out, "--out DIR"):
        plan.out.mkdir(parents=True, exist_ok=True)
    if plan.hours:
        with locked(plan.out / "lock", wait=False) as held:
            if held is None:
                raise UserError(f"another call is measuring in {plan.out}; --hours 0 prints it")
            Work(plan).run()
    text, met = described(plan, {cell: read(plan, cell) for cell in plan.cells()})
    print(f"\n{text}\n")
    with writing(plan.out, "--out DIR"):
        write_whole(plan.out / "foundation.md", text + "\n")
    return met


def fingerprint(plan: Plan) -> list:
    """What changes the meaning of a cell."""
    return [PRETRAIN, TUNE, STARTS, UNLABELLED_SUBJECTS, TEST_SUBJECTS, max(plan.sizes)]


def read(plan: Plan, cell: Cell) -> dict | None:
    try:
        about = json.loads((plan.out / cell.file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return about if about["fingerprint"] == fingerprint(plan) else None


class Work(Measurement):
    """Measures the cells of a plan that are not there, one after the other, as `quality` does its
    own: scripts in one thread, stopped with this process."""

    def run(self) -> None:
        todo = [cell for cell in self.plan.cells() if read(self.plan, cell) is None]
        measured = len(self.plan.cells()) - len(todo)
        print(f"foundation: {measured} of {len(self.plan.cells())} cells are measured (simulated)")
        for cell in todo:
            if self.late():
                print("time is up; the same command measures the rest")
                return
            world = self.plan.out / "worlds" / cell.world
            if not (world / "ready").exists():
                self.prepare(world, cell.world)
            print(self.measure_one(world, cell), flush=True)

    def prepare(self, folder: Path, world: str) -> None:
        """Simulates the world's releases, cuts their windows, pretrains the encoder."""
        releases = {UNLABELLED: UNLABELLED_SUBJECTS, TEST: TEST_SUBJECTS}
        releases |= {LABELLED[seed]: max(self.plan.sizes) for seed in self.plan.seeds}
        remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with publishing(folder) as new:
            for release, subjects in releases.items():
                place = ("--release", release, "--data", new / "data", "--jobs", 1)
                self.must("synth", *place, "--subjects", subjects, "--runs", 1, "--world", world)
                challenge = 2 if release == UNLABELLED else 1
                self.must("cache", *place, "--challenge", challenge, "--cache", new / "cache")
                shutil.rmtree(new / "data")
            words = ("--release", UNLABELLED, "--cache", new / "cache", "--out", new / "runs")
            self.must("pretrain", *words, *PRETRAIN.split(), "--threads", 1, "--amp", "off")
            (new / "ready").touch()

    def measure_one(self, world: Path, cell: Cell) -> str:
        """Trains and scores one cell, and publishes what was found. -> a line about it"""
        work, start = self.plan.out / "work", time.monotonic()
        remove(work)
        words = ["--challenge", 1, "--cache", world / "cache", "--out", work, *TUNE.split()]
        words += ["--train", LABELLED[cell.seed]]
        words += ["--max-subjects", cell.size, "--seed", cell.seed, "--threads", 1]
        if cell.start == "pretrained":
            (encoder,) = find_runs(world / "runs")
            words += ["--init", encoder.folder]
        self.must("train", *words, "--amp", "off", *STARTS[cell.start].split())
        (run,) = find_runs(work)
        scored = scored_side(world / "cache", 1, [TEST])
        p = predict_run(run, scored)[:, 0]
        about = {"simulated": True, "fingerprint": fingerprint(self.plan)}
        about |= {"answers": p.round(5).tolist(), "y": scored.y.round(5).tolist()}
        about |= {"subjects": [name.decode() for name in scored.subjects]}
        about |= {"nrmse": nrmse(scored.y, p), "best_epoch": run.best[0]}
        target = self.plan.out / cell.file
        with writing(target, "--out DIR"):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, about)
        remove(work)
        took = cli.clock(time.monotonic() - start)
        return f"{cell}: NRMSE {about['nrmse']:.3f}, epoch {run.best[0]}, {took}"
