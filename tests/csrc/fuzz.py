"""Calls every binding with what nobody should pass; finds by crashing, under the sanitizers.

    python -m tests.csrc.fuzz [CALLS] [FIRST]

A call is a good one of which up to three arguments are spoilt: another type, shape, stride, byte
order or address, an array that is another argument too, a number that is out of range. It must
return or raise; what lies around its arrays must stay as it was. Call i depends on i alone, and
stands in the file fuzz.last: FIRST repeats it. The bindings are those that `_native` lists: one
without a good call here is an error.
"""

import inspect
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from eeg import _native
from tests.conftest import bdf_bytes

RAISED = (TypeError, ValueError, IndexError, OSError, OverflowError, MemoryError)
GUARD_BYTES = 64
GUARDED = []  # the guards before and behind each array of a call
INTEGERS = [-(2**63), -(2**31) - 1, -2, -1, 0, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**62, 2**64]
FLOATS = [0.0, -0.0, 1e-45, 1e-30, -1.0, 0.5, 1.0, 1e30, -1e38, np.inf, -np.inf, np.nan]
TYPES = "bool uint8 int16 uint16 int32 uint32 int64 float16 float32 float64 complex64 >f4 >i4 O"


def placed(like, rng, aligned=True):
    """A copy of an array between guards, at an odd address if it need not be aligned."""
    if like.dtype.hasobject:
        return like
    before = GUARD_BYTES + (0 if aligned else int(rng.integers(1, 8)))
    room = np.full(like.nbytes + before + GUARD_BYTES, 0xA5, np.uint8)
    view = room[before : before + like.nbytes].view(like.dtype).reshape(like.shape)
    view[...] = like
    GUARDED.append((room[:before], room[before + like.nbytes :]))
    return view


def guards_stand():
    return all((guard == 0xA5).all() for both in GUARDED for guard in both)


