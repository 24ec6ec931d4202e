"""One run: batches, gradients, steps, validation, checkpoints. Whatever happens to the device, the memory or the process, nothing is lost.

An interrupted run goes on exactly where it was: all that decides what comes next is in `Trainer.state`, and what a window
looks like is drawn from (seed, epoch, window). On the CPU its weights and history equal, bit for bit, those of a run that was
left in peace.
"""

import math
import signal
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

import eeg
import eeg.models
from eeg import UserError, cli, hints
from eeg.data.augment import Augment
from eeg.data.batches import Batches
from eeg.data.rebuild import rebuild_known
from eeg.data.split import further, labels, names
from eeg.data.windows import LENGTH
from eeg.files import trouble
from eeg.machine import amp
from eeg.machine.capacity import largest_part
from eeg.machine.device import forget, synchronize
from eeg.machine.memory import Watch, fits, room
from eeg.runs.journal import mute
from eeg.runs.run import Run
from eeg.score.metrics import auroc, describe, nrmse
from eeg.score.predict import predict
from eeg.score.shrinkage import cross_fitted, shrinkage
from eeg.train import checkpoint, losses, optim
from eeg.train.recovery import Recovery

INPUT = LENGTH[1]  # samples a model sees, in both challenges
AHEAD = 2  # batches filled before they are wanted
NAMED = 3  # windows that hold NaN or infinity, by name
LOOK = 10  # batches between two looks at the memory
HOPELESS = 100  # steps in a row without a finite gradient
MOVING = (
    "rt_from_stimulus",
    "rt_from_trialstart",
)  # targets that say when: a window opened later has them earlier


def make_model(options, challenge):
    """The model these options ask for, fresh. Raises UserError where a setting does not exist."""
    settings = dict(options.set)
    try:
        if "head" in eeg.models.defaults(options.model):
            settings.setdefault(
                "head", "time" if options.target == "rt_from_stimulus" else "number"
            )  # moments are moments of the window
        if options.features:
            settings["features"] = options.features
        return eeg.models.build(
            options.model,
            n_times=INPUT,
            n_outputs=4 if options.target == "factors" else 1,
            normalize=options.normalize,
            aux=tuple(options.aux),
            **settings,
        )
    except (ValueError, TypeError) as e:
        raise UserError(f"{e}; see: {hints.command('train', '--list-models')}") from None


def usual_loss(model, target):
    return "cross-entropy" if target == "correct" else "time" if model.head == "time" else "mse"


