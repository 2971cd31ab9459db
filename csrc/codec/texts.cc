#include "texts.h"

namespace bl {

bool Texts::decode(const PartView& part, size_t length, std::string& out) {
  if (part.coding == kRaw) {
    out.assign(part.body);
    unlearned_ += out;
    return out.size() == length;
  }
  if (part.coding != kBest || !bounded(part, static_cast<int64_t>(length))) return false;
  if (!model_) model_ = std::make_unique<Text>();
  model_->learn(unlearned_);
  unlearned_.clear();
  return model_->decode(part.body, length, out);
}

}  // namespace bl