def floats(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    if rng.random() < 0.2 and x.size:
        x.ravel()[rng.integers(0, x.size)] = rng.choice(FLOATS)
    return x


def samples(rng, *shape):
    x = floats(rng, *shape)
    if rng.random() < 0.5:
        return x
    with np.errstate(over="ignore"):
        return x.astype(np.float16).view(np.uint16)


def indices(rng, count, size, dtype=np.int32):
    return rng.integers(0, max(count, 1), size).astype(dtype)


# ---------------------------------------------------------------------- a good call of each


def augment(rng, files):
    strengths = {name: float(rng.random() / 2) for name in _native.AUGMENTATIONS}
    strengths = {name: value for name, value in strengths.items() if rng.random() < 0.5}
    return strengths | {"seed": int(rng.integers(0, 2**32)), "epoch": int(rng.integers(0, 2**32))}


def gather(rng, files):
    B, C, T, margin = (int(n) for n in rng.integers((0, 1, 1, 0), (5, 9, 40, 5)))
    N, S = int(rng.integers(1, 5)), T + 2 * margin
    strengths = {
        "noise": 0.1,
        "mask": 0.3,
        "mirror": 0.5,
        "mix": 0.3,
        "shift": margin,
        "scale": 0.1,
    }
    parts = [samples(rng, N, C, S) for _ in range(rng.integers(1, 3))]
    return {
        "parts": parts,
        "part": indices(rng, len(parts), B),
        "row": indices(rng, N, B, np.int64),
        "offset": np.full(B, margin, np.int32),
        "window": indices(rng, 1000, B, np.int64),
        "mirror": indices(rng, C, C),
        "out": np.zeros((B, C, T), np.float32),
        "shift": np.zeros(B, np.int32),
        "mix": np.zeros(B, np.float32),
        "zscore": bool(rng.random() < 0.5),
        "augment": _native.Augment(**(strengths if rng.random() < 0.5 else {})),
        "threads": int(rng.integers(0, 4)),
    }


def activations(rng, *shape):
    x = floats(rng, *shape)
    return x if rng.random() < 0.5 else (x.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16


def depthwise(rng):
    B, T, C, half = (int(n) for n in rng.integers((0, 1, 1, 0), (4, 40, 36, 9)))
    x, weight = activations(rng, B, T, C), floats(rng, C, 2 * half + 1)
    return {"x": x, "weight": weight, "dilation": int(rng.integers(1, 9)), "threads": 1}


def depthwise_forward(rng, files):
    call = depthwise(rng)
    bias = floats(rng, call["x"].shape[2]) if rng.random() < 0.5 else None
    return call | {"bias": bias, "y": np.zeros_like(call["x"])}


def some(rng, **arrays):
    return {name: value if rng.random() < 0.7 else None for name, value in arrays.items()}


def depthwise_backward(rng, files):
    call = depthwise(rng)
    x, weight = call["x"], call["weight"]
    made = {"gx": np.zeros_like(x), "gw": np.zeros_like(weight), "gb": np.zeros_like(weight[:, 0])}
    return call | {"gy": x[::-1].copy()} | some(rng, **made)


def norm(rng):
    B, T, C = (int(n) for n in rng.integers(1, (4, 30, 36)))
    z, names = activations(rng, B, T, C), ("gain", "bias", "mean", "variance")
    call = {"z": z, "eps": 1e-5, "threads": int(rng.integers(0, 3))}
    return call | {name: floats(rng, C) for name in names} | some(rng, mask=floats(rng, B, C))


def norm_forward(rng, files):
    call = norm(rng)
    z = call["z"]
    return call | {"y": np.zeros_like(z)} | some(rng, residual=z[::-1].copy())


def norm_backward(rng, files):
    call = norm(rng)
    z, C = call["z"], call["z"].shape[2]
    sums = {"ggain": np.zeros(C, np.float32), "gbias": np.zeros(C, np.float32)}
    return call | {"gy": z[::-1].copy(), "gz": np.zeros_like(z)} | sums


def windows(rng, shape_of_out):
    N, C, T, first = (int(n) for n in rng.integers((0, 1, 1, 0), (4, 20, 60, 5)))
    X = samples(rng, N, C, T + first + int(rng.integers(0, 3)))
    out = np.zeros(shape_of_out(N, C), np.float32)
    return {"X": X, "first": first, "T": T, "out": out, "threads": int(rng.integers(0, 3))}


def window_features(rng, files):
    call = windows(rng, lambda N, C: (N, len(_native.FEATURES)))
    C, M = call["X"].shape[1], int(rng.integers(1, 9))
    sizes = rng.integers(1, 4, 5).astype(np.int32)
    lists = {"chosen": indices(rng, C, M), "members": indices(rng, M, sizes.sum()), "sizes": sizes}
    return call | lists


def channel_features(rng, files):
    return windows(rng, lambda N, C: (N, C, 10))


def lagged_correlations(rng, files):
    n = int(rng.integers(0, 4))
    return windows(rng, lambda N, C: (N, n, 4)) | {"lags": indices(rng, 50, n)}


def md5(rng, files):
    n = int(rng.integers(0, 12))
    which, offset = indices(rng, 2, n), indices(rng, 3000, n, np.int64)
    pieces = {"which": which, "offset": offset, "bytes": indices(rng, 3000, n, np.int64)}
    return {"paths": files["plain"], "out": np.zeros((n, 16), np.uint8)} | pieces


def bdf(rng, files):
    return {"path": files["bdf"]}


def bdf_read(rng, files):
    n, T = int(rng.integers(0, 4)), int(rng.integers(1, 60))
    out = np.zeros((n, 2, T), np.float32 if rng.random() < 0.5 else np.uint16)
    starts = rng.integers(1 - T, 300, n)
    return {
        "self": files["recording"],
        "starts": starts,
        "channels": indices(rng, 3, 2),
        "out": out,
    }


def direct_files(rng, files):
    return {"paths": files["plain"], "most": int(rng.integers(1, 5))}


def direct_read(rng, files):
    n = int(rng.integers(0, 5))
    room = np.zeros(n * 4096 + 4096, np.uint8)
    skip = -room.ctypes.data % 4096
    return {
        "self": files["direct"],
        "which": indices(rng, 2, n),
        "offset": 4096 * indices(rng, 3, n, np.int64),
        "bytes": np.full(n, 4096, np.int64),
        "out": room[skip : skip + n * 4096].reshape(n, 4096),
        "got": np.zeros(n, np.int64),
    }


GOOD = {
    "Augment": augment,
    "Bdf": bdf,
    "Bdf.read": bdf_read,
    "DirectFiles": direct_files,
    "DirectFiles.read": direct_read,
    "channel_features": channel_features,
    "depthwise_backward": depthwise_backward,
    "depthwise_forward": depthwise_forward,
    "gather": gather,
    "lagged_correlations": lagged_correlations,
    "md5": md5,
    "norm_backward": norm_backward,
    "norm_forward": norm_forward,
    "window_features": window_features,
}


def bindings():
    """What `_native` offers to be called, methods behind their class: name -> function."""
    found = {}
    for name, thing in vars(_native).items():
        if name.startswith("_") or not callable(thing):
            continue
        found[name] = thing
        if inspect.isclass(thing):
            methods = {f"{name}.{m}": f for m, f in vars(thing).items() if not m.startswith("_")}
            found |= {m: f for m, f in methods.items() if callable(f)}
    return found


# ---------------------------------------------------------------------- spoiling


def another_number(value, rng):
    if isinstance(value, bool) or rng.random() < 0.1:
        return rng.choice([None, "x", 0.5, 2], 1).item()
    if isinstance(value, float):
        return float(rng.choice(FLOATS))
    return value + int(rng.integers(-2, 3)) if rng.random() < 0.4 else INTEGERS[rng.integers(14)]


def another_value(array, rng):
    if array.size and array.dtype.kind in "iuf" and array.flags.writeable:
        limits = FLOATS if array.dtype.kind == "f" else [v for v in INTEGERS if abs(v) < 2**63]
        place = rng.integers(0, array.size)
        with np.errstate(all="ignore"):
            array.flat[place] = np.array(limits[rng.integers(len(limits))]).astype(array.dtype)
    return array


def another_shape(array, rng):
    shape = list(array.shape)
    if not shape or rng.random() < 0.2:
        return array[None] if rng.random() < 0.5 else array.ravel()
    axis = int(rng.integers(0, len(shape)))
    shape[axis] = max(0, shape[axis] + int(rng.choice([-shape[axis], -1, 1, 5])))
    return placed(np.resize(array, shape), rng) if array.size else np.zeros(shape, array.dtype)


def another_stride(array, rng):
    kind = rng.integers(0, 4)
    if kind == 0:
        return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
    if kind == 1:
        return np.asfortranarray(array)
    if kind == 2:
        return array[::-1] if array.ndim else array
    return np.broadcast_to(array.ravel()[:1], array.shape) if array.size else array


def another_array(array, rng, others):
    kind = rng.integers(0, 8)
    if kind == 0:
        with np.errstate(all="ignore"):
            whole = array.astype(float) if array.dtype.hasobject else array  # objects do not wrap
            return whole.astype(TYPES.split()[rng.integers(0, len(TYPES.split()))])
    if kind == 1:
        return another_shape(array, rng)
    if kind == 2:
        return another_stride(array, rng)
    if kind == 3:
        return placed(array, rng, aligned=False)
    if kind == 4 and others:  # the same memory twice, perhaps with its own shape
        other = others[rng.integers(0, len(others))]
        hasobject = other.dtype.hasobject or array.dtype.hasobject
        small = other.flags.c_contiguous and other.nbytes >= array.nbytes > 0
        if small and not hasobject and rng.random() < 0.8:
            return (
                other.reshape(-1)
                .view(np.uint8)[: array.nbytes]
                .view(array.dtype)
                .reshape(array.shape)
            )
        return other
    if kind == 5:
        array.flags.writeable = False
        return array
    if kind == 6:
        return [None, 3, "text", array.tolist()][rng.integers(0, 4)]
    return another_value(array, rng)


def another(value, rng, others):
    if isinstance(value, np.ndarray):
        return another_array(value, rng, others)
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = int(rng.integers(0, len(value)))
        return value[:place] + [another(value[place], rng, others)] + value[place + 1 :]
    if isinstance(value, (str, bytes)):
        return [value + value[:1], value[:0], b"\0", b"/", None, 3][rng.integers(0, 6)]
    if isinstance(value, (bool, int, float)):
        return another_number(value, rng)
    return value


def spoilt(call, rng):
    call = {
        k: placed(v, rng) if isinstance(v, np.ndarray) and k != "out" else v
        for k, v in call.items()
    }
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        name = list(call)[rng.integers(0, len(call))]
        others = [v for k, v in call.items() if isinstance(v, np.ndarray) and k != name]
        if name != "self":
            call[name] = another(call[name], rng, others)
    return call


def prepared(folder):
    """Files to read: two plain ones, a BDF, and the objects that have them open."""
    rng = np.random.default_rng(0)
    paths = [folder / "a", folder / "b"]
    for path in paths:
        path.write_bytes(rng.bytes(16384))
    (folder / "x.bdf").write_bytes(bdf_bytes(rng.integers(-(2**23), 2**23, (3, 300))))
    files = {"plain": [os.fsencode(path) for path in paths], "bdf": os.fsencode(folder / "x.bdf")}
    files["recording"] = _native.Bdf(files["bdf"])
    files["direct"] = _native.DirectFiles(files["plain"], 4)
    return files


def run(calls, first=0, last_path=None):
    """-> how often each binding returned, and how often it raised"""
    functions = bindings()
    missing = sorted(set(functions) ^ set(GOOD))
    if missing:
        sys.exit(f"error: tests/csrc/fuzz.py and the extension disagree about {', '.join(missing)}")
    names, outcome = sorted(functions), Counter()
    with tempfile.TemporaryDirectory(dir=".") as folder, open(last_path or os.devnull, "w") as last:
        files = prepared(Path(folder))
        for i in range(first, first + calls):
            os.pwrite(last.fileno(), f"{i:12d}\n".encode(), 0) if last_path else None
            GUARDED.clear()
            rng = np.random.default_rng(i)
            name = names[rng.integers(0, len(names))]
            call = spoilt(GOOD[name](rng, files), rng)
            mine = [call.pop("self")] if "self" in call else []
            try:
                functions[name](*mine, **call)
                outcome[name, "returned"] += 1
            except RAISED:
                outcome[name, "raised"] += 1
            if not guards_stand():
                sys.exit(f"error: call {i}, {name}, wrote beyond an array")
    return outcome


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    counted = run(asked, int(sys.argv[2]) if len(sys.argv) > 2 else 0, "fuzz.last")
    for name in sorted(GOOD):
        print(
            f"{name:20} {counted[name, 'returned']:7} returned {counted[name, 'raised']:7} raised"
        )
    print(f"{asked} calls")
