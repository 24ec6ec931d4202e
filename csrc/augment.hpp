// What is drawn for a window, and the noise that is added to it. Randomness is counter-based
// (Philox 4x32-7): the key is (seed, epoch), the counter (window, purpose, index). So a window's
// draws are the same in any batch, thread or process.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace eeg {

typedef std::array<uint32_t, 4> Bits;
constexpr int rounds = 7;  // as many as pass the known test batteries; ten are usual

inline void philox(uint32_t k0, uint32_t k1, uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    for (int round = 0; round < rounds; ++round) {
        const uint64_t p = uint64_t(0xD2511F53) * a, q = uint64_t(0xCD9E8D57) * c;
        a = uint32_t(q >> 32) ^ b ^ k0;
        b = uint32_t(q);
        c = uint32_t(p >> 32) ^ d ^ k1;
        d = uint32_t(p);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

// Normal noise is the sum of two draws from 32 values that fit in two registers: a draw is a
// shuffle, not a look-up in memory. The values, these 16 and their negatives, are the means of 32
// equally likely slices of the normal over sqrt(2), the inner ones scaled by one factor and the
// outermost set so that the sum has the normal's variance and fourth moment.
namespace normal {

alignas(64) constexpr float upper[16] = {0.0271750279f, 0.0816929489f, 0.13672182f,  0.192627653f,
                                         0.249817789f,  0.308764488f,  0.370038003f, 0.434355378f,
                                         0.50265801f,   0.576241672f,  0.656992257f, 0.747854114f,
                                         0.853885055f,  0.9851197f,    1.16732788f,  1.67796695f};

constexpr int size = lanes<float>;
typedef Vector<float> floats;
typedef Vector<uint32_t> words;

// found = one of the 32 values for each number, of which five bits count.
inline void draw(const words& number, floats& found) {
#if defined(__AVX512F__)
    found = (floats)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)number, _mm512_load_ps(upper));
#elif defined(__AVX2__)
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(upper), (__m256i)number),
                 high = _mm256_permutevar8x32_ps(_mm256_load_ps(upper + 8), (__m256i)number);
    found = (floats)_mm256_blendv_ps(low, high, (__m256)(number << 28));  // by bit 3
#else
    for (int i = 0; i < size; ++i) found[i] = upper[number[i] % 16];
#endif
    found = (floats)((words)found ^ (~number << 27 & 0x80000000u));
}

// x += level * normal, of ten bits from `shift` on of each of `bits`; n <= size of them.
inline void add(const uint32_t* bits, int shift, float level, float* x, int64_t n) {
    words number;
    floats one, two, sum = {};
    std::memcpy(&number, bits, sizeof number);
    draw(number >> shift, one);
    draw(number >> (shift + 5), two);
    if (n >= size) {
        std::memcpy(&sum, x, sizeof sum);
        sum += level * (one + two);
        std::memcpy(x, &sum, sizeof sum);
        return;
    }
    one = level * (one + two);
    for (int64_t i = 0; i < n; ++i) x[i] += one[i];
}

}  // namespace normal

struct Moments {
    float mean, scale;  // scale: 1 / std, or 0 where the channel is flat
};

typedef Vector<float, 16> Sixteen;

// 64 sums side by side, in four vectors: enough that none waits for itself, and added in the same
// order on every processor.
struct Sums64 {
    Sixteen part[4] = {};

    float total() const {
        const Sixteen all = (part[0] + part[1]) + (part[2] + part[3]);
        float sums[16];
        std::memcpy(sums, &all, sizeof sums);
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
        return sums[0];
    }
};

// Calls whole(place, number of its sum) for each 16 of n numbers, single(place) for the rest.
template <class Whole, class Single>
void in_sixteens(int64_t n, const Whole& whole, const Single& single) {
    int64_t t = 0;
    for (; t + 64 <= n; t += 64)
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) whole(t + 16 * k, k);
    for (int k = 0; t + 16 <= n; t += 16) whole(t, k++);
    for (; t < n; ++t) single(t);
}

// Mean and 1 / std of a row, in two passes: an offset does not cancel.
inline Moments moments(const float* x, int64_t T) {
    Sums64 sums, rests, squares;
    float sum = 0, rest = 0, square = 0;
    const auto add = [&](int64_t t, int k) {
        Sixteen v;
        std::memcpy(&v, x + t, sizeof v);
        sums.part[k] += v;
    };
    in_sixteens(T, add, [&](int64_t t) { sum += x[t]; });
    const float mean = (sum + sums.total()) / T;
    const auto spread = [&](int64_t t, int k) {
        Sixteen v;
        std::memcpy(&v, x + t, sizeof v);
        v -= mean;
        rests.part[k] += v;
        squares.part[k] += v * v;
    };
    in_sixteens(T, spread, [&](int64_t t) {
        const float d = x[t] - mean;
        rest += d;
        square += d * d;
    });
    rest = (rest + rests.total()) / T;
    const float variance = (square + squares.total()) / T - rest * rest;
    const float noise = 1e-12f * mean * mean;  // what rounding alone makes of a constant
    if (std::isnan(variance)) return {mean + rest, variance};
    return {mean + rest, variance > noise ? 1 / std::sqrt(variance) : 0};
}

struct Draw {
    uint32_t low = 0, high = 0;  // the window's number
    int32_t shift_samples = 0;
    float scale = 1, mix = 1;
    bool mirror = false;
    int64_t mask_start = 0, mask_length = 0;
};

struct Augment {
    uint32_t seed = 0, epoch = 0;
    float shift = 0;    // up to this many samples, either way
    float scale = 0;    // amplitude x (1 - scale .. 1 + scale)
    float dropout = 0;  // share of channels set to 0
    float noise = 0;    // of each channel's standard deviation
    float mask = 0;     // a stretch of up to this share of the window is set to 0
    float mirror = 0;   // share of windows mirrored left to right
    float mix = 0;      // alpha of mixup's Beta(alpha, alpha), at most 1

