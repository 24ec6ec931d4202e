"""Checkpoints survive torn files, foreign files, a kill between any two steps, a full disk."""

import hashlib
import json
import os
import pickle

import pytest
import torch

from eeg.train import checkpoint


def state(epoch):
    weights = torch.arange(10.0) + epoch
    return {"epoch": epoch, "weights": weights, "list": [1, "two", None, {"three": 3.0}]}


def save(folder, epoch, name="last"):
    checkpoint.save(folder, name, state(epoch), {"epoch": epoch, "batch": 0})


def epoch_of(folder):
    found, about, wrong = checkpoint.load(folder)
    if found is None:
        return None, wrong
    assert torch.equal(found["weights"], state(found["epoch"])["weights"])
    assert found["list"] == state(0)["list"]
    assert about["epoch"] == found["epoch"]
    return found["epoch"], wrong


def test_the_newest_comes_back(tmp_path):
    assert checkpoint.load(tmp_path) == (None, None, [])
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
        assert epoch_of(tmp_path) == (epoch, [])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["last.json", "last.pt", "previous.json", "previous.pt"]
    save(tmp_path, 3, "best")
    assert epoch_of(tmp_path) == (3, [])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_a_torn_one_falls_back_to_the_one_before(tmp_path, spoil):
    save(tmp_path, 1)
    save(tmp_path, 2)
    spoil(tmp_path / "last.pt")
    epoch, wrong = epoch_of(tmp_path)
    assert epoch == 1
    foreign = ["last.pt is not what was saved (its SHA-256 stands in no .json)"]
    assert wrong == (foreign if (tmp_path / "last.pt").exists() else [])
    spoil(tmp_path / "previous.pt")
    assert epoch_of(tmp_path)[0] is None


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_bomb_is_not_set_off(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    bomb = Bomb()
    bomb.folder = str(tmp_path / "exploded")
    torch.save(bomb, tmp_path / "last.pt")
    assert epoch_of(tmp_path)[0] == 1
    # and not with a digest that fits, either
    digest = hashlib.sha256((tmp_path / "last.pt").read_bytes()).hexdigest()
    (tmp_path / "last.json").write_text(json.dumps({"epoch": 9, "batch": 0, "sha256": digest}))
    epoch, wrong = epoch_of(tmp_path)
    assert epoch == 1 and "last.pt" in wrong[0]
    (tmp_path / "last.pt").write_bytes(pickle.dumps(bomb))
    assert epoch_of(tmp_path)[0] == 1 and not (tmp_path / "exploded").exists()


def test_a_kill_between_any_two_steps(tmp_path, monkeypatch):
    """Every call that changes the folder is the last one in turn."""

    class Killed(BaseException):
        pass

    for step in range(20):
        folder = tmp_path / str(step)
        save(folder, 1)
        save(folder, 2)
        left = [step]

        def counted(work):
            def call(*arguments, **settings):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return work(*arguments, **settings)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "replace", counted(os.replace))
            patch.setattr(checkpoint, "write_through", counted(checkpoint.write_through))
            patch.setattr(checkpoint, "sync_folder", counted(checkpoint.sync_folder))
            try:
                save(folder, 3)
                killed = False
            except Killed:
                killed = True
        epoch, _ = epoch_of(folder)
        assert epoch in (2, 3), f"after step {step}"
        save(folder, 4)
        assert epoch_of(folder) == (4, [])
        if not killed:
            break
    assert step == 7  # two files written, four renames, the folder


def test_a_file_cut_while_it_was_written(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "last.pt.partial").write_bytes((tmp_path / "last.pt").read_bytes()[:100])
    assert epoch_of(tmp_path) == (1, [])


def test_a_full_disk_keeps_what_is_there(tmp_path, monkeypatch):
    save(tmp_path, 1)
    for count in (0, 1):
        left = [count]

        def full(path, content):
            if left[0] == 0:
                path.write_bytes(bytes(content)[:50])
                raise OSError(28, "No space left on device", str(path))
            left[0] -= 1
            path.write_bytes(content)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_through", full)
            with pytest.raises(OSError, match="No space left"):
                save(tmp_path, 2)
        assert epoch_of(tmp_path) == (1, []) and not list(tmp_path.glob("*.partial"))


def test_a_disk_that_keeps_something_else(tmp_path, monkeypatch):
    save(tmp_path, 1)
    zeros = lambda path, content: path.write_bytes(b"\0" * len(content))
    monkeypatch.setattr(checkpoint, "write_through", zeros)
    with pytest.raises(OSError, match="reads back as something else"):
        save(tmp_path, 2)
    assert epoch_of(tmp_path) == (1, [])


def test_exported_weights(tmp_path):
    checkpoint.export(tmp_path / "weights_challenge_1.pt", {"name": "tcn"}, {"w": torch.ones(3)})
    saved = torch.load(tmp_path / "weights_challenge_1.pt", weights_only=True)
    assert saved["settings"] == {"name": "tcn"}
    assert torch.equal(saved["state"]["w"], torch.ones(3))
    assert not list(tmp_path.glob("*.partial"))
