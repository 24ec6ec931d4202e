// Preloaded (LD_PRELOAD) into a process that is killed at its n-th call that changes a folder
// (tests/data/test_kill.py). It stands before every library, so it sees the calls of HDF5 as well
// as those of Python. A write that it stops at is half done; any other call is not done.

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string>
#include <sys/types.h>
#include <unistd.h>

static std::atomic<long> left{-1};  // calls that are still to be done; negative: nothing is stopped
static std::atomic<long> seen{0};
static std::string under;  // the folder, an absolute path

static bool inside(const char* path) { return strncmp(path, under.c_str(), under.size()) == 0; }

static bool inside(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return false;
    path[length] = 0;
    return inside(path);
}

// Whether this call is the one to stop at.
template <typename Where>
static bool stops(Where where) {
    if (under.empty() || !inside(where)) return false;
    seen++;
    return left >= 0 && left-- == 0;
}

[[noreturn]] static void die() {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

template <typename F>
static F real(F, const char* name) {
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

extern "C" {

// From now on: die at the n-th call (from 0) that changes something in the folder; -1: only count.
void stop_at(const char* folder, long n) {
    under = folder;
    seen = 0;
    left = n;
}

long calls_seen() { return seen; }

ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
    if (stops(fd)) {
        real(pwrite, "pwrite")(fd, data, size / 2, at);
        die();
    }
    return real(pwrite, "pwrite")(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
    if (stops(fd)) {
        real(pwrite64, "pwrite64")(fd, data, size / 2, at);
        die();
    }
    return real(pwrite64, "pwrite64")(fd, data, size, at);
}

ssize_t write(int fd, const void* data, size_t size) {
    if (stops(fd)) {
        real(write, "write")(fd, data, size / 2);
        die();
    }
    return real(write, "write")(fd, data, size);
}

#define OPEN(name, ...)                                                     \
    if (flags & (O_CREAT | O_TRUNC) && stops(path)) die();                  \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                           \
    return real(name, #name)(__VA_ARGS__, mode);

int open(const char* path, int flags, ...) { OPEN(open, path, flags) }
int open64(const char* path, int flags, ...) { OPEN(open64, path, flags) }
int openat(int at, const char* path, int flags, ...) { OPEN(openat, at, path, flags) }
int openat64(int at, const char* path, int flags, ...){OPEN(openat64, at, path, flags)}

#define CHANGES(name, where, parameters, ...)  \
    int name parameters {                      \
        if (stops(where)) die();               \
        return real(name, #name)(__VA_ARGS__); \
    }

CHANGES(ftruncate, fd, (int fd, off_t size) noexcept, fd,
        size) CHANGES(ftruncate64, fd, (int fd, off64_t size) noexcept, fd, size)
    CHANGES(posix_fallocate, fd, (int fd, off_t at, off_t size), fd, at,
            size) CHANGES(posix_fallocate64, fd, (int fd, off64_t at, off64_t size), fd, at, size)
        CHANGES(fsync, fd, (int fd), fd) CHANGES(fdatasync, fd, (int fd), fd)
            CHANGES(rename, to, (const char* from, const char* to) noexcept, from, to)
                CHANGES(renameat, to,
                        (int at, const char* from, int to_at, const char* to) noexcept, at, from,
                        to_at, to) CHANGES(unlink, path, (const char* path) noexcept, path)
                    CHANGES(unlinkat, path, (int at, const char* path, int flags) noexcept, at,
                            path, flags)
                        CHANGES(mkdir, path, (const char* path, mode_t mode) noexcept, path, mode)
}
