"""What a run prints and records as it trains: state.json, a bar, a line and figures an epoch."""

import math
import sys
import time
from collections import Counter

from eeg import cli


def say_data(trainer, sides: dict) -> None:
    """Print what is trained on and what validates. sides: Split.describe of each."""
    split, say, words = trainer.split, trainer.journal.say, []
    for name, side in sides.items():
        windows = cli.counted(side["windows"], "window")
        subjects = cli.counted(len(side["subjects"]), "subject")
        words.append(f"{name} {' '.join(side['releases'])}: {windows}, {subjects}")
    mean = trainer.validation.mean_predictor
    score = f"; predicting the mean scores {mean:.3f}" if mean else ""
    simulated = " (simulated)" if split.cache.simulated else ""
    say(f"data    {'; '.join(words)}{simulated}{score}")
    if split.dropped:
        reasons = ", ".join(left_out(reason, n) for reason, n in split.dropped.items())
        say(f"        left out {reasons}")
    if trainer.batches.direct:
        size = f"{len(split.train) * split.cache[0].nbytes / 1e9:,.0f} GB of windows to train on"
        how = "read from the disk in each epoch, past the system's cache of files"
        say(f"        {size}, more than memory can keep: {how}")


def left_out(reason: str, windows: int) -> str:
    """Windows that are not used, in words. reason: "copies", "bad subjects" or "X unknown"."""
    if reason == "copies":
        return cli.counted(windows, "copied window")
    of = "of" if reason == "bad subjects" else "with"
    return f"{cli.counted(windows, 'window')} {of} {reason}"


def say_model(trainer, multiply_adds: int) -> None:
    parameters = sum(p.numel() for p in trainer.stepper.model.parameters())
    cost = f"{parameters:,} parameters, {multiply_adds / 1e6:.0f} M multiply-adds a window"
    loss = trainer.targets.loss
    if trainer.domains:
        loss += f" + {trainer.options.coral:g} CORAL between {trainer.domains.words}"
    trainer.journal.say(f"model   {trainer.options.model}, {cost}, loss {loss}")


def say_result(trainer, how: str, value: float, shrink: float) -> None:
    """Print how a run ended, and which windows it left out. value: 1 - AUROC of a class, else the
    NRMSE."""
    what = trainer.targets.result(value, shrink)
    cache, damaged = trainer.split.cache, trainer.damaged
    simulated = " (simulated data)" if cache.simulated else ""
    trainer.journal.say(f"{how} validation {what}{simulated}")
    if damaged.rows:
        windows = cli.counted(len(damaged.rows), "window")
        trainer.journal.say(f"left out {windows} with NaN or infinity: {damaged.files()}")


class Progress:
    """Reads a Trainer and changes nothing of it.

    computing: seconds of this epoch that the model took; first: the batch of the epoch with which
    this process began.
    """

    def __init__(self, trainer):
        self.trainer, self.bar = trainer, None
        self.epoch_begins()

    def epoch_begins(self) -> None:
        self.began, self.computing, self.first = time.monotonic(), 0.0, self.trainer.batch

    def __enter__(self):
        """Shows the bar, on a terminal."""
        trainer = self.trainer
        if sys.stderr.isatty() and not trainer.journal.quiet:
            from tqdm import tqdm

            shown = "{desc} {percentage:3.0f}%|{bar}| {n}/{total}{postfix}"
            about = {"desc": f"epoch {trainer.epoch}", "leave": False, "bar_format": shown}
            self.bar = tqdm(total=len(trainer.batches), initial=trainer.batch, **about)
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            bar, self.bar = self.bar, None
            _on_terminal(bar.close)

    def batch_done(self, seconds_computed: float) -> None:
        self.computing += seconds_computed
        trainer, epochs = self.trainer, self.trainer.options.epochs
        batches, done = len(trainer.batches), trainer.batch - self.first
        seconds = time.monotonic() - self.began
        windows = done * trainer.batches.batch_size * trainer.ranks.world
        rate = windows / max(seconds, 1e-9)
        ahead = batches - trainer.batch + (epochs - trainer.epoch) * batches
        left = ahead * seconds / max(1, done)
        memory = cli.anonymous_memory()
        where = {"epoch": trainer.epoch, "epochs": epochs}
        where |= {"batch": trainer.batch, "batches": batches}
        trainer.journal.state(
            **where,
            **best_so_far(trainer.best),
            windows_per_second=round(rate),
            seconds_left=round(left),
            memory=memory,
            device=str(trainer.stepper.guard.device),
        )
        if self.bar is not None:
            self.bar.n = trainer.batch
            value = None if trainer.targets.is_class else train_nrmse(trainer.sums)
            nrmse = "" if value is None else f"NRMSE {value:.3f}, "
            pace = f"{rate:,.0f} win/s, {memory / 1e9:.1f} GB, {cli.clock(left)} left"
            words = f"loss {mean_loss(trainer.sums):.4f}, {nrmse}{pace}"
            _on_terminal(lambda: self.bar.set_postfix_str(words))

    def epoch_ended(self, entry: dict) -> None:
        """Add an epoch to timing.json and print its line. entry: as history.json has it."""
        trainer, journal = self.trainer, self.trainer.journal
        seconds, memory = time.monotonic() - self.began, cli.anonymous_memory()
        share = 1 - self.first / len(trainer.batches)  # of the epoch, which this process trained
        rate = share * trainer.sums["n"] / max(seconds, 1e-9)
        figures = {
            "epoch": trainer.epoch,
            "seconds": round(seconds, 3),
            "windows_per_second": round(rate),
            "memory": memory,
            "device": str(trainer.stepper.guard.device),
            "model_share": round(self.computing / max(seconds, 1e-9), 4),
        }
        journal.timing["epochs"].append(figures)
        left = cli.clock((trainer.options.epochs - trainer.epoch) * seconds / max(share, 0.01))
        train, valid, skipped = entry["train"], entry["valid"], entry["skipped_steps"]
        if trainer.targets.is_class:
            own = f"loss {train['loss']:.3f}"
        else:
            own = figure(train["nrmse"])
        scores = f"train {own}  valid {trainer.targets.shown(valid)}"
        epoch = f"epoch {trainer.epoch:3d}/{trainer.options.epochs}"
        best = "*" if entry["best"] else " "
        pace = f"{rate:,.0f} win/s  {memory / 1e9:.1f} GB  {left} left"
        without = f"  {cli.counted(skipped, 'step')} skipped" if skipped else ""
        journal.say(f"{epoch}  {scores} {best}  lr {entry['lr']:.1e}  {pace}{without}")


def best_so_far(best: dict) -> dict:
    """The best epoch, as state.json has it."""
    return {"best_nrmse": finite(best["value"]), "best_epoch": best["epoch"]}


def mean_loss(sums: Counter) -> float:
    return sums["loss"] / max(1, sums["n"])


def train_nrmse(sums: Counter) -> float | None:
    n = max(1, sums["n"])
    variance = sums["yy"] / n - (sums["y"] / n) ** 2
    return math.sqrt(sums["square"] / n / variance) if sums["n"] and variance > 0 else None


def finite(value: float | None) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def figure(value: float | None) -> str:
    return f"{math.nan if value is None else value:.3f}"


def _on_terminal(show):
    try:
        show()
    except OSError:  # the terminal is gone
        cli.mute(sys.stderr)
