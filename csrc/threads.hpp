// How many threads a kernel may use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>

#include <omp.h>
#include <pthread.h>

#include "text.hpp"

namespace eeg {

class Threads {
  public:
    // 0 asks for as many as OpenMP chooses.
    explicit Threads(int asked) : asked_(asked) {
        if (asked < 0)
            throw std::invalid_argument(
                text("threads must be 0 (as OpenMP chooses) or more, got ", asked));
    }

    // For so many pieces of work: at most a thread each. More threads than cores do no harm but for
    // their memory.
    int over(int64_t pieces) const {
        if (forked_) return 1;
        const int64_t asked = asked_ ? asked_ : omp_get_max_threads();
        const int64_t most = std::max(omp_get_num_procs(), 16);
        return static_cast<int>(std::min({asked, most, std::max<int64_t>(1, pieces)}));
    }

    // To be called once. A child of fork has none of its parent's threads, and OpenMP would wait
    // for them for ever: it works alone.
    static void watch_forks() {
        pthread_atfork(nullptr, nullptr, [] { forked_ = true; });
    }

  private:
    static inline std::atomic<bool> forked_{false};
    int asked_;
};

}  // namespace eeg
