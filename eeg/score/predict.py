"""Answers of models and of finished runs over a cache, in the competition's way.

Every window is answered, copies and fast time line included. Challenge 1 takes the window itself.
Challenge 2 stores 4 s windows of which 2 s are scored: a recording's i-th window is cut at the i-th
randint(0, 200) of Python's random.Random(42), started again for every recording.

Windows are read a batch at a time, ahead of the model: memory does not grow with the release.
"""

import pickle
import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import eeg.models
from eeg import UserError, hints
from eeg.data.augment import mirrored
from eeg.data.batches import Batches, Order, Reading
from eeg.data.cache import rebuild, rebuild_known
from eeg.machine.memory import fits
from eeg.runs.run import Run
from eeg.score import blend
from eeg.score.sides import Side

BATCH = 64
TEMPERATURES = (0.5, 1.0, 2.0, 4.0)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def answers(model, x, features) -> torch.Tensor:
    """(B, 1): the model's answer."""
    return model(x, features)[:, :1]


def all_answers(model, x, features) -> torch.Tensor:
    """(B, n_outputs): everything the model answers."""
    return model(x, features)


def answers_and_times(model, x, features) -> torch.Tensor:
    """(B, 1 + 12): the model's answer, then time_statistics where it has a time head."""
    raw = model.raw(x, features)
    answer = model.blended(raw, x)[:, :1]
    if model.head != "time":
        return answer
    return torch.cat([answer, time_statistics(raw, model.moments)], 1)


def parts(model, x, features) -> torch.Tensor:
    """(B, 1), or (B, 2) of a blend: how far from the training mean network and ridge answer."""
    center = model.center[:1]
    network = model.answer(model.raw(x, features))[:, :1] - center
    return network if model.ridge is None else torch.cat([network, model.beside(x)[:, :1]], 1)


def time_statistics(scores, moments) -> torch.Tensor:
    """(B, 12) of a time head's scores (B, T) of the moments (T,) of a window.

    The expected time at each of TEMPERATURES, the entropy in nats, the peak's time, its chance, and
    QUANTILES. Times are in s.
    """
    p = scores.softmax(1)
    expected = [(scores / t).softmax(1) @ moments for t in TEMPERATURES]
    entropy = -(p * p.clamp_min(1e-30).log()).sum(1)
    quantiles = p.new_tensor(QUANTILES).expand(len(p), -1).contiguous()
    at = torch.searchsorted(p.cumsum(1), quantiles).clamp_max(len(moments) - 1)
    single = torch.stack([*expected, entropy, moments[scores.argmax(1)], p.amax(1)], 1)
    return torch.cat([single, moments[at]], 1)


@dataclass(frozen=True)
class Question:
    """What a model is asked about each window. Answers are averaged over views of the window.

    of(model, x, features) -> (B, K). shift_s: the window also opens this much earlier and later. (A
    response time that moves one way in one view moves the other way in the other, so the average
    stays.) mirror: each view also with left and right exchanged.
    """

    of: Callable = answers
    shift_s: float = 0.0
    mirror: bool = False


def predict(
    model,
    cache,
    rows=None,
    question: Question = Question(),
    batch: int = BATCH,
    device="cpu",
    progress: Callable | None = None,
    leave_out: bool = False,
) -> np.ndarray:
    """(N, K) float64: the answers to a question about windows `rows` (all, if None) of a cache.

    The model is taken as it is in inference, whatever its mode. progress(done, total) is called
    after each batch. A window that holds NaN or infinity is named in a UserError; with leave_out
    its answer is NaN.
    """
    rows = np.arange(len(cache)) if rows is None else np.asarray(rows, np.int64)
    stored = _stored_features(model, cache, question)
    length, shift_samples = _checked(model, cache, question)
    if len(rows) == 0:
        return np.empty((0, 1))
    orders = [slice(None)]  # of the electrodes
    if question.mirror:
        orders.append(mirrored(cache.channels).astype(np.int64))
    model = eeg.models.fold(model).to(device)
    found, done = [], 0
    reader = _views(cache, rows, length, shift_samples, batch, torch.device(device))
    with torch.inference_mode(), closing(reader):
        for views in reader:
            chosen, finite = views[0].rows, np.all([view.finite for view in views], 0)
            if not finite.all() and not leave_out:
                part = cache.part_of(row := int(chosen[~finite][0]))
                again = rebuild_known(cache.paths[part], cache.attributes[part])
                raise UserError(f"{cache.damage(row)}; rebuild it with: {again}")
            features = None if stored is None else torch.from_numpy(stored[chosen]).to(device)
            xs = (torch.from_numpy(view.x) for view in views)
            said = [question.of(model, x[:, o].to(device), features) for x in xs for o in orders]
            mean = torch.stack(said).cpu().double().mean(0).numpy()
            found.append(np.where(finite[:, None], mean, np.nan))
            done += len(chosen)
            if progress:
                progress(done, len(rows))
    return np.concatenate(found)


def _stored_features(model, cache, question):
    """(N, F) float32 of the cache for a model that takes them, else None."""
    if model.features != "file":
        return None
    if question.shift_s or question.mirror:
        takes = "this model takes the stored features of each window"
        why = "a shifted or mirrored window has none"
        raise UserError(f"{takes}, and {why}; leave out --shift and --mirror")
    return cache.needed_features(model.neuro.groups)


