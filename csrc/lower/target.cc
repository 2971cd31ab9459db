#include "target.h"

#include "layers/integers.h"

namespace bl {

Target target(Lowering& lower, const Node& node, const Value& like, const Shape& shape, bool image) {
  const Value form = like;  // values move while others are made
  const Encoding* encoding = lower.graph().encoding(node.name());
  const bool encoded = encoding != nullptr;
  Coding coding;
  if (encoded && !lower.coding(node, 0, coding)) {
    lower.refuse(node, not_taken(*encoding, "output"));
    return {};
  }
  const bool same = form.codes ? encoded && coding == form.coding : !encoded;
  if (same && !node.low && !node.high) return {lower.output(node, 0, form.type, shape, image, form.codes), true};
  const int number = lower.temporary(form.type, shape, image);
  lower.values_[static_cast<size_t>(number)].codes = form.codes;
  lower.values_[static_cast<size_t>(number)].coding = form.coding;
  return {number, false};
}

void land(Lowering& lower, const Node& node, const Target& target) {
  if (!target.direct) lower.settle(node, 0, target.number);
}

}  // namespace bl
