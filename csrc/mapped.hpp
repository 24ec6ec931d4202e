// A file mapped read-only for as long as the object lives.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace eeg {

class Mapped {
  public:
    explicit Mapped(const std::string& path) {
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) throw std::system_error(errno, std::generic_category(), path);
        struct stat st;
        int failed = ::fstat(fd, &st) < 0 ? errno : 0;
        if (!failed && st.st_size > 0) {
            void* at = ::mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_SHARED, fd, 0);
            if (at == MAP_FAILED) failed = errno;
            else data_ = static_cast<const uint8_t*>(at), size_ = st.st_size;
        }
        ::close(fd);
        if (failed) throw std::system_error(failed, std::generic_category(), path);
    }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;
    ~Mapped() {
        if (data_) ::munmap(const_cast<uint8_t*>(data_), static_cast<size_t>(size_));
    }
    const uint8_t* data() const { return data_; }
    int64_t size() const { return size_; }

  private:
    const uint8_t* data_ = nullptr;
    int64_t size_ = 0;
};

}  // namespace eeg
