// Vectors in the compiler's own notation: one source for every processor, and arithmetic on them is
// written as on numbers. A kernel takes `lanes<T>` numbers a vector where the processor decides, or
// a number of its own where its results must not depend on it.
#pragma once

#include <cstdint>

namespace eeg {

#if defined(__AVX512F__)
constexpr int64_t vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX__)
constexpr int64_t vector_bytes = 32, vector_registers = 16;
#else
constexpr int64_t vector_bytes = 16, vector_registers = 16;
#endif

// How many numbers a register holds.
template <class T>
constexpr int64_t lanes = vector_bytes / sizeof(T);

namespace detail {
template <class T, int64_t N>
struct VectorOf {
    typedef T type __attribute__((vector_size(N * sizeof(T)), may_alias));
};
}  // namespace detail

template <class T, int64_t N = lanes<T>>
using Vector = typename detail::VectorOf<T, N>::type;

// The same numbers in memory, where standard containers hold them.
template <class T, int64_t N = lanes<T>>
struct Lanes {
    alignas(N * sizeof(T)) T value[N];

    Vector<T, N>& vector() { return *reinterpret_cast<Vector<T, N>*>(value); }
    const Vector<T, N>& vector() const { return *reinterpret_cast<const Vector<T, N>*>(value); }
};

}  // namespace eeg
