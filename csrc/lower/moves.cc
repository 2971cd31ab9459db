// Operators that move values about. Codes stay codes where the output has the same encoding; reshaping costs nothing.
#include <algorithm>
#include <cstring>

#include "file/checked.h"
#include "fold.h"
#include "lower.h"
#include "run/pool.h"
#include "take.h"
#include "view.h"

namespace bl {

namespace {

// ------------------------------------------------------------------------------------------- where a move begins and ends

// Whether an output can have the codes of `x` as they are.
bool keeps_codes(Lowering& lower, const Node& node, size_t slot, const Value& x) {
  Coding coding;
  return x.codes && x.coding.uniform() && !(slot == 0 && (node.low || node.high)) && lower.coding(node, slot, coding) && coding == x.coding;
}

// Input `slot` in rows, as codes only if output `out` keeps them; -1 (refused) where nothing made it.
int moved(Lowering& lower, const Node& node, size_t slot, size_t out = 0) {
  const int x = lower.input(node, slot);
  if (x < 0) {
    lower.refuse(node, "its input is made by nothing that has a kernel");
    return -1;
  }
  return lower.rows(keeps_codes(lower, node, out, lower.value(x)) ? x : lower.reals(x));
}

// A place for an output that has the elements of `x`; `finish` names it.
int place_for(Lowering& lower, const Node& node, size_t slot, int x, const Shape& shape) {
  const Value v = lower.value(x);
  return v.codes ? lower.output(node, slot, v.type, shape, false, true) : lower.temporary(v.type, shape, false);
}
void finish(Lowering& lower, const Node& node, size_t slot, int number) {
  if (!lower.value(number).codes) lower.settle(node, slot, number);
}

void emit_copy(Lowering& lower, const Node& node, int x, int y, const View& from, const View& to) {
  const Copy copy = copy_of(from, to, lower.value(x).element());
  lower.emit({node.name(), "copy", {x}, {y}, [=](const Frame& f) { run_copy(copy, f.at<uint8_t>(x), f.at<uint8_t>(y), *f.pool); }});
}

// The output as a view of the input.
bool lower_view(Lowering& lower, const Node& node, int x, const View& view) {
  const int y = place_for(lower, node, 0, x, view.shape);
  emit_copy(lower, node, x, y, view, view_of(view.shape));
  finish(lower, node, 0, y);
  return true;
}

// The output in the memory of the input.
bool lower_same(Lowering& lower, const Node& node, int x, const Shape& shape) {
  if (elements(shape) != lower.value(x).count()) return lower.refuse(node, "the shape does not hold the elements of its input");
  if (lower.value(x).codes) {
    lower.share(node, 0, x, shape);
    return true;
  }
  const int y = lower.temporary(lower.value(x).type, shape, false);
  lower.values_[static_cast<size_t>(y)].shares = x;
  lower.settle(node, 0, y);
  return true;
}

bool not_known(Lowering& lower, const Node& node, const char* what) {
  return lower.refuse(node, std::string(what) + " must be known when the network is loaded");
}

// --------------------------------------------------------------------------------------------------------- new shapes

bool lower_reshape(Lowering& lower, const Node& node) {
  Shape shape;
  if (!known_integers(lower, node, 1, shape)) return not_known(lower, node, "the shape");
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  const Shape& from = lower.value(x).shape;
  const bool keep_zero = attr(node, "allowzero", int64_t{0}) != 0;
  int64_t product = 1;
  size_t rest = shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && !keep_zero && i < from.size()) shape[i] = from[i];
    if (shape[i] < 0) rest = i;
    else product = capped_mul(product, shape[i]);
  }
  if (rest < shape.size()) shape[rest] = product == 0 ? 0 : elements(from) / product;
  return lower_same(lower, node, x, shape);
}

bool lower_flatten(Lowering& lower, const Node& node) {
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  const Shape& from = lower.value(x).shape;
  const auto cut = from.begin() + axis_of(attr(node, "axis", int64_t{1}), from.size());
  return lower_same(lower, node, x, {elements(Shape(from.begin(), cut)), elements(Shape(cut, from.end()))});
}

