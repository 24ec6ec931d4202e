"""One run: batches, steps, validation, checkpoints.

An interrupted run resumes exactly where it was: a checkpoint holds all that decides what comes
next, and a window's augmentation is drawn from (seed, epoch, window). On the CPU its weights and
history equal, bit for bit, those of a run that was never interrupted.
"""

import math
import signal
import time
from collections import Counter

import torch

from eeg import UserError, cli
from eeg.data.augment import Augment
from eeg.data.batches import Batches, Order, Reading, aligned
from eeg.data.split import Damaged, Split
from eeg.data.windows import INPUT
from eeg.machine.capacity import largest_part
from eeg.machine.device import forget, synchronize
from eeg.machine.memory import Watch, fits, room
from eeg.models.model import Model
from eeg.ridge.fit import Fit
from eeg.runs.journal import Journal
from eeg.runs.parallel import Ranks
from eeg.runs.run import Run, weights_name
from eeg.train import checkpoint, optim
from eeg.train.optim import Place, Stepper
from eeg.train.options import Options
from eeg.train.progress import (
    Progress,
    best_so_far,
    finite,
    mean_loss,
    say_result,
    train_nrmse,
)
from eeg.train.targets import choose_targets
from eeg.train.validation import Score, Validation, worse
from eeg.transfer import begin as transfer
from eeg.transfer import coral

AHEAD = 2  # batches filled before they are wanted
LOOK = 10  # batches between two looks at the memory
HOPELESS = 100  # steps in a row without a finite gradient


