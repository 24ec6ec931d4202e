"""run/pretrain.py --task positioning: which windows are paired, what is learned of them, and what a
run leaves."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eeg import UserError
from eeg.data.batches import Batches, Order, Reading
from eeg.data.build import Settings, build
from eeg.data.cache import Cache
from eeg.data.release import find_release
from eeg.models.transformer import Positioning
from eeg.runs.run import Run, find_runs
from eeg.train import trainer as module
from eeg.train.pretraining import Pairs, Positioner
from eeg.train.validation import Validation
from tests.conftest import write_participants, write_recording
from tests.train.interruptions import Killed, faulty
from tests.train.trained import killed, the_run

SMALL = "--set width=16 depth=1 heads=2 inner=16 --amp off --task positioning".split()
NEAR_S, FAR_S = 8, 30
PEOPLE = ("NDARAA001AAA", "NDARBB002BBB", "NDARCC003CCC")


def recording(seconds, seed):
    """A slow beat of all electrodes at first, which grows faster all the time, in noise."""
    t = np.arange(100 * seconds) / 100
    rng = np.random.default_rng(seed)
    beat = np.sin(2 * np.pi * (3 * t + t**2 / 20) + rng.uniform(0, 6))
    digital = 20000 * beat + 4000 * rng.normal(size=(129, len(t)))
    digital[128] = 0
    return digital.astype(int)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The folder of challenge 2's caches of two releases, of recordings of several lengths."""
    root = tmp_path_factory.mktemp("positioning")
    for number, (release, count) in enumerate((("R1", 3), ("R5", 2))):
        folder = root / "data" / f"{release}_L100_bdf"
        names = [f"{name[:-1]}{number}" for name in PEOPLE[:count]]
        write_participants(folder, names)
        table = (folder / "participants.tsv").read_text().splitlines()
        labels = [line.removesuffix("0.5") + f"{number + 0.1 * i}" for i, line in enumerate(table)]
        (folder / "participants.tsv").write_text("\n".join([table[0], *labels[1:], ""]))
        for seed, name in enumerate(names):
            lengths = (100, 25 + 9 * seed)
            for run, seconds in enumerate(lengths, 1):
                digital = recording(seconds, 100 * number + 10 * run + seed)
                write_recording(folder, name, None, digital, run=run)
        build(find_release(release, root / "data"), Settings(2), root / "cache")
    shutil.rmtree(root / "data")
    return root / "cache"


@pytest.fixture
def pretrain(train):
    """pretrain(*arguments) calls run/pretrain.py on these caches. -> what it printed"""
    limits = ("--near", NEAR_S, "--far", FAR_S, "--batch-size", 16)
    return lambda *words: train.other("pretrain", "--release", "R1", *SMALL, *limits, *words)


def both(folder):
    return Cache(sorted(folder.glob("*.h5")))


def apart_s(cache, one, other):
    """Seconds between the beginnings of two windows, None of two recordings."""
    own = [(int(cache.part_of(i)), int(cache.metadata["recording"][i])) for i in (one, other)]
    start = cache.metadata["start"].astype(int)
    return abs(start[one] - start[other]) / 100 if own[0] == own[1] else None


