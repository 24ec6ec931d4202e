// Drives the gather: windows of float and of float16, as they lie and with every augmentation.
#include "driver.hpp"

#include "../../../csrc/windows.hpp"

using namespace eeg;

int main() {
    const int64_t N = 11, C = 19, S = 230, T = 203, B = 40;
    const std::vector<float> stored = random_floats(N * C * S);
    std::vector<uint16_t> halves(stored.size());
    std::transform(stored.begin(), stored.end(), halves.begin(), half_of);
    const std::vector<Samples> parts = {View<const float, 3>{stored.data(), {N, C, S}},
                                        View<const uint16_t, 3>{halves.data(), {N, C, S}}};
    std::vector<int32_t> part(B), offset(B, 13), mirror(C), shift(B);
    std::vector<int64_t> row(B), window(B);
    std::vector<float> mix(B);
    for (int64_t b = 0; b < B; ++b) {
        part[b] = b % 2;
        row[b] = b * 5 % N;
        window[b] = b;
    }
    for (int64_t c = 0; c < C; ++c) mirror[c] = static_cast<int32_t>(C - 1 - c);
    const Places places{view_of(part), view_of(row), view_of(offset), view_of(window)};

    Augment everything;
    for (const Strength& one : strengths) everything.*one.member = 0.2f;
    everything.shift = 13;
    for (const Augment& augment : {Augment(), everything})
        for (const bool zscore : {false, true})
            same<float>(
                zscore ? "gather, z-scored" : "gather", B * C * T,
                [&](Threads threads, float* out) {
                    const Batch batch{{out, {B, C, T}}, {shift.data(), {B}}, {mix.data(), {B}}};
                    gather(parts, places, {augment, zscore, view_of(mirror)}, batch, threads);
                });
    return failures;
}