class Trainer:
    """Trains `model` on split.train and validates it on split.valid.

    journal: writes the files of the run's folder; place.part: windows computed at once when the run
    began; ranks: the processes that share its batches.
    """

    def __init__(
        self,
        options: Options,
        model: Model,
        split: Split,
        journal: Journal,
        place: Place = Place(),
        ranks: Ranks | None = None,
    ):
        self.options, self.split, self.journal = options, split, journal
        self.ranks = ranks or Ranks()
        split.cache = aligned(split.cache, options.align)
        self.targets = self._choose_targets(options, split, model)
        self.domains = coral.domains(split, model) if options.coral else None
        self.damaged = Damaged(split.cache, self._on_event)
        self.epoch, self.batch = 1, 0
        if model.ridge is not None and not checkpoint.begun(journal.folder / "checkpoints"):
            self._fit_ridge(model)
        self.batch_size, self.part = self._size_batches(model, place)
        self.batches = self._make_batches(place.device)
        steps = len(self.batches)
        warmup = round(options.warmup * steps)
        self.schedule = optim.Schedule(options.schedule, steps * options.epochs, warmup)
        self.watch = Watch(options.max_memory)
        self.sums: Counter = Counter()  # of the epoch so far
        self.waited = 0  # epochs since the best
        self.best = {"epoch": 0, "value": math.inf, "weights": None}
        self.lowest = Score(math.inf, {}, 1.0, 0.0, [])  # of all epochs
        self.asked, self.reason = False, ""  # this process was asked to stop, and why
        self.stopping = False  # any process was, and all know it
        self.hopeless = 0  # batches in a row without a finite gradient
        self.events_shared = 0  # events that all processes know
        self.saved = time.monotonic()
        self.validation = self._make_validation(split, self.damaged)
        place = place._replace(part=self.part)
        self.stepper = Stepper(options, model, self.targets, place, self.ranks, self._on_event)
        self.progress = Progress(self)

    # what pretraining does in another way

    def _choose_targets(self, options, split, model):
        return choose_targets(options, split, model)

    def _make_validation(self, split, damaged):
        return Validation(split, self.targets, damaged)

    def _order(self):
        ranks = self.ranks
        return Order(balance=self.options.balance, rank=ranks.rank, world=ranks.world)

    def _weights_to_keep(self, score):
        """The weights with what the score says of the answers."""
        weights = self.stepper.weights()
        weights["shrink"] = torch.full_like(weights["shrink"], score.shrink)
        if "share" in weights:
            weights["share"] = torch.full_like(weights["share"], score.share)
        return weights

    # how it begins

    def _fit_ridge(self, model):
        """Fit the ridge beside the network; a resumed run has it in its checkpoint."""
        subjects = set(self.split.cache.metadata["subject"][self.split.train])
        if len(subjects) < 2:
            self.journal.say("ridge   not used: choosing its strength takes 2 training subjects")
            return
        state = None
        if self.ranks.main:
            fit = Fit(model, self.split, self.targets.y, self.damaged, self.options.seed)
            with cli.Progress("windows") as progress:
                found = fit.run(progress)
            self.journal.say(f"ridge   {found}")
            state = model.ridge.state_dict()
        model.ridge.load_state_dict(self.ranks.broadcast(state))

    def _size_batches(self, model, place):
        """-> (windows in a batch of this process, windows to compute at once; None on a card, which
        reports by itself when its memory runs out)"""
        asked, windows, say = self.options.batch_size, len(self.split.train), self.journal.say
        if asked > windows:
            everything = f"all {cli.counted(windows, 'training window')}"
            say(f"batch   {everything}: --batch-size {asked} asks for more than there are")
        size = max(1, min(asked, windows) // self.ranks.world)
        free = room(self.options.max_memory)
        if place.device != "cpu" or free is None:
            return size, None
        batches_held = AHEAD + 2 + 2 * bool(self.options.augment.get("mix"))
        held = batches_held * 4 * model.window[0] * INPUT  # bytes a window
        part, needed = largest_part(model, size, held, free / self.ranks.here)
        part = min(part, place.part or part)
        if part < size:
            step = f"a step on {cli.counted(size, 'window')} may take {needed / 1e6:,.0f} MB"
            parts = f"computed in parts of at most {part}, and batch norm sees one part at a time"
            say(f"memory  {step}, {free / 1e6:,.0f} MB are free to take: {parts}")
        return size, part

    def _make_batches(self, device):
        options, cache = self.options, self.split.cache
        strengths = dict(options.augment)
        if cache.challenge == 2:  # any two of the four seconds
            strengths["shift"] = (cache[0].shape[1] - INPUT) // 2 / cache.sfreq
        moved = strengths.get("shift") or strengths.get("mirror")
        if cache.challenge == 1 and moved and self.targets.features is not None:
            raise UserError(
                "features from the cache are those of the window as it is stored; leave out "
                "--augment shift and mirror, or compute the features in the model: --features layer"
            )
        pin, threads = device.startswith("cuda"), int(device == "cpu")
        direct = not fits(self.split.train.size * cache[0].nbytes)
        reading = Reading(length=INPUT, ahead=AHEAD, pin=pin, direct=direct, threads=threads)
        windows, augment = (cache, self.split.train), Augment(**strengths)
        further = {"order": self._order(), "reading": reading}
        return Batches(*windows, self.batch_size, options.seed, augment, **further)

    # the whole run

    def run(self) -> str:
        """Train to the end, or until asked to stop. -> "finished" or "stopped"; the latter also if
        the request came at the very end"""
        handlers = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                handlers[number] = signal.signal(number, self._on_signal)
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

    # an epoch

    def _train_epoch(self):
        """-> whether it came to the epoch's end, without a request to stop"""
        transfer.train_mode(self.stepper.model)
        if self.ranks.world > 1:  # each has its own dropout; a checkpoint holds one generator
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
                    self.progress.batch_done(now - start)
                    if self.stopping:
                        return False
                    if now - self.saved > 60 * self.options.checkpoint_minutes:
                        self._save()
                    if self.batch % LOOK == 0 and self._look_at_memory() == "shrink":
                        break  # the epoch continues with fewer batches ahead
        return True

    def _tensors(self, batch):
        """What a step needs of a batch, without its damaged windows."""
        batch = self.damaged.without(batch)
        found = self.targets.tensors(batch, bool(self.batches.augment.mix))
        if self.domains:
            found["domain"] = torch.from_numpy(self.domains.of[batch.rows])
        return found

    def _train_batch(self, batch):
        step = (self.epoch - 1) * len(self.batches) + self.batch
        rate = self.options.lr * self.schedule.factor(step)
        taken = self.stepper.take(batch, rate, lambda: self.asked)
        self.stopping |= taken.stopping
        if taken.done:
            self.sums.update(self.targets.sums(batch, taken.loss, taken.answers))
            self.hopeless = 0
        else:
            self.sums["skipped"] += 1
            self.hopeless += 1
            if self.hopeless == HOPELESS:
                what = f"{HOPELESS} batches in a row gave no finite gradient (loss {taken.loss:g})"
                raise UserError(f"{what}; try a lower --lr, --clip 1 or --amp off")
        self.batch += 1

    def _look_at_memory(self):
        """-> "fine"; "shrink": hold fewer batches ahead from now on; "stop": the next batch does"""
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
        """Score the epoch that has ended, keep the best weights, save. -> whether to go on"""
        start = time.monotonic()
        self.stepper.share_buffers()
        try:
            score = self.validation.score(self.stepper, self._on_predicted)
        except _Asked:
            return False
        self.progress.computing += time.monotonic() - start
        self.schedule.epoch_ended(score.value)
        better = not worse(score, self.lowest)
        self.lowest = min(self.lowest, score, key=lambda each: each.value)
        self.waited = 0 if better else self.waited + 1
        if better:
            weights = self._weights_to_keep(score)
            self.best = {"epoch": self.epoch, "value": score.value, "weights": weights}
        self._share()
        self._end_epoch(score, better)
        return not self.stopping

    def _share(self):
        """Tell all processes each other's sums, events, damaged windows and requests to stop."""
        events = self.journal.history["events"]
        new = events[self.events_shared :]
        del events[self.events_shared :]
        sums: Counter = Counter()
        mine = dict(self.sums), new, self.damaged.rows, self.asked
        for its_sums, its_events, its_rows, asked in self.ranks.gather(mine):
            sums.update(its_sums)
            events += its_events
            self.damaged.rows = self.damaged.rows | its_rows
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
            "share": score.share,
            "skipped_steps": int(self.sums["skipped"]),
            "best": better,
        }
        self.journal.history["epochs"].append(entry)
        self.progress.epoch_ended(entry)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Counter()
        if better:
            settings, best = self.stepper.model.settings, self.best
            kept = {"model": best["weights"], "settings": settings, "epoch": best["epoch"]}
            self._write("best", kept)
        self._save()
        self.journal.publish()

    # the end

    def _stop(self):
        saved = self._save()
        self.journal.publish()
        self.journal.note(self.epoch, self.batch, "stopped", self.reason or "asked to stop")
        self.journal.state("stopped", reason=self.reason)
        at = f"saved at epoch {self.epoch}, batch {self.batch}"
        where = at if saved else "stopped, the last checkpoint is kept"
        self.journal.say(f"{where}; resume with: {Run(self.journal.folder).resume}")
        return "stopped"

    def _finish(self):
        """Export the best epoch's weights."""
        early = self.epoch <= self.options.epochs
        reason = f"no better epoch for {self.options.patience}" if early else ""
        if self.ranks.main:
            name = weights_name(self.options.challenge, self.options.pretrains)
            path = self.journal.folder / name
            settings, weights = self.stepper.model.settings, self.best["weights"]
            size = sum(tensor.nbytes for tensor in weights.values())
            with checkpoint.finishing(self.journal.folder, path, size):
                checkpoint.export(path, settings, weights)
            how = f"stopped early, {reason}" if early else "finished"
            how = f"{how}: best epoch {self.best['epoch']},"
            shrink = float(weights["shrink"][0]) if "shrink" in weights else 1.0
            say_result(self, how, self.best["value"], shrink)
            self.journal.say(f"weights {path}")
        self.journal.publish()
        facts = {"reason": reason, "epoch": self.epoch - 1, "seconds_left": 0}
        self.journal.state("finished", **facts, **best_so_far(self.best))
        return "stopped" if any(self.ranks.gather(self.asked)) else "finished"

    # saving

    def _save(self):
        """-> whether it was saved"""
        self.saved = time.monotonic()
        read = self.stepper.guard.read
        return self._write("last", read("the checkpoint", lambda: checkpoint.snapshot(self)))

    def _write(self, name, state):
        """Write a checkpoint in the main process; a full disk only warns. -> whether it did"""
        try:
            if self.ranks.main:
                folder = self.journal.folder / "checkpoints"
                checkpoint.save(folder, name, state, checkpoint.describe(self))
            return True
        except OSError as e:
            what = f"the checkpoint of epoch {self.epoch}, batch {self.batch}"
            why = f"could not be written ({e.strerror})"
            text = f"{what} {why}; the one before is kept, the run continues"
            self.journal.say(f"warning: {text}")
            self.journal.note(self.epoch, self.batch, "save failed", text)
            return False

    # what others call

    def _on_signal(self, number, frame):
        self.asked = True
        if self.ranks.world > 1:
            return  # torchrun repeats the terminal's signal: the second is no second request
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
