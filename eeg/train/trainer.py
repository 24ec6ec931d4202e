"""One run: batches, steps, validation, checkpoints. Nothing is lost, whatever happens.

An interrupted run resumes exactly where it was: a checkpoint holds all that decides what comes
next, and what a window looks like is drawn from (seed, epoch, window). On the CPU its weights and
history equal, bit for bit, those of a run that was never interrupted.
"""

import math
import signal
import time
from collections import Counter

import torch

from eeg import UserError, cli
from eeg.data.augment import Augment
from eeg.data.batches import Batches
from eeg.data.split import Split
from eeg.files import trouble
from eeg.machine.capacity import largest_part
from eeg.machine.device import forget, synchronize
from eeg.machine.memory import Watch, fits, room
from eeg.models.model import Model
from eeg.runs.journal import Journal
from eeg.runs.run import Run
from eeg.train import checkpoint, optim
from eeg.train.damaged import Damaged
from eeg.train.options import Options
from eeg.train.parallel import Ranks
from eeg.train.progress import Progress, batch_sums, finite, mean_loss, train_nrmse
from eeg.train.stepper import Stepper
from eeg.train.targets import INPUT, choose_targets
from eeg.train.validation import Validation

AHEAD = 2  # batches filled before they are wanted
LOOK = 10  # batches between two looks at the memory
HOPELESS = 100  # steps in a row without a finite gradient


