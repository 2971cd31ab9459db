// The headers of a file in order, each coded in view of all before it (docs/coding.md).
#pragma once

#include <memory>
#include <string>

#include "best_text.h"
#include "codec.h"

namespace bl {

class Texts {
 public:
  bool decode(const PartView& part, size_t length, std::string& out);

 private:
  std::unique_ptr<Text> model_;
  std::string unlearned_;  // until a coded text comes, nothing has to be learned
};

}  // namespace bl
