// CRC-32 (IEEE 802.3, as in zlib).
#pragma once

#include <cstdint>
#include <string_view>

namespace bl {

uint32_t crc32(std::string_view data);

}  // namespace bl
