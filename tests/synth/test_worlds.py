"""Worlds: the labels are in the EEG where a world says so, and nowhere at --snr 0."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.signal

from eeg.data.release import CONTRAST
from eeg.models.montage import CHANNELS
from eeg.synth import oracle
from eeg.synth.events import Scene, Trial, scene
from eeg.synth.signals import Brain
from eeg.synth.subjects import HABITS, TRAITS, draw_subject, draw_traits, stream
from eeg.synth.worlds import CARRIERS, WORLDS

OPEN = [name for name, world in WORLDS.items() if not world.held_out]


def make_brain(index, world, snr=1.0, release="R1", **changes):
    subject = dataclasses.replace(draw_subject(release, index, 0), oddity="", **changes)
    return Brain((0, release, index), subject, WORLDS[world], snr)


def make_scene(index, release="R1", run=1, **changes):
    subject = dataclasses.replace(draw_subject(release, index, 0), oddity="", **changes)
    return scene(stream(0, release, index, "events", run), subject, CONTRAST, run, 3)


def other_responses(happened, fast=True):
    """The same stimuli with other responses, some missing, on the fast time line."""
    trials = [
        dataclasses.replace(t, response_s=t.stimulus_s + 0.3 + 0.08 * k if k % 5 else np.nan)
        for k, t in enumerate(happened.trials)
    ]
    return dataclasses.replace(happened, trials=tuple(trials), fast=fast)


@pytest.mark.parametrize("world", WORLDS)
def test_names_are_known(world):
    one = WORLDS[world]
    assert set(one.carriers) | set(one.others) <= set(CARRIERS) and set(one.links) <= set(TRAITS)
    assert not set(one.carriers) & set(one.others)
    assert all(-1 < strength < 1 for strength in one.links.values())


@pytest.mark.parametrize("world", WORLDS)
def test_at_snr_0_no_label_changes_a_sample(world):
    """Other response times, the fast time line, another externalizing factor: the same bytes. With
    signal, the labels that the world names do change samples.
    """
    happened = make_scene(11)
    moved = other_responses(happened)
    factors = (0.1, 0.2, 0.3, 2.5)
    for snr, same in ((0.0, True), (1.0, world == "null")):
        x = make_brain(11, world, snr).signals(happened, 1)
        assert (x == make_brain(11, world, snr).signals(moved, 1)).all() == same
        other = make_brain(11, world, snr, factors=factors).signals(happened, 1)
        assert (x == other).all() == same


def test_null_is_real_without_signal():
    happened = make_scene(12)
    null = make_brain(12, "null").signals(happened, 1)
    assert (null == make_brain(12, "real", 0.0).signals(happened, 1)).all()


def traits_of(world, release="R1", count=600, snr=1.0):
    """-> (externalizing (count,), {trait: (count,)})."""
    labels, found = [], {name: [] for name in (*TRAITS, *HABITS)}
    for index in range(count):
        subject = draw_subject(release, index, 0)
        labels.append(subject.externalizing)
        traits = draw_traits(subject, (0, release, index), WORLDS[world], snr)
        for name, value in traits.items():
            found[name].append(value)
    return np.array(labels), {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("world", WORLDS)
def test_traits_are_linked_as_the_world_says_and_spread_alike(world):
    one = WORLDS[world]
    label, traits = traits_of(world)
    for name in TRAITS:
        linked = one.links.get(name, 0) if one.signal else 0
        assert np.corrcoef(traits[name], label)[0, 1] == pytest.approx(linked, abs=0.13)
        assert traits[name].std() == pytest.approx(1, abs=0.12)


def test_reals_links_are_weak_all_together():
    label, traits = traits_of("real", count=2000)
    features = np.array([np.ones(len(label)), *(traits[name] for name in WORLDS["real"].links)]).T
    predicted = features @ np.linalg.lstsq(features, label, rcond=None)[0]
    assert 0.1 < np.corrcoef(predicted, label)[0, 1] < 0.25


def test_artefacts_change_sides_between_releases():
    signs = set()
    for release in ("R1", "R2", "R3", "R4", "R5", "R6"):
        label, traits = traits_of("artefacts", release, 150)
        found = [np.corrcoef(traits[name], label)[0, 1] for name in HABITS[:3]]
        assert min(np.abs(found)) > 0.4
        signs.add(tuple(np.sign(found)))
    assert len(signs) > 2


def test_artefacts_change_sides_between_subjects():
    """Muscle over the temples grows with the response time in some subjects, and falls in
    others."""
    at = [CHANNELS.index(name) for name in ("E45", "E108")]
    high = scipy.signal.butter(3, 28, "high", fs=100, output="sos")
    found = []
    for index in range(10, 22):
        happened = make_scene(index)
        x = scipy.signal.sosfiltfilt(high, make_brain(index, "artefacts").signals(happened, 1)[at])
        trials = [t for t in happened.trials if np.isfinite(t.response_s)]
        first = [int(t.stimulus_s * 100) + 50 for t in trials]
        power = [np.log(np.median(x[:, k : k + 200] ** 2)) for k in first]
        found.append(np.corrcoef(power, [t.response_s - t.stimulus_s for t in trials])[0, 1])
    assert np.mean(np.abs(found)) > 0.4 and max(found) > 0.3 and min(found) < -0.3


@pytest.mark.parametrize("kind", ["network", "slow", "bursts"])
def test_power_says_nothing_where_a_world_says_so(kind):
    """Traits that change correlations, shapes or rates leave the total power of their sources
    alone.
    """
    quiet = dataclasses.replace(WORLDS[kind], artefacts=0.0, background=1.0)
    power = []
    for value in (-2.0, 2.0):
        subject = dataclasses.replace(draw_subject("R1", 30, 0), age=10.0)
        brain = Brain((0, "R1", 30), subject, quiet, 0.0)
        brain.traits |= dict.fromkeys(WORLDS[kind].links, value)
        x = np.concatenate([brain.signals(Scene(200.0, ()), k)[:128] for k in (1, 2)], 1)
        power.append(x[x.std(1) > 0].var(1).mean())
    assert power[1] / power[0] == pytest.approx(1, abs=0.12)


def test_coupling_moves_correlation_and_no_power():
    """Two distant sources: correlated around the response, each of unchanged power."""
    stimuli = 5 + 6.0 * np.arange(30)
    trials = tuple(Trial(s, "left", s + 1.6, "left", s + 2.4) for s in stimuli)
    happened = Scene(float(stimuli[-1] + 6), (), trials)
    world = dataclasses.replace(WORLDS["network"], jitter_s=0.0, lapses=0.0, others={})
    subject = dataclasses.replace(draw_subject("R1", 30, 0), age=10.0)
    brain = Brain((0, "R1", 30), subject, world, 1.0)
    rng = stream(0, "R1", 30, "background", 1)
    (_, front), (_, back) = brain._pair(rng, brain._courses(happened, 1))
    cut = lambda x, at: np.array([x[round((s + at) * 100) :][:50] for s in stimuli]).ravel()
    correlation = lambda at: np.corrcoef(cut(front, at), cut(back, at))[0, 1]
    assert correlation(1.4) > correlation(4.5) + 0.25
    for x in (front, back):
        assert cut(x, 1.4).std() == pytest.approx(cut(x, 4.5).std(), rel=0.12)


def test_oracles():
    """What a world allows: reality is weak, nothing is in the null world beside age and sex."""
    scores = {name: oracle.oracle(name, 1.0) for name in WORLDS}
    assert scores["null"] == oracle.oracle("real", 0.0)
    assert scores["null"]["challenge1"] == pytest.approx(1, abs=0.01)
    assert 0.96 < scores["null"]["challenge2"] < 0.99  # age and sex; 0.964 to 0.975 on real labels
    assert 0.94 < scores["real"]["challenge2"] < scores["null"]["challenge2"]
    for name in set(WORLDS) - {"real", "easy", "null"}:
        assert 0.45 < scores[name]["challenge1"] < 0.7 and 0.3 < scores[name]["challenge2"] < 0.62
    assert scores["easy"]["challenge1"] < 0.35 < 0.85 > scores["easy"]["challenge2"]


def test_cross_validation_by_hand():
    """One group a fold: each group's mean is predicted by the mean of the others."""
    groups = np.repeat(np.arange(5), 4)
    y = np.random.RandomState(0).standard_normal(20) + groups
    expected = [y[groups != k].mean() for k in groups]
    score = np.sqrt(np.mean((y - expected) ** 2)) / y.std()
    assert oracle.cross_validated(np.ones((20, 1)), y, groups) == pytest.approx(score)


