"""What each feature of a window is, in two groups, each a table.

    neuroscience  103 features, the default: kernels (csrc/features.hpp) and the layer (neuro.py)
                  compute them; tests compare both with this table, name by name
    transition    23 numbers about how a window's channels follow from themselves some samples
                  earlier, only where asked for: MBZUAI's submission to the NeurIPS 2025 EEG
                  Foundation Challenge, second in challenge 2, was a ridge on them
                  (github.com/eeg2025/hall-of-fame-2025, MBZUAI/externalizing). The layer alone
                  computes them.

Symbols of `transition`, for a lag of l samples. z: the U channels that are finite and move in both
ends of the window, each less its mean over its standard deviation. P = z without its last l
samples, N = z without its first l, S samples each.

    R = correlations of the channels of P with those of N                          (U, U)
    A = N P' (P P' + 0.01 a S I)^-1, where a is the mean of the diagonal of P P' / S (U, U)

A is the matrix of the ridge regression of a moment on the one l samples before: N is about A P. The
published code counts a flat channel, as the reference is, as a channel of zeros, and all means are
over 129 channels. Here it is left out, so that no number depends on how many electrodes are flat.
"""

from .montage import BANDS, GROUPS, LAGS

QUARTERS = range(1, 5)

# A challenge 1 window opens after P300 and N200 as textbooks define them. Under their names stands
# what of the centro-parietal positivity lies within the window. Latencies count from its start.
# Each feature is named with its unit and its definition, in the order of the columns. A cache's
# fingerprint covers these texts: features whose definition has changed are computed again.


def _potentials():
    smooth = "means over 100 ms, less the window's mean"
    return {
        "p300_amplitude": f"uV, highest value of the centro-parietal mean ({smooth}); "
        "the classical 0.3 s lies before a challenge 1 window",
        "p300_latency": "s from the start of the window to that peak",
        "n200_amplitude": "uV, lowest value of the same up to the peak, where the build-up starts; "
        "the classical 0.2 s lies before a challenge 1 window",
        "cpp_slope": "uV/s, least squares over the 0.5 s before the peak; "
        "NaN where fewer than 0.1 s are seen",
        **{
            f"cpp_{q}": f"uV, centro-parietal mean in quarter {q} of the window, less the window's"
            for q in QUARTERS
        },
        "motor_slope": "uV/s, least squares over the window, mean of left and right motor groups",
        "motor_amplitude": "uV, lowest value of the mean of left and right motor groups "
        f"({smooth})",
        "lrp_amplitude": "uV, largest magnitude of left less right motor group, "
        f"C3 - C4 ({smooth})",
        "lrp_onset": "s from the start of the window to where it stays above half of that; "
        "NaN where it does from the start",
        "lrp_side": "1 where left (C3) is the more positive at that peak, "
        "as before a left-hand press, -1 where right is",
    }


def _rhythms():
    return {
        **{
            f"{band}_{q}": f"log10, {limits} Hz power (Hann) of both motor groups in quarter {q} "
            "over the mean of the quarters: below 0 is desynchronised"
            for band, limits in (("mu", "8-13"), ("beta", "13-30"))
            for q in QUARTERS
        },
        "alpha_suppression": "log10, occipital 8-13 Hz power (Hann) of the window's second half "
        "over its first: below 0 is suppressed",
        "theta_beta_ratio": "log10, frontal theta over beta power",
        **{
            f"ssvep{hertz}": f"uV, amplitude at {hertz} Hz (Hann) of the occipital mean, "
            "where the stimulus flickers"
            for hertz in (20, 25)
        },
        **{
            f"ssvep_difference_{q}": "uV, amplitude at 20 Hz less that at 25 Hz of the occipital "
            f"mean in quarter {q}"
            for q in QUARTERS
        },
    }


def _spectral_shape():
    return {
        "alpha_peak_frequency": "Hz, highest peak at 6-14 Hz of the occipital spectrum (Hann), "
        "by a parabola; NaN where none is twice the 1/f line",
        "alpha_peak_height": "log10, that peak over the 1/f line",
        "aperiodic_slope": "log10 power per log10 Hz: the 1/f line of all groups' mean spectrum "
        "(Hann) at 2-6 and 14-38 Hz, 20 and 25 +- 1 Hz left out",
        "aperiodic_offset": "log10 uV^2/Hz of that line at 1 Hz",
    }


