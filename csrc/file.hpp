// A file open for reading for as long as the object lives. Not mapped: at a few hundred KB a read, copying out of the
// system's cache costs less than the page faults of a map, and a file that shrinks meanwhile is an error, not a signal.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace eeg {

class File {
  public:
    explicit File(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        struct stat st;
        if (fd_ < 0 || ::fstat(fd_, &st) < 0) fail(errno);
        size_ = st.st_size;
        if (S_ISDIR(st.st_mode)) fail(EISDIR);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() { ::close(fd_); }

    int64_t size() const { return size_; }

    // Fill out with the `bytes` that lie at `offset`.
    void read(int64_t offset, int64_t bytes, uint8_t* out) const {
        while (bytes > 0) {
            const ssize_t got = ::pread(fd_, out, static_cast<size_t>(bytes), offset);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) throw std::system_error(got < 0 ? errno : EIO, std::generic_category(), path_);
            offset += got, out += got, bytes -= got;
        }
    }

  private:
    [[noreturn]] void fail(int error) {
        if (fd_ >= 0) ::close(fd_);
        throw std::system_error(error, std::generic_category(), path_);
    }
    std::string path_;
    int fd_;
    int64_t size_ = 0;
};

// Row i of out (n, room) <- `bytes[i]` at `offset[i]` of the open file fd[i]; got[i]: how many there were, or -errno. One
// read each, for what is read past the system's cache must begin and end on blocks.
inline void read_rows(const int32_t* fd, const int64_t* offset, const int64_t* bytes, int64_t n, int64_t room, uint8_t* out, int64_t* got) {
    for (int64_t i = 0; i < n; ++i) {
        do got[i] = ::pread(fd[i], out + i * room, static_cast<size_t>(bytes[i]), offset[i]);
        while (got[i] < 0 && errno == EINTR);
        if (got[i] < 0) got[i] = -errno;
    }
}

}  // namespace eeg
