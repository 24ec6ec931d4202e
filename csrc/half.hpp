// float16, the 16 bits of a sample in a cache, to and from float, in blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace eeg {

constexpr float half_max = 65504.0f;

// One number: to the nearest, ties to even; NaN stays NaN, as the processors' own instructions have
// it. Not all compilers have a type of these 16 bits.
inline uint16_t half_of(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return sign | 0x7e00 | (size >> 13 & 0x1ff);
    if (size < 0x38800000) {  // below 2^-14, in steps of 2^-24: a sum with 0.5 rounds to them
        float small;
        std::memcpy(&small, &size, 4);
        small += 0.5f;
        std::memcpy(&bits, &small, 4);
        return sign | (bits - 0x3f000000);
    }
    return sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

inline float float_of(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, size = half & 0x7fff;
    uint32_t bits = (size << 13) + 0x38000000;
    if (size < 0x400) {
        const float small = size * 0x1p-24f;
        std::memcpy(&bits, &small, 4);
    } else if (size >= 0x7c00) {
        bits += 0x38000000;
        if (size > 0x7c00) bits |= 0x400000;
    }
    bits |= sign;
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

// Four numbers; what is too large becomes the largest half.
inline void half_of_four(const float* in, uint16_t* out) {
#ifdef __F16C__
    // min and max return their second operand for NaN: it stays NaN
    const __m128 top = _mm_set1_ps(half_max), bottom = _mm_set1_ps(-half_max);
    const __m128 x = _mm_max_ps(bottom, _mm_min_ps(top, _mm_loadu_ps(in)));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < 4; ++i) out[i] = half_of(std::min(std::max(in[i], -half_max), half_max));
#endif
}

inline void from_half(const uint16_t* in, int64_t n, float* out) {
    int64_t i = 0;
#ifdef __AVX512F__  // as wide as what reads them next: two stores do not forward to one load
    for (; i + 16 <= n; i += 16) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
        _mm512_storeu_ps(out + i, _mm512_maskz_cvtph_ps(0xffff, bits));
    }
#endif
#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
    for (; i < n; ++i) out[i] = float_of(in[i]);
}

}  // namespace eeg
