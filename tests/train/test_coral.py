"""--coral: the distance against NumPy's covariances, what it is taken of, and runs with it."""

import shutil
from itertools import combinations

import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.cache import find_caches
from eeg.runs.run import Run
from eeg.train import trainer as module
from eeg.transfer import coral
from tests.train.interruptions import Killed, faulty
from tests.train.trained import killed, left_behind, the_run, weights

NETWORKS = [name for name in eeg.models.MODELS if name != "ridge"]


def by_hand(x, domain):
    """Of features (B, D): NumPy's covariance of each domain of 2 windows or more, pair by pair."""
    several = [name for name in np.unique(domain) if (domain == name).sum() > 1]
    found = [np.cov(x[domain == name], rowvar=False) for name in several]
    size = 4 * x.shape[1] ** 2
    pairs = [np.linalg.norm(a - b, "fro") ** 2 / size for a, b in combinations(found, 2)]
    return np.mean(pairs) if pairs else 0.0


@pytest.mark.parametrize(
    "domain",
    [
        [0, 0, 0, 0, 1, 1, 1, 1],
        [7, 3, 3, 7, 9, 7, 9, 3],  # three domains, in any order
        [5, 5, 5, 2, 2, 2, 2, 8],  # of one domain there is one window
    ],
)
def test_the_distance_is_that_of_numpys_covariances(domain):
    domain = np.array(domain)
    x = np.random.default_rng(0).normal(3, 2, (8, 5)) * (1 + domain[:, None])
    found = coral.distance(torch.from_numpy(x), torch.from_numpy(domain))
    assert found.item() == pytest.approx(by_hand(x, domain), rel=1e-9) and found > 0.01


@pytest.mark.parametrize("domain", [[4] * 6, range(6), [1, 1, 1, 1, 1, 2]])
def test_without_a_pair_there_is_no_distance(domain):
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    found = coral.distance(x, torch.tensor(domain))
    assert found.item() == 0
    (x.sum() + found).backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_the_gradient_is_that_of_finite_differences():
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 1, 2] * 3)
    assert torch.autograd.gradcheck(lambda x: coral.penalty([x, x * x], domain), x)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_compared_are_the_last_hidden_features(name):
    """From them the network's last layer makes its answer; nothing is watched for longer."""
    settings = {"head": "number"} if "head" in eeg.models.SETTINGS[name] else {}
    settings |= {"features": "layer"} if name == "hybrid" else {}
    model = eeg.models.build(name, members=2, **settings).eval()
    x = 20 * torch.randn(3, 129, 200)
    with torch.no_grad(), coral.watched(model, True) as hidden:
        model.raw(x)
    assert len(hidden) == 2 and not torch.equal(*hidden)
    own, seen = model.network.networks[1], hidden[1]
    head = own.last if hasattr(own, "last") else own.head
    head = own.get_submodule(own.hidden) if name in eeg.models.PUBLIC else head
    with torch.no_grad():
        if name == "eegnex":
            answer = seen @ head.weight.renorm(2, 0, 0.25).T + head.bias
        elif hasattr(head, "norm"):  # a normalisation of each token comes before the mean over them
            assert seen.shape == (3, own.position.shape[1])
            answer = None
        else:
            answer = head(seen[:, None] if hasattr(head, "squeeze") else seen)
        normal = model.normalize(x)
        rest = (model.neuro(x),) if name == "hybrid" else ()
        rest = [torch.nan_to_num(((z - model.median) / model.mad).clamp(-10, 10)) for z in rest]
        expected = own(normal, *rest)
    if answer is not None:
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    assert len(hidden) == 2
    with coral.watched(model, False) as nothing:
        model.raw(x)
    assert nothing == []


def distances(run, cache):
    """Of the run's network, between the subjects of its training windows."""
    model, subjects = weights(run.folder), cache.metadata["subject"]
    x = torch.from_numpy(np.stack([cache[row][:, 10:210] for row in range(len(cache))]))
    with torch.no_grad(), coral.watched(model, True) as hidden:
        model.raw(x)
    return by_hand(hidden[0].numpy(), subjects)


def test_no_strength_is_no_option_and_a_strong_one_makes_domains_alike(train, caches):
    found, printed = [], []
    for more in ((), ("--coral", 0), ("--coral", 300)):
        printed.append(train("--challenge", 1, "--epochs", 2, "--ema", 0, *more))
        found.append(the_run(train.out))
        if len(found) > 1:
            assert ("coral" in found[-1].config["train"]) == (more[1] > 0)
        moved = train.out.with_name(f"out{len(found)}")
        train.out.rename(moved)
        found[-1] = Run(moved / found[-1].name)
    plain, zero, strong = found
    assert left_behind(plain.folder) == left_behind(zero.folder)
    count = len(plain.config["split"]["train"]["subjects"])
    assert f"loss time + 300 CORAL between {count} subjects" in printed[2]
    assert "CORAL" not in printed[1]
    cache = find_caches(caches, 1, ["R1"])
    assert distances(strong, cache) < 0.5 * distances(plain, cache)


def test_killed_it_ends_as_if_nothing_had_been(train, monkeypatch):
    options = "--challenge 1 --epochs 2 --coral 1 --members 2 --train R1 R5".split()
    assert "CORAL between 2 releases" in train(*options)
    reference = left_behind(the_run(train.out).folder)
    shutil.rmtree(train.out)
    with monkeypatch.context() as patch:
        step = faulty({5: Killed()}, module.Trainer, "_train_batch")
        patch.setattr(module.Trainer, "_train_batch", step)
        with pytest.raises(Killed):
            train(*options, "--checkpoint-minutes", 0)
    folder = the_run(train.out).folder
    killed(folder)
    train("--resume", folder)
    assert left_behind(folder) == reference


def test_what_cannot_be_compared(train, capsys):
    with pytest.raises(UserError, match="the training side has 1 subject; name more releases"):
        train("--challenge", 1, "--coral", 1, "--max-subjects", 1)
    for words, why in (
        (("--coral", 1, "--augment", "mix=0.2"), "whose windows belong to two subjects"),
        (("--coral", 1, "--model", "ridge"), "--coral: ridge is fitted in closed form"),
        (("--coral", -1), "not a number of at least 0"),
    ):
        with pytest.raises(SystemExit):
            train.other("train", "--challenge", 1, *words)
        assert why in capsys.readouterr().err
