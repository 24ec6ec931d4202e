// A file open for reading for as long as the object lives. Not mapped: at a few hundred KB a read,
// copying out of the system's cache costs less than the page faults of a map, and a file that
// shrinks meanwhile is an error, not a signal.
#pragma once

#include <cerrno>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#endif

#include "view.hpp"

namespace eeg {

// Piece i: bytes[i] at offset[i] of file which[i].
struct Pieces {
    View<const int32_t> which;
    View<const int64_t> offset, bytes;
};

class File {
  public:
    // Not blocking: a pipe without a writer would wait for one before it can be refused.
    explicit File(const std::string& path, int flags = 0)
        : path_(path), fd_(path.find('\0') == std::string::npos
                               ? ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags)
                               : -1) {
        if (path.find('\0') != std::string::npos) fail(EINVAL);
        struct stat st;
        if (fd_ < 0 || ::fstat(fd_, &st) < 0) fail(errno);
        size_ = st.st_size;
        device_ = st.st_dev;
        inode_ = st.st_ino;
        if (S_ISDIR(st.st_mode)) fail(EISDIR);
        if (!S_ISREG(st.st_mode)) fail(EINVAL);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() { ::close(fd_); }

    int64_t size() const { return size_; }
    uint64_t device() const { return device_; }
    uint64_t inode() const { return inode_; }
    int descriptor() const { return fd_; }

    // Fill out with the `bytes` that lie at `offset`.
    void read(int64_t offset, int64_t bytes, uint8_t* out) const {
        while (bytes > 0) {
            const ssize_t got = ::pread(fd_, out, bytes, offset);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0)
                throw std::system_error(got < 0 ? errno : EIO, std::generic_category(), path_);
            offset += got;
            out += got;
            bytes -= got;
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
    uint64_t device_ = 0, inode_ = 0;
};

#ifdef __linux__
// Files that are read past the system's cache, many pieces at a time: all are asked for at once and
// waited for once. Places, lengths and addresses must be multiples of the disk's blocks. Linux
// alone, by its asynchronous reads, which need no library.
class DirectFiles {
  public:
    DirectFiles(const std::vector<std::string>& paths, int64_t most)
        : requests_(most), list_(requests_.size()), events_(requests_.size()) {
        for (const auto& path : paths) files_.emplace_back(path, O_DIRECT);
        if (::syscall(SYS_io_setup, requests_.size(), &context_) < 0)
            throw std::system_error(errno, std::generic_category(), "asynchronous reads");
    }
    DirectFiles(const DirectFiles&) = delete;
    DirectFiles& operator=(const DirectFiles&) = delete;
    ~DirectFiles() { ::syscall(SYS_io_destroy, context_); }

    int64_t count() const { return static_cast<int64_t>(files_.size()); }
    const std::deque<File>& files() const { return files_; }
    int64_t most() const { return static_cast<int64_t>(requests_.size()); }

    // Row i of out (n, room) <- the i-th of the pieces; got[i]: how many bytes there were, or
    // -errno. n <= most. Threads wait for each other.
    void read(const Pieces& pieces, const View<uint8_t, 2>& out, const View<int64_t>& got) {
        const std::lock_guard<std::mutex> alone(mutex_);
        const int64_t n = out.shape[0];
        for (int64_t i = 0; i < n; ++i) {
            iocb& request = *(list_[i] = &requests_[i]);
            request = {};
            request.aio_data = static_cast<uint64_t>(i);
            request.aio_lio_opcode = IOCB_CMD_PREAD;
            request.aio_fildes = static_cast<uint32_t>(files_[pieces.which[i]].descriptor());
            request.aio_buf = reinterpret_cast<uint64_t>(out.at(i));
            request.aio_nbytes = static_cast<uint64_t>(pieces.bytes[i]);
            request.aio_offset = pieces.offset[i];
        }
        int64_t waiting = 0;
        for (int64_t i = 0; i < n;) {
            const long taken = ::syscall(SYS_io_submit, context_, n - i, list_.data() + i);
            if (taken > 0) {
                i += taken;
                waiting += taken;
            } else if (errno != EINTR) {
                got[i++] = -errno;  // said of the first; those after it are tried
            }
        }
        while (waiting > 0) {  // whatever happens: the system writes into out until then
            const long done =
                ::syscall(SYS_io_getevents, context_, waiting, waiting, events_.data(), nullptr);
            if (done < 0 && errno != EINTR)
                throw std::system_error(errno, std::generic_category(), "asynchronous reads");
            for (long i = 0; i < done; ++i) got[events_[i].data] = events_[i].res;
            waiting -= done > 0 ? done : 0;
        }
    }

  private:
    std::mutex mutex_;
    std::deque<File> files_;
    std::vector<iocb> requests_;
    std::vector<iocb*> list_;
    std::vector<io_event> events_;
    aio_context_t context_ = 0;
};
#endif

}  // namespace eeg
