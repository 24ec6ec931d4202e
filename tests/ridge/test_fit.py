"""The ridge: its answers against brute force, its run folder, what it refuses."""

import json
import math
import shutil

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch

import tests.conftest
from eeg import UserError
from eeg.data.cache import Cache, cache_path
from eeg.data.features import compute
from eeg.data.split import Damaged, split
from eeg.models import fold
from eeg.ridge import gram
from eeg.ridge.fit import Fit, crops_of, fold_of, weights_of
from eeg.ridge.representation import Averages
from eeg.runs.run import find_runs
from eeg.score import submission
from eeg.score.metrics import nrmse
from eeg.score.predict import predict, predict_run
from eeg.score.sides import Side
from eeg.train.options import Options
from eeg.train.targets import choose_targets, make_model
from tests.train.trained import the_run, weights


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Also: run/train.py of these tests trains a ridge."""
    monkeypatch.setattr(tests.conftest, "TINY", ("--model", "ridge"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(caches, challenge=1, change=None, seed=0, release="R1", **settings):
    """-> (Fit, Model, Split). change(targets, split): what else is done to the labels."""
    options = Options(challenge, model="ridge", set=settings)
    sides = split(caches, challenge, (release,), ("R5",))
    model = make_model(options)
    targets = choose_targets(options, sides, model)
    if change:
        change(targets, sides)
    events = []
    damaged = Damaged(sides.cache, lambda kind, text: events.append(text))
    fit = Fit(model, sides, targets.y, damaged, seed)
    fit.events = events
    return fit, model, sides


def by_hand(z, y, subjects, weight, penalty):
    """-> answers(z): the ridge with this penalty, by rows of an explicit problem. In challenge 1,
    where all weights are 1, errors of one subject correlate by 0.2."""
    precision = np.diag(weight)
    if (weight == 1).all():
        precision = np.linalg.inv(0.8 * np.eye(len(y)) + 0.2 * (subjects[:, None] == subjects))
    share = precision.sum(0) / precision.sum()
    half = np.linalg.cholesky(precision / precision.sum()).T
    mean, center = share @ z, share @ y
    spread = np.linalg.norm(half @ (z - mean), axis=0)
    used = spread > 1e-6
    standard = (z - mean)[:, used] / spread[used]
    rows = np.vstack([half @ standard, np.sqrt(penalty) * np.eye(used.sum())])
    right = np.concatenate([half @ (y - center), np.zeros(used.sum())])
    slope = np.linalg.lstsq(rows, right, rcond=None)[0]
    return lambda new: center + ((new - mean)[:, used] / spread[used]) @ slope


def components_by_hand(smooth, y, weight, count):
    """With SciPy, from explicit averages: (count, electrodes)."""
    edges = np.unique(np.quantile(y, np.arange(1, 8) / 8))
    which = np.searchsorted(edges, y, "right")
    means = [np.average(smooth[which == b], 0, weight[which == b]) for b in np.unique(which)]
    means.append(np.average(smooth, 0, weight))
    between = sum(mean @ mean.T for mean in means)
    each = np.einsum("nct,ndt->ncd", smooth, smooth) / smooth.shape[2]
    total = np.average(each, 0, weight)
    shrunk = 0.9 * total + 0.1 * np.trace(total) / len(total) * np.eye(len(total))
    _, vectors = scipy.linalg.eigh(between, shrunk)
    found = vectors[:, ::-1][:, :count].T
    return found / np.sqrt(np.einsum("kc,cd,kd->k", found, total, found))[:, None]


def explicit(fit, model, sides):
    """Windows (n * crops, C, 200), labels, weights and folds, read one by one."""
    cache, rows = sides.cache, sides.train
    x = [cache[row][:, c : c + 200] for row in rows for c in fit.crops]
    again = np.repeat(np.arange(len(rows)), len(fit.crops))
    subjects = cache.metadata["subject"][rows]
    n = np.array([(subjects == subject).sum() for subject in subjects])
    weight = np.ones(len(n)) if cache.challenge == 1 else 1 / n
    y = (cache.y[rows] - cache.y[rows].mean()) / cache.y[rows].std()
    x = torch.from_numpy(np.stack(x).astype(np.float32))
    np.testing.assert_allclose(fit.y[:, 0], y, atol=1e-5)
    y = fit.y[:, 0].numpy()  # to the last digit: response times on the edge of a bin
    return x, y[again], subjects[again], weight[again], fit.fold[again]


@pytest.mark.parametrize(
    "challenge, on", [(1, "features"), (2, "features"), (2, "transition"), (1, "covariance")]
)
def test_answers_out_of_fold_are_those_of_brute_force(caches, monkeypatch, challenge, on):
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 1.0))
    fit, model, sides = made(caches, challenge, on=on)
    found = fit.run()
    x, y, subjects, weight, held = explicit(fit, model, sides)
    kind = model.network.kinds[on]
    if on in ("features", "transition"):
        made_of = compute(x.numpy(), threads=1, groups=kind.neuro.groups)
        z = kind.standard(kind.plain(torch.from_numpy(made_of)))
    else:
        z = kind(model.network.bounded(x))
    z = z.double().numpy()
    errors = []
    for strength in gram.STRENGTHS:
        penalty = strength * z.shape[1] if strength < math.inf else 1e30
        p = np.empty(len(y))
        for number in range(5):
            answers = by_hand(*(part[held != number] for part in (z, y, subjects, weight)), penalty)
            p[held == number] = answers(z[held == number])
        errors.append((weight @ np.square(y - p), strength, p))
    _, strength, p = min(errors, key=lambda entry: entry[0])
    assert found.strengths == {on: strength}
    p = p.reshape(len(sides.train), -1) * model.scale.numpy() + model.center.numpy()
    np.testing.assert_allclose(found.answers[..., 0], p, atol=1e-4)


def test_components_are_learned_inside_each_fold(caches, monkeypatch):
    """Their answers out of fold by SciPy, from windows read one by one."""
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 1.0))
    fit, model, sides = made(caches, on="potentials", components=4)
    found = fit.run()
    x, y, subjects, weight, held = explicit(fit, model, sides)
    bounded = model.network.bounded(x).double().numpy()
    smooth = bounded.reshape(*bounded.shape[:2], 25, 8).mean(3)
    strength = found.strengths["potentials"]
    assert strength < math.inf
    p = np.empty(len(y))
    for number in range(5):
        known = held != number
        own = components_by_hand(smooth[known], y[known], weight[known], 4)
        z = np.clip(np.einsum("kc,nct->nkt", own, smooth).reshape(len(y), -1), -5, 5)
        z *= (3 / np.maximum(3, np.sqrt(np.square(z).mean(1))))[:, None]
        answers = by_hand(z[known], y[known], subjects[known], weight[known], strength * z.shape[1])
        p[~known] = answers(z[~known])
    p = p * float(model.scale) + float(model.center)
    np.testing.assert_allclose(found.answers[:, 0, 0], p, atol=1e-3)
    all_known = components_by_hand(smooth, y, weight, 4)
    ours = model.network.kinds["potentials"].components.double().numpy()
    for one, other in zip(ours, all_known):
        sign = np.sign(one @ other)
        np.testing.assert_allclose(one, sign * other, atol=1e-3 * np.abs(other).max())


def test_averages_of_a_label_with_few_values():
    """Bins that stay empty, and a batch of one window."""
    rng = np.random.default_rng(0)
    smooth, y = rng.standard_normal((20, 6, 5)), np.repeat([0.0, 1.0], [15, 5])
    weight = rng.uniform(0.5, 2, 20)
    averages = Averages(y, 6, 5)
    for part in (slice(0, 1), slice(1, 20)):
        averages.add(*(torch.from_numpy(smooth[part]), y[part], torch.from_numpy(weight[part])))
    wanted = components_by_hand(smooth, y, weight, 3)
    for one, other in zip(averages.components(3).numpy(), wanted):
        np.testing.assert_allclose(one * np.sign(one @ other), other, atol=1e-9)


def test_subjects_are_in_one_fold_and_count_as_they_should():
    subjects = np.repeat([b"A", b"B", b"C", b"D", b"E", b"F", b"G"], [1, 2, 3, 4, 5, 6, 7])
    for seed in range(3):
        folds = fold_of(subjects, seed)
        assert all(len(set(folds[subjects == name])) == 1 for name in set(subjects))
        assert set(folds) == set(range(5))
    assert set(fold_of(subjects[:6], 0)) == {0, 1, 2}
    assert (fold_of(subjects, 0) != fold_of(subjects, 1)).any()
    once = weights_of(subjects)
    assert [once[subjects == name].sum() for name in set(subjects)] == pytest.approx([1] * 7)
    with pytest.raises(UserError, match="at least 2 training subjects; there is 1"):
        fold_of(subjects[3:6], 0)


def test_challenge_2_cuts_each_second_once(caches):
    cache = Cache(cache_path(caches, 2, "R1"))
    assert crops_of(cache) == (0, 100) and crops_of(Cache(cache_path(caches, 1, "R1"))) == (10,)
    metadata = cache.metadata[cache.metadata["recording"] == cache.metadata["recording"][0]]
    starts = [start + crop for start in metadata["start"] for crop in crops_of(cache)]
    assert np.array_equal(starts, metadata["start"][0] + 100 * np.arange(len(starts)))


def test_answers_go_as_far_as_they_are_trusted(caches, monkeypatch):
    """The gain of each subject by hand, its standard error, and half the way from the mean."""
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 1.0))
    fit, model, sides = made(caches, on="features")
    whole = fit.run()
    p = predict(model, sides.cache, sides.valid[:20])
    y, subjects = sides.cache.y[sides.train], sides.cache.metadata["subject"][sides.train]
    known = [by_rest(y, subjects, whole.fold, fold) for fold in range(5)]
    gain = np.square(y - np.array(known)[whole.fold]) - np.square(y - whole.answers[:, 0, 0])
    gains = [gain[subjects == subject].sum() for subject in sorted(set(subjects))]
    errors = np.sum(gains) / (np.std(gains, ddof=1) * len(gains) ** 0.5)
    monkeypatch.undo()
    trust = max(0, 1 - (1.645 / errors) ** 2) if errors > 0 else 0
    assert fit.run().trust == pytest.approx(trust, abs=1e-3)
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 0.5))
    half = fit.run()
    center = float(model.center)
    np.testing.assert_allclose(
        predict(model, sides.cache, sides.valid[:20]) - center, (p - center) / 2, atol=1e-5
    )
    moved = half.answers[:, 0, 0] - np.array(known)[whole.fold]
    wanted = (whole.answers[:, 0, 0] - np.array(known)[whole.fold]) / 2
    np.testing.assert_allclose(moved, wanted, atol=1e-4)


def by_rest(y, subjects, fold, number):
    """The mean response time of the subjects outside a fold, by generalised least squares."""
    known = fold != number
    names, counts = np.unique(subjects[known], return_counts=True)
    means = np.array([y[known][subjects[known] == name].mean() for name in names])
    weight = counts / (0.8 + 0.2 * counts)
    return (weight * means).sum() / weight.sum()


@pytest.mark.parametrize("challenge", [1, 2])
def test_labels_that_the_windows_do_not_know_are_answered_with_the_mean(caches, challenge):
    def change(targets, sides):
        subjects, which = np.unique(sides.cache.metadata["subject"], return_inverse=True)
        rng = np.random.default_rng(1)
        y = rng.standard_normal(len(subjects))[which] if challenge == 2 else None
        targets.y[:, 0] = rng.standard_normal(len(targets.y)) if y is None else y

    fit, model, sides = made(caches, challenge, change, rank=4, components=4)
    found = fit.run()
    assert found.trust == 0 and set(found.strengths.values()) == {math.inf}
    p = predict(model, sides.cache, sides.valid[:20])
    assert (p == float(model.center)).all()


def test_windows_with_nan_are_left_out_and_named(caches, tmp_path):
    """The fit is the one without them."""
    folder = tmp_path / "cache"
    shutil.copytree(caches, folder)
    fit, model, sides = made(caches, on="potentials", components=4)
    bad = sides.train[[0, 5, 70]]
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        for row in bad:
            f["X"][row, 2, 50:60] = np.nan
    damaged, other, _ = made(folder, on="potentials", components=4)
    found = damaged.run()
    assert np.isnan(found.answers[[0, 5, 70]]).all() and np.isnan(found.answers).sum() == 3
    assert len(damaged.events) == 3 and found.windows == len(sides.train) - 3
    assert "holds NaN or infinity in channel E3, left out of training" in damaged.events[0]
    # as if these windows had never been among those that are read
    fit._batches = without(fit, {0, 5, 70})
    np.testing.assert_array_equal(fit.run().answers, found.answers)
    with h5py.File(cache_path(folder, 1, "R1"), "r+") as f:
        f["X"][:, 0, 20:21] = np.inf
    with pytest.raises(UserError, match="training windows that were looked at hold NaN"):
        made(folder)[0].run()


def without(fit, places):
    """The batches of a Fit, in which windows are passed over."""
    real = fit._batches

    def batches(asked):
        assert len(asked) == len(fit.rows)  # so few that sizes are learned from all of them
        for which, x in real(asked):
            kept = [i for i, place in enumerate(which) if place not in places]
            yield which[kept], x[kept]

    return batches


def test_a_cache_larger_than_memory_gives_the_same(caches, monkeypatch):
    results = []
    for fits in (True, False):
        monkeypatch.setattr("eeg.ridge.fit.fits", lambda size, fits=fits: fits)
        fit, model, _ = made(caches, on="potentials", components=4)
        assert fit.direct is not fits
        results.append((fit.run().answers, model.network.weight))
    assert np.array_equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


# ---------------------------------------------------------------------------- run/train.py


@pytest.mark.parametrize("challenge", [1, 2])
def test_its_run_is_a_run_like_any_other(train, caches, monkeypatch, challenge):
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 1.0))
    printed = train("--challenge", challenge, "--set", "on=features", "--name", "fitted")
    run = the_run(train.out)
    assert run.finished and run.state["status"] == "finished" and "(simulated" in printed
    (entry,) = run.history["epochs"]
    assert entry["epoch"] == run.best[0] == run.state["best_epoch"] == 1 and entry["best"]
    assert run.config["model"]["on"] == "features" and run.config["train"]["epochs"] == 1
    assert run.config["train"]["normalize"] == run.config["model"]["normalize"] == "none"
    checkpoints = run.folder / "checkpoints"
    names = ["best.json", "best.pt", "last.json", "last.pt"]
    assert sorted(path.name for path in checkpoints.iterdir()) == names
    assert json.loads((checkpoints / "last.json").read_text())["epoch"] == 1
    saved = torch.load(checkpoints / "last.pt", weights_only=True)
    model = weights(run.folder, challenge)
    assert all(torch.equal(value, saved["model"][key]) for key, value in model.state_dict().items())
    cache = Cache([cache_path(caches, challenge, name) for name in ("R1", "R5")])
    known = saved["out_of_fold"]
    y = cache.y[known["rows"]][:, None]
    p = known["answers"].numpy()[..., 0]
    figure = nrmse(np.broadcast_to(y, p.shape).ravel(), p.ravel())
    assert entry["train"]["nrmse"] == pytest.approx(figure, rel=1e-5)
    if challenge == 1:
        rows = np.flatnonzero((cache.release == "R5") & ~cache.metadata["copy"])
        p = predict_run(run, Side(cache, rows))[:, 0]
        assert entry["valid"]["nrmse"] == pytest.approx(nrmse(cache.y[rows], p), rel=1e-6)
        assert "strength features" in printed and p.std() > 0.01


def test_the_submission_answers_as_the_run_does(train, tmp_path, monkeypatch):
    """Alone in a fresh interpreter, in volts; the run itself by its layer, trained on the
    kernels."""
    monkeypatch.setattr(Fit, "_trust", lambda *_: (0.1, 1.0))
    train("--challenge", 1, "--set", "rank=4", "components=4", "--name", "fitted")
    run = the_run(train.out)
    entries = {1: submission.entry([run]), 2: submission.Entry({}, 0.5)}
    path = tmp_path / "submission.zip"
    submission.write_zip(path, entries)
    checked = submission.check(path, entries)
    assert checked.differences[1] <= 1e-4
    (model,) = entries[1].models.values()
    x = torch.from_numpy(submission.example_windows())
    with torch.inference_mode():
        answers = model(x)
        assert answers.std() > 1e-3
        torch.testing.assert_close(fold(model)(1e6 * x), answers, rtol=1e-4, atol=1e-4)


def test_folds_and_seeds(train):
    train("--challenge", 1, "--set", "on=potentials", "--train", "R1", "--cv", 2)
    runs = find_runs(train.out)
    assert [run.config["train"]["fold"] for run in runs] == [[1, 2], [2, 2]]
    assert all(run.finished for run in runs)
    sides = [set(run.config["split"]["valid"]["subjects"]) for run in runs]
    assert not sides[0] & sides[1]


def test_an_interrupted_run_is_fitted_again_and_a_finished_one_is_not(train, monkeypatch):
    """The same weights, whether it was interrupted or not."""
    real = Fit.run
    monkeypatch.setattr(Fit, "run", lambda self, progress: (_ for _ in ()).throw(KeyboardInterrupt))
    train("--challenge", 1, "--set", "on=potentials", "--name", "fitted")
    run = the_run(train.out)
    assert run.status == "stopped"
    monkeypatch.setattr(Fit, "run", real)
    train("--resume", run.folder)
    run = the_run(train.out)
    assert run.finished and len(run.history["epochs"]) == 1
    with pytest.raises(UserError, match="has finished; score it with"):
        train("--resume", run.folder, "--epochs", 9)


@pytest.mark.parametrize(
    "given, text",
    [
        (("--lr", 0.1), "--lr: ridge is fitted in closed form"),
        (("--epochs", 5), "--epochs: ridge is fitted in closed form"),
        (("--normalize", "channel"), "--normalize: ridge is fitted in closed form"),
        (("--balance",), "--balance: ridge is fitted in closed form"),
        (("--augment", "noise=0.1"), "--augment: ridge is fitted in closed form"),
        (("--device", "cuda"), "--device: ridge is fitted in closed form"),
        (
            ("--set", "dropout=0.1"),
            "ridge has no setting 'dropout'; it has on, encoder, components, rank",
        ),
    ],
)
def test_options_that_it_does_not_read_are_refused(train, capsys, given, text):
    with pytest.raises(SystemExit) as end:
        train("--challenge", 1, *given)
    assert end.value.code == 2 and text in capsys.readouterr().err
    assert not train.out.exists()


def test_options_that_say_what_it_does_anyway_are_taken(train):
    given = ("--epochs", 1, "--normalize", "none", "--augment", "--device", "cpu", "--amp", "off")
    train("--challenge", 1, "--set", "on=potentials", *given)
    assert the_run(train.out).finished


def test_one_training_subject_is_named(train):
    with pytest.raises(UserError, match="at least 2 training subjects; there is 1"):
        train("--challenge", 1, "--max-subjects", 1)
