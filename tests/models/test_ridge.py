"""The ridge's numbers against SciPy and NumPy, and what they promise whatever the window."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

from eeg.data.features import FEATURES, compute
from eeg.models import SETTINGS, build, fold
from eeg.models.montage import BANDS
from eeg.models.ridge import FAR, LOUD, Covariance, Features, Potentials, tamed
from eeg.ridge.representation import learn_sizes


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from more, and lose a lot on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def windows(n=24, electrodes=129, samples=200, seed=0):
    """Windows of mixed wandering sources, microvolts; the last electrode is the reference."""
    rng = np.random.default_rng(seed)
    sources = np.cumsum(rng.standard_normal((n, 30, samples)), 2) + 2 * rng.standard_normal(
        (n, 30, samples)
    )
    x = rng.standard_normal((electrodes, 30)) @ (sources * rng.uniform(0.5, 2, (n, 30, 1)))
    x += rng.standard_normal(x.shape)
    x[:, -1] = 0
    return torch.from_numpy(x.astype(np.float32))


def settled(x, seed=0, **settings):
    """A ridge whose sizes are those of x, with random weights."""
    torch.manual_seed(seed)
    model = build("ridge", n_chans=x.shape[1], n_times=x.shape[2], **settings).eval()
    features = None
    if settings.get("on", "all") in ("all", "features"):
        features = torch.from_numpy(compute(x.numpy(), threads=1))
    learn_sizes(model.network, x, {"features": features})
    torch.nn.init.normal_(model.network.weight, std=0.05)
    torch.nn.init.normal_(model.network.bias)
    return model


@pytest.mark.parametrize("samples", [200, 101, 37])
def test_covariance_is_the_tangent_space_at_the_log_euclidean_mean(samples):
    """Window by window with SciPy, in float64, from the learned components on."""
    x = windows(12, 20, samples)
    model = settled(x, on="covariance", rank=5)
    kind = model.network.kinds["covariance"]
    assert isinstance(kind, Covariance)
    cut = np.clip(
        (x - x.mean(2, keepdim=True)).double().numpy(),
        *(sign * model.network.limit.double().numpy()[:, None] for sign in (-1, 1)),
    )
    hertz = np.fft.rfftfreq(samples, 0.01)
    taper = scipy.signal.get_window("hann", samples)
    used = [band for band in BANDS.values() if ((hertz >= band[0]) & (hertz <= band[1])).any()]
    assert len(used) == len(kind.bins)
    found = []
    for number, (low, high) in enumerate(used):
        inside = (hertz >= low - 1e-6) & (hertz <= high + 1e-6)
        covariances = []
        for window in kind.whiten[number].double().numpy() @ cut:
            part = np.fft.rfft(window * taper)[:, inside]
            own = 2 / (samples * (taper**2).sum()) * (part @ part.conj().T).real
            share = 5 / (5 + 2 * inside.sum())
            covariances.append((1 - share) * own + share * np.trace(own) / 5 * np.eye(5))
        mean = scipy.linalg.expm(np.mean([scipy.linalg.logm(c) for c in covariances], 0))
        root = np.linalg.inv(scipy.linalg.sqrtm(mean)).real
        logs = [scipy.linalg.logm(root @ c @ root).real for c in covariances]
        rows, columns = np.triu_indices(5)
        weight = np.where(rows == columns, 1, np.sqrt(2))
        found.append([log[rows, columns] * weight for log in logs])
        # the length of a tangent vector is the Riemannian distance from the mean
        values = scipy.linalg.eigh(covariances[0], mean, eigvals_only=True)
        distance = np.linalg.norm(np.log(values))
        assert np.linalg.norm(found[-1][0]) == pytest.approx(distance, rel=1e-6)
    bounded = model.network.bounded(x)
    tangent = kind.tangent(kind.covariances(bounded)).numpy()
    np.testing.assert_allclose(tangent, np.hstack(found), rtol=2e-3, atol=2e-3)


def test_components_of_a_band_are_the_largest_and_white():
    """Of windows that count the same whatever their size."""
    x = windows(15, 12, 200)
    loud = x.clone()
    loud[3] *= 2
    whiten = [
        settled(each, on="covariance", rank=4).network.kinds["covariance"].whiten.double().numpy()
        for each in (x, loud)
    ]
    cut = (x - x.mean(2, keepdim=True)).double().numpy()
    hertz, taper = np.fft.rfftfreq(200, 0.01), scipy.signal.get_window("hann", 200)
    for number, (low, high) in enumerate(BANDS.values()):
        part = np.fft.rfft(cut * taper)[..., (hertz >= low - 1e-6) & (hertz <= high + 1e-6)]
        each = (part @ part.conj().swapaxes(1, 2)).real
        mean = (each / np.trace(each, axis1=1, axis2=2)[:, None, None]).mean(0)
        values, vectors = np.linalg.eigh(mean)
        for found in whiten:
            own = found[number] @ mean @ found[number].T
            np.testing.assert_allclose(own, np.eye(4) * own[0, 0], atol=2e-3 * own[0, 0])
            # the same space: the projection on it
            q, _ = np.linalg.qr(found[number].T)
            top = vectors[:, -4:]
            np.testing.assert_allclose(q @ q.T, top @ top.T, atol=5e-3)


@pytest.mark.parametrize("samples", [200, 37, 5])
def test_potentials_are_averages_of_components(samples):
    x = windows(4, 10, samples)
    model = settled(x, on="potentials", components=3)
    kind = model.network.kinds["potentials"]
    assert isinstance(kind, Potentials)
    kind.components.copy_(torch.randn(3, 10, generator=torch.Generator().manual_seed(1)) / 200)
    cut = model.network.bounded(x).numpy()
    width = min(8, samples)
    wanted = [
        kind.components.numpy() @ cut[:, :, at : at + width].mean(2)[..., None]
        for at in range(0, samples - width + 1, width)
    ]
    wanted = np.concatenate(wanted, 2).reshape(4, -1)
    assert np.abs(wanted).max() < FAR and (np.square(wanted).mean(1) < LOUD**2).all()
    np.testing.assert_allclose(model.network.numbers(x).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_features_are_standardised_by_median_and_mad():
    """Amounts that are positive and skewed as logarithms, and what cannot be computed at the
    median."""
    x = windows(30)
    x[4, :9] = 0
    raw = compute(x.numpy(), threads=1).astype(float)
    model = settled(x, on="features")
    kind = model.network.kinds["features"]
    assert isinstance(kind, Features)
    ends = ("line_length", "kurtosis", "ssvep20", "ssvep25", "lrp_amplitude")
    logged = [name for name in FEATURES if name.endswith(ends)]
    assert len(logged) == 13
    columns = [list(FEATURES).index(name) for name in logged]
    raw[:, columns] = np.log(raw[:, columns])
    median = np.nanmedian(raw, 0)
    deviation = 1.4826 * np.nanmedian(np.abs(raw - median), 0)
    wanted = np.nan_to_num((raw - median) / np.where(deviation > 0, deviation, 1))
    wanted = np.clip(wanted, -5, 5)
    wanted *= (3 / np.maximum(3, np.sqrt(np.square(wanted).mean(1))))[:, None]
    np.testing.assert_allclose(model.network.numbers(x).numpy(), wanted, atol=3e-3)


def test_numbers_are_bounded_singly_and_as_a_whole():
    z = torch.tensor([[1.0, -2, 0.5, 0], [100, torch.nan, 0, 0], [9, -9, 9, torch.inf]])
    found = tamed(z)
    assert torch.equal(found[0], z[0])
    assert found[1].tolist() == [5, 0, 0, 0]
    torch.testing.assert_close(found[2], torch.tensor([3.0, -3, 3, 3]))


@pytest.mark.parametrize("on", ["all", "features", "potentials", "covariance"])
def test_volts_and_microvolts_give_one_answer_and_sizes_another(on):
    x = windows()
    model = settled(x, on=on)
    volts = model(x * 1e-6)
    torch.testing.assert_close(model(x), volts, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model(x[3:4]), model(x)[3:4], rtol=1e-4, atol=1e-4)
    assert model(x).std() > 0 and model(x[:0]).shape == (0, 1)
    assert (model(1.5 * x) - model(x)).abs().max() > 1e-2, "amplitude is lost"


@pytest.mark.parametrize("on", ["all", "features", "potentials", "covariance"])
def test_an_artefact_moves_the_answer_no_further_than_its_bounds(on):
    """An electrode that fell off, one at the amplifier's limit, and a window of them alone."""
    x = windows()
    model = settled(x, on=on)
    bad = x.clone()
    bad[0, 7] += 3e5 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    bad[1, 9, 100:] = 4e5
    bad[2] = 4e5 * torch.randn(129, 200, generator=torch.Generator().manual_seed(1)).sign()
    bad[3] = 0
    numbers = model.network.numbers(bad)
    assert numbers.isfinite().all() and numbers.abs().max() <= FAR
    for part in numbers.split([kind.size for kind in model.network.kinds.values()], 1):
        assert (part.square().mean(1).sqrt() <= LOUD + 1e-4).all()
    torch.testing.assert_close(model(bad)[4:], model(x)[4:], rtol=1e-4, atol=1e-4)


