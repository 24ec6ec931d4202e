"""What the tests share: small BDF files and releases written here, by other code than the
project's, and the real metadata.
"""

import importlib.util
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from eeg.data.build import Settings, build
from eeg.data.features import add
from eeg.data.release import find_release
from eeg.synth.release import simulate_release


@pytest.fixture(autouse=True)
def no_command_line():
    """A test is no command of a user: what an earlier one said of folders is forgotten."""
    from eeg import hints

    hints.given.clear()
    hints.places.clear()


LABELS = [f"E{i}" for i in range(1, 129)] + ["Cz"]
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_configure():
    """Signals that whoever started the tests has ignored (nohup, a shell's &) are heeded: tests
    send them to themselves and to children.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def hbn():
    """Real events and participants of HBN-EEG (no signals), where they lie beside the project."""
    if not (SHARED / "hbn").is_dir():
        pytest.skip(
            "no real HBN metadata beside the project (shared/hbn); tests/fixtures/odd_release.py "
            "has its oddities"
        )
    return SHARED / "hbn"


@pytest.fixture(scope="session")
def eeg_files():
    """A few small real BDF and EEGLAB recordings from MNE's testing data."""
    if not (SHARED / "eeg_files").is_dir():
        pytest.skip("no real recordings beside the project (shared/eeg_files)")
    return SHARED / "eeg_files"


@pytest.fixture(scope="session")
def odd_release(tmp_path_factory):
    """A release written by tests that has what is odd in real ones (tests/fixtures/odd_release.py):
    its folder.
    """
    from tests.fixtures.odd_release import write_release

    return write_release(tmp_path_factory.mktemp("odd"))


def bdf_bytes(
    digital,
    labels=None,
    record=100,
    seconds="1",
    physical=(-5000, 5000),
    digital_range=(-8388608, 8388607),
    unit="uV",
    records=None,
    samples=None,
):
    """A BDF file as bytes. digital (S, N) integers; everything in the header can be wrong."""
    digital = np.asarray(digital)
    labels = labels or LABELS[: len(digital)]
    S, R = len(digital), digital.shape[1] // record
    fit = lambda text, width: str(text).ljust(width)[:width].encode("latin-1")
    per = lambda value: value if isinstance(value, list) else [value] * S
    head = (
        b"\xffBIOSEMI"
        + fit("X X X X", 80)
        + fit("Startdate X", 80)
        + b"01.01.2015.00.00"[:8]
        + b"00.00.00"
    )
    head = (
        head[:176]
        + b"00.00.00"
        + fit(256 * (S + 1), 8)
        + fit("24BIT", 44)
        + fit(R if records is None else records, 8)
        + fit(seconds, 8)
        + fit(S, 4)
    )
    columns = [
        (labels, 16),
        (per(""), 80),
        (per(unit), 8),
        (per(physical[0]), 8),
        (per(physical[1]), 8),
        (per(digital_range[0]), 8),
        (per(digital_range[1]), 8),
    ]
    columns += [(per(""), 80), (per(record if samples is None else samples), 8), (per(""), 32)]
    head += b"".join(fit(v, width) for values, width in columns for v in values)
    blocks = digital[:, : R * record].reshape(S, R, record).transpose(1, 0, 2).astype("<i4")
    return head + np.ascontiguousarray(blocks).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


EVENTS = "onset\tduration\tvalue\tevent_code\tfeedback\n"


def trial_events(n=6, first=2.0, rt=1.5):
    """The text of an events.tsv with n good trials (and the start of one more) of 5.2 s."""
    text = EVENTS + "0\tn/a\tbreak cnt\tbreak cnt\tn/a\n"
    for i in range(n):
        t = first + 5.2 * i
        text += (
            f"{t:.3f}\tn/a\tcontrastTrial_start\t5\tn/a\n{t + 2.8:.3f}\tn/a\tleft_target\t8\tn/a\n"
        )
        text += f"{t + 2.8 + rt + 0.01 * i:.3f}\tn/a\tleft_buttonPress\t12\tsmiley_face\n"
    return text + f"{first + 5.2 * n:.3f}\tn/a\tcontrastTrial_start\t5\tn/a\n"


