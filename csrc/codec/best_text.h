// Header text as bins: what the texts of a file so far let one expect (src/bitladder/codec/best_text.py).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "bins.h"

namespace bl {

class Text {
 public:
  Text();

  // Coding a text and learning it come to the same state.
  void learn(std::string_view text);
  void encode(std::string_view text, std::vector<uint8_t>& out);
  bool decode(std::string_view body, size_t length, std::string& out);

 private:
  static constexpr size_t kContexts = 8;
  static constexpr int kBins = 16, kOften = 7;

  template <class Coin>
  uint8_t byte(Coin& coin, uint8_t told);
  template <class Coin>
  bool bit(Coin& coin, const std::array<Bin*, kContexts>& bins, bool told);

  std::vector<Bin> bins_;
  std::array<std::array<int32_t, kOften + 1>, kContexts> weights_;
  uint64_t past_ = 0;
};

}  // namespace bl