def test_it_is_made_again_from_its_settings():
    model = settled(windows(6, 21, 101), on="covariance", rank=4, n_outputs=4)
    other = build(**model.settings)
    other.load_state_dict(model.state_dict())
    x = windows(3, 21, 101, seed=1)
    assert torch.equal(other.eval()(x), model(x)) and model(x).shape == (3, 4)
    assert model.settings["normalize"] == "none"


def test_settings_are_declared_and_mistakes_named():
    made = build("ridge", **{key: setting.default for key, setting in SETTINGS["ridge"].items()})
    usual = build("ridge").network
    assert [kind.size for kind in usual.kinds.values()] == [103, 12 * 25, 5 * 12 * 13 // 2]
    assert made.network.weight.shape == usual.weight.shape
    for settings, text in (
        ({"normalize": "channel"}, "normalize='channel': ridge takes no other than 'none'"),
        (
            {"on": "phase"},
            "on=phase: ridge takes all, or some of features, transition, potentials, covariance, "
            "embeddings",
        ),
        ({"n_chans": 20}, "these windows have 20: choose on='potentials' or on='covariance'"),
        ({"n_times": 2, "on": "covariance"}, "2 samples hold no frequency band"),
        ({"features": "layer"}, "ridge takes no features"),
    ):
        with pytest.raises(ValueError, match=text):
            build("ridge", **settings)
