"""run/train.py: options and data that cannot be used."""

import shutil

import h5py
import numpy as np
import pytest

from eeg import UserError
from eeg.data.cache import cache_path
from eeg.data.split import split as split_windows
from eeg.runs.journal import Journal
from eeg.runs.run import find_runs
from eeg.runs.schema import OPTIONS
from eeg.train.options import ABOUT, Options
from eeg.train.targets import make_model
from eeg.train.trainer import Trainer


@pytest.mark.parametrize(
    "options, reason",
    [
        (("--challenge", 1, "--train", "R9"), "no cache of R9 .*run/cache.py --release R9"),
        (
            ("--challenge", 1, "--mini"),
            "no cache of a training release .*run/cache.py --release R1 --mini",
        ),
        (
            ("--challenge", 1, "--model", "hybrid", "--set", "width=16", "--augment", "mirror=0.5"),
            "--features layer",
        ),
        (
            ("--challenge", 1, "--augment", "shift=0.5"),
            "run/cache.py --release R1 R5 --margin 0.5 --force",
        ),
        (("--challenge", 1, "--amp", "fp16"), "--amp fp16 cannot be used"),
        (("--challenge", 1, "--device", "cuda"), "--device cuda cannot be used"),
        (("--challenge", 1, "--loss", "time", "--set", "head=number"), "time head"),
        (("--resume", "nothing"), "no run nothing"),
        (("--resume",), "no unfinished run"),
    ],
)
def test_what_cannot_be(train, options, reason):
    with pytest.raises(UserError, match=reason):
        train(*options)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--challenge", 3),
        ("--challenge", 1, "--target", "externalizing"),
        ("--challenge", 1, "--augment", "blur=1"),
        ("--challenge", 1, "--cv", 1),
        ("--challenge", 1, "--aux", "age"),
        ("--challenge", 1, "--ema", 1),
        ("--challenge", 1, "--set", "width"),
        ("--challenge", 1, "--seed", -1),
        ("--challenge", 1, "--name", "a/b"),
        ("--challenge", 1, "--augment", "scale=much"),
        ("--challenge", 1, "--epoch", 2),
    ],
)
def test_arguments_that_cannot_be(train, options):
    with pytest.raises(SystemExit) as e:
        train(*options)
    assert e.value.code == 2


@pytest.mark.parametrize(
    "options, said",
    [
        (
            ("--model", "resnet"),
            "--model: there is no model 'resnet'; there are tcn, eegnex, unet, cnn, hybrid, "
            "transformer, conformer",
        ),
        (
            ("--set", "wdith=8"),
            "--set wdith=8: tcn has no setting 'wdith'; it has head, width, depth, kernel, dropout",
        ),
        (
            ("--set", "normalize=none"),
            "--set normalize=none: tcn has no setting 'normalize'; it has head, width, depth, "
            "kernel, dropout",
        ),
        (("--set", "width=abc"), "--set width=abc: tcn takes a whole number from 1 to 2048"),
        (("--set", "width=0"), "--set width=0: tcn takes a whole number from 1 to 2048"),
        (("--set", "kernel=4"), "--set kernel=4: tcn takes an odd number from 1 to 199"),
        (
            ("--model", "eegnex", "--set", "drop_prob=1.5"),
            "--set drop_prob=1.5: eegnex takes a number from 0 to less than 1",
        ),
        (
            ("--model", "cnn", "--set", "heads=3"),
            "--set width=160: cnn with 3 heads takes a multiple of 3",
        ),
    ],
)
def test_what_a_model_does_not_take(train, capsys, options, said):
    """A bad argument, known before torch is there: exit code 2 and a line."""
    with pytest.raises(SystemExit) as e:
        train("--challenge", 1, *options)
    assert e.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err
    assert not find_runs(train.out)


def test_labels_that_cannot_be_learned(train, caches, tmp_path, monkeypatch):
    folder = shutil.copytree(caches, tmp_path / "cache")
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        f["y"][3] = np.nan
    with pytest.raises(
        UserError,
        match="1 of .* labels are NaN or infinite, the first in .*challenge1_R1_windows.h5",
    ):
        train("--challenge", 1, "--cache", folder)
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        f["y"][:] = 1.5
    with pytest.raises(UserError, match="all labels of a side are the same"):
        train("--challenge", 1, "--cache", folder)
    shutil.copy(cache_path(folder, 2, "R1"), cache_path(folder, 1, "R1"))
    with pytest.raises(UserError, match="cannot be used together|challenge 2, expected 1"):
        train("--challenge", 1, "--cache", folder)
    assert not find_runs(train.out)  # what never began leaves nothing


def test_features_that_are_not_there(train, caches, tmp_path):
    folder = shutil.copytree(caches, tmp_path / "cache")
    with h5py.File(cache_path(folder, 1, "R5"), "r+") as f:
        del f["neuro_features"]
    with pytest.raises(
        UserError,
        match="takes the features of each window.*--features layer, .*run/features.py --release "
        "R1 R5",
    ):
        train("--challenge", 1, "--model", "hybrid", "--set", "width=16", "--cache", folder)


def test_a_run_from_python(caches, tmp_path):
    """Options, model and trainer without a command line."""
    options = Options(1, epochs=1, batch_size=16, set={"width": 8, "depth": 1}, cache=caches)
    split = split_windows(caches, 1, ["R1"], ["R5"])
    journal = Journal(tmp_path)
    assert Trainer(options, make_model(options), split, journal).run() == "finished"
    assert (tmp_path / "weights_challenge_1.pt").exists() and options.epochs == 1


def test_what_config_json_may_say_of_options_is_what_there_is():
    """Two lists, because eeg/runs reads a config.json without eeg/train."""
    kept = {name for name, about in ABOUT.items() if about.kept}
    schema = {name.removesuffix("?"): kind for name, kind in OPTIONS.items()}
    assert schema.keys() == kept, "an option is missing in eeg/runs/schema.py, or gone from Options"
    for name in kept:
        for value in ABOUT[name].argument.get("choices", ()):
            value = [value] if name == "aux" else value
            assert schema[name].fits(value), f"eeg/runs/schema.py does not know {name} {value}"
