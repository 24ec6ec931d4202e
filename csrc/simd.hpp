// Vectors in the compiler's own notation: one source for every processor, and arithmetic on them is
// written as on numbers. A kernel takes `lanes<T>` numbers a vector where the processor decides, or
// a number of its own where its results must not depend on it.
#pragma once

#include <cstdint>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace eeg {

// BDF samples, MD5 words and the numbers of a cache are little-endian in files, and so in memory.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a little-endian processor is needed");

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

// In a function that begins with EEG_ROUNDS_EACH a product and a sum are two operations that round
// twice, as in NumPy; elsewhere the compiler may fuse them. GCC takes it from the function's
// declaration, which EEG_UNFUSED begins, clang from its body.
#ifdef __clang__
#define EEG_UNFUSED __attribute__((noinline))
#define EEG_ROUNDS_EACH _Pragma("clang fp contract(off)")
#else
#define EEG_UNFUSED __attribute__((optimize("fp-contract=off"), noinline))
#define EEG_ROUNDS_EACH
#endif

// The elements of a and then of b, numbered on, that `index` names.
template <int... index, class Vector>
inline Vector shuffle(Vector a, Vector b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, index...);
#else
    typedef decltype(a == b) Index;  // the integers of the same size
    return __builtin_shuffle(a, b, Index{index...});
#endif
}

}  // namespace eeg