bool lower_squeeze(Lowering& lower, const Node& node) {
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  Shape axes, shape;
  const bool given = lower.input(node, 1) >= 0 || lower.constant(node, 1) != nullptr;
  if (given && !known_integers(lower, node, 1, axes)) return not_known(lower, node, "the axes");
  const Shape& from = lower.value(x).shape;
  for (int64_t& a : axes) a = axis_of(a, from.size());
  for (size_t a = 0; a < from.size(); ++a) {
    const bool gone = given ? std::count(axes.begin(), axes.end(), static_cast<int64_t>(a)) != 0 : from[a] == 1;
    if (!gone) shape.push_back(from[a]);
  }
  return lower_same(lower, node, x, shape);
}

bool lower_unsqueeze(Lowering& lower, const Node& node) {
  Shape axes;
  if (!known_integers(lower, node, 1, axes)) return not_known(lower, node, "the axes");
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  const Shape& from = lower.value(x).shape;
  const size_t rank = from.size() + axes.size();
  for (int64_t& a : axes) a = axis_of(a, rank);
  Shape shape;
  for (size_t a = 0, next = 0; a < rank; ++a) {
    const bool fresh = std::count(axes.begin(), axes.end(), static_cast<int64_t>(a)) != 0;
    if (!fresh && next == from.size()) return lower.refuse(node, "the axes do not fit its input");
    shape.push_back(fresh ? 1 : from[next++]);
  }
  return lower_same(lower, node, x, shape);
}

bool lower_identity(Lowering& lower, const Node& node) {
  const int x = moved(lower, node, 0);
  return x >= 0 && lower_same(lower, node, x, lower.value(x).shape);
}

// --------------------------------------------------------------------------------------------------------------- views

bool lower_transpose(Lowering& lower, const Node& node) {
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  const Shape from = lower.value(x).shape;
  Shape order(from.size());
  for (size_t a = 0; a < order.size(); ++a) order[a] = static_cast<int64_t>(order.size() - 1 - a);
  order = attr(node, "perm", order);
  const View view = permuted(view_of(from), order);
  return is_dense(view) ? lower_same(lower, node, x, view.shape) : lower_view(lower, node, x, view);
}

bool lower_expand(Lowering& lower, const Node& node) {
  Shape wanted, shape;
  if (!known_integers(lower, node, 1, wanted)) return not_known(lower, node, "the shape");
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  const Shape from = lower.value(x).shape;
  if (!broadcast_shape(from, wanted, shape)) return lower.refuse(node, "the shape does not fit its input");
  return lower_view(lower, node, x, broadcast(view_of(from), shape));
}

bool lower_tile(Lowering& lower, const Node& node) {
  Shape repeats;
  if (!known_integers(lower, node, 1, repeats)) return not_known(lower, node, "how often it repeats");
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  Shape from = lower.value(x).shape;
  while (from.size() < repeats.size()) from.insert(from.begin(), 1);
  while (repeats.size() < from.size()) repeats.insert(repeats.begin(), 1);
  const View one = view_of(from);
  View view, to;  // an axis of repetitions before each axis
  Shape shape;
  for (size_t a = 0; a < from.size(); ++a) {
    view.shape.insert(view.shape.end(), {repeats[a], from[a]});
    view.strides.insert(view.strides.end(), {0, one.strides[a]});
    shape.push_back(capped_mul(repeats[a], from[a]));
  }
  to = view_of(view.shape);
  const int y = place_for(lower, node, 0, x, shape);
  emit_copy(lower, node, x, y, view, to);
  finish(lower, node, 0, y);
  return true;
}

// Where a slice begins on each axis, its step, and how long it is.
struct Cut {
  int64_t begin = 0, step = 1, count = 0;
};

