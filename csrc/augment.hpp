// What is drawn for a window, and the noise that is added to it. Randomness is counter-based (Philox 4x32-7): the key is
// (seed, epoch), the counter (window, purpose, index). So a window's draws are the same in any batch, thread or process.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace eeg {

typedef std::array<uint32_t, 4> Bits;
constexpr int rounds = 7;  // as many as pass the known test batteries; ten are usual

inline Bits philox(uint32_t k0, uint32_t k1, Bits c) {
    for (int round = 0; round < rounds; ++round) {
        const uint64_t a = uint64_t(0xD2511F53) * c[0], b = uint64_t(0xCD9E8D57) * c[2];
        c = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1, uint32_t(a)};
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return c;
}

// Standard normal values at the middles of 2^13 equally likely intervals, scaled to a variance of 1: a draw is a look-up.
inline const float* normal_table() {
    static const std::vector<float> table = [] {
        const int n = 1 << 13;
        std::vector<double> x(n);
        double squares = 0;
        for (int i = 0; i < n; ++i) {  // Newton's iteration on the distribution function, from a rough start
            const double p = (i + 0.5) / n;
            double z = 4.91 * (std::pow(p, 0.14) - std::pow(1 - p, 0.14));
            for (int k = 0; k < 6; ++k) z -= (0.5 * std::erfc(-z * M_SQRT1_2) - p) / (std::exp(-0.5 * z * z) / std::sqrt(2 * M_PI));
            x[static_cast<size_t>(i)] = z;
            squares += z * z;
        }
        std::vector<float> values(n);
        for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(x[i] / std::sqrt(squares / n));
        return values;
    }();
    return table.data();
}

struct Draw {
    uint32_t low = 0, high = 0;  // the window's number
    int32_t shift = 0;           // samples
    float scale = 1, mix = 1;
    bool mirror = false;
    int64_t mask_start = 0, mask_length = 0;
};

struct Augment {
    uint32_t seed = 0, epoch = 0;
    int32_t shift = 0;  // up to this many samples, either way
    float scale = 0;    // amplitude x (1 - scale .. 1 + scale)
    float dropout = 0;  // share of channels set to 0
    float noise = 0;    // of each channel's standard deviation
    float mask = 0;     // a stretch of up to this share of the window is set to 0
    float mirror = 0;   // share of windows mirrored left to right
    float mix = 0;      // alpha of mixup's Beta(alpha, alpha), at most 1
    bool any = false;

    enum Purpose : uint32_t { window_draws, mask_draws, channel_draws, noise_draws, mix_draws };

    Bits bits(const Draw& d, Purpose purpose, uint32_t index) const { return philox(seed, epoch, {d.low, d.high, purpose, index}); }
    static float uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }  // [0, 1)

    Draw draw(uint64_t window, int64_t T) const {
        Draw d;
        d.low = static_cast<uint32_t>(window), d.high = static_cast<uint32_t>(window >> 32);
        const Bits u = bits(d, window_draws, 0);
        if (shift > 0) d.shift = static_cast<int32_t>(uint64_t(u[0]) * static_cast<uint64_t>(2 * shift + 1) >> 32) - shift;
        if (scale > 0) d.scale = 1 + scale * (2 * uniform(u[1]) - 1);
        d.mirror = uniform(u[2]) < mirror;
        if (mask > 0) {
            const Bits v = bits(d, mask_draws, 0);
            d.mask_length = static_cast<int64_t>(uniform(v[0]) * mask * static_cast<float>(T) + 0.5f);
            d.mask_start = static_cast<int64_t>(uint64_t(v[1]) * static_cast<uint64_t>(T - d.mask_length + 1) >> 32);
        }
        if (mix > 0)  // Johnk: two powers of uniforms, accepted where their sum is at most 1; then the larger weight is the window's own
            for (uint32_t i = 0;; ++i) {
                const Bits v = bits(d, mix_draws, i);
                const double a = std::pow((v[0] + 0.5) * 0x1p-32, 1.0 / mix), b = std::pow((v[1] + 0.5) * 0x1p-32, 1.0 / mix);
                if (a + b > 1 || a + b == 0) continue;
                d.mix = static_cast<float>(std::max(a, b) / (a + b));
                break;
            }
        return d;
    }

    bool dropped(const Draw& d, int64_t channel) const {
        return dropout > 0 && uniform(bits(d, channel_draws, static_cast<uint32_t>(channel / 4))[static_cast<size_t>(channel % 4)]) < dropout;
    }

    // x (T) += level * normal. One Philox block gives 8 samples; 32 blocks run side by side.
    void add_noise(const Draw& d, int64_t channel, float level, float* x, int64_t T) const {
        const float* table = normal_table();
        constexpr int lanes = 32;
        alignas(64) uint32_t c0[lanes], c1[lanes], c2[lanes], c3[lanes];
        for (int64_t from = 0; from < T; from += 8 * lanes) {
            const uint32_t first = static_cast<uint32_t>(channel << 16) + static_cast<uint32_t>(from / 8);
#pragma omp simd
            for (int i = 0; i < lanes; ++i) {
                uint32_t a = d.low, b = d.high, c = noise_draws, e = first + static_cast<uint32_t>(i), k0 = seed, k1 = epoch;
                for (int round = 0; round < rounds; ++round) {
                    const uint64_t p = uint64_t(0xD2511F53) * a, q = uint64_t(0xCD9E8D57) * c;
                    const uint32_t a_ = uint32_t(q >> 32) ^ b ^ k0, c_ = uint32_t(p >> 32) ^ e ^ k1;
                    b = uint32_t(q), e = uint32_t(p), a = a_, c = c_;
                    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
                }
                c0[i] = a, c1[i] = b, c2[i] = c, c3[i] = e;
            }
            const uint32_t* words[4] = {c0, c1, c2, c3};
            for (int64_t part = 0; part < 8; ++part) {  // the 8 samples of block i lie `lanes` apart: x[from + lanes part + i]
                const uint32_t* word = words[part / 2];
                const int64_t at = from + lanes * part, n = std::min<int64_t>(lanes, T - at);
                if (n <= 0) break;
                const int down = part % 2 ? 19 : 3;
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) x[at + i] += level * table[word[i] >> down & 0x1fff];
            }
        }
    }
};

}  // namespace eeg