def windows(world, snr, indices, runs=(1, 2)):
    """-> (features (n, 26 x 20): electrodes in steps of 0.1 s, response times)."""
    found, times = [], []
    for index, run in itertools.product(indices, runs):
        happened = make_scene(index, run=run)
        x = make_brain(index, world, snr).signals(happened, run)[:128:5]
        for trial in happened.trials:
            first = round(trial.stimulus_s * 100) + 50
            if np.isfinite(trial.response_s) and first + 200 <= x.shape[1]:
                part = x[:, first : first + 200].reshape(len(x), 20, 10).mean(2)
                found.append(np.clip(part - part.mean(1, keepdims=True), -60, 60).ravel())
                times.append(trial.response_s - trial.stimulus_s)
    return np.array(found), np.array(times)


@pytest.mark.parametrize("world, low, high", [("easy", 0.0, 0.85), ("null", 0.98, 1.04)])
def test_ridge_on_potentials(world, low, high):
    """On other subjects, of the mean predictor's error: much less in the easy world, no less in the
    null world.
    """
    spans = ((20, 32), (32, 38), (40, 48))
    (X, y), (V, v), (Z, t) = (windows(world, 1.0, range(*span)) for span in spans)
    centre, scale = X.mean(0), X.std()
    X, V, Z = ((each - centre) / scale for each in (X, V, Z))
    values, vectors = np.linalg.eigh(X @ X.T)

    def error(strength, on, times):
        weights = X.T @ (vectors @ ((vectors.T @ (y - y.mean())) / (values + strength)))
        predicted = on @ weights + y.mean()
        return np.sqrt(np.mean((predicted - times) ** 2) / np.mean((y.mean() - times) ** 2))

    strength = min(10.0 ** np.arange(2, 9), key=lambda each: error(each, V, v))
    assert low < error(strength, Z, t) < high
