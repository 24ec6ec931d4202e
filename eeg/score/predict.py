"""Predictions over a cache, in the competition's way: every window, copies and fast time line included.

Challenge 1 takes the window itself. Challenge 2 stores 4 s windows of which 2 s are scored: a recording's i-th window is cut
at the i-th randint(0, 200) of Python's random.Random(42), begun anew for every recording.

Windows are read a batch at a time, ahead of the model: memory does not grow with the release.
"""

import random
from contextlib import ExitStack, closing

import numpy as np
import torch

import eeg.models
from eeg import UserError
from eeg.data.augment import mirrored
from eeg.data.batches import Batches
from eeg.data.rebuild import rebuild, rebuild_known
from eeg.machine.memory import fits

BATCH = 64
TEMPERATURES = (0.5, 1.0, 2.0, 4.0)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
TIME_STATISTICS = (
    tuple(f"soft-argmax, temperature {t:g}" for t in TEMPERATURES)
    + ("entropy", "peak", "score of the peak")
    + tuple(f"quantile {q:g}" for q in QUANTILES)
)


def answers(model, x, features):
    """(B, 1): what the model answers."""
    return model(x, features)[:, :1]


def all_answers(model, x, features):
    """(B, n_outputs): all that the model answers."""
    return model(x, features)


def answers_and_times(model, x, features):
    """(B, 1 + 12): what the model answers, then TIME_STATISTICS where it has a time head."""
    raw = model.raw(x, features)
    answer = model.answer(raw)[:, :1]
    return (
        torch.cat([answer, time_statistics(raw, model.moments)], 1)
        if model.head == "time"
        else answer
    )


def time_statistics(scores, moments):
    """(B, 12): TIME_STATISTICS of the scores (B, T) that a time head gives the moments (T,) of a window; times in s, entropy in nats."""
    p = scores.softmax(1)
    expected = [(scores / t).softmax(1) @ moments for t in TEMPERATURES]
    entropy = -(p * p.clamp_min(1e-30).log()).sum(1)
    at = torch.searchsorted(
        p.cumsum(1), p.new_tensor(QUANTILES).expand(len(p), -1).contiguous()
    ).clamp_max(len(moments) - 1)
    return torch.cat(
        [torch.stack([*expected, entropy, moments[scores.argmax(1)], p.amax(1)], 1), moments[at]], 1
    )


def predict(
    model,
    cache,
    rows=None,
    of=answers,
    shift=0.0,
    mirror=False,
    batch=BATCH,
    device="cpu",
    progress=None,
    leave_out=False,
):
    """What `of` says of windows `rows` (all, if None) of a cache: (N, K) float64. The model is taken as it is in inference, whatever its mode.

    Test-time augmentation averages over views of the same window: opened `shift` s earlier and later too (a time that moves one
    way in one of them moves the other way in the other, and the average stays), and with left and right exchanged too.
    progress(done, total) is called after each batch. A window that holds NaN or infinity is named in a UserError; with leave_out NaN is said of it.
    """
    rows = np.arange(len(cache)) if rows is None else np.asarray(rows, np.int64)
    length, step = model.settings["n_times"], round(shift * cache.sfreq)
    features = _features(model, cache, shift or mirror)
    starts, last = _starts(cache), cache.parts[0].shape[2] - length
    if last < 0 or cache.challenge == 1 and cache.window_samples != length:
        raise UserError(
            f"{cache.paths[0]} has windows of {cache.window_samples} samples, the model takes {length}: it was made for others"
        )
    if cache.challenge == 1 and step > cache.margin_samples:
        raise UserError(
            f"views {shift:g} s earlier and later were asked for, {cache.paths[0]} has {cache.margin_samples / cache.sfreq:g} s around its windows; rebuild it with: {rebuild(cache, margin_s=shift)}"
        )
    if len(rows) == 0:
        return np.empty((0, 1))
    moves = (-step, 0, step) if step else (0,)
    order = torch.from_numpy(mirrored(cache.channels).astype(np.int64))
    model = eeg.models.fold(model).to(device)
    found, done = [], 0
    with torch.inference_mode(), ExitStack() as stack:
        how = {
            "shuffle": False,
            "direct": not fits(rows.size * cache[0].nbytes),
            "threads": int(torch.device(device).type == "cpu"),
        }
        moved = [
            Batches(
                cache, rows, batch, length=length, starts=np.clip(starts + move, 0, last), **how
            )
            for move in moves
        ]
        for same in zip(
            *(stack.enter_context(closing(batches.epoch(0))) for batches in moved), strict=True
        ):
            chosen, finite = same[0].rows, np.all([one.finite for one in same], 0)
            if not finite.all() and not leave_out:
                first = int(chosen[~finite][0])
                part = np.searchsorted(cache.first, first, "right") - 1
                raise UserError(
                    f"{cache.damage(first)}; rebuild it with: {rebuild_known(cache.paths[part], cache.attributes[part])}"
                )
            given = None if features is None else torch.from_numpy(features[chosen]).to(device)
            views = []
            for x in (torch.from_numpy(one.x) for one in same):
                views.append(of(model, x.to(device), given))
                if mirror:
                    views.append(of(model, x[:, order].to(device), given))
            found.append(
                np.where(finite[:, None], torch.stack(views).cpu().double().mean(0).numpy(), np.nan)
            )
            done += len(chosen)
            if progress:
                progress(done, len(rows))
    return np.concatenate(found)


def _features(model, cache, views):
    """(N, F) float32 of the cache for a model that takes them, else None."""
    if model.features != "file":
        return None
    if views:
        raise UserError(
            "this model takes the stored features of each window, and there are none of a shifted or mirrored one; leave out --shift and --mirror"
        )
    return cache.needed_features()


def _starts(cache):
    """(N,) the sample, of those stored, at which each window of the cache is cut."""
    if cache.challenge == 1:
        return np.full(len(cache), cache.margin_samples)
    starts = np.empty(len(cache), np.int64)
    keys = np.stack(
        [np.repeat(np.arange(len(cache.paths)), np.diff(cache.first)), cache.metadata["recording"]],
        1,
    )
    _, which, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    draw = random.Random(42)
    cuts = np.array([draw.randint(0, 200) for _ in range(counts.max())])
    order = np.argsort(which, kind="stable")  # recording by recording, in each as stored
    starts[order] = np.concatenate([cuts[:n] for n in counts])
    return starts + cache.margin_samples
