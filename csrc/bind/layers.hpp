// Layers of networks.
#pragma once

#include "../depthwise.hpp"
#include "../norm.hpp"
#include "checks.hpp"

namespace eeg::bind {

// Activations (windows, samples, channels): float, or the bits of bfloat16, which NumPy lacks and
// which come as int16. Calls work(number), with a number of that type.
template <class Work>
void as_activations(const std::string& name, const py::array& a, const Work& work) {
    if (py::isinstance<py::array_t<float>>(a)) return work(float{});
    if (py::isinstance<py::array_t<int16_t>>(a)) return work(Bfloat{});
    throw py::type_error(
        text(name, " must be float32, or int16 (the bits of bfloat16), got ", type_of(a)));
}

template <class Number>
using Bits = std::conditional_t<std::is_same_v<Number, float>, float, int16_t>;

// One of several arrays of activations, all of the same type and shape.
template <class Number>
View<const Number, 3> activations(const std::string& name, const py::array& a,
                                  const std::array<int64_t, 3>& shape) {
    if (!py::isinstance<py::array_t<Bits<Number>>>(a) || !contiguous(a))
        throw py::type_error(text(
            name, " must be C-contiguous and of the same type as the others, got ", type_of(a)));
    view(name, array<Bits<Number>>(a), shape);
    return {static_cast<const Number*>(a.data()), shape};
}

template <class Number>
View<Number, 3> written_activations(const std::string& name, py::array& a,
                                    const std::array<int64_t, 3>& shape) {
    activations<Number>(name, a, shape);
    return {static_cast<Number*>(a.mutable_data()), shape};
}

inline View<const float, 2> filters(const array<float>& weight, int64_t channels,
                                    int64_t dilation) {
    const std::string expected = text("(", channels, " channels, an odd number of taps)");
    const auto taps = view<2>("weight", weight, expected);
    if (taps.shape[0] != channels || taps.shape[1] % 2 == 0) wrong("weight", expected, weight);
    if (dilation < 1)
        throw py::value_error(text("dilation must be at least 1 sample, got ", dilation));
    return taps;
}

inline std::array<int64_t, 3> shape_to_filter(const py::array& x) {
    if (x.ndim() != 3 || x.shape(1) == 0 || x.shape(2) == 0)
        wrong("x", "(windows, samples, channels) with at least one sample and one channel", x);
    return {x.shape(0), x.shape(1), x.shape(2)};
}

inline void forward(const py::array& x, const array<float>& weight,
                    const std::optional<array<float>>& bias, int64_t dilation, py::array y,
                    int threads) {
    as_activations("x", x, [&](auto number) {
        typedef decltype(number) Number;
        const auto shape = shape_to_filter(x);
        const auto seen = activations<Number>("x", x, shape);
        const auto taps = filters(weight, shape[2], dilation);
        const auto to = written_activations<Number>("y", y, shape);
        View<const float> start;
        if (bias) start = view("bias", *bias, std::array{shape[2]});
        const Threads used(threads);
        py::gil_scoped_release release;
        depthwise_forward(seen, taps, start, dilation, to, used);
    });
}

inline void backward(const py::array& x, const array<float>& weight, const py::array& gy,
                     int64_t dilation, std::optional<py::array> gx, std::optional<array<float>> gw,
                     std::optional<array<float>> gb, int threads) {
    as_activations("x", x, [&](auto number) {
        typedef decltype(number) Number;
        const auto shape = shape_to_filter(x);
        const auto seen = activations<Number>("x", x, shape);
        const auto taps = filters(weight, shape[2], dilation);
        const auto arrives = activations<Number>("gy", gy, shape);
        Gradients<Number> to{
            {}, written("gw", gw, taps.shape), written("gb", gb, std::array{shape[2]})};
        if (gx) to.x = written_activations<Number>("gx", *gx, shape);
        const Threads used(threads);
        py::gil_scoped_release release;
        depthwise_backward(seen, taps, arrives, dilation, to, used);
    });
}

inline std::array<int64_t, 3> shape_of_activations(const py::array& z) {
    const std::string expected = "(windows, samples, channels), none of them 0";
    if (z.ndim() != 3 || z.size() == 0) wrong("z", expected, z);
    return {z.shape(0), z.shape(1), z.shape(2)};
}

template <class Number>
NormInputs<Number> norm_inputs(const py::array& z, const std::optional<array<float>>& mask,
                               const array<float>& gain, const array<float>& bias, float eps) {
    const auto shape = shape_of_activations(z);
    const std::array channels{shape[2]};
    NormInputs<Number> in{activations<Number>("z", z, shape),
                          {},
                          view("gain", gain, channels),
                          view("bias", bias, channels),
                          eps};
    if (mask) in.mask = view("mask", *mask, std::array{shape[0], shape[2]});
    if (!(eps >= 0)) throw py::value_error(text("eps must be 0 or more, got ", eps));
    return in;
}

inline void normed_forward(const py::array& z, const std::optional<py::array>& residual,
                           const std::optional<array<float>>& mask, const array<float>& gain,
                           const array<float>& bias, float eps, py::array y, array<float> mean,
                           array<float> variance, int threads) {
    as_activations("z", z, [&](auto number) {
        typedef decltype(number) Number;
        const auto in = norm_inputs<Number>(z, mask, gain, bias, eps);
        const auto shape = in.z.shape;
        View<const Number, 3> x;
        if (residual) x = activations<Number>("residual", *residual, shape);
        const auto to = written_activations<Number>("y", y, shape);
        const std::array channels{shape[2]};
        const BatchMoments moments{written("mean", mean, channels),
                                   written("variance", variance, channels)};
        const Threads used(threads);
        py::gil_scoped_release release;
        norm_forward(in, x, to, moments, used);
    });
}

inline void normed_backward(const py::array& z, const std::optional<array<float>>& mask,
                            const array<float>& gain, const array<float>& bias, float eps,
                            const array<float>& mean, const array<float>& variance,
                            const py::array& gy, py::array gz, array<float> ggain,
                            array<float> gbias, int threads) {
    as_activations("z", z, [&](auto number) {
        typedef decltype(number) Number;
        const auto in = norm_inputs<Number>(z, mask, gain, bias, eps);
        const auto shape = in.z.shape;
        const std::array channels{shape[2]};
        const auto middle = view("mean", mean, channels);
        const auto spread = view("variance", variance, channels);
        const auto arrives = activations<Number>("gy", gy, shape);
        const auto to = written_activations<Number>("gz", gz, shape);
        const NormGradients sums{written("ggain", ggain, channels),
                                 written("gbias", gbias, channels)};
        const Threads used(threads);
        py::gil_scoped_release release;
        norm_backward(in, middle, spread, arrives, to, sums, used);
    });
}

}  // namespace eeg::bind
