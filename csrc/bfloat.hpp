// bfloat16, the upper 16 bits of a float: read without loss, and rounded to the nearest, ties to
// even, where it is written.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace eeg {

struct Bfloat {
    uint16_t bits;
};
static_assert(sizeof(Bfloat) == 2);

// One number from memory and back. Loops over them become vectors.
inline float get(const float& from) { return from; }
inline float get(const Bfloat& from) {
    const uint32_t all = uint32_t(from.bits) << 16;
    float x;
    std::memcpy(&x, &all, 4);
    return x;
}

inline void put(float x, float& to) { to = x; }
inline void put(float x, Bfloat& to) {
    uint32_t all;
    std::memcpy(&all, &x, 4);
    const uint32_t rounded = (all + 0x7fff + (all >> 16 & 1)) >> 16;
    const bool is_nan = (all & 0x7fffffff) > 0x7f800000;
    to.bits = static_cast<uint16_t>(is_nan ? 0x7fc0 : rounded);
}

// N numbers side by side. What NaN is rounded to differs from put's in its lower bits.
template <int64_t N>
void get_vector(const float* from, Vector<float, N>& x) {
    std::memcpy(&x, from, sizeof x);
}
template <int64_t N>
void get_vector(const Bfloat* from, Vector<float, N>& x) {
    Vector<uint16_t, N> bits;
    std::memcpy(&bits, from, sizeof bits);
    x = reinterpret_cast<Vector<float, N>>(__builtin_convertvector(bits, Vector<uint32_t, N>)
                                           << 16);
}
template <int64_t N>
void put_vector(const Vector<float, N>& x, float* to) {
    std::memcpy(to, &x, sizeof x);
}
template <int64_t N>
void put_vector(const Vector<float, N>& x, Bfloat* to) {
    const auto all = reinterpret_cast<Vector<uint32_t, N>>(x);
    const auto rounded = x == x ? all + 0x7fff + (all >> 16 & 1) : all | 0x400000;
    const auto bits = __builtin_convertvector(rounded >> 16, Vector<uint16_t, N>);
    std::memcpy(to, &bits, sizeof bits);
}

}  // namespace eeg