bool cuts_of(Lowering& lower, const Node& node, const Shape& shape, std::vector<Cut>& out) {
  Shape starts, ends, axes, steps;
  if (!known_integers(lower, node, 1, starts) || !known_integers(lower, node, 2, ends)) return not_known(lower, node, "the ends");
  const auto given = [&](size_t slot) { return slot < node.inputs.size() && !node.inputs[slot].empty(); };
  if ((given(3) && !known_integers(lower, node, 3, axes)) || (given(4) && !known_integers(lower, node, 4, steps)))
    return not_known(lower, node, "the axes and steps");
  if (starts.size() != ends.size() || (given(3) ? axes.size() != starts.size() : starts.size() > shape.size()) ||
      (given(4) && steps.size() != starts.size()))
    return lower.refuse(node, "its ends, axes and steps do not go together");
  for (int64_t n : shape) out.push_back({0, 1, n});
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t a = static_cast<size_t>(given(3) ? axis_of(axes[i], shape.size()) : static_cast<int64_t>(i));
    if (a >= shape.size()) return lower.refuse(node, "it has no such axis");
    const int64_t n = shape[a], longest = std::max<int64_t>(n, 1);  // longer steps come to the same
    const int64_t step = given(4) ? std::clamp(steps[i], -longest, longest) : 1;
    if (step == 0) return lower.refuse(node, "a step is 0");
    const int64_t least = step > 0 ? 0 : -1, most = step > 0 ? n : n - 1;
    const auto held = [&](int64_t at) { return std::clamp(at < 0 ? at + n : at, least, most); };
    const int64_t begin = held(starts[i]), end = ends[i] < -n && step < 0 ? -1 : held(ends[i]);
    out[a] = {begin, step, std::max<int64_t>(0, step > 0 ? (end - begin + step - 1) / step : (begin - end - step - 1) / -step)};
  }
  return true;
}

// A slice of an image stays one.
bool slice_image(Lowering& lower, const Node& node, int x, const std::vector<Cut>& cuts) {
  std::vector<std::vector<int32_t>> from(cuts.size());
  for (size_t a = 0; a < cuts.size(); ++a)
    for (int64_t i = 0; (cuts[a].step != 1 || cuts[a].count != lower.value(x).shape[a]) && i < cuts[a].count; ++i)
      from[a].push_back(static_cast<int32_t>(cuts[a].begin + i * cuts[a].step));
  return emit_axes(lower, node, "slice", x, from, 0);
}

bool lower_slice(Lowering& lower, const Node& node) {
  std::vector<Cut> cuts;
  const int given = lower.input(node, 0);
  if (given < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  if (!cuts_of(lower, node, lower.value(given).shape, cuts)) return false;
  const bool all = std::all_of(cuts.begin(), cuts.end(), [](const Cut& c) { return c.count > 0; });
  if (all && lower.value(given).image && lower.value(given).element() <= 4) return slice_image(lower, node, given, cuts);
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  View view = view_of(lower.value(x).shape);
  for (size_t a = 0; a < cuts.size(); ++a) {
    view.shape[a] = cuts[a].count;
    view.first += cuts[a].begin * view.strides[a];
    view.strides[a] *= cuts[a].step;
  }
  return lower_view(lower, node, x, view);
}

// -------------------------------------------------------------------------------------------- several inputs or outputs

// Channels of images beside each other: each pixel gets the channels of all inputs, whose codes are those of the output.
bool concat_images(Lowering& lower, const Node& node, const Coding* coding) {
  std::vector<int> in;
  Shape shape;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    int x = lower.input(node, i);
    x = lower.image(coding != nullptr ? lower.encoded(x, *coding) : lower.reals(x));
    const Shape& s = lower.value(x).shape;
    if (i == 0) shape = s;
    else shape[1] += s[1];
    in.push_back(x);
  }
  const int y = lower.output(node, 0, Type::f32, shape, true, coding != nullptr);
  const Image to = image_of(lower.value(y));
  std::vector<Copy> copies;
  int64_t channel = 0;
  for (int x : in) {
    const Image from = image_of(lower.value(x));
    const Shape block{from.batch, from.height, from.width, from.channels};
    copies.push_back(copy_of({block, {from.image, from.line, from.channels, 1}, from.first},
                             {block, {to.image, to.line, to.channels, 1}, to.first + channel}, lower.value(x).element()));
    channel += from.channels;
  }
  lower.emit({node.name(), "concat", in, {y}, [=](const Frame& f) {
                for (size_t i = 0; i < in.size(); ++i) run_copy(copies[i], f.at<uint8_t>(in[i]), f.at<uint8_t>(y), *f.pool);
              }});
  return true;
}

