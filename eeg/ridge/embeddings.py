"""Embeddings of windows: computed once by an encoder and kept in the cache, as `embeddings`.

They are those of an encoder, whose weights are their identity: a ridge that asks for another one's
computes its own.
"""

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import torch

from eeg import UserError, files
from eeg.data import features
from eeg.data.batches import Batches, Order, Reading
from eeg.data.build import partial_file
from eeg.data.cache import Cache
from eeg.data.windows import INPUT, check_electrodes
from eeg.machine.memory import fits
from eeg.models import SETTINGS, network
from eeg.models.transformer import Embedding

NAME = "embeddings"  # of the dataset
BATCH = 64  # windows


def crops_of(cache: Cache) -> tuple[int, ...]:
    """The stored samples at which each window is cut. Challenge 2's windows overlap by half:
    cutting each at its start and 1 s later cuts the recording every second."""
    first = cache.margin_samples
    return (first,) if cache.challenge == 1 else (first, first + INPUT // 2)


def identity(embedding: Embedding) -> str:
    """A digest of the encoder's weights and of how it normalises its input."""
    seen = hashlib.sha256(embedding.normalize.kind.encode())
    for name, tensor in sorted(embedding.state_dict().items()):
        seen.update(name.encode())
        seen.update(tensor.contiguous().numpy().tobytes())
    return seen.hexdigest()


def embedding_of(run) -> Embedding:
    """The encoder of a finished run, pretrained or trained. Raises UserError where it has none."""
    saved = torch.load(run.weights, map_location="cpu", weights_only=True)
    found = Embedding(**encoder_settings(run))
    own = found.network.state_dict()
    state = {name: saved["state"].get(f"network.{name}") for name in own}
    if missing := [name for name, tensor in state.items() if tensor is None]:
        raise UserError(
            f"{run.name} has no tensor {missing[0]} of one encoder: embeddings are those of a run "
            "of run/pretrain.py, or of one trained with --members 1"
        )
    found.network.load_state_dict(state)
    return found


def encoder_settings(run) -> dict:
    """What makes the Embedding of a run."""
    model = run.config["model"]
    known = {*SETTINGS[model["name"]], "name", "normalize", "n_chans", "n_times"} - {"head"}
    if not hasattr(network(model["name"]), "stages"):
        raise UserError(f"{run.name} is a {model['name']}, which has no encoder")
    if run.align != "none":
        what = f"{run.name} was trained with --align {run.align}"
        raise UserError(f"{what}, and embeddings are those of windows as they are; name another")
    return {name: value for name, value in model.items() if name in known}


def compute(
    embedding: Embedding, cache: Cache, threads: int = 0, progress: Callable | None = None
) -> np.ndarray:
    """(N, crops, size) float32; NaN where a window is not finite. progress(done, total, bytes)"""
    crops = crops_of(cache)
    found = np.empty((len(cache), len(crops), embedding.size), np.float32)
    first, direct = np.full(len(cache), crops[0]), not fits(len(cache) * cache[0].nbytes)
    reading = Reading(crops[-1] - crops[0] + INPUT, first, direct=direct, threads=threads)
    reader = Batches(cache, None, BATCH, order=Order(shuffle=False), reading=reading)
    with torch.inference_mode(), closing(reader.epoch(0)) as batches:
        for batch in batches:
            for number, crop in enumerate(crops):
                at = crop - crops[0]
                made = embedding(torch.from_numpy(batch.x[:, :, at : at + INPUT])).numpy()
                made[~batch.finite] = np.nan
                found[batch.rows, number] = made
            if progress:
                progress(int(batch.rows[-1]) + 1, len(cache), batch.x.nbytes)
    return found


def add(path: Path, embedding: Embedding, run: str, force=False, progress=None) -> bool:
    """Add the embeddings of a cache's windows to it. -> False where it has them. Raises UserError
    where the file cannot be written."""
    cache, name = Cache(path), identity(embedding)
    check_electrodes(embedding, path, cache.channels)
    cache_fingerprint = cache.attributes[0]["fingerprint"]
    fingerprint = hashlib.sha256(f"{name} {cache_fingerprint}".encode()).hexdigest()
    with partial_file(path.with_name(f"{path.name}.{NAME}")) as partial:
        if not force and about(path).get("fingerprint") == fingerprint:
            return False
        with features.opened(path) as file:
            values = compute(embedding, cache, progress=progress)
            known = {"fingerprint": fingerprint, "encoder": name, "run": run}
            with files.writing(path, "--cache DIR", values.nbytes):
                features.publish(path, file.fileno(), partial, NAME, values, known)
    return True


def about(path: Path) -> dict:
    """The attributes of a cache's embeddings, {} where it has none."""
    with h5py.File(path, "r", locking=False) as f:
        return dict(f[NAME].attrs) if NAME in f else {}


def stored(cache: Cache, embedding: Embedding) -> np.ndarray | None:
    """(N, crops, size) as this encoder has made them, None where a file of the cache has none or
    those of another."""
    name = identity(embedding)
    if any(about(path).get("encoder") != name for path in cache.paths):
        return None
    parts = []
    for path in cache.paths:
        with h5py.File(path, "r", locking=False) as f:
            parts.append(f[NAME][()])
    return np.concatenate(parts)