def _checked(model, cache, question):
    """(samples the model takes, samples of a shift). Raises UserError if the cache lacks them."""
    length, shift_s = model.settings["n_times"], question.shift_s
    shift_samples = round(shift_s * cache.sfreq)
    fits_window = cache.challenge != 1 or cache.window_samples == length
    if cache.parts[0].shape[2] < length or not fits_window:
        has = f"{cache.paths[0]} has windows of {cache.window_samples} samples"
        raise UserError(f"{has}, the model takes {length}: it was made for others")
    if cache.challenge == 1 and shift_samples > cache.margin_samples:
        has = f"{cache.paths[0]} has {cache.margin_samples / cache.sfreq:g} s around its windows"
        asked, again = f"views {shift_s:g} s earlier and later", rebuild(cache, margin_s=shift_s)
        raise UserError(f"{asked} were asked for, {has}; rebuild it with: {again}")
    return length, shift_samples


def _views(cache, rows, length, shift_samples, batch, device):
    """Yields tuples of batches of the same windows: earlier, in place and later, or in place."""
    starts, last = _starts(cache), cache.parts[0].shape[2] - length
    direct, threads = not fits(rows.size * cache[0].nbytes), int(device.type == "cpu")
    with ExitStack() as stack:
        moved = []
        for move in (-shift_samples, 0, shift_samples) if shift_samples else (0,):
            cut = np.clip(starts + move, 0, last)
            reading = Reading(length, cut, direct=direct, threads=threads)
            batches = Batches(cache, rows, batch, order=Order(shuffle=False), reading=reading)
            moved.append(stack.enter_context(closing(batches.epoch(0))))
        yield from zip(*moved, strict=True)


def _starts(cache):
    """(N,) the sample, of those stored, at which each window of the cache is cut."""
    if cache.challenge == 1:
        return np.full(len(cache), cache.margin_samples)
    part = np.repeat(np.arange(len(cache.paths)), np.diff(cache.first))
    keys = np.stack([part, cache.metadata["recording"]], 1)
    _, which, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    draw = random.Random(42)
    cuts = np.array([draw.randint(0, 200) for _ in range(counts.max())])
    starts = np.empty(len(cache), np.int64)
    order = np.argsort(which, kind="stable")  # recording by recording, in each as stored
    starts[order] = np.concatenate([cuts[:n] for n in counts])
    return starts + cache.margin_samples


def load_model(path: Path, build: Callable = eeg.models.build):
    """A Model in eval mode from exported weights {"settings", "state"}. build(**settings) makes it.

    Nothing but tensors and plain values is read from the file.
    """
    unreadable = pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError
    try:
        saved = dict(torch.load(path, map_location="cpu", weights_only=True))
        settings, state = saved["settings"], saved["state"]
    except unreadable as e:
        raise _unusable(path, f"{path} cannot be read as weights", e) from None
    try:
        model = build(**settings)
        model.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as e:
        what = f"the weights in {path} do not fit the model that this version of eeg builds from "
        raise _unusable(path, what + "their settings", e) from None
    return model.eval()


def _unusable(path, what, error):
    """The UserError for weights that cannot be used: the error's first words, and what to run."""
    words = str(error).split() or [type(error).__name__]
    why = " ".join(words[:25]) + " ..." * (len(words) > 25)
    again, folder = hints.command("train", "--challenge", 1), Path(path).parent
    if (folder / "config.json").exists():
        again = Run(folder).again()
    return UserError(f"{what} ({why}); train another with: {again}")


def predict_run(run: Run, side: Side, question=Question(), progress=None) -> np.ndarray:
    """`predict` by a run's best epoch. Raises UserError where an answer is not finite."""
    p = predict(load_model(run.weights), *side.seen_by(run), question, progress=progress)
    return _finite(run, p)


def part_of(progress: Callable, number: int, count: int) -> Callable:
    """progress(done, total) of one of `count` runs on the same windows, as part of all."""
    return lambda done, total: progress(number * total + done, count * total)


def predict_validation(run: Run, side: Side) -> np.ndarray:
    """(N,) answers to a run's validation windows as training scores them.

    Those of challenge 2 are shrunk, and those of a blend weighed, by what fits other subjects.
    """
    model = load_model(run.weights)
    center = float(model.center[0])
    if model.ridge is not None or run.challenge == 2:
        model.shrink.fill_(1)
    p = _finite(run, predict(model, *side.seen_by(run), Question(of=parts)))
    if model.ridge is not None:
        return center + blend.cross_fitted(p, side.y - center, side.subjects, run.challenge)
    if run.challenge == 1:
        return center + p[:, 0]
    return blend.cross_shrunk(center + p[:, 0], side.y, side.subjects, center)


def _finite(run, p):
    if bad := int((~np.isfinite(p).all(1)).sum()):
        what = f"{run.name} answers NaN or infinity for {bad} of {len(p)} windows"
        raise UserError(f"{what}; its weights are of no use, train another with: {run.again()}")
    return p