    int32_t shift_samples() const { return static_cast<int32_t>(shift); }
    // Whether the samples of a window may come out otherwise than they are stored.
    bool changes() const { return scale > 0 || dropout > 0 || noise > 0 || mask > 0 || mirror > 0; }

    enum Purpose : uint32_t { window_draws, mask_draws, channel_draws, noise_draws, mix_draws };

    Bits bits(const Draw& d, Purpose purpose, uint32_t index) const {
        Bits b = {d.low, d.high, purpose, index};
        philox(seed, epoch, b[0], b[1], b[2], b[3]);
        return b;
    }
    // [0, 1)
    static float uniform(uint32_t bits) { return (bits >> 8) * 0x1p-24f; }
    static constexpr uint32_t most_tries = 10000;  // of which at least one in seven is accepted
    // 0 ... n - 1
    static int64_t below(uint32_t bits, uint64_t n) { return bits * n >> 32; }

    Draw draw(uint64_t window, int64_t T) const {
        Draw d;
        d.low = static_cast<uint32_t>(window);
        d.high = static_cast<uint32_t>(window >> 32);
        const Bits u = bits(d, window_draws, 0);
        if (const int32_t most = shift_samples())
            d.shift_samples = below(u[0], 2 * most + 1) - most;
        if (scale > 0) d.scale = 1 + scale * (2 * uniform(u[1]) - 1);
        d.mirror = uniform(u[2]) < mirror;
        if (mask > 0) {
            const Bits v = bits(d, mask_draws, 0);
            d.mask_length = static_cast<int64_t>(uniform(v[0]) * mask * T + 0.5f);
            d.mask_start = below(v[1], T - d.mask_length + 1);
        }
        // Johnk: two powers of uniforms, accepted where their sum is at most 1. The larger weight
        // is the window's own.
        if (mix > 0)
            for (uint32_t i = 0; i < most_tries; ++i) {
                const Bits v = bits(d, mix_draws, i);
                const double a = std::pow((v[0] + 0.5) * 0x1p-32, 1.0 / mix),
                             b = std::pow((v[1] + 0.5) * 0x1p-32, 1.0 / mix);
                if (a + b > 1 || a + b == 0) continue;
                d.mix = static_cast<float>(std::max(a, b) / (a + b));
                break;
            }
        return d;
    }

    // Whether each of four channels is dropped, from the 4 x `fours`-th on.
    std::array<bool, 4> dropped(const Draw& d, int64_t fours) const {
        if (dropout <= 0) return {};
        const Bits four = bits(d, channel_draws, static_cast<uint32_t>(fours));
        std::array<bool, 4> gone;
        for (int i = 0; i < 4; ++i) gone[i] = uniform(four[i]) < dropout;
        return gone;
    }

    // x (T) += level * normal. A Philox block gives 12 samples of 10 bits; 32 run side by side.
    void add_noise(const Draw& d, int64_t channel, float level, float* x, int64_t T) const {
        constexpr int blocks = 32;
        alignas(64) uint32_t words[4 * blocks];
        for (int64_t from = 0; from < T; from += 12 * blocks) {
            const uint32_t first = uint32_t(channel << 16) + uint32_t(from / 12);
#pragma omp simd
            for (int i = 0; i < blocks; ++i) {
                uint32_t a = d.low, b = d.high, c = noise_draws, e = first + uint32_t(i);
                philox(seed, epoch, a, b, c, e);
                words[i] = a;
                words[blocks + i] = b;
                words[2 * blocks + i] = c;
                words[3 * blocks + i] = e;
            }
            // three times 10 bits of all words
            const int64_t n = std::min<int64_t>(12 * blocks, T - from);
            for (int64_t t = 0; t < n; t += normal::size)
                normal::add(words + t % (4 * blocks), int(10 * (t / (4 * blocks))), level,
                            x + from + t, n - t);
        }
    }

    // from -> x (T), the samples of one channel: z-scored or not, scaled, noise, masked.
    void treat(const Draw& d, int64_t channel, bool zscore, const float* from, float* x,
               int64_t T) const {
        const Moments m = zscore || noise > 0 ? moments(from, T) : Moments{0, 0};
        const float level = m.scale == 0 ? 0 : zscore ? noise : noise / m.scale;  // of the noise
        if (zscore) {
            const float gain = m.scale * d.scale;
#pragma omp simd
            for (int64_t t = 0; t < T; ++t) x[t] = (from[t] - m.mean) * gain;
        } else if (scale > 0) {
#pragma omp simd
            for (int64_t t = 0; t < T; ++t) x[t] = from[t] * d.scale;
        } else if (from != x) {
            std::memcpy(x, from, T * sizeof(float));
        }
        if (noise > 0) add_noise(d, channel, level * d.scale, x, T);
        if (d.mask_length) std::memset(x + d.mask_start, 0, d.mask_length * sizeof(float));
    }
};

// What Python may set, 0 (off) or from `least` to `most`. A new augmentation is listed here, drawn
// and applied above, and listed in eeg/data/augment.py; a test compares the two lists.
struct Strength {
    const char* name;
    float Augment::* member;
    float most;
    float least = 0;
};
constexpr Strength strengths[] = {
    {"scale", &Augment::scale, 1},   {"dropout", &Augment::dropout, 1},
    {"noise", &Augment::noise, 100}, {"shift", &Augment::shift, 1e6f},
    {"mask", &Augment::mask, 1},     {"mirror", &Augment::mirror, 1},
    {"mix", &Augment::mix, 1, 1e-3f}};

}  // namespace eeg