class Trainer:
    """Trains `model` on split.train, validated on split.valid.

    options: the namespace of run/train.py's arguments, all resolved; device: what computes ("cpu", "cuda:0"); precision: of
    eeg.machine.amp; journal: its folder's pen; ranks: the processes it shares its batches with.
    """

    def __init__(self, options, model, split, device, precision, journal, ranks):
        self.options, self.split, self.precision, self.journal, self.ranks = (
            options,
            split,
            precision,
            journal,
            ranks,
        )
        self.home = torch.device(device)
        self.loss = options.loss or usual_loss(model, options.target)
        if self.loss == "time" and model.head != "time":
            raise UserError(
                f"--loss time scores moments, and this {options.model} answers with a number; a model with a time head has it: --set head=time, see: {hints.command('train', '--list-models')}"
            )
        self._look_at_labels(model)
        self.batch_size, self.part = self._size_batches(model)
        self.model = model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = optim.adamw(self.model, options.lr, options.weight_decay)
        self.sam = optim.SAM(self.model, options.rho) if options.optimizer == "sam" else None
        self.average = optim.Average(self.model, options.ema) if options.ema else None
        self.scale = amp.LossScale(precision)
        self.batches = self._make_batches()
        steps = len(self.batches)
        self.schedule = optim.Schedule(
            options.schedule, steps * options.epochs, round(options.warmup * steps)
        )
        self.watch = Watch(options.max_memory)
        self.epoch, self.batch, self.sums, self.waited = (
            1,
            0,
            Counter(),
            0,
        )  # waited: epochs since the best
        self.best = {"epoch": 0, "value": math.inf, "weights": None}
        self.asked, self.stopping, self.reason, self.hopeless = (
            False,
            False,
            "",
            0,
        )  # asked: this process; stopping: any, as all of them know; hopeless: batches in a row without a finite gradient
        self.left_out = set()  # windows that hold NaN or infinity, as far as they were met
        self.square, self.told = (
            None,
            0,
        )  # what the time loss is divided by; events that all processes know
        self.saved, self.began, self.computing, self.first = (
            time.monotonic(),
            time.monotonic(),
            0.0,
            0,
        )  # first: the batch of the epoch that this process began with
        self.guard = Recovery(
            self.model, self.home, self._on_event, self._step, self._beside, self._moments
        )
        self.guard.largest = self.part

    # what is learned

    def _look_at_labels(self, model):
        options, split = self.options, self.split
        self.y, also = labels(split.cache, options.target), further(split.cache, model.aux)
        if options.target in ("correct", "factors"):
            for side in ("train", "valid"):
                rows = getattr(split, side)
                known = ~np.isnan(self.y[rows]).any(1)
                if not known.all():
                    split.dropped[f"{options.target} unknown"] = split.dropped.get(
                        f"{options.target} unknown", 0
                    ) + int((~known).sum())
                    setattr(split, side, rows[known])
        used = np.concatenate([split.train, split.valid])
        if not (finite := np.isfinite(self.y[used])).all():
            part = np.searchsorted(split.cache.first, used[~finite.all(1)][0], "right") - 1
            bad, attributes = split.cache.paths[part], split.cache.attributes[part]
            raise UserError(
                f"{(~finite.all(1)).sum()} of {len(used)} labels are NaN or infinite, the first in {bad}; rebuild it with: {rebuild_known(bad, attributes)}"
            )
        y = self.y[split.train]
        if split.cache.challenge == 2 and len(names(split.cache, split.valid)) == 1:
            raise UserError(
                "the validation side has 1 subject, all of whose windows have the same label; "
                "challenge 2 needs at least 2: name more releases with --valid"
            )
        if (np.ptp(y, 0) == 0).any() or (np.ptp(self.y[split.valid], 0) == 0).any():
            raise UserError(
                f"all labels of a side are the same ({options.target}): there is nothing to learn, or nothing to validate with; name more releases with --train and --valid"
            )
        center, spread = (
            (y.mean(0), y.std(0)) if options.target != "correct" else (np.zeros(1), np.ones(1))
        )
        self.positive = (
            float((y == 0).sum() / max(1, (y == 1).sum())) if options.target == "correct" else 1.0
        )
        if model.aux:
            known = also[split.train]
            with np.errstate(invalid="ignore"):
                also = (also - np.nanmean(known, 0)) / np.maximum(np.nanstd(known, 0), 1e-6)
        self.y = np.hstack([self.y, also]).astype(np.float32)
        self.center = float(center[0])
        model.center.copy_(torch.from_numpy(center))
        model.scale.copy_(torch.from_numpy(spread))
        self.features = None
        if model.features == "file":
            self.features = split.cache.needed_features()
            known = self.features[split.train]
        elif model.features == "layer":
            from eeg.data.features import compute

            some = split.train[:: max(1, len(split.train) // 1000)]
            start = (split.cache[0].shape[1] - INPUT) // 2
            known = compute(
                np.stack([split.cache[i][:, start : start + INPUT] for i in some]).astype(
                    np.float32
                )
            )
        if model.features != "none":
            with np.errstate(invalid="ignore"):
                median = np.nan_to_num(np.nanmedian(known, 0))
                mad = 1.4826 * np.nanmedian(np.abs(known - median), 0)
            model.median.copy_(torch.from_numpy(median))
            model.mad.copy_(torch.from_numpy(np.where(mad > 0, mad, 1)))
        self.mean_predictor = self._mean_predictor()

    def _mean_predictor(self):
        """What the mean of the training labels scores on the validation windows."""
        rows = self.split.valid
        return (
            None
            if self.options.target == "correct"
            else nrmse(self.y[rows, 0].astype(float), np.full(len(rows), self.center))
        )

    def _size_batches(self, model):
        """-> (windows in a batch of this process, how many of them to compute at once; None where a card says itself what it holds)."""
        options, windows, world = self.options, len(self.split.train), self.ranks.world
        if options.batch_size > windows:
            self.journal.say(
                f"batch   all {cli.counted(windows, 'training window')}: --batch-size {options.batch_size} asks for more than there are"
            )
        size = max(1, min(options.batch_size, windows) // world)
        free = room(options.max_memory)
        if self.home.type != "cpu" or free is None:
            return size, None
        window = 4 * model.window[0] * INPUT  # bytes
        held = window * (AHEAD + 2 + 2 * bool(dict(options.augment).get("mix")))
        part, needed = largest_part(model, size, held, free / self.ranks.here)
        part = min(part, options.part or part)
        if part < size:
            self.journal.say(
                f"memory  a step on {cli.counted(size, 'window')} may take {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free to take: computed in parts of at most {part}, and batch norm sees one part at a time"
            )
        return size, part

    def _make_batches(self):
        options, cache = self.options, self.split.cache
        strengths = dict(options.augment)
        if cache.challenge == 2:
            strengths["shift"] = (
                (cache[0].shape[1] - INPUT) // 2 / cache.sfreq
            )  # any two of the four seconds
        elif self.features is not None and (strengths.get("shift") or strengths.get("mirror")):
            raise UserError(
                "features from the cache are those of the window as it is stored: without --augment shift and mirror, or computed in the model with --features layer"
            )
        large = not fits(self.split.train.size * cache[0].nbytes)
        shares = {"rank": self.ranks.rank, "world": self.ranks.world}
        return Batches(
            cache,
            self.split.train,
            self.batch_size,
            options.seed,
            Augment(**strengths),
            length=INPUT,
            balance=options.balance,
            ahead=AHEAD,
            pin=self.home.type == "cuda",
            direct=large,
            threads=int(self.home.type == "cpu"),
            **shares,
        )

    # one batch

    def _tensors(self, batch):
        """What `_step` needs of a batch, on the CPU, window by window. Without windows that hold NaN or infinity, unless it has no other: then its step is skipped."""
        if not batch.finite.all():
            self._leave_out(batch.rows[~batch.finite], "training")
            if batch.finite.any():
                kept = {
                    name: getattr(batch, name)[batch.finite]
                    for name in ("rows", "x", "y", "shift_samples", "mix", "finite")
                }
                batch = replace(batch, **kept)
        y = torch.from_numpy(self.y[batch.rows])
        if self.options.target in MOVING:
            y[:, 0] -= torch.from_numpy(batch.shift_samples) / self.split.cache.sfreq
        found = {"x": torch.from_numpy(batch.x), "y": y}
        if self.features is not None:
            found["features"] = torch.from_numpy(self.features[batch.rows])
        if self.batches.augment.mix:
            mix = torch.from_numpy(batch.mix)
            found |= {"mix": mix, "other": y.roll(1, 0)}
            for name in ("x", "features"):  # all that the model sees is mixed, as its label is
                if name in found:
                    share = mix.view(-1, *[1] * (found[name].dim() - 1))
                    found[name] = torch.lerp(found[name].roll(1, 0), found[name], share)
        return found

    def _leave_out(self, rows, what):
        """Name the first windows that hold NaN or infinity, once each; count all of them."""
        for row in rows.tolist():
            if row not in self.left_out and len(self.left_out) < NAMED:
                further = (
                    "; what follows is counted only" if len(self.left_out) == NAMED - 1 else ""
                )
                self._on_event(
                    "left out", f"{self.split.cache.damage(row)}, left out of {what}{further}"
                )
            self.left_out.add(row)

    def _step(self, model, batch, weight):
        """Forward, and backward of weight * loss into .grad. -> (loss, answers)."""
        device = next(model.parameters()).device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with amp.autocast(device, self.precision if device == self.home else "fp32"):
            raw = model.raw(batch["x"], batch.get("features"))
        average = (lambda square: self._agree(square, len(raw))) if self.ranks.world > 1 else None
        value = losses.loss(
            self.loss,
            model,
            raw,
            batch["y"],
            batch.get("mix"),
            batch.get("other"),
            self.positive,
            average,
        )
        (weight * value).backward()
        return value.item(), model.answer(raw.detach()).cpu()

    def _agree(self, square, windows):
        """The mean square of all processes: asked for once a batch, for a process that has to compute it twice must not ask the others twice."""
        if self.square is None:
            self.square = self.ranks.average(square, windows)
        return self.square.to(square.device)

    def _beside(self):
        """What else lies on the device and changes: the weights before SAM's ascent, the averaged ones. The very tensors."""
        held = [*self.sam.before] if self.sam else []
        if self.average:
            held += [*self.average.model.parameters(), *self.average.model.buffers()]
        return held

    def _moments(self):
        return [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ]

    def _gradients(self, batch):
        """The gradient of this process's windows in .grad. -> (loss, answers, the mean gradient of all processes, None where there is one;
        whether any process's loss is not finite)"""
        self.square = None
        loss, answers = self.guard.gradients(batch, self.scale.scale)
        bad = not math.isfinite(loss)
        mean, (self.stopping, bad) = self.ranks.sum_gradients(
            self.parameters, self._on_host(), len(batch["y"]), self.asked, bad
        )
        return loss, answers, mean, bad

    def _on_host(self):
        """Copies of the gradients, in the order of self.parameters."""
        known = dict(zip(map(id, self.model.parameters()), self.guard.kept_gradients))
        return [known[id(p)] for p in self.parameters]

    def _norm(self, mean, clip):
        """The gradient's norm, cut to `clip`. mean: the gradient of all processes, None where .grad is that."""
        for p, gradient in zip(self.parameters, mean or ()):
            p.grad = gradient.to(p.device, copy=True)
        if self.options.l1:
            optim.add_l1(self.model, self.options.l1)
        return torch.nn.utils.clip_grad_norm_(self.parameters, clip).item()

    def _climb(self, mean):
        """Work for the guard: SAM's ascent. -> the gradient's norm, and without a finite one nothing is done"""
        norm = self._norm(mean, math.inf)
        if math.isfinite(norm):
            self.sam.ascend(norm)
        return norm

    def _move(self, mean):
        """Work for the guard: down the gradient, from where SAM began. -> its norm, and without a finite one nothing is done"""
        norm = self._norm(mean, self.options.clip or math.inf)
        if math.isfinite(norm):
            if self.sam:
                self.sam.descend()
            self.optimizer.step()
            if self.average:
                self.average.update(self.model)
        return norm

    def _take_step(self, batch):
        """One batch into the weights. -> (loss, answers), None where a gradient is not finite: then nothing has changed."""
        before = self.guard.kept
        loss, answers, mean, bad = self._gradients(batch)
        first = loss, answers
        if self.sam and not bad:
            bad = not math.isfinite(self.guard.update("SAM's ascent", lambda: self._climb(mean)))
            if not bad:
                with optim.frozen_statistics(self.model):
                    loss, _, mean, bad = self._gradients(batch)
        if not bad:
            bad = not math.isfinite(
                self.guard.update("the optimiser's step", lambda: self._move(mean))
            )
        if bad:  # a window that overflows has also been in the batch norms' statistics
            self.guard.update("the way back", lambda: self.guard.restore(before))
            return None, loss
        return first, loss

    def _train_batch(self, batch):
        rate = self.options.lr * self.schedule.factor(
            (self.epoch - 1) * len(self.batches) + self.batch
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        done, loss = self._take_step(batch)
        if done:
            if self.average:
                self.average.steps += 1
            self._count(batch, *done)
            self.hopeless = 0
        else:
            self.sums["skipped"] += 1
            self.hopeless += 1
            if self.hopeless == HOPELESS:
                raise UserError(
                    f"{HOPELESS} batches in a row gave no finite gradient (loss {loss:g}); try a lower --lr, --clip 1 or --amp off"
                )
        self.scale.update(done is not None)
        self.batch += 1

    def _count(self, batch, loss, answers):
        """Add a batch to the epoch's sums."""
        y = (
            batch["y"][:, 0]
            if "mix" not in batch
            else torch.lerp(batch["other"][:, 0], batch["y"][:, 0], batch["mix"])
        )
        y, error = y.double(), answers[:, 0].double() - y.double()
        self.sums.update(
            n=len(y),
            loss=loss * len(y),
            square=error.square().sum().item(),
            y=y.sum().item(),
            yy=y.square().sum().item(),
        )

    # an epoch

    def run(self):
        """Train to the end, or until asked to stop. -> "finished" or "stopped", which is also said where that was asked for at the very end."""
        numbers = [
            number
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN
        ]  # nohup has it ignored
        handlers = {number: signal.signal(number, self._on_signal) for number in numbers}
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

    def _train_epoch(self):
        """-> False where it was asked to stop on the way."""
        self.model.train()
        if (
            self.ranks.world > 1
        ):  # each process drops other channels; a checkpoint holds the main one's generator alone
            torch.manual_seed(
                ((self.options.seed * 1000 + self.epoch) * self.ranks.world) + self.ranks.rank
            )
        self.guard.read("the device", lambda: synchronize(self.guard.device))
        self.began, self.computing, self.first = time.monotonic(), 0.0, self.batch
        with _bar(self) as bar:
            while self.batch < len(self.batches):
                for batch in self.batches.epoch(self.epoch, self.batch):
                    start = time.monotonic()
                    self._train_batch(self._tensors(batch))
                    now = time.monotonic()
                    self.computing += now - start
                    self._say_where(bar)
                    if self.stopping:
                        return False
                    if now - self.saved > 60 * self.options.checkpoint_minutes:
                        self._save()
                    if self.batch % LOOK == 0 and self._look_at_memory() == "shrink":
                        break  # and on, with fewer batches ahead
        return True

    def _look_at_memory(self):
        """-> "fine"; "shrink", where fewer batches are to be held ahead from now on; "stop", which the next batch will see."""
        word, text = self.watch()
        if word != "fine":
            self.journal.say(f"memory: {text}")
            self.journal.note(self.epoch, self.batch, "memory", text)
        if word == "shrink":
            self.batches.ahead = 1
        elif word == "stop":
            self.asked, self.reason = True, text
        return word

    def _say_where(self, bar):
        sums, done = self.sums, self.batch - self.first
        seconds = time.monotonic() - self.began
        rate = done * self.batches.batch_size * self.ranks.world / max(seconds, 1e-9)
        left = (
            (
                len(self.batches)
                - self.batch
                + (self.options.epochs - self.epoch) * len(self.batches)
            )
            * seconds
            / max(1, done)
        )
        self.journal.state(
            epoch=self.epoch,
            epochs=self.options.epochs,
            batch=self.batch,
            batches=len(self.batches),
            best_nrmse=_number(self.best["value"]),
            best_epoch=self.best["epoch"],
            windows_per_second=round(rate),
            seconds_left=round(left),
            memory=cli.anonymous_memory(),
            device=str(self.guard.device),
        )
        if bar is not None:
            bar.n = self.batch
            try:
                bar.set_postfix_str(
                    f"loss {sums['loss'] / max(1, sums['n']):.4f}, {self._train_words()}{rate:,.0f} win/s, {cli.anonymous_memory() / 1e9:.1f} GB, {cli.clock(left)} left"
                )
            except OSError:  # the terminal is gone
                mute(sys.stderr)

    def _train_nrmse(self):
        n, variance = (
            self.sums["n"],
            self.sums["yy"] / max(1, self.sums["n"])
            - (self.sums["y"] / max(1, self.sums["n"])) ** 2,
        )
        return math.sqrt(self.sums["square"] / n / variance) if n and variance > 0 else None

    def _train_words(self):
        value = self._train_nrmse()
        return "" if self.options.target == "correct" or value is None else f"NRMSE {value:.3f}, "

    def _predict(self):
        """Answers for this process's share of the validation windows, by the averaged weights where there are any."""
        rows = self.split.valid[self.ranks.rank :: self.ranks.world]

        def answer(size):
            model = self.average.model if self.average else self.model
            return predict(
                model,
                self.split.cache,
                rows,
                batch=size,
                device=self.guard.device,
                progress=self._on_predicted,
                leave_out=True,
            )

        return self.guard.read("validation", lambda: answer(128), lambda: answer(16))[:, 0]

    def _weights(self):
        """A copy, on the CPU, of what is validated."""
        return on_host((self.average.model if self.average else self.model).state_dict())

    def _share_buffers(self):
        """Give every process the main one's buffers (the statistics of batch norms)."""
        buffers = [*self.model.buffers(), *(self.average.model.buffers() if self.average else ())]
        shared = self.ranks.broadcast(self.guard.read("the statistics", lambda: on_host(buffers)))

        def put():
            for buffer, value in zip(buffers, shared):
                buffer.copy_(value)

        if self.ranks.world > 1:
            self.guard.update("the statistics", put)

    def _on_predicted(self, done, total):
        if self.asked and self.ranks.world == 1:
            self.stopping = True
            raise _Asked

    def _validate(self):
        """Score the epoch that has ended, keep what is best, save. -> False where it was asked to stop on the way."""
        start = time.monotonic()
        self._share_buffers()
        try:
            mine = self._predict()
        except _Asked:
            return False
        p = np.empty(len(self.split.valid))
        for rank, part in enumerate(self.ranks.gather(mine)):
            p[rank :: self.ranks.world] = part
        p = self._answered(p)
        y = self.y[self.split.valid, 0].astype(float)
        p, strength = self._shrink(p, y)
        if self.options.target == "correct":
            valid = {"auroc": auroc(y, p)}
            value = 1 - valid["auroc"]
        else:
            valid = describe(y, p) | {"mean_predictor": self.mean_predictor}
            value = valid["nrmse"]
        self.computing += time.monotonic() - start
        self.schedule.epoch_ended(value)
        better = value < self.best["value"]
        self.waited = 0 if better else self.waited + 1
        weights = self.guard.read("the weights", self._weights)
        weights["shrink"] = torch.full_like(weights["shrink"], strength)
        if better:
            self.best = {"epoch": self.epoch, "value": value, "weights": weights}
        sums, events = Counter(), self.journal.history["events"]
        parts = self.ranks.gather((dict(self.sums), events[self.told :], self.asked, self.left_out))
        del events[self.told :]
        self.left_out = set.union(*(left_out for *_, left_out in parts))
        for part, new, asked, _ in parts:
            sums.update(part)
            events += new
            self.stopping |= asked
        self.sums, self.told = sums, len(events)
        entry = {
            "epoch": self.epoch,
            "train": {
                "loss": sums["loss"] / max(1, sums["n"]),
                "nrmse": None if self.options.target == "correct" else self._train_nrmse(),
            },
            "valid": {name: _number(figure) for name, figure in valid.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "shrink": strength,
            "skipped_steps": int(sums["skipped"]),
            "best": better,
        }
        self._end_epoch(entry, valid, better)
        return not self.stopping

    def _answered(self, p):
        """p of the validation windows without those that hold NaN or infinity, which from now on do not validate."""
        silent = np.flatnonzero(np.isnan(p))
        damaged = (
            silent[[not self.split.cache.is_finite(row) for row in self.split.valid[silent]]]
            if len(silent)
            else silent
        )
        if len(damaged):
            self._leave_out(self.split.valid[damaged], "validation")
            self._without_left_out()
        return np.delete(p, damaged)

    def _without_left_out(self):
        """Validate on the other windows alone."""
        kept = ~np.isin(self.split.valid, list(self.left_out))
        if not kept.any():
            raise UserError(
                f"all {len(kept)} validation windows hold NaN or infinity: {self._damaged_files()}"
            )
        self.split.valid = self.split.valid[kept]
        self.mean_predictor = self._mean_predictor()

    def _shrink(self, p, y):
        """-> (answers to the validation windows as they are scored, the strength that inference shrinks them by).

        Challenge 2 scores each half of the validation subjects with the strength fitted on the other.
        """
        if self.split.cache.challenge == 1:
            return p, 1.0
        subjects = self.split.cache.metadata["subject"][self.split.valid]
        return cross_fitted(p, y, subjects, self.center), shrinkage(p, y, self.center)

    def _end_epoch(self, entry, valid, better):
        seconds, memory = time.monotonic() - self.began, cli.anonymous_memory()
        share = 1 - self.first / len(self.batches)  # of the epoch, since the process began
        rate = share * self.sums["n"] / max(seconds, 1e-9)
        self.journal.history["epochs"].append(entry)
        self.journal.timing["epochs"].append(
            {
                "epoch": self.epoch,
                "seconds": round(seconds, 3),
                "windows_per_second": round(rate),
                "memory": memory,
                "device": str(self.guard.device),
                "model_share": round(self.computing / max(seconds, 1e-9), 4),
            }
        )
        left = (self.options.epochs - self.epoch) * seconds / max(share, 0.01)
        if self.options.target == "correct":
            words = f"train loss {entry['train']['loss']:.3f}  valid AUROC {valid['auroc']:.3f}"
        else:
            words = f"train {entry['train']['nrmse'] or math.nan:.3f}  valid {valid['nrmse']:.3f}"
        skipped = (
            f"  {cli.counted(entry['skipped_steps'], 'step')} skipped"
            if entry["skipped_steps"]
            else ""
        )
        self.journal.say(
            f"epoch {self.epoch:3d}/{self.options.epochs}  {words} {'*' if better else ' '}  lr {entry['lr']:.1e}  {rate:,.0f} win/s  {memory / 1e9:.1f} GB  {cli.clock(left)} left{skipped}"
        )
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Counter()
        if better:
            self._attempt(
                lambda: checkpoint.save(
                    self.journal.folder / "checkpoints",
                    "best",
                    {
                        "model": self.best["weights"],
                        "settings": self.model.settings,
                        "epoch": self.best["epoch"],
                    },
                    self._about(),
                )
            )
        self._save()
        self.journal.publish()

    # the end

    def _stop(self):
        saved = self._save()
        self.journal.publish()
        self.journal.note(self.epoch, self.batch, "stopped", self.reason or "asked to stop")
        self.journal.state("stopped", reason=self.reason)
        where = (
            f"saved at epoch {self.epoch}, batch {self.batch}"
            if saved
            else "stopped, as it was at the last checkpoint"
        )
        self.journal.say(f"{where}; resume with: {Run(self.journal.folder).resume}")
        return "stopped"

    def _finish(self):
        """Export the best epoch's weights."""
        best, folder = self.best, self.journal.folder
        early = self.epoch <= self.options.epochs
        reason = f"no better epoch for {self.options.patience}" if early else ""
        if self.ranks.main:
            path = folder / f"weights_challenge_{self.split.cache.challenge}.pt"
            self._export(path, best["weights"])
            what = (
                f"AUROC {1 - best['value']:.3f}"
                if self.options.target == "correct"
                else f"NRMSE {best['value']:.4f}"
            )
            if self.split.cache.challenge == 2:
                what += f", answers shrunk to {best['weights']['shrink'][0]:.2f} of their distance from the training mean"
            data = " (simulated data)" if self.split.cache.simulated else ""
            self.journal.say(
                f"{'stopped early, ' + reason if early else 'finished'}: best epoch {best['epoch']}, validation {what}{data}"
            )
            if self.left_out:
                self.journal.say(
                    f"left out {cli.counted(len(self.left_out), 'window')} with NaN or infinity: {self._damaged_files()}"
                )
            self.journal.say(f"weights {path}")
        self.journal.publish()
        self.journal.state(
            "finished",
            reason=reason,
            epoch=self.epoch - 1,
            best_nrmse=_number(best["value"]),
            best_epoch=best["epoch"],
            seconds_left=0,
        )
        return "stopped" if any(self.ranks.gather(self.asked)) else "finished"

    def _export(self, path, weights):
        try:
            checkpoint.export(path, self.model.settings, weights)
        except OSError as e:
            size = sum(tensor.nbytes for tensor in weights.values())
            raise UserError(
                f"{trouble(e, path, '--out DIR in a new run', size)}; when there is room, resume this one with: {Run(path.parent).resume}"
            ) from None

    def _damaged_files(self):
        """How many windows each file lost to NaN or infinity, and the command that rebuilds it."""
        cache = self.split.cache
        parts = Counter(
            int(np.searchsorted(cache.first, row, "right")) - 1 for row in self.left_out
        )
        return "; ".join(
            f"{count:,} of {cache.paths[part]}, rebuild it with: {rebuild_known(cache.paths[part], cache.attributes[part])}"
            for part, count in sorted(parts.items())
        )

    # saving and going on

    def state(self):
        """All that decides what comes next."""
        generators = {"cpu": torch.get_rng_state()} | (
            {"cuda": torch.cuda.get_rng_state(self.home)}
            if self.guard.device.type == "cuda"
            else {}
        )
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": dict(self.sums),
            "waited": self.waited,
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state,
            "average": {"steps": self.average.steps, "model": self.average.model.state_dict()}
            if self.average
            else None,
            "scale": [self.scale.scale, self.scale.good] if self.scale.moves else None,
            "generators": generators,
            "history": self.journal.history,
            "left_out": sorted(self.left_out),
        }

    def restore(self, state):
        """Resume from what `state` gave."""
        self.guard.update("the checkpoint", lambda: self._load(state))
        if self.average:
            self.average.steps = state["average"]["steps"]
        self.schedule.state = dict(state["schedule"])
        if self.scale.moves and state["scale"]:  # it may go on in another precision
            self.scale.scale, self.scale.good = state["scale"]
        self.epoch, self.batch, self.waited, self.best = (
            state["epoch"],
            state["batch"],
            state["waited"],
            dict(state["best"]),
        )
        self.sums = Counter(state["sums"])
        self.left_out = set(state.get("left_out", ()))  # older runs did not look
        if self.left_out:
            self._without_left_out()
        self.journal.history, self.told = state["history"], len(state["history"]["events"])
        known = {
            entry["epoch"]: entry for entry in self.journal.timing["epochs"]
        }  # an epoch done twice is timed by the second
        self.journal.timing["epochs"] = [
            known[number] for number in sorted(known) if number < self.epoch
        ]
        torch.set_rng_state(state["generators"]["cpu"])
        if "cuda" in state["generators"] and self.home.type == "cuda":
            torch.cuda.set_rng_state(state["generators"]["cuda"], self.home)

    def _load(self, state):
        """Work for the guard: the tensors of a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.model.load_state_dict(state["average"]["model"])

    def _about(self):
        value = _number(self.best["value"])
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "best_epoch": self.best["epoch"],
            "metrics": self.journal.history["epochs"][-1]["valid"]
            if self.journal.history["epochs"]
            else {},
            "best": value,
            "settings": self.model.settings,
            "versions": {
                "eeg": eeg.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
        }

    def _save(self):
        """-> whether it was saved."""
        self.saved = time.monotonic()
        state = self.guard.read("the checkpoint", lambda: on_host(self.state()))
        return self._attempt(
            lambda: checkpoint.save(
                self.journal.folder / "checkpoints", "last", state, self._about()
            )
        )

    def _attempt(self, save):
        """The main process writes; a checkpoint that cannot be written costs a warning, the one before is still there. -> whether it was."""
        try:
            if self.ranks.main:
                save()
            return True
        except OSError as e:
            text = f"the checkpoint of epoch {self.epoch}, batch {self.batch} could not be written ({e.strerror}); the one before is kept, the run goes on"
            self.journal.say(f"warning: {text}")
            self.journal.note(self.epoch, self.batch, "save failed", text)
            return False

    def _on_signal(self, number, frame):
        self.asked = True
        if self.ranks.world > 1:
            return  # torchrun passes on what the terminal has sent already, and itself ends what does not end
        self.stopping = True
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )  # who asks twice does not want to wait

    def _on_event(self, kind, text):
        self.journal.event(self.epoch, self.batch, kind, text)
        if kind == "moved to cpu":
            self.batches.pin = False  # a dead card pins no memory
            forget(self.options.cache)  # the next run is to check that card again


def on_host(value):
    """A copy, on the CPU, of a tensor or of whatever dicts and lists hold tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    return type(value)(map(on_host, value)) if isinstance(value, (list, tuple)) else value


class _Asked(Exception):
    """Asked to stop while validating, which is not saved half-way: it is done anew."""


class _bar:
    """tqdm over the batches of an epoch, on a terminal; None elsewhere."""

    def __init__(self, trainer):
        self.bar = None
        if sys.stderr.isatty() and not trainer.journal.quiet:
            from tqdm import tqdm

            self.bar = tqdm(
                total=len(trainer.batches),
                initial=trainer.batch,
                leave=False,
                desc=f"epoch {trainer.epoch}",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n}/{total}{postfix}",
            )

    def __enter__(self):
        return self.bar

    def __exit__(self, *_):
        if self.bar is not None:
            try:
                self.bar.close()
            except OSError:  # the terminal is gone
                mute(sys.stderr)


def _number(value):
    """For JSON, which has neither NaN nor infinity."""
    return float(value) if value is not None and math.isfinite(value) else None
