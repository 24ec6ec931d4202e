// Batches of windows: what is drawn for them, and the gather.
#pragma once

#include "../windows.hpp"
#include "checks.hpp"

namespace eeg::bind {

inline float number_of(const char* name, const py::object& given) {
    const double value = PyFloat_AsDouble(given.ptr());
    if (!PyErr_Occurred()) return static_cast<float>(value);
    PyErr_Clear();
    throw py::type_error(
        text(name, " must be a number, got ", py::cast<std::string>(py::repr(given))));
}

inline Augment make_augment(uint32_t seed, uint32_t epoch, const py::kwargs& given) {
    Augment made;
    made.seed = seed;
    made.epoch = epoch;
    size_t known = 0;
    for (const auto& [name, member, most, least] : strengths) {
        if (!given.contains(name)) continue;
        const float value = number_of(name, given[name]);
        if (value != 0 && !(value >= least && value <= most))
            throw py::value_error(
                text(name, " must be 0 or lie from ", least, " to ", most, ", got ", value));
        made.*member = value;
        ++known;
    }
    if (known != given.size())
        throw py::type_error("an augmentation that does not exist, among: " +
                             py::cast<std::string>(py::str(py::list(given))));
    return made;
}

// A batch is not written over what it is read from.
inline void check_apart(const py::array& part, const py::array& out) {
    const auto *read = static_cast<const char*>(part.data()),
               *written = static_cast<const char*>(out.data());
    if (read < written + out.nbytes() && written < read + part.nbytes())
        throw py::value_error("out must not share its memory with a cache part");
}

// The parts of a cache: all of C channels and as many samples as the first one.
inline std::vector<Samples> parts_of(const std::vector<py::array>& parts, int64_t C) {
    if (parts.empty()) throw py::value_error("no cache part was given");
    const int64_t S = parts[0].ndim() == 3 ? parts[0].shape(2) : -1;
    const std::string expected = text("(N, ", C, ", ", S, ")");
    std::vector<Samples> all;
    for (const auto& part : parts) {
        all.push_back(samples("a cache part", part, expected));
        if (part.shape(1) != C || part.shape(2) != S)
            wrong("a cache part", "C-contiguous " + expected, part);
    }
    return all;
}

// Every window lies in its part, with its largest shift. T: its samples.
inline void check_places(const std::vector<Samples>& parts, const Places& places, int64_t T,
                         int64_t most) {
    for (int64_t b = 0; b < places.part.size(); ++b) {
        const auto& [N, C, S] = shape_of(parts[places.part[b]]);
        const int64_t row = places.row[b], from = places.offset[b];
        if (row < 0 || row >= N)
            throw py::index_error(text("window ", b, " is row ", row, " of ", N));
        if (from - most < 0 || from + most + T > S)
            throw py::index_error(text("window ", b, " from sample ", from, " +- ", most, ", ", T,
                                       " long, leaves the ", S, " stored"));
    }
}

inline void gather_batch(const std::vector<py::array>& parts, const array<int32_t>& part,
                         const array<int64_t>& row, const array<int32_t>& offset,
                         const array<int64_t>& window, const array<int32_t>& mirror,
                         array<float> out, array<int32_t> shift, array<float> mix, bool zscore,
                         const Augment& augment, int threads) {
    const auto [B, C, T] = view<3>("out", out, "(B, C, T)").shape;
    const auto of = copied("part", part, B), first = copied("offset", offset, B);
    const auto line = copied("row", row, B), number = copied("window", window, B);
    const auto other = copied("mirror", mirror, C);
    check_indices("mirror: channel", other, C);
    if (T < 1 && B > 0) throw py::value_error("windows of no samples: out is " + shape_of(out));
    const std::vector<Samples> data = parts_of(parts, C);
    for (const auto& part : parts) check_apart(part, out);
    check_indices("part", of, parts.size());
    const Places places{view_of(of), view_of(line), view_of(first), view_of(number)};
    check_places(data, places, T, augment.shift_samples());
    const Batch batch{written("out", out, std::array{B, C, T}),
                      written("shift", shift, std::array{B}), written("mix", mix, std::array{B})};
    const Threads used(threads);
    py::gil_scoped_release release;
    gather(data, places, {augment, zscore, view_of(other)}, batch, used);
}

}  // namespace eeg::bind