// Whether values have the same shape but for one axis.
bool join_along(const Lowering& lower, const std::vector<int>& in, size_t axis) {
  Shape first = lower.value(in[0]).shape;
  for (const int x : in) {
    const Shape& s = lower.value(x).shape;
    if (s.size() != first.size()) return false;
    first[axis] = s[axis];
    if (s != first) return false;
  }
  return true;
}

bool lower_concat(Lowering& lower, const Node& node) {
  std::vector<int> in;
  bool images = true;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    in.push_back(lower.input(node, i));
    if (in.back() < 0) return lower.refuse(node, "an input is made by nothing that has a kernel");
    images = images && lower.value(in.back()).image;
  }
  Coding coding;
  const bool encoded = lower.coding(node, 0, coding), plain = !node.low && !node.high;
  const size_t rank = lower.value(in[0]).shape.size();
  const int64_t axis = axis_of(attr(node, "axis", int64_t{0}), rank);
  if (axis >= static_cast<int64_t>(rank) || !join_along(lower, in, static_cast<size_t>(axis))) {
    return lower.refuse(node, "its inputs do not fit each other");
  }
  if (images && axis == 1 && plain && (!encoded || coding.uniform())) return concat_images(lower, node, encoded ? &coding : nullptr);
  const bool codes = encoded && plain && coding.uniform();
  Shape shape;
  for (int& x : in) {
    x = lower.rows(codes ? lower.encoded(x, coding) : lower.reals(x));
    const Shape& s = lower.value(x).shape;
    if (lower.value(x).type != lower.value(in[0]).type) return lower.refuse(node, "its inputs do not fit each other");
    if (shape.empty()) shape = s;
    else shape[static_cast<size_t>(axis)] += s[static_cast<size_t>(axis)];
  }
  const int y = place_for(lower, node, 0, in[0], shape);
  View to = view_of(shape);
  for (int x : in) {
    to.shape = lower.value(x).shape;
    emit_copy(lower, node, x, y, view_of(to.shape), to);
    to.first += to.shape[static_cast<size_t>(axis)] * to.strides[static_cast<size_t>(axis)];
  }
  finish(lower, node, 0, y);
  return true;
}

bool lower_split(Lowering& lower, const Node& node) {
  const int number = lower.input(node, 0);
  if (number < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  const Shape from = lower.value(number).shape;
  const size_t axis = static_cast<size_t>(axis_of(attr(node, "axis", int64_t{0}), from.size()));
  if (axis >= from.size()) return lower.refuse(node, "it has no such axis");
  Shape lengths;
  if (node.inputs.size() > 1 && !node.inputs[1].empty()) {
    if (!known_integers(lower, node, 1, lengths)) return not_known(lower, node, "the lengths");
  } else {
    const int64_t pieces = attr(node, "num_outputs", static_cast<int64_t>(node.outputs.size()));
    if (pieces != static_cast<int64_t>(node.outputs.size())) return lower.refuse(node, "it has another number of outputs than pieces");
    const int64_t each = (from[axis] + pieces - 1) / pieces;
    for (int64_t i = 0; i < pieces; ++i) lengths.push_back(std::clamp<int64_t>(from[axis] - i * each, 0, each));
  }
  if (lengths.size() != node.outputs.size()) return lower.refuse(node, "it has another number of outputs than lengths");
  int64_t end = 0;
  for (const int64_t length : lengths)
    if (length < 0 || !checked_add(end, length, end)) return lower.refuse(node, "its lengths do not fit its input");
  if (end != from[axis]) return lower.refuse(node, "its lengths do not fit its input");
  View view = view_of(from);
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int x = moved(lower, node, 0, i);
    view.shape[axis] = lengths[i];
    const int y = place_for(lower, node, i, x, view.shape);
    emit_copy(lower, node, x, y, view, view_of(view.shape));
    finish(lower, node, i, y);
    view.first += lengths[i] * view.strides[axis];
  }
  return true;
}

// ------------------------------------------------------------------------------------------------------------- by number

