// What stands between two convolutions of a network, in one go: batch norm by the batch's own
// moments, ReLU, a mask of whole channels, a residual.
//
//   z, residual, y, gy, gz (B, T, C)   B windows, T samples, C channels, channels fastest; float or
//                                      bfloat16, computed in float; gy = dL/dy, gz = dL/dz
//   mask (B, C)                        what a channel of a window is multiplied by
//   gain, bias, mean, variance (C)     mean and variance of z over windows and samples
//
//   y = residual + mask * relu(gain * (z - mean) / sqrt(variance + eps) + bias)
//
// residual and mask may be missing. The gradient of residual is gy itself. Moments are summed over
// each window, then over windows in their order: the number of threads changes no bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "bfloat.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

template <class T>
struct NormInputs {
    View<const T, 3> z;
    View<const float, 2> mask;
    View<const float> gain, bias;
    float eps;
};

struct BatchMoments {
    View<float> mean, variance;
};

namespace norm {

// gain, bias and moments of all channels as one product and one sum.
struct Scale {
    std::vector<float> scale, shift;

    Scale(const View<const float>& gain, const View<const float>& bias,
          const View<const float>& mean, const View<const float>& variance, float eps) {
        for (int64_t c = 0; c < gain.size(); ++c) {
            scale.push_back(gain[c] / std::sqrt(variance[c] + eps));
            shift.push_back(bias[c] - mean[c] * scale[c]);
        }
    }
};

// z (T, C) of one window -> mean (C), and squares (C): the sum of squares around it. Differences
// from the first sample are summed, so that an offset does not cancel.
template <class Number>
void window_moments(const Number* z, int64_t T, int64_t C, float* mean, float* squares) {
    std::fill(mean, mean + C, 0.0f);
    std::fill(squares, squares + C, 0.0f);
    for (int64_t t = 0; t < T; ++t)
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) mean[c] += get(z[t * C + c]) - get(z[c]);
    for (int64_t c = 0; c < C; ++c) mean[c] = get(z[c]) + mean[c] / T;
    for (int64_t t = 0; t < T; ++t)
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) {
            const float d = get(z[t * C + c]) - mean[c];
            squares[c] += d * d;
        }
}

// parts (B, 2, C): mean and squares of each window of T samples -> moments of them together.
inline void together(const float* parts, int64_t B, int64_t T, int64_t C, const BatchMoments& out) {
    std::vector<double> mean(C), squares(C);
    for (int64_t b = 0; b < B; ++b)
        for (int64_t c = 0; c < C; ++c) mean[c] += parts[2 * b * C + c] / double(B);
    for (int64_t b = 0; b < B; ++b)
        for (int64_t c = 0; c < C; ++c) {
            const double apart = parts[2 * b * C + c] - mean[c];
            squares[c] += parts[(2 * b + 1) * C + c] + T * apart * apart;
        }
    for (int64_t c = 0; c < C; ++c) {
        out.mean[c] = static_cast<float>(mean[c]);
        out.variance[c] = static_cast<float>(squares[c] / (double(B) * T));
    }
}

// What of gy comes through mask and ReLU. NaN does.
inline float through(float gy, float mask, float z, float scale, float shift) {
    return z * scale + shift <= 0 ? 0.0f : gy * mask;
}

}  // namespace norm

// Also gives the moments, for the gradients and for running statistics. z is not empty.
template <class Number>
void norm_forward(const NormInputs<Number>& in, const View<const Number, 3>& residual,
                  const View<Number, 3>& y, const BatchMoments& moments, Threads threads) {
    const auto shape = in.z.shape;
    const int64_t B = shape[0], T = shape[1], C = shape[2];
    const int team = threads.over(B);
    std::unique_ptr<float[]> parts(new float[2 * B * C]);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < B; ++b) {
        float* const part = parts.get() + 2 * b * C;
        norm::window_moments(in.z.at(b), T, C, part, part + C);
    }
    norm::together(parts.get(), B, T, C, moments);
    const norm::Scale all(in.gain, in.bias, {moments.mean.data, {C}}, {moments.variance.data, {C}},
                          in.eps);
    const float *scale = all.scale.data(), *shift = all.shift.data();
    const std::vector<float> ones(C, 1.0f);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < B; ++b) {
        const float* const mask = in.mask ? in.mask.at(b) : ones.data();
        for (int64_t t = 0; t < T; ++t) {
            const Number* const z = in.z.at(b, t);
            const Number* const x = residual ? residual.at(b, t) : nullptr;
            Number* const out = y.at(b, t);
            const auto changed = [&](int64_t c) {
                const float h = get(z[c]) * scale[c] + shift[c];
                return mask[c] * (h < 0 ? 0.0f : h);
            };
            if (x) {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) put(get(x[c]) + changed(c), out[c]);
            } else {
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) put(changed(c), out[c]);
            }
        }
    }
}

struct NormGradients {
    View<float> gain, bias;
};

template <class Number>
void norm_backward(const NormInputs<Number>& in, const View<const float>& mean,
                   const View<const float>& variance, const View<const Number, 3>& gy,
                   const View<Number, 3>& gz, const NormGradients& out, Threads threads) {
    const auto shape = in.z.shape;
    const int64_t B = shape[0], T = shape[1], C = shape[2];
    const int team = threads.over(B);
    const norm::Scale all(in.gain, in.bias, mean, variance, in.eps);
    const float *scale = all.scale.data(), *shift = all.shift.data(), *middle = mean.data;
    const std::vector<float> ones(C, 1.0f);
    std::unique_ptr<float[]> parts(new float[2 * B * C]());  // (B, 2, C) sums of g and g (z - mean)
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < B; ++b) {
        const float* const mask = in.mask ? in.mask.at(b) : ones.data();
        float *const sum = parts.get() + 2 * b * C, *const product = sum + C;
        for (int64_t t = 0; t < T; ++t) {
            const Number *const z = in.z.at(b, t), *const g = gy.at(b, t);
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) {
                const float value = get(z[c]);
                const float through = norm::through(get(g[c]), mask[c], value, scale[c], shift[c]);
                sum[c] += through;
                product[c] += through * (value - middle[c]);
            }
        }
    }
    std::vector<float> mean_g(C), slope(C);
    for (int64_t c = 0; c < C; ++c) {
        double sum = 0, product = 0;
        for (int64_t b = 0; b < B; ++b) {
            sum += parts[2 * b * C + c];
            product += parts[(2 * b + 1) * C + c];
        }
        const double all_values = double(B) * T, spread = double(variance[c]) + in.eps;
        out.bias[c] = static_cast<float>(sum);
        out.gain[c] = static_cast<float>(product / std::sqrt(spread));
        mean_g[c] = static_cast<float>(sum / all_values);
        slope[c] = static_cast<float>(product / all_values / spread);
    }
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < B; ++b) {
        const float* const mask = in.mask ? in.mask.at(b) : ones.data();
        for (int64_t t = 0; t < T; ++t) {
            const Number *const z = in.z.at(b, t), *const g = gy.at(b, t);
            Number* const to = gz.at(b, t);
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) {
                const float value = get(z[c]);
                const float through = norm::through(get(g[c]), mask[c], value, scale[c], shift[c]);
                put(scale[c] * (through - mean_g[c] - (value - middle[c]) * slope[c]), to[c]);
            }
        }
    }
}

}  // namespace eeg
