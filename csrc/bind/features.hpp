// Features of windows.
#pragma once

#include "../features.hpp"
#include "../lagged.hpp"
#include "checks.hpp"

namespace eeg::bind {

inline Windows windows_of(const py::array& X, int64_t first, int64_t T) {
    const std::string expected = "(windows, channels, samples)";
    const Samples all = samples("X", X, expected);
    const auto& [N, C, stored] = shape_of(all);
    if (C == 0) wrong("X", "C-contiguous " + expected, X);
    // the tables of a transform grow with the square of T: 0.5 GB at most
    if (T < 1 || T > 8192 || first < 0 || first > stored - T)
        throw py::value_error(text(T, " samples from sample ", first, " on must lie in windows of ",
                                   stored, " samples, and be 1 to 8192"));
    return {all, N, C, first, T};
}

inline void features_of(const py::array& X, int64_t first, int64_t T, const array<int32_t>& chosen,
                        const array<int32_t>& members, const array<int32_t>& sizes,
                        array<float> out, int threads) {
    const Windows windows = windows_of(X, first, T);
    const auto channels = copied("chosen", chosen, "a list of channel numbers");
    const auto size = copied("sizes", sizes, n_groups);
    const auto to = written("out", out, std::array<int64_t, 2>{windows.N, n_features});
    int64_t expected = 0;
    for (int i = 0; i < n_groups; ++i) {
        if (size[i] < 1)
            throw py::value_error(text("group ", i, " has ", size[i], " channels, it needs one"));
        expected += size[i];
    }
    const auto member = copied("members", members, expected);
    check_indices("channel", channels, windows.C);
    check_indices("member", member, channels.size());
    const Threads used(threads);
    py::gil_scoped_release release;
    window_features(windows, view_of(channels), view_of(member), view_of(size), to, used);
}

inline void features_of_channels(const py::array& X, int64_t first, int64_t T, array<float> out,
                                 int threads) {
    const Windows windows = windows_of(X, first, T);
    const std::array<int64_t, 3> shape{windows.N, windows.C, n_channel_features};
    const auto to = written("out", out, shape);
    const Threads used(threads);
    py::gil_scoped_release release;
    channel_features(windows, to, used);
}

inline void correlations_of(const py::array& X, int64_t first, int64_t T,
                            const array<int32_t>& lags, array<float> out, int threads) {
    const Windows windows = windows_of(X, first, T);
    const auto list = copied("lags", lags, "a list of samples", 0);
    for (const int32_t lag : list)
        if (lag < 0) throw py::value_error(text("a lag must be 0 or more samples, got ", lag));
    const int64_t n = list.size();
    const auto to = written("out", out, std::array<int64_t, 3>{windows.N, n, n_lag_summaries});
    const Threads used(threads);
    py::gil_scoped_release release;
    lagged_correlations(windows, view_of(list), to, used);
}

}  // namespace eeg::bind