// Slices of an axis that indices name, known or not: negative ones count from the end, others out of range are a fault.
bool lower_gather(Lowering& lower, const Node& node) {
  const int x = moved(lower, node, 0);
  if (x < 0) return false;
  if (lower.input(node, 1) < 0) return lower.refuse(node, "its indices are made by nothing that has a kernel");
  const int at = lower.rows(lower.input(node, 1));
  const Type type = lower.value(at).type;
  if ((type != Type::i64 && type != Type::i32) || lower.value(at).codes) return lower.refuse(node, "its indices must be int32 or int64");
  const Shape from = lower.value(x).shape, indices = lower.value(at).shape;
  const auto axis = from.begin() + axis_of(attr(node, "axis", int64_t{0}), from.size());
  if (axis == from.end()) return lower.refuse(node, "it has no such axis");
  Shape shape(from.begin(), axis);
  const int64_t outer = elements(shape), n = *axis, count = elements(indices);
  shape.insert(shape.end(), indices.begin(), indices.end());
  shape.insert(shape.end(), axis + 1, from.end());
  const int64_t piece = elements(Shape(axis + 1, from.end())) * lower.value(x).element();
  const int y = place_for(lower, node, 0, x, shape);
  const std::string fault = "input of node '" + node.name() + "' must have indices between " + std::to_string(-n) + " and " +
                            std::to_string(n - 1) + ", got one beyond; give valid indices";
  lower.emit({node.name(), "gather", {x, at}, {y}, [=](const Frame& f) {
                uint8_t* to = f.at<uint8_t>(y);
                for (int64_t o = 0; o < outer; ++o)
                  for (int64_t i = 0; i < count; ++i, to += piece) {
                    const int64_t given = type == Type::i64 ? f.at<int64_t>(at)[i] : f.at<int32_t>(at)[i];
                    const int64_t index = given < 0 ? given + n : given;
                    if (index < 0 || index >= n) return f.fail(fault.c_str());
                    std::memcpy(to, f.at<uint8_t>(x) + (o * n + index) * piece, static_cast<size_t>(piece));
                  }
              }});
  finish(lower, node, 0, y);
  return true;
}

// -------------------------------------------------------------------------------------------------------- made of a shape

// What `fold` does not compute beforehand because it is long or of floats: one value everywhere.
bool lower_constant_of_shape(Lowering& lower, const Node& node) {
  Shape shape;
  Type type = Type::f32;
  if (!known_integers(lower, node, 0, shape)) return not_known(lower, node, "the shape");
  if (!type_named(attr(node, "dtype", "float32"), type)) return lower.refuse(node, "its type is unknown");
  if (type != Type::f32 && type != Type::i64 && type != Type::boolean) return lower.refuse(node, "its type has no kernel");
  const double value = attr(node, "value", 0.0);
  const int y = lower.temporary(type, shape, false);
  const int64_t count = elements(shape);
  lower.emit({node.name(), "fill", {}, {y}, [=](const Frame& f) {
                if (type == Type::f32) std::fill_n(f.at<float>(y), count, static_cast<float>(value));
                else if (type == Type::i64) std::fill_n(f.at<int64_t>(y), count, whole(value));
                else std::fill_n(f.at<uint8_t>(y), count, static_cast<uint8_t>(value != 0));
              }});
  lower.settle(node, 0, y);
  return true;
}

bool lower_known_only(Lowering& lower, const Node& node) {
  return fold(lower, node) || lower.refuse(node, "its inputs must be known when the network is loaded");
}

const Rule rules[] = {
    {"reshape", lower_reshape, nullptr},
    {"flatten", lower_flatten, nullptr},
    {"squeeze", lower_squeeze, nullptr},
    {"unsqueeze", lower_unsqueeze, nullptr},
    {"identity", lower_identity, nullptr},
    {"transpose", lower_transpose, nullptr},
    {"expand", lower_expand, nullptr},
    {"tile", lower_tile, nullptr},
    {"slice", lower_slice, nullptr},
    {"concat", lower_concat, nullptr},
    {"split", lower_split, nullptr},
    {"gather", lower_gather, nullptr},
    {"constant_of_shape", lower_constant_of_shape, nullptr},
    {"shape", lower_known_only, nullptr},
    {"size", lower_known_only, nullptr},
    {"range", lower_known_only, nullptr},
};

}  // namespace

const Room moves_room{rules, sizeof rules / sizeof *rules};

}  // namespace bl
