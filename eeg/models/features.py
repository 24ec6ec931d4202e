"""What each neuroscience feature of a window is, in one table. The kernels (csrc/features.hpp) and
the layer (neuro.py) compute them; tests compare both with this table, name by name."""

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