class Trainer:
    """Trains `model` on split.train, validated on split.valid.

    device: what computes ("cpu", "cuda:0"); precision: one of eeg.machine.amp; journal: writes the
    files of the run's folder; ranks: the processes it shares its batches with; part: windows to
    compute at once, as the run began with.
    """

    def __init__(
        self,
        options: Options,
        model: Model,
        split: Split,
        device: str,
        precision: str,
        journal: Journal,
        ranks: Ranks | None = None,
        part: int | None = None,
    ):
        self.options, self.split, self.journal = options, split, journal
        self.ranks = ranks or Ranks()
        self.targets = choose_targets(options, split, model)
        self.batch_size, self.part = self._size_batches(model, device, part)
        self.batches = self._make_batches(device)
        steps = len(self.batches)
        self.schedule = optim.Schedule(
            options.schedule, steps * options.epochs, round(options.warmup * steps)
        )
        self.watch = Watch(options.max_memory)
        self.epoch, self.batch = 1, 0
        self.sums = Counter()  # of the epoch so far
        self.waited = 0  # epochs since the best
        self.best = {"epoch": 0, "value": math.inf, "weights": None}
        self.asked = False  # this process was asked to stop
        self.stopping = False  # any process was, and all know it
        self.reason = ""
        self.hopeless = 0  # batches in a row without a finite gradient
        self.events_shared = 0  # events that all processes know
        self.saved = time.monotonic()
        self.damaged = Damaged(split.cache, self._on_event)
        self.validation = Validation(split, self.targets, self.damaged)
        self.stepper = Stepper(
            options, model, self.targets, device, precision, self.ranks, self._on_event, self.part
        )
        self.progress = Progress(self)

    def _size_batches(self, model, device, known):
        """-> (windows in a batch of this process, how many of them to compute at once; None for a
        card, which says itself when its memory runs out). known: the latter, as the run began
        with."""
        options, windows = self.options, len(self.split.train)
        if options.batch_size > windows:
            self.journal.say(
                f"batch   all {cli.counted(windows, 'training window')}: "
                f"--batch-size {options.batch_size} asks for more than there are"
            )
        size = max(1, min(options.batch_size, windows) // self.ranks.world)
        free = room(options.max_memory)
        if device != "cpu" or free is None:
            return size, None
        window_bytes = 4 * model.window[0] * INPUT
        held = window_bytes * (AHEAD + 2 + 2 * bool(options.augment.get("mix")))
        part, needed = largest_part(model, size, held, free / self.ranks.here)
        part = min(part, known or part)
        if part < size:
            self.journal.say(
                f"memory  a step on {cli.counted(size, 'window')} may take {needed / 1e6:,.0f} MB, "
                f"{free / 1e6:,.0f} MB are free to take: computed in parts of at most {part}, and "
                "batch norm sees one part at a time"
            )
        return size, part

    def _make_batches(self, device):
        options, cache = self.options, self.split.cache
        strengths = dict(options.augment)
        if cache.challenge == 2:  # any two of the four seconds
            strengths["shift"] = (cache[0].shape[1] - INPUT) // 2 / cache.sfreq
        elif self.targets.features is not None and (
            strengths.get("shift") or strengths.get("mirror")
        ):
            raise UserError(
                "features from the cache are those of the window as it is stored; leave out "
                "--augment shift and mirror, or compute the features in the model: --features layer"
            )
        large = not fits(self.split.train.size * cache[0].nbytes)
        return Batches(
            cache,
            self.split.train,
            self.batch_size,
            options.seed,
            Augment(**strengths),
            length=INPUT,
            balance=options.balance,
            rank=self.ranks.rank,
            world=self.ranks.world,
            ahead=AHEAD,
            pin=device.startswith("cuda"),
            direct=large,
            threads=int(device == "cpu"),
        )

    # the whole run

    def run(self) -> str:
        """Train to the end, or until asked to stop. -> "finished" or "stopped", also where the
        request came at the very end"""
        heeded = [
            number
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN  # as nohup has set it
        ]
        handlers = {number: signal.signal(number, self._on_signal) for number in heeded}
        try:
            if self.batch == 0 and self.epoch == 1:
                self._save()
            while self.epoch <= self.options.epochs and self.waited < self.options.patience:
                if not (self._train_epoch() and self._validate()):
                    return self._stop()
            return self._finish()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def restore(self, state: dict) -> None:
        """Resume from a checkpoint."""
        checkpoint.restore(self, state)

    # an epoch

    def _train_epoch(self):
        """-> False where it was asked to stop on the way"""
        self.stepper.model.train()
        if self.ranks.world > 1:
            # Each process drops other channels; a checkpoint holds the main one's generator alone.
            number = self.options.seed * 1000 + self.epoch
            torch.manual_seed(number * self.ranks.world + self.ranks.rank)
        guard = self.stepper.guard
        guard.read("the device", lambda: synchronize(guard.device))
        self.progress.epoch_begins()
        with self.progress:
            while self.batch < len(self.batches):
                for batch in self.batches.epoch(self.epoch, self.batch):
                    start = time.monotonic()
                    self._train_batch(self._tensors(batch))
                    now = time.monotonic()
                    self.progress.computing += now - start
                    self.progress.batch_done()
                    if self.stopping:
                        return False
                    if now - self.saved > 60 * self.options.checkpoint_minutes:
                        self._save()
                    if self.batch % LOOK == 0 and self._look_at_memory() == "shrink":
                        break  # the epoch continues with fewer batches ahead
        return True

    def _tensors(self, batch):
        """What a step needs of a batch, without its damaged windows."""
        return self.targets.tensors(self.damaged.without(batch), bool(self.batches.augment.mix))

    def _train_batch(self, batch):
        step = (self.epoch - 1) * len(self.batches) + self.batch
        rate = self.options.lr * self.schedule.factor(step)
        taken = self.stepper.take(batch, rate, lambda: self.asked)
        self.stopping |= taken.stopping
        if taken.done:
            self.sums.update(batch_sums(batch, taken.loss, taken.answers))
            self.hopeless = 0
        else:
            self.sums["skipped"] += 1
            self.hopeless += 1
            if self.hopeless == HOPELESS:
                raise UserError(
                    f"{HOPELESS} batches in a row gave no finite gradient (loss {taken.loss:g}); "
                    "try a lower --lr, --clip 1 or --amp off"
                )
        self.batch += 1

    def _look_at_memory(self):
        """-> "fine"; "shrink", where fewer batches are held ahead from now on; "stop", which the
        next batch will see"""
        word, text = self.watch()
        if word != "fine":
            self.journal.say(f"memory: {text}")
            self.journal.note(self.epoch, self.batch, "memory", text)
        if word == "shrink":
            self.batches.ahead = 1
        elif word == "stop":
            self.asked, self.reason = True, text
        return word

    def _validate(self):
        """Score the epoch that has ended, keep what is best, save. -> False where it was asked to
        stop on the way"""
        start = time.monotonic()
        self.stepper.share_buffers()
        try:
            score = self.validation.score(self.stepper, self._on_predicted)
        except _Asked:
            return False
        self.progress.computing += time.monotonic() - start
        self.schedule.epoch_ended(score.value)
        better = score.value < self.best["value"]
        self.waited = 0 if better else self.waited + 1
        weights = self.stepper.weights()
        weights["shrink"] = torch.full_like(weights["shrink"], score.shrink)
        if better:
            self.best = {"epoch": self.epoch, "value": score.value, "weights": weights}
        self._share()
        self._end_epoch(score, better)
        return not self.stopping

    def _share(self):
        """Tell all processes each other's sums, events, damaged windows and requests to stop."""
        events = self.journal.history["events"]
        new = events[self.events_shared :]
        del events[self.events_shared :]
        sums, rows = Counter(), self.damaged.rows
        for part in self.ranks.gather((dict(self.sums), new, rows, self.asked)):
            part_sums, part_events, part_rows, asked = part
            sums.update(part_sums)
            events += part_events
            self.damaged.rows = self.damaged.rows | part_rows
            self.stopping |= asked
        self.sums, self.events_shared = sums, len(events)

    def _end_epoch(self, score, better):
        train = None if self.targets.is_class else train_nrmse(self.sums)
        entry = {
            "epoch": self.epoch,
            "train": {"loss": mean_loss(self.sums), "nrmse": train},
            "valid": {name: finite(figure) for name, figure in score.figures.items()},
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "shrink": score.shrink,
            "skipped_steps": int(self.sums["skipped"]),
            "best": better,
        }
        self.journal.history["epochs"].append(entry)
        self.progress.epoch_ended(entry)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Counter()
        if better:
            self._save_best()
        self._save()
        self.journal.publish()

    # the end

    def _stop(self):
        saved = self._save()
        self.journal.publish()
        self.journal.note(self.epoch, self.batch, "stopped", self.reason or "asked to stop")
        self.journal.state("stopped", reason=self.reason)
        where = f"saved at epoch {self.epoch}, batch {self.batch}"
        if not saved:
            where = "stopped, the last checkpoint is kept"
        self.journal.say(f"{where}; resume with: {Run(self.journal.folder).resume}")
        return "stopped"

    def _finish(self):
        """Export the best epoch's weights."""
        early = self.epoch <= self.options.epochs
        reason = f"no better epoch for {self.options.patience}" if early else ""
        if self.ranks.main:
            challenge = self.split.cache.challenge
            path = self.journal.folder / f"weights_challenge_{challenge}.pt"
            self._export(path, self.best["weights"])
            self._say_result(f"stopped early, {reason}" if early else "finished")
            self.journal.say(f"weights {path}")
        self.journal.publish()
        self.journal.state(
            "finished",
            reason=reason,
            epoch=self.epoch - 1,
            best_nrmse=finite(self.best["value"]),
            best_epoch=self.best["epoch"],
            seconds_left=0,
        )
        return "stopped" if any(self.ranks.gather(self.asked)) else "finished"

    def _say_result(self, how):
        value, cache = self.best["value"], self.split.cache
        what = f"AUROC {1 - value:.3f}" if self.targets.is_class else f"NRMSE {value:.4f}"
        if cache.challenge == 2:
            share = self.best["weights"]["shrink"][0]
            what += f", answers shrunk to {share:.2f} of their distance from the training mean"
        data = " (simulated data)" if cache.simulated else ""
        self.journal.say(f"{how}: best epoch {self.best['epoch']}, validation {what}{data}")
        if rows := self.damaged.rows:
            windows = cli.counted(len(rows), "window")
            files = self.damaged.files()
            self.journal.say(f"left out {windows} with NaN or infinity: {files}")

    # saving

    def _export(self, path, weights):
        try:
            checkpoint.export(path, self.stepper.model.settings, weights)
        except OSError as e:
            size = sum(tensor.nbytes for tensor in weights.values())
            raise UserError(
                f"{trouble(e, path, '--out DIR in a new run', size)}; when there is room, "
                f"resume this one with: {Run(path.parent).resume}"
            ) from None

    def _save_best(self):
        best = {
            "model": self.best["weights"],
            "settings": self.stepper.model.settings,
            "epoch": self.best["epoch"],
        }
        self._write("best", best)

    def _save(self):
        """-> whether it was saved"""
        self.saved = time.monotonic()
        read = self.stepper.guard.read
        return self._write("last", read("the checkpoint", lambda: checkpoint.snapshot(self)))

    def _write(self, name, state):
        """The main process writes. A checkpoint that cannot be written costs a warning: the one
        before is still there. -> whether it was written"""
        try:
            if self.ranks.main:
                folder = self.journal.folder / "checkpoints"
                checkpoint.save(folder, name, state, checkpoint.describe(self))
            return True
        except OSError as e:
            text = (
                f"the checkpoint of epoch {self.epoch}, batch {self.batch} could not be written "
                f"({e.strerror}); the one before is kept, the run continues"
            )
            self.journal.say(f"warning: {text}")
            self.journal.note(self.epoch, self.batch, "save failed", text)
            return False

    # what others call

    def _on_signal(self, number, frame):
        self.asked = True
        if self.ranks.world > 1:
            # The terminal has sent the signal to every process. torchrun passes it on again, and
            # ends those that do not end.
            return
        self.stopping = True
        # A second request does not wait.
        second = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, second)

    def _on_predicted(self, done, total):
        if self.asked and self.ranks.world == 1:
            self.stopping = True
            raise _Asked

    def _on_event(self, kind, text):
        self.journal.event(self.epoch, self.batch, kind, text)
        if kind == "moved to cpu":
            self.batches.pin = False  # a dead card pins no memory
            forget(self.options.cache)  # the next run checks that card again


class _Asked(Exception):
    """Asked to stop while validating. Half a validation is not saved: it is repeated."""