def test_pairs_are_all_those_of_a_recording_that_are_near_or_far(caches):
    """Against every pair of windows. Windows of 4 s that begin less than 4 s apart share samples."""
    cache = both(caches)
    rows = np.delete(np.arange(len(cache)), [3, 40, 41])
    kinds = {"near": set(), "far": set()}
    for one in rows:
        for other in rows:
            apart = apart_s(cache, one, other)
            if apart is not None and 4 <= apart <= NEAR_S:
                kinds["near"].add((one, other))
            elif apart is not None and apart >= FAR_S:
                kinds["far"].add((one, other))
    anchors = {one for one, _ in kinds["near"]} & {one for one, _ in kinds["far"]}
    assert anchors < set(rows)  # short recordings have none
    pairs = Pairs(cache, np.random.default_rng(0).permutation(rows), NEAR_S, FAR_S)
    seen = {"near": set(), "far": set()}
    for seed in range(1500):
        drawn = pairs.draw(np.random.default_rng(seed))
        near = pairs.are_near(drawn)
        assert len(drawn) == 2 * (len(rows) // 2) and abs(near.mean() - 0.5) < 0.01
        for pair, is_near in zip(drawn.reshape(-1, 2).tolist(), near):
            seen["near" if is_near else "far"].add(tuple(pair))
    for kind, known in kinds.items():
        expected = {pair for pair in known if pair[0] in anchors}
        assert seen[kind] == expected


def test_an_epoch_is_drawn_anew_and_pairs_stay_together(caches):
    cache = both(caches)
    pairs = Pairs(cache, np.arange(len(cache)), NEAR_S, FAR_S)

    def rows(epoch, rank=0, world=1, start=0):
        order = Order(rank=rank, world=world, pairs=pairs.draw)
        batches = Batches(cache, None, 12 // world, 5, order=order, reading=Reading(200))
        return [batch.rows.copy() for batch in batches.epoch(epoch, start)]

    whole = rows(1)
    assert len(whole) == len(cache) // 12 and {len(batch) for batch in whole} == {12}
    np.testing.assert_array_equal(rows(1, start=2), whole[2:])
    assert (np.stack(rows(2)) != np.stack(whole)).any()
    for batch, *shares in zip(whole, rows(1, 0, 2), rows(1, 1, 2)):
        np.testing.assert_array_equal(
            np.stack([share.reshape(-1, 2) for share in shares], 1).ravel(), batch
        )


def test_a_pair_goes_with_its_damaged_window(caches):
    told = []
    trainer = SimpleNamespace(
        damaged=SimpleNamespace(add=lambda rows, side: told.extend(rows)),
        targets=SimpleNamespace(tensors=lambda batch, mixed: batch),
    )
    batches = Batches(both(caches), None, 6, order=Order(shuffle=False))
    batch = next(batches.epoch(0))
    batch.finite = np.array([True, True, False, True, True, True])
    kept = Positioner._tensors(trainer, batch)
    assert kept.rows.tolist() == [0, 1, 4, 5] and len(kept.x) == 4 and told == [2]


def test_what_drifts_is_learned_and_scored_as_by_hand(train, pretrain, caches):
    printed = pretrain("--epochs", 10, "--valid", "R5", "--lr", "1e-2", "--ema", 0)
    run = the_run(train.out)
    assert run.name.startswith("position_transformer/") and not run.scored
    assert "(by chance 0.693), balanced accuracy" in printed
    assert "of near or far, by chance 0.6931\n" in printed
    epoch, value = run.best
    figures = run.history["epochs"][epoch - 1]["valid"]
    assert value == figures["log_loss"] < 0.5 and figures["balanced_accuracy"] > 0.55
    assert f"log_loss {run.curve[0][1]:.3f}" in train.other("monitor")

    saved = torch.load(run.weights, weights_only=True)
    model = Positioning(**saved["settings"]).eval()
    model.load_state_dict(saved["state"])
    cache = Cache(caches / "challenge2_R5_windows.h5")
    from eeg.score.predict import _starts

    cuts = zip(range(len(cache)), _starts(cache))
    x = torch.from_numpy(np.stack([cache[row][:, cut : cut + 200] for row, cut in cuts]))
    drawn = Pairs(cache, np.arange(len(cache)), NEAR_S, FAR_S).draw(np.random.default_rng(0))
    losses, right = [], {True: [], False: []}
    with torch.no_grad():
        hidden = model.embedded(x)
        for one, other in drawn.reshape(-1, 2):
            p = torch.sigmoid(model.compared(hidden[one, None], hidden[other, None])).item()
            near = apart_s(cache, one, other) <= NEAR_S
            losses.append(-np.log(p if near else 1 - p))
            right[near].append((p > 0.5) == near)
    assert value == pytest.approx(np.mean(losses), rel=1e-4)
    by_class = np.mean([np.mean(right[True]), np.mean(right[False])])
    assert figures["balanced_accuracy"] == pytest.approx(by_class, abs=1e-6)


def test_killed_it_ends_as_if_nothing_had_been(train, pretrain, monkeypatch):
    def left_behind():
        run = the_run(train.out)
        state = torch.load(run.weights, weights_only=True)["state"]
        state = {name: value.numpy().tobytes() for name, value in state.items()}
        return state, (run.folder / "history.json").read_bytes()

    pretrain("--epochs", 2)
    reference = left_behind()
    for owner, name, after in ((module.Trainer, "_train_batch", 2), (Validation, "_answers", 1)):
        shutil.rmtree(train.out)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty({after + 1: Killed()}, owner, name))
            with pytest.raises(Killed):
                pretrain("--epochs", 2, "--checkpoint-minutes", 0)
        (run,) = find_runs(train.out)
        killed(run.folder)
        assert "pretrain.py --resume" in Run(run.folder).resume
        train.other("pretrain", "--resume", run.folder)
        assert left_behind() == reference


def test_a_model_begins_with_all_of_its_encoder(train, pretrain):
    pretrain("--epochs", 1)
    run = the_run(train.out)
    own = torch.load(run.weights, weights_only=True)["state"]
    encoder = [name for name in own if name.startswith("network.")]
    tune = "--challenge 2 --epochs 1 --amp off --members 1 --blend none --name tuned".split()
    printed = train.other("train", *tune, "--init", run.folder)
    assert f"init    {len(encoder)} tensors from {run.name}" in printed
    assert "4 of its own are left over (compare, norm)" in printed
    (tuned,) = (each for each in find_runs(train.out) if each.name.startswith("tuned/"))
    assert tuned.config["begun"]["matched"] == sorted(encoder)
    with pytest.raises(UserError, match="answers nothing yet; train a model that begins"):
        train.other("evaluate", run.folder)
    assert "pretrained without labels" in train.other("report", run.folder)


def test_what_cannot_be_paired(train, pretrain, capsys):
    with pytest.raises(UserError, match="choose other --near and --far, in seconds"):
        pretrain("--far", 97)
    with pytest.raises(UserError, match="no window of .* begins 4 s to 3 s from another and 30 s"):
        pretrain("--near", 3)
    for words, why in (
        (("--mask", 0.4), "--mask goes with --task masked"),
        (("--task", "masked"), "--near goes with --task positioning"),
        (("--near", 40), "--near 40 --far 30: what is far is further apart than what is near"),
    ):
        with pytest.raises(SystemExit):
            pretrain(*words)
        assert why in capsys.readouterr().err
    assert not find_runs(train.out)
