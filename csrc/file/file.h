// Reading a .ladder file (docs/file-format.md) into a graph. Trusts nothing it reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "graph/graph.h"

namespace bl {

enum class Status : int { ok = 0, malformed = 1, truncated = 2, unsupported = 3, wrong_input = 4, busy = 5, no_memory = 6 };

struct Problem {
  Status status = Status::ok;
  std::string message;      // one line
  uint64_t needed = 0;      // truncated: bytes that would do
  std::string node;         // unsupported: the node without a kernel, if it is one
  explicit operator bool() const { return status != Status::ok; }
};

constexpr int64_t kMostDecoded = int64_t{8} << 30;  // bytes of all tensors in memory, unless the caller says otherwise

// The network in `size` bytes at `data`, which may be a prefix of a file: with `bits` 0 nested weights then have the planes
// that are there, and it is truncated only if it lacks what every width needs. Other `bits`: at most that many planes of each
// nested weight, which must be there. Tensors that would take more than `most` bytes are refused before any is decoded.
// Damage is never worked around here: that, and deltas, are the Python reader's.
Problem read_file(const uint8_t* data, size_t size, int bits, Graph& out, int64_t most = kMostDecoded);

}  // namespace bl
