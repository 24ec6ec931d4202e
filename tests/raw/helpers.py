"""Small raw recordings written here, by other code than the project's: EEGLAB, EDF, BrainVision."""

import h5py
import numpy as np
import scipy.io

from tests.conftest import LABELS, trial_events, write_participants


def eeg(seconds=20, sfreq=500, channels=129, seed=0):
    """(channels, samples) microvolts: noise, slow drift, electrode offsets and the mains; Cz 0."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sfreq)
    t = np.arange(n) / sfreq
    x = 15 * rng.standard_normal((channels, n)) + 30 * np.sin(2 * np.pi * 60 * t + 1)
    x += rng.uniform(-3000, 3000, (channels, 1)) + 50 * np.sin(2 * np.pi * 0.1 * t)
    x[-1] = 0
    return x.astype(np.float32)


def write_set(path, x, sfreq=500, kind="fdt", names=LABELS, **changed):
    """An EEGLAB file. kind: fdt beside it, struct, fields (as since 2021), or hdf5 (MATLAB 7.3)."""
    x = np.asarray(x, "<f4")
    places = np.zeros(len(x), [("labels", object)])
    places["labels"] = names[: len(x)]
    fields = {
        "nbchan": float(len(x)),
        "pnts": float(x.shape[1]),
        "trials": 1.0,
        "srate": float(sfreq),
        "xmin": 0.0,
        "xmax": (x.shape[1] - 1) / sfreq,
        "ref": "Cz",
        "chanlocs": places,
        "data": x,
        **{name: np.zeros((0, 0)) for name in ("event", "icawinv", "icasphere", "icaweights")},
    }
    if kind == "hdf5":
        return _write_hdf5(path, fields | changed)
    if kind == "fdt":
        x.T.tofile(path.with_suffix(".fdt"))
        fields["data"] = path.with_suffix(".fdt").name
    fields |= changed
    scipy.io.savemat(path, fields if kind == "fields" else {"EEG": fields}, appendmat=False)


def _write_hdf5(path, fields):
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("EEG")
        for name in ("nbchan", "pnts", "trials", "srate"):
            group[name] = np.array([[fields[name]]])
        group["data"] = fields["data"].T
        labels = [list(map(ord, str(name))) for name in fields["chanlocs"]["labels"]]
        texts = [file.create_dataset(f"#refs#/{i}", data=np.array([t], "u2").T)
                 for i, t in enumerate(labels)]  # fmt: skip
        references = np.array([[text.ref] for text in texts], h5py.ref_dtype)
        group.create_dataset("chanlocs/labels", data=references)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124))


def write_edf(path, x, sfreq=500, names=LABELS, top=4000.0):
    """A 16-bit EDF in records of 1 s. -> the microvolts that it holds."""
    C, n = x.shape
    fit = lambda values, width: b"".join(str(v).ljust(width)[:width].encode() for v in values)
    head = fit(["0"], 8) + fit(["X X X X", "Startdate X X X X"], 80) + b"01.01.1500.00.00"
    head += fit([256 * (C + 1)], 8) + fit([""], 44) + fit([n // sfreq, 1], 8) + fit([C], 4)
    head += fit(names[:C], 16) + fit([""] * C, 80) + fit(["uV"] * C, 8)
    head += fit([-top] * C, 8) + fit([top] * C, 8) + fit([-32767] * C, 8) + fit([32767] * C, 8)
    head += fit([""] * C, 80) + fit([sfreq] * C, 8) + fit([""] * C, 32)
    steps = np.clip(np.rint(x * (32767 / top)), -32767, 32767).astype("<i2")
    records = steps[:, : n // sfreq * sfreq].reshape(C, -1, sfreq).transpose(1, 0, 2)
    path.write_bytes(head + np.ascontiguousarray(records).tobytes())


def write_brainvision(path, x, sfreq=500, names=LABELS, format="IEEE_FLOAT_32", step=0.2):
    """A .vhdr with .vmrk and .eeg beside it."""
    kind, scale = {"IEEE_FLOAT_32": ("<f4", 1), "INT_16": ("<i2", step)}[format]
    lines = ["Brain Vision Data Exchange Header File Version 1.0", "", "[Common Infos]"]
    lines += ["Codepage=UTF-8", f"DataFile={path.stem}.eeg", f"MarkerFile={path.stem}.vmrk"]
    lines += ["DataFormat=BINARY", "DataOrientation=MULTIPLEXED", f"NumberOfChannels={len(x)}"]
    lines += [f"SamplingInterval={1e6 / sfreq:g}", "", "[Binary Infos]", f"BinaryFormat={format}"]
    lines += ["", "[Channel Infos]"]
    lines += [f"Ch{i}={name},,{scale},µV" for i, name in enumerate(names[: len(x)], 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = ["Brain Vision Data Exchange Marker File, Version 1.0", "", "[Common Infos]"]
    marks += [f"DataFile={path.stem}.eeg", "", "[Marker Infos]", "Mk1=New Segment,,1,1,0"]
    path.with_suffix(".vmrk").write_text("\n".join(marks) + "\n", encoding="utf-8")
    values = x.T / scale
    (np.rint(values) if kind == "<i2" else values).astype(kind).tofile(path.with_suffix(".eeg"))


def write_release(folder, subjects=2, seconds=40, sfreq=500, ending="set"):
    """cmi_bids_R1 with one run of 6 trials a subject. -> the names of the subjects."""
    names = [f"NDAR{chr(65 + i) * 2}00{i}AAA" for i in range(subjects)]
    write_participants(folder, names)
    writers = {"set": write_set, "edf": write_edf, "vhdr": write_brainvision}
    for seed, name in enumerate(names):
        place = folder / f"sub-{name}" / "eeg"
        place.mkdir(parents=True)
        stem = f"sub-{name}_task-contrastChangeDetection_run-1"
        writers[ending](place / f"{stem}_eeg.{ending}", eeg(seconds, sfreq, seed=seed), sfreq)
        (place / f"{stem}_events.tsv").write_text(trial_events())
        rows = [f"{label}\tEEG\tuV\tgood" for label in LABELS]
        text = "\n".join(["name\ttype\tunits\tstatus", *rows]) + "\n"
        (place / f"{stem}_channels.tsv").write_text(text)
    return names