def _of_group(group):
    return {
        **{
            f"{group}_{band}": f"log10 uV^2, {low}-{high} Hz power (periodogram), "
            "mean over channels"
            for band, (low, high) in BANDS.items()
        },
        f"{group}_log_power": "log10 uV^2, mean square about the mean, mean over channels",
        f"{group}_mobility": "1, Hjorth mobility as in mne-features, mean over channels",
        f"{group}_complexity": "1, Hjorth complexity as in mne-features, mean over channels",
        f"{group}_line_length": "uV, mean absolute step from sample to sample, mean over channels",
        f"{group}_kurtosis": "1, fourth moment over squared variance (3 for a Gaussian), "
        "mean over channels",
    }


def _of_lag(lag):
    what = f"of r between each channel and each {lag} samples later"
    return {
        f"lag{lag}_absolute": f"1, mean |r| {what}",
        f"lag{lag}_diagonal": f"1, mean {what}, a channel with itself",
        f"lag{lag}_off_diagonal": f"1, mean {what}, a channel with another",
        f"lag{lag}_entropy": f"0-1, normalised entropy of the shares of r^2 {what}",
    }


FEATURES = _potentials() | _rhythms() | _spectral_shape()
for _group in GROUPS:
    FEATURES |= _of_group(_group)
for _lag in LAGS:
    FEATURES |= _of_lag(_lag)


def _of_transition(lag):
    """The features that one lag could have, by the last part of their names."""
    r, a = f"of R, lag {lag}", f"of A, lag {lag}"
    return {
        "corr_mean_abs": f"1, mean |R_ij| over all pairs, {r}",
        "corr_diag_mean": f"1, mean R_ii, {r}",
        "corr_off_mean": f"1, mean R_ij of i and j that differ, {r}",
        "corr_entropy": f"nats, - sum p ln p, p = |R_ij| / sum |R|, {r}",
        "A_mean_abs": f"1, mean |A_ij| over all pairs, {a}",
        "A_diag_mean": f"1, mean A_ii, {a}",
        "A_off_mean": f"1, mean A_ij of i and j that differ, {a}",
        "A_fro": f"1, square root of the sum of A_ij^2, {a}",
        "A_asym_mean_abs": f"1, mean |A_ij - A_ji| over all pairs, {a}",
        "A_sparsity": f"0-1, share of the pairs with |A_ij| < 0.05, {a}",
    }


_CHOSEN = {  # by the competitors, in this order of lags
    5: ("corr_diag_mean", "corr_off_mean", "corr_entropy", "A_off_mean"),
    10: ("corr_mean_abs", "corr_diag_mean", "corr_entropy", "A_off_mean"),
    25: ("corr_mean_abs", "corr_diag_mean", "corr_entropy", "A_mean_abs"),
    50: ("corr_mean_abs", "corr_off_mean", "corr_entropy", "A_mean_abs", "A_diag_mean"),
    100: ("corr_entropy", "A_mean_abs", "A_diag_mean", "A_fro", "A_asym_mean_abs", "A_sparsity"),
}
TRANSITION = {
    f"lag{lag}_{part}": _of_transition(lag)[part]
    for lag, parts in _CHOSEN.items()
    for part in parts
}

NEUROSCIENCE = "neuroscience"  # the group that there is without being asked for
FEATURE_GROUPS = {NEUROSCIENCE: FEATURES, "transition": TRANSITION}


def feature_groups(text: str) -> tuple[str, ...]:
    """The groups in "neuroscience+transition", in the order of FEATURE_GROUPS. Raises ValueError
    for one that does not exist."""
    asked = text.split("+")
    if unknown := [group for group in asked if group not in FEATURE_GROUPS]:
        known = ", ".join(FEATURE_GROUPS)
        raise ValueError(f"there is no feature group '{unknown[0]}'; there are {known}")
    return tuple(group for group in FEATURE_GROUPS if group in asked)


def definitions(groups: tuple[str, ...]) -> dict[str, str]:
    """{name: definition} of the features of these groups."""
    return {name: text for group in groups for name, text in FEATURE_GROUPS[group].items()}
