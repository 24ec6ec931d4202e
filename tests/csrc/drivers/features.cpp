// Drives the features of windows and of channels, and the lagged correlations.
#include "driver.hpp"

#include "../../../csrc/features.hpp"
#include "../../../csrc/lagged.hpp"

using namespace eeg;

int main() {
    const int64_t N = 70, C = 21, S = 210, T = 200;
    std::vector<float> stored = random_floats(N * C * S);
    std::fill_n(stored.begin() + 3 * C * S, S, 0.0f);  // a flat channel
    std::vector<uint16_t> halves(stored.size());
    std::transform(stored.begin(), stored.end(), halves.begin(), half_of);
    const Windows of_floats{View<const float, 3>{stored.data(), {N, C, S}}, N, C, 5, T},
        of_halves{View<const uint16_t, 3>{halves.data(), {N, C, S}}, N, C, 5, T};

    std::vector<int32_t> chosen(15), members(15), sizes(n_groups, 3);
    for (int32_t i = 0; i < 15; ++i) {
        chosen[static_cast<size_t>(i)] = i + 2;
        members[static_cast<size_t>(i)] = 14 - i;
    }
    const std::vector<int32_t> lags = {0, 1, 40, 199};
    const int64_t n_lags = static_cast<int64_t>(lags.size());
    for (const Windows& X : {of_floats, of_halves}) {
        same<float>("window features", N * n_features, [&](Threads threads, float* out) {
            const View<float, 2> to{out, {N, n_features}};
            window_features(X, view_of(chosen), view_of(members), view_of(sizes), to, threads);
        });
        same<float>("channel features", N * C * n_channel_features,
                    [&](Threads threads, float* out) {
                        channel_features(X, {out, {N, C, n_channel_features}}, threads);
                    });
        same<float>("lagged correlations", N * n_lags * n_lag_summaries,
                    [&](Threads threads, float* out) {
                        const View<float, 3> to{out, {N, n_lags, n_lag_summaries}};
                        lagged_correlations(X, view_of(lags), to, threads);
                    });
    }
    return failures;
}
