// Memory on cache lines, with readable bytes behind it (kernels.h: slack).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace bl {

class Block {
 public:
  Block() = default;
  explicit Block(int64_t size) : size_(size) {
    const size_t whole = (static_cast<size_t>(size) + 64 + 63) / 64 * 64;
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, whole)));
    if (data_) std::memset(data_.get(), 0, whole);
  }
  uint8_t* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  bool there() const { return data_ != nullptr; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  int64_t size_ = 0;
};

}  // namespace bl
