// As much of GCC's OpenMP library as the kernels use, made of standard threads. The thread
// sanitizer cannot see into libgomp, whose own waiting it takes for races; with this in its
// place, it sees all. An entry that is missing here is an error of the linker.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace {

struct Team {
    explicit Team(unsigned size_) : size(size_) {}
    unsigned size;
    std::atomic<long> next{0};
    long end = 0, step = 1;
    std::mutex mutex;
    std::condition_variable all_here;
    unsigned waiting = 0, round = 0;
    bool started = false;
};
thread_local Team* team = nullptr;
thread_local unsigned number = 0;

void run(Team& together, void (*work)(void*), void* data) {
    std::vector<std::thread> others;
    const auto one = [&](unsigned i) {
        team = &together;
        number = i;
        work(data);
        team = nullptr;
    };
    for (unsigned i = 1; i < together.size; ++i) others.emplace_back(one, i);
    one(0);
    for (auto& other : others) other.join();
}

}  // namespace

extern "C" {

int omp_get_thread_num() { return team ? static_cast<int>(number) : 0; }
int omp_get_num_threads() { return team ? static_cast<int>(team->size) : 1; }
int omp_get_max_threads() { return 4; }
int omp_get_num_procs() { return 4; }

void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned) {
    Team together(threads);
    run(together, work, data);
}

void GOMP_parallel_loop_nonmonotonic_dynamic(void (*work)(void*), void* data, unsigned threads,
                                             long start, long end, long, long chunk, unsigned) {
    Team together(threads);
    together.next = start;
    together.end = end;
    together.step = chunk;
    run(together, work, data);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last);

// The first and only such loop of a parallel region.
bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long, long chunk, long* first,
                                          long* last) {
    {
        const std::lock_guard<std::mutex> alone(team->mutex);
        if (!team->started) {
            team->started = true;
            team->next = start;
            team->end = end;
            team->step = chunk;
        }
    }
    return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
    *first = team->next.fetch_add(team->step, std::memory_order_relaxed);  // orders nothing else
    *last = *first + team->step < team->end ? *first + team->step : team->end;
    return *first < team->end;
}

void GOMP_loop_end_nowait() {}

void GOMP_barrier() {
    std::unique_lock<std::mutex> lock(team->mutex);
    const unsigned mine = team->round;
    if (++team->waiting == team->size) {
        team->waiting = 0;
        ++team->round;
        team->all_here.notify_all();
    }
    team->all_here.wait(lock, [&] { return team->round != mine; });
}

}  // extern "C"