def write_recording(
    folder,
    subject,
    events,
    digital=None,
    run=1,
    seconds=40,
    seed=0,
    task="contrastChangeDetection",
    **header,
):
    """One recording of a release: a BDF of noise (Cz zero) and its events. -> the BDF's path."""
    eeg = folder / f"sub-{subject}" / "eeg"
    eeg.mkdir(parents=True, exist_ok=True)
    if digital is None:
        digital = np.random.default_rng(seed).integers(-30000, 30000, (129, 100 * seconds))
        digital[128] = 0
    stem = f"sub-{subject}_task-{task}" + (f"_run-{run}" if run else "")
    (eeg / f"{stem}_eeg.bdf").write_bytes(
        digital if isinstance(digital, bytes) else bdf_bytes(digital, **header)
    )
    if events is not None:
        (eeg / f"{stem}_events.tsv").write_text(events)
    return eeg / f"{stem}_eeg.bdf"


def write_participants(folder, subjects, externalizing="0.5"):
    columns = [
        "participant_id",
        "sex",
        "age",
        "p_factor",
        "attention",
        "internalizing",
        "externalizing",
    ]
    rows = [
        "\t".join([f"sub-{s}", "M", "9.5", "0.1", "0.2", "0.3", str(externalizing)])
        for s in subjects
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "participants.tsv").write_text("\n".join(["\t".join(columns), *rows]) + "\n")


@pytest.fixture
def release_folder(tmp_path):
    """data/R1_L100_bdf with two subjects of 6 valid trials each. -> its path."""
    folder = tmp_path / "data" / "R1_L100_bdf"
    write_participants(folder, ["NDARAA001AAA", "NDARBB002BBB"])
    write_recording(folder, "NDARAA001AAA", trial_events(), seed=1)
    write_recording(folder, "NDARBB002BBB", trial_events(rt=1.2), seed=2)
    return folder


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """The folder with caches of both challenges of simulated R1 (6 subjects) and R5 (3); challenge
    1 with 0.1 s margin and features.
    """
    root = tmp_path_factory.mktemp("train")
    for name, subjects in (("R1", 6), ("R5", 3)):
        simulate_release(root / "data", name, subjects, world="easy", runs=1, seed=1)
        for challenge in (1, 2):
            path = build(
                find_release(name, root / "data"),
                Settings(challenge, margin_s=0.1 if challenge == 1 else 0),
                root / "cache",
            ).path
            if challenge == 1:
                add(path)
    return root / "cache"


TINY = ("--set", "width=8", "depth=1", "--amp", "off", "--batch-size", "16", "--blend", "none")
TINY += ("--members", "1")


def command(caches, out, *arguments):
    """run/train.py as a command line; a tiny tcn, unless arguments say otherwise."""
    return [
        sys.executable,
        str(ROOT / "run" / "train.py"),
        "--cache",
        str(caches),
        "--out",
        str(out),
        *TINY,
        *map(str, arguments),
    ]


@pytest.fixture
def train(monkeypatch, caches, tmp_path, capsys):
    """Calls run/train.py in this process: train(*arguments) -> what it printed. Raises what it
    raises. Runs lie in tmp_path/out. train.other(script, *arguments) calls another script so.
    """
    import torch

    from eeg.machine import device

    monkeypatch.setattr(
        device, "settle_threads", lambda threads: None
    )  # once torch has worked, some of it cannot be changed
    monkeypatch.setattr(device, "keep_freed_memory", lambda: None)

    def call(*arguments):
        return run("train", command(caches, tmp_path / "out", *arguments)[1:])

    def other(script, *arguments):
        places = "--cache", caches, "--out", tmp_path / "out"
        return run(script, [f"{script}.py", *map(str, (*places, *arguments))])

    def run(script, words):
        spec = importlib.util.spec_from_file_location(script, ROOT / "run" / f"{script}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        state = torch.get_rng_state()
        module.main()
        torch.set_rng_state(state)
        return capsys.readouterr().out

    call.out, call.other = tmp_path / "out", other
    return call
