"""Every command that a message suggests is pasted: it works, on the user's own files, and then what
had failed works too.
"""

import json
import os
import shutil

import h5py
import pytest

from eeg import files, hints
from eeg.data.cache import Cache
from eeg.runs.run import find_runs
from tests.hints import Desk, suggested

PLACES = {"data": "my data", "cache": "my cache", "out": "my runs"}
TINY = ("--set", "width=8", "depth=1", "--amp", "off", "--batch-size", "16", "--epochs", "1")
TINY += ("--blend", "none", "--members", "1")
SMALL = ("--subjects", "3", "--runs", "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with `my data` and `my cache`: R1 and R5, both challenges. Challenge 1: float16, 0.1
    s margin, features of R1.
    """
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        desk = Desk(patch, folder, PLACES)
        for name in ("R1", "R5"):
            assert desk.type("synth", "--release", name, *SMALL)[0]
        assert desk.type("cache", "--release", "R1", "R5", "--margin", "0.1", "--dtype", "float16")[
            0
        ]
        assert desk.type("cache", "--release", "R1", "R5", "--challenge", "2")[0]
        assert desk.type("features", "--release", "R1")[0]
    return folder


@pytest.fixture
def desk(world, tmp_path, monkeypatch):
    """A user in a copy of that world. What belongs to the defaults must not be touched: it is not
    there, and stays so.
    """
    for name in ("my data", "my cache"):
        shutil.copytree(world / name, tmp_path / name, symlinks=True)
    for path in (tmp_path / "my cache").glob("*.h5"):  # as if they had been built here
        files.note(path, "data", os.fsencode(tmp_path / "my data"))
    yield Desk(monkeypatch, tmp_path, PLACES)
    assert not [name for name in ("data", "cache", "experiments") if (tmp_path / name).exists()]


def cache_of(desk, release, challenge=1):
    return desk.folder / "my cache" / f"challenge{challenge}_{release}_windows.h5"


def settings(path):
    one = Cache(path)
    return one.margin_samples, str(one.parts[0].dtype)


def train(desk, *words):
    """-> the folder of a new run, finished."""
    good, said = desk.type("train", "--challenge", 1, *TINY, *words)
    assert good, said
    return find_runs("my runs")[-1].folder


def helps(desk, failing, number=0, more=(), of=None):
    """What fails suggests a command, which works, and then it does not fail. -> (the error, the
    command)
    """
    good, error = desk.type(*failing)
    assert not good, error
    commands = suggested(error)
    assert len(commands) == (of or number + 1), (error, commands)
    good, said = desk.paste(commands[number], *more)
    assert good, f"{commands[number]}\n{said}"
    good, said = desk.type(*failing)
    assert good, f"after {commands[number]}\n{said}"
    return error, commands[number]


# ---------------------------------------------------------------------------------- data and caches


def test_no_release(desk):
    error, command = helps(desk, ["cache", "--release", "R9"], 1, more=SMALL)  # 0 downloads it
    assert "no release R9 under my data/" in error and "--data 'my data'" in command
    assert "get it with: python" in error and "download.py --release R9 --data 'my data'" in error


@pytest.mark.parametrize(
    "failing",
    [["features", "--release", "R7"], ["train", "--challenge", "1", "--train", "R1", "R7", *TINY]],
)
def test_no_cache_of_a_release(desk, failing):
    desk.type("synth", "--release", "R7", *SMALL)
    helps(desk, failing)
    assert settings(cache_of(desk, "R7")) == (
        10,
        "float16",
    )  # as those beside it, with which it is used


def test_no_cache_at_all(desk):
    shutil.rmtree("my cache")
    [command] = suggested(desk.type("train", "--challenge", "2", *TINY)[1])
    assert "--challenge 2" in command
    error, command = helps(desk, ["train", "--challenge", "1", *TINY])
    assert "no cache of a training release" in error and "--challenge" not in command


def test_a_larger_margin(desk):
    error, command = helps(desk, ["train", "--challenge", "1", "--augment", "shift=0.2", *TINY])
    assert "time shift of 0.2 s" in error
    assert settings(cache_of(desk, "R1")) == settings(cache_of(desk, "R5")) == (20, "float16")


def test_a_larger_margin_for_views(desk):
    train(desk)
    helps(desk, ["evaluate", "c1_tcn", "--release", "R5", "--shift", "0.15"])
    assert settings(cache_of(desk, "R5")) == (15, "float16")


@pytest.mark.parametrize(
    "words", [["--dtype", "float16"], ["--dtype", "float32", "--margin", "0.1"]]
)
def test_caches_that_do_not_go_together(desk, words):
    assert desk.type("cache", "--release", "R5", "--force", *words)[0]
    helps(desk, ["train", "--challenge", "1", *TINY])
    assert settings(cache_of(desk, "R1")) == settings(cache_of(desk, "R5")) == (10, "float16")


def test_no_features(desk):
    helps(
        desk,
        [
            "train",
            "--challenge",
            "1",
            "--model",
            "hybrid",
            "--set",
            "width=8",
            "--epochs",
            "1",
            "--amp",
            "off",
        ],
    )


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:3000])


def spoil_version(path):
    with h5py.File(path, "r+") as f:
        f.attrs["version"] = 99


def spoil_format(path):
    with h5py.File(path, "r+") as f:
        f.attrs["format"] = "other"


def spoil_labels(path):
    with h5py.File(path, "r+") as f:
        f["y"][0] = float("nan")


def spoil_chunks(path):
    with h5py.File(path, "r+") as f:
        X = f["X"][()]
        del f["X"]
        f.create_dataset("X", data=X, chunks=(1, *X.shape[1:]))


@pytest.mark.parametrize(
    "spoil", [spoil_cut, spoil_version, spoil_format, spoil_labels, spoil_chunks]
)
def test_a_spoilt_cache(desk, spoil):
    before = settings(cache_of(desk, "R5"))
    spoil(cache_of(desk, "R5"))
    helps(desk, ["train", "--challenge", "1", *TINY])
    assert settings(cache_of(desk, "R5")) == before == (10, "float16")


def test_a_window_that_is_not_finite(desk):
    train(desk)
    with h5py.File(cache_of(desk, "R5"), "r+") as f:
        f["X"][0, 3, 50] = float("nan")
    helps(desk, ["evaluate", "c1_tcn", "--release", "R5"])
    assert settings(cache_of(desk, "R5")) == (10, "float16")


def test_windows_that_the_competition_does_not_score(desk):
    assert desk.type("synth", "--release", "R6", *SMALL, "--tasks", "all")[0]
    assert desk.type("cache", "--release", "R6", "--challenge", "2", "--tasks", "RestingState")[0]
    assert desk.type("train", "--challenge", "2", *TINY)[0]
    helps(desk, ["evaluate", "--challenge", "2", "--release", "R6"])


# -------------------------------------------------------------------------------- replacing a cache


def test_a_cache_of_other_settings_is_not_replaced(desk):
    path = cache_of(desk, "R1")
    before = path.read_bytes()
    good, error = desk.type("cache", "--release", "R1")
    assert not good and path.read_bytes() == before
    assert (
        "windows with their features, made with a margin of 0.1 s instead of 0 s, float16 instead "
        "of float32: they would be lost" in error
    )
    keep, replace = suggested(error)
    good, said = desk.paste(keep)
    assert good and "is up to date" in said and path.read_bytes() == before
    good, said = desk.paste(replace)
    assert good and settings(path) == (0, "float32")


@pytest.mark.parametrize(
    "first, then, words",
    [
        (["--max-recordings", "2"], [], "at most 2 recordings instead of all recordings"),
        (
            ["--challenge", "2", "--tasks", "all"],
            ["--challenge", "2"],
            "instead of contrastChangeDetection",
        ),
        (["--data", "elsewhere"], [], "elsewhere instead of"),
    ],
)
def test_each_setting_is_named(desk, first, then, words):
    if "--data" in first:
        assert desk.paste(hints.command("synth", "--release", "R6", *SMALL, data="elsewhere"))[0]
    assert desk.paste(
        hints.command(
            "synth",
            "--release",
            "R6",
            *SMALL,
            "--seed",
            1,
            "--tasks",
            "RestingState",
            "contrastChangeDetection",
            data="my data",
        )
    )[0]
    place = "elsewhere" if "--data" in first else "my data"
    assert desk.paste(
        hints.command(
            "cache",
            "--release",
            "R6",
            *(word for word in first if word not in ("--data", "elsewhere")),
            data=place,
            cache="my cache",
        )
    )[0]
    good, error = desk.type("cache", "--release", "R6", *then)
    assert not good and words in error, error
    keep, replace = suggested(error)
    good, said = desk.paste(keep)
    assert good and "is up to date" in said, said
    assert (
        desk.paste(replace)[0]
        and "is up to date" in desk.type("cache", "--release", "R6", *then)[1]
    )


def test_a_cache_of_a_release_that_has_changed_is_rebuilt_and_says_so(desk):
    assert desk.type("synth", "--release", "R1", "--subjects", "4", "--runs", "1", "--force")[0]
    good, said = desk.type("cache", "--release", "R1", "--margin", "0.1", "--dtype", "float16")
    assert (
        good
        and "rebuilt   files of the release have changed (" in said
        and "its features went with it" in said
    )
    [command] = suggested(said)
    assert desk.paste(command)[0] and Cache(cache_of(desk, "R1")).features is not None


def test_an_old_cache_that_says_less(desk):
    path = cache_of(desk, "R1")
    with h5py.File(path, "r+") as f:
        del f.attrs["max_recordings"]
    path.with_name("copy").write_bytes(path.read_bytes())  # which takes no notes along
    path.with_name("copy").rename(path)
    good, error = desk.type("cache", "--release", "R1")
    assert (
        not good
        and "made with a margin of 0.1 s instead of 0 s, float16 instead of float32: they" in error
    )
    assert "is up to date" in desk.paste(suggested(error)[0])[1]


# --------------------------------------------------------------------------------------------- runs


def test_no_run(desk):
    error, command = helps(desk, ["evaluate", "--challenge", "1", "--release", "R5"], more=TINY)
    assert "--out 'my runs'" in command and "--cache 'my cache'" in command


def test_no_run_to_show(desk):
    [command] = suggested(desk.type("monitor")[1])
    assert desk.paste(command, *TINY)[0] and "finished" in desk.type("monitor")[1]


def test_no_run_of_that_name(desk):
    train(desk)
    error = desk.type("evaluate", "c1_unet", "--release", "R5")[1]
    [command] = suggested(error)
    assert "c1_tcn/" in desk.paste(command)[1]


def unfinished(folder):
    """As a run is left that was stopped after its last epoch had been saved."""
    (folder / "weights_challenge_1.pt").unlink()
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"status": "stopped"}))


@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_has_not_finished(desk, named):
    unfinished(train(desk))
    helps(desk, ["evaluate", *["c1_tcn"] * named, "--challenge", "1", "--release", "R5"])


def test_a_stopped_run_in_the_table(desk):
    unfinished(train(desk))
    assert (
        desk.paste(suggested(desk.type("monitor")[1])[0])[0]
        and "stopped" not in desk.type("monitor")[1]
    )


def test_a_run_that_has_finished_is_not_resumed(desk):
    folder = train(desk)
    good, error = desk.type("train", "--resume", folder)
    [command] = suggested(error)
    assert not good and desk.paste(command, "--release", "R5")[0]


@pytest.mark.parametrize(
    "command", [["evaluate", "c1_tcn", "--release", "R5"], ["train", "--resume", "c1_tcn"]]
)
def test_a_running_run(desk, command):
    folder = train(desk)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(
        json.dumps(state | {"status": "running"})
    )  # by this very process
    good, error = desk.type(*command)
    [command] = suggested(error)
    assert not good and command.endswith("--follow --out 'my runs'")
    assert "c1_tcn/" in desk.paste(command.replace(" --follow", ""))[1]


@pytest.mark.parametrize("file", ["config.json", "history.json"])
def test_a_run_that_cannot_be_read(desk, file):
    train(desk)
    folder = train(desk)
    (folder / file).write_text("{")
    good, said = desk.type("evaluate", "--challenge", "1", "--release", "R5")
    assert good
    [command] = suggested(said)
    assert (
        desk.paste(command)[0]
        and "left out" not in desk.type("evaluate", "--challenge", "1", "--release", "R5")[1]
    )


def spoil_weights(folder):
    (folder / "weights_challenge_1.pt").write_bytes(b"spoilt")


def spoil_config(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["split"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_config])
def test_a_run_that_is_of_no_use(desk, spoil):
    spoil(train(desk, "--optimizer", "sam"))
    helps(desk, ["evaluate", "c1_tcn", "--release", "R5"])
    config = find_runs("my runs")[-1].config
    assert (
        config["model"]["width"] == 8 and config["train"]["optimizer"] == "sam"
    )  # another run like it


def test_a_run_whose_windows_have_changed(desk):
    unfinished(train(desk))
    config = find_runs("my runs")[-1].folder / "config.json"
    config.write_text(config.read_text().replace('"windows": ', '"windows": 1'))
    good, error = desk.type("train", "--resume")
    [command] = suggested(error)
    assert not good and "the windows have changed" in error and desk.paste(command)[0]


def test_a_run_of_another_target(desk):
    train(desk, "--target", "rt_from_trialstart", "--name", "other")
    good, error = desk.type("compare", "other", "--release", "R5")
    [command] = suggested(error)
    assert not good and desk.paste(command)[0] and find_runs("my runs")[-1].scored


def test_a_submission_of_one_challenge(desk):
    train(desk)
    good, error = desk.type("submit", "c1_tcn", "--zip", "mine.zip", "--anyway")
    first, second = suggested(error)
    assert not good and desk.paste(second)[0] and (desk.folder / "mine.zip").exists()
    good, error = desk.type("submit", "--check", "absent.zip")
    assert not good and suggested(error) == [
        "python "
        + str(hints.script("submit"))
        + " --zip absent.zip --cache 'my cache' --out 'my runs'"
    ]


def test_features_from_a_file_cannot_be_submitted(desk):
    assert desk.type("features", "--release", "R1", "R5", "--challenge", "2")[0]
    words = (
        "--challenge",
        "2",
        "--model",
        "hybrid",
        "--set",
        "width=8",
        "--epochs",
        "1",
        "--amp",
        "off",
    )
    assert desk.type("train", *words)[0]
    good, error = desk.type("submit", "c2_hybrid", "--constant", "1", "--anyway")
    [command] = suggested(error)
    assert not good and "--set width=8" in command and desk.paste(command)[0]
    assert find_runs("my runs")[-1].config["model"]["features"] == "layer"


# ---------------------------------------------------------------------------------- what only shows


@pytest.mark.parametrize("words", [["--model", "resnet"], ["--model", "cnn", "--loss", "time"]])
def test_models(desk, words):
    good, error = desk.type("train", "--challenge", "1", *words, "--epochs", "1", "--amp", "off")
    [command] = suggested(error)
    assert not good and "tcn" in desk.paste(command)[1]


def test_usage(desk):
    good, error = desk.type("evaluate", "--no-such-option")
    [command] = suggested(error)
    good, said = desk.paste(command)
    assert good and said.startswith("usage: ")


def test_seeds_that_no_run_has(desk):
    train(desk)
    good, error = desk.type("evaluate", "c1_tcn", "--seed", "7", "--release", "R5")
    [command] = suggested(error)
    assert not good and "c1_tcn/" in desk.paste(command)[1]


def test_what_a_search_found(desk):
    fixed = ("--", "--set", "width=8", "depth=1", "--amp", "off")
    words = [
        "--challenge",
        "1",
        "--trials",
        "1",
        "--epochs",
        "1",
        "--rungs",
        "1",
        "--space",
        "space.json",
    ]
    (desk.folder / "space.json").write_text('{"lr": [0.001]}')
    places = [word for name, folder in PLACES.items() for word in (f"--{name}", folder)]
    good, said = desk._call(hints.script("tune"), [*words, *places, *fixed])
    assert good, said
    [evaluate] = suggested(said)
    assert desk.paste(evaluate, "--release", "R5")[0]
    [train] = [
        line.removeprefix("train   ") for line in said.splitlines() if line.startswith("train   ")
    ]
    assert desk.paste(train, "--epochs", "1")[0]
