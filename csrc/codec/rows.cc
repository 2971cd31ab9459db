#include "rows.h"

#include <algorithm>
#include <cstring>

#include "dense.h"

namespace bl {

namespace {

// A word as the eight bytes of a plane, whatever the machine's order; codes are the same with rows and bits exchanged.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

uint8_t* bytes_of(std::vector<uint64_t>& row) { return reinterpret_cast<uint8_t*>(row.data()); }
const uint8_t* bytes_of(const std::vector<uint64_t>& row) { return reinterpret_cast<const uint8_t*>(row.data()); }

}  // namespace

Rows rows_of(const uint8_t* codes, int64_t count, int known) {
  Rows rows{count, {}};
  rows.planes.assign(static_cast<size_t>(known), std::vector<uint64_t>(rows.words()));
  for (int64_t i = 0; i < count; i += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, codes + i, static_cast<size_t>(std::min<int64_t>(8, count - i)));
    eight = transposed(eight);  // byte k: bit k of the codes
    for (int k = 0; k < known; ++k)
      bytes_of(rows.planes[static_cast<size_t>(known - 1 - k)])[i / 8] = static_cast<uint8_t>(eight >> 8 * k);
  }
  return rows;
}

void codes_of(const Rows& rows, uint8_t* codes) {
  const uint8_t* planes[8];
  const size_t known = rows.planes.size();
  for (size_t k = 0; k < known; ++k) planes[k] = bytes_of(rows.planes[k]);
  for (int64_t i = 0; i < rows.count; i += 8) {
    uint64_t eight = 0;
    for (size_t k = 0; k < known; ++k) eight = eight << 8 | planes[k][i / 8];
    eight = transposed(eight);
    std::memcpy(codes + i, &eight, static_cast<size_t>(std::min<int64_t>(8, rows.count - i)));
  }
}

bool append_raw(std::string_view body, Rows& rows) {
  if (static_cast<int64_t>(body.size()) != dense_bytes(rows.count, 1) || !ends_clean(body, rows.count, 1)) return false;
  rows.planes.emplace_back(rows.words());
  if (!body.empty()) std::memcpy(rows.planes.back().data(), body.data(), body.size());
  return true;
}

}  // namespace bl
