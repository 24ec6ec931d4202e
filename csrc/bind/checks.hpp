// What is checked of an array before a kernel sees it: its type, its shape, where it lies and what
// its indices name. Each check gives the View that the kernel takes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../text.hpp"
#include "../view.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

// An argument that must be an array of the type declared: nothing is converted silently.
inline py::arg operator""_exact(const char* name, size_t) { return py::arg(name).noconvert(); }

template <class T>
using array = py::array_t<T, py::array::c_style>;

namespace eeg::bind {

inline std::string type_of(const py::array& a) { return py::cast<std::string>(py::str(a.dtype())); }

inline std::string shape_of(const py::array& a) {
    return py::cast<std::string>(py::str(a.attr("shape")));
}

[[noreturn]] inline void wrong(const std::string& name, const std::string& expected,
                               const py::array& got) {
    throw py::value_error(
        text(name, " must be ", expected, ", got shape ", shape_of(got), " of ", type_of(got)));
}

// A view into bytes may begin at any of them, where a kernel cannot read a number.
inline void check_aligned(const std::string& name, const py::array& a) {
    if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(name + " must be aligned in memory, as numpy.array(...) is");
}

inline bool contiguous(const py::array& a) { return a.flags() & py::array::c_style; }

// An array of `rank` axes, whatever their lengths. expected: in words.
template <int rank, class T>
View<const T, rank> view(const std::string& name, const array<T>& a, const std::string& expected) {
    check_aligned(name, a);
    if (a.ndim() != rank) wrong(name, expected, a);
    View<const T, rank> made{a.data(), {}};
    std::copy_n(a.shape(), rank, made.shape.begin());
    return made;
}

template <size_t rank>
std::string in_words(const std::array<int64_t, rank>& shape) {
    const std::vector<int64_t> list(shape.begin(), shape.end());
    return "of shape " + py::cast<std::string>(py::str(py::tuple(py::cast(list))));
}

// An array of just this shape.
template <class T, size_t rank>
View<const T, int(rank)> view(const std::string& name, const array<T>& a,
                              const std::array<int64_t, rank>& shape) {
    const std::string expected = in_words(shape);
    const auto made = view<int(rank)>(name, a, expected);
    if (made.shape != shape) wrong(name, expected, a);
    return made;
}

// The same of an array that will be written.
template <class T, size_t rank>
View<T, int(rank)> written(const std::string& name, array<T>& a,
                           const std::array<int64_t, rank>& shape) {
    return {(view(name, a, shape), a.mutable_data()), shape};
}

// The same of one that may be missing.
template <class T, size_t rank>
View<T, int(rank)> written(const std::string& name, std::optional<array<T>>& a,
                           const std::array<int64_t, rank>& shape) {
    if (!a) return {};
    return written(name, *a, shape);
}

// Holds what a kernel reads after it was checked: another thread, or an output that is the same
// array, may change the caller's own.
template <class T>
std::vector<T> copied(const std::string& name, const array<T>& list, int64_t length) {
    const auto seen = view(name, list, std::array{length});
    return {seen.data, seen.data + length};
}

// The same of a list of any length that is not empty.
template <class T>
std::vector<T> copied(const std::string& name, const array<T>& list, const std::string& expected,
                      int64_t least = 1) {
    const auto seen = view<1>(name, list, expected);
    if (seen.size() < least) wrong(name, expected, list);
    return {seen.data, seen.data + seen.size()};
}

// Every number in the list is the index of one of `count` things.
inline void check_indices(const std::string& thing, const std::vector<int32_t>& list,
                          int64_t count) {
    for (const int32_t index : list)
        if (index < 0 || index >= count)
            throw py::index_error(text(thing, " ", index, " of ", count));
}

// Whether the array holds the bits of float16, and not float32.
inline bool is_half(const std::string& name, const py::array& a) {
    const bool half = py::isinstance<py::array_t<uint16_t>>(a);
    if (!half && !py::isinstance<py::array_t<float>>(a))
        throw py::type_error(
            text(name, " must be float32, or uint16 (the bits of float16), got ", type_of(a)));
    check_aligned(name, a);
    return half;
}

// Stored windows (N, channels, samples).
inline Samples samples(const std::string& name, const py::array& a, const std::string& expected) {
    const bool half = is_half(name, a);
    if (a.ndim() != 3 || !contiguous(a)) wrong(name, "C-contiguous " + expected, a);
    const std::array<int64_t, 3> shape{a.shape(0), a.shape(1), a.shape(2)};
    if (half) return View<const uint16_t, 3>{static_cast<const uint16_t*>(a.data()), shape};
    return View<const float, 3>{static_cast<const float*>(a.data()), shape};
}

inline const std::array<int64_t, 3>& shape_of(const Samples& samples) {
    return std::visit([](const auto& x) -> const std::array<int64_t, 3>& { return x.shape; },
                      samples);
}

}  // namespace eeg::bind
