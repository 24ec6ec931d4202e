"""The masked autoencoder: what is hidden, what the encoder sees of it, and what the loss counts."""

import mne
import numpy as np
import pytest
import torch

from eeg.models.montage import CHANNELS, REGIONS
from eeg.models.transformer import Hiding, Masked, region_of

SMALL = {"width": 8, "depth": 2, "heads": 2, "inner": 16, "dropout": 0.0}


def made(name, n_times=53, regions=2, normalize="none", **more):
    torch.manual_seed(0)
    more = SMALL | {"n_chans": 129, "n_times": n_times} | more
    model = Masked(name, normalize, 0.5, 3, regions, **more).double().eval()
    with torch.no_grad():
        model.decoder.restore.weight.normal_()
    return model


def drawn(model, windows, seed=0):
    return model.hiding.draw(windows, model.network.n_tokens, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens, share, span", [(50, 0.5, 5), (7, 0.4, 3), (14, 0.7, 4)])
def test_hides_the_share_in_spans(tokens, share, span):
    found = Hiding(share, span, 3).draw(200, tokens, torch.Generator().manual_seed(1))
    seen, covered = found["seen"], found["covered"]
    assert seen.shape == (200, max(1, tokens - round(share * tokens)))
    assert (seen.diff(dim=1) > 0).all()
    hidden = torch.ones(200, tokens, dtype=torch.bool).scatter(1, seen, False)
    divided = 0  # spans of which a part is seen: at most one in each window
    for start in range(0, tokens, span):
        own = hidden[:, start : start + span]
        divided = divided + (own.any(1) != own.all(1)).int()
    assert divided.max() <= 1
    assert hidden.any(0).all() and (~hidden).any(0).all()  # every token may be hidden, or seen
    of = region_of()
    for row in covered[:20]:
        regions = set(of[row].tolist())
        assert len(regions) == 3 and torch.equal(row, torch.isin(of, torch.tensor(list(regions))))


def test_regions_are_neighbours_on_the_head():
    """Each electrode is nearest to the middle of its own region, by the positions of MNE."""
    assert sorted(sum(REGIONS, ())) == list(range(1, 130))
    places = mne.channels.make_standard_montage("GSN-HydroCel-129").get_positions()["ch_pos"]
    at, of = np.array([places[name] for name in CHANNELS]), region_of().numpy()
    middles = np.array([at[of == region].mean(0) for region in range(len(REGIONS))])
    distances = np.linalg.norm(at[:, None] - middles, axis=2)
    assert (distances.argmin(1) == of).all()


@pytest.mark.parametrize("name", ["transformer", "conformer"])
def test_what_is_hidden_reaches_neither_encoder_nor_guess(name):
    model = made(name)
    hidden, patch = drawn(model, 3), model.network.patch
    x = torch.randn(3, 129, 53, dtype=torch.float64)
    guess = model.restored(x, **hidden)[1]
    shown = torch.zeros(3, 14, dtype=torch.bool).scatter(1, hidden["seen"], True)
    shown = shown.repeat_interleave(patch, 1)[:, None, :53] & ~hidden["covered"][:, :, None]
    other = torch.where(shown, x, 100 * torch.randn_like(x))
    assert torch.equal(model.restored(other, **hidden)[1], guess)
    row, channel, sample = torch.nonzero(shown)[137]
    other[row, channel, sample] += 1
    assert not torch.allclose(model.restored(other, **hidden)[1][row], guess[row])


@pytest.mark.parametrize("regions", [0, 2])
def test_the_loss_counts_hidden_values_in_deviations_of_their_patch(regions):
    """Against a loop over windows, tokens, samples and electrodes."""
    model = made("transformer", regions=regions, patch=3)
    hidden = drawn(model, 2)
    x = 5 + 3 * torch.randn(2, 129, 53, dtype=torch.float64)
    x[0, :, 6:9] = 1.5  # a constant patch
    errors, (_, guess, _) = model.errors(x, **hidden), model.restored(x, **hidden)
    padded = np.concatenate([x.numpy(), np.zeros((2, 129, 1))], 2)
    for window in range(2):
        squares = []
        for token in range(18):
            patch = padded[window, :, 3 * token : 3 * token + 3].T
            spread = patch.std()
            target = (patch - patch.mean()) / spread if spread > 1e-6 else np.zeros_like(patch)
            for sample in range(3):
                for channel in range(129):
                    covered = regions and hidden["covered"][window, channel]
                    if token in hidden["seen"][window] and not covered:
                        continue
                    said = guess[window, token, sample, channel].item()
                    squares.append((said - target[sample, channel]) ** 2)
        assert errors[window].item() == pytest.approx(np.mean(squares), rel=1e-9)


@pytest.mark.parametrize("name", ["transformer", "conformer"])
def test_begins_with_the_error_of_the_mean(name):
    """Untrained, it guesses the mean of each patch."""
    torch.manual_seed(0)
    model = Masked(name, "channel", 0.5, 5, 0, **SMALL)
    errors = model.errors(30 * torch.randn(4, 129, 200), **drawn(model, 4))
    torch.testing.assert_close(errors, torch.ones(4), rtol=1e-3, atol=0)


def test_regions_of_other_nets_are_not_known():
    with pytest.raises(ValueError, match="regions of 64 electrodes are not known"):
        made("transformer", n_chans=64)
    assert made("transformer", n_chans=64, regions=0).raw(torch.randn(2, 64, 53).double()).numel()
