// Convolution, transposed convolution and linear layers: parts of a layer become pieces of work for the dense kernels.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "lookup.h"
#include "lower.h"
#include "run/pool.h"
#include "layers/layer.h"

namespace bl {

bool lower_depthwise(Lowering& lower, const Node& node, const Layer& layer, int number);  // window.cc

namespace {

constexpr int64_t block_bytes = 192 << 10;  // of inputs that stay in the cache while the panels go by

constexpr int64_t rows_by_planes = 8;       // more of them pay for decoding whole panels

// How the pixels of a window are summed: neighbours in a line first, then lines. Positions are pixels of the whole image.
struct WindowSums {
  std::vector<int64_t> across, down;
  int64_t reach = 0, begin = 0, end = 0;  // of `across`; positions at which windows may start
};

// One part of a layer, placed in the images of this program.
struct Piece {
  const Part* part;
  Dense dense;             // all but what the width decides
  std::vector<Run> runs;
  int64_t x = 0, y = 0, beside = 0;  // the first elements
  int64_t rows = 0, block = 0;
  int64_t sums = 0;        // where its row sums begin in the scratch, in entries
  WindowSums window_sums;  // of mid-rise weights
  int panels() const { return (part->columns + panel_columns - 1) / panel_columns; }
  int blocks() const { return static_cast<int>((rows + block - 1) / block); }
};

// All of a layer in this program.
struct Plan {
  const Layer* layer;
  int number;
  int x, y, other, row_sums, channel_sums, scratch;  // values, or -1
  std::vector<Piece> pieces;
  int64_t scratch_each = 0;  // bytes of one worker's decoded panel
  Image image{};             // of the input
};

int64_t piece_rows(const Part& p, const Window& w, int64_t batch, Grid& grid) {
  grid.lines = static_cast<int32_t>(w.height <= p.out_y ? 0 : (w.height - p.out_y + p.step_y - 1) / p.step_y);
  grid.columns = static_cast<int32_t>(w.width <= p.out_x ? 0 : (w.width - p.out_x + p.step_x - 1) / p.step_x);
  return batch * grid.lines * grid.columns;
}

// Where the outputs of a part lie in an image.
Grid grid_in(const Part& p, const Image& image, const Grid& counts) {
  return {counts.lines, counts.columns, image.image, p.step_y * image.line, p.step_x * image.channels};
}

int64_t first_in(const Part& p, const Image& image) {
  return image.first + p.out_y * image.line + p.out_x * image.channels + p.column;
}

Piece place(const Layer& layer, const Part& part, const Image& x, const Window& window, int unit) {
  Piece piece;
  piece.part = &part;
  Grid counts;
  piece.rows = piece_rows(part, window, x.batch, counts);
  piece.dense.from = {counts.lines, counts.columns, x.image, part.stride_y * x.line, part.stride_x * x.channels};
  piece.x = x.first + (part.base_y - window.top) * x.line + (part.base_x - window.left) * x.channels + part.in_channel;
  for (const Stretch& s : part.stretches) {
    const int64_t count = static_cast<int64_t>(s.pixels) * part.in_channels;
    piece.runs.push_back({s.dy * x.line + s.dx * x.channels, static_cast<int32_t>((count + unit - 1) / unit)});
  }
  piece.dense.quads = part.quads;
  piece.dense.columns = part.columns;
  piece.dense.finish.codes = layer.codes;
  piece.dense.finish.zero = layer.codes ? layer.y.zero : 0;
  return piece;
}

WindowSums window_sums(const Piece& piece, const Image& x) {
  WindowSums out;
  const std::vector<Stretch>& stretches = piece.part->stretches;
  const int pixels = stretches.empty() ? 0 : stretches[0].pixels;
  const bool alike = std::all_of(stretches.begin(), stretches.end(), [&](const Stretch& s) { return s.pixels == pixels; });
  for (int i = 0; i < (alike ? pixels : 1); ++i) out.across.push_back(i);
  out.reach = out.across.empty() ? 0 : out.across.back();
  for (size_t s = 0; s < stretches.size(); ++s)
    for (int i = 0; i < (alike ? 1 : stretches[s].pixels); ++i) out.down.push_back(piece.runs[s].offset / x.channels + i);
  const int64_t count = x.elements / x.channels;
  out.end = count;
  for (const int64_t offset : out.down) {
    out.begin = std::max(out.begin, -offset);
    out.end = std::min(out.end, count - out.reach - offset);
  }
  return out;
}

// How many rows a piece of work has: inputs that fit the cache, and enough pieces for all threads.
void cut(Piece& piece, int64_t row_bytes, int threads) {
  int64_t block = std::max<int64_t>(96, block_bytes / std::max<int64_t>(row_bytes, 1) / 24 * 24);
  if (threads > 1)
    while (block > 48 && ((piece.rows + block - 1) / block) * piece.panels() < 3 * threads) block = (block / 2 + 23) / 24 * 24;
  piece.block = std::min(block, std::max<int64_t>(piece.rows, 1));
}

// ------------------------------------------------------------------------------------------------------------ running

// What the width decides, added to a piece's description.
Dense at_level(const Piece& piece, const Level& level) {
  Dense d = piece.dense;
  d.runs = piece.runs.data();
  d.n_runs = static_cast<int>(piece.runs.size());
  d.mask = level.mask;
  const int first = piece.part->first;
  d.finish.shift = level.shift;
  d.finish.bias = level.bias.data() + first;
  d.finish.scale = level.scale.data() + first;
  d.finish.low = level.low.data() + first;
  d.finish.high = level.high.data() + first;
  return d;
}

DenseCall call_of(const Plan& plan, const Piece& piece, const Level& level, const Frame& f) {
  DenseCall c{};
  c.x = f.at<const uint8_t>(plan.x) + piece.x;
  c.y = f.at<uint8_t>(plan.y) + piece.y * (plan.layer->codes ? 1 : 4);
  c.other = plan.other >= 0 ? f.at<const uint8_t>(plan.other) + piece.beside : nullptr;
  c.weight_sums = level.weight_sums + piece.part->first;
  c.row_sums = level.half ? f.at<const int32_t>(plan.row_sums) + piece.sums : nullptr;
  return c;
}

// For mid-rise weights: the sum of the inputs of each row's window, of each part.
void sum_rows(const Plan& plan, const Frame& f) {
  const Layer& layer = *plan.layer;
  int32_t* out = f.at<int32_t>(plan.row_sums);
  const uint8_t* x = f.at<const uint8_t>(plan.x);
  if (layer.flat) {
    const Piece& piece = plan.pieces[0];
    f.kernels->dense.column_sums(x, piece.rows, plan.image.channels, static_cast<int>(plan.image.channels), layer.x.zero, out);
    return;
  }
  const int64_t channels = plan.image.channels, count = plan.image.elements / channels;
  int32_t* pixels = f.at<int32_t>(plan.channel_sums);  // then the sums of neighbours in a line, then those of windows
  int32_t* lines = pixels + count;
  int32_t* windows = lines + count;
  int done = -1;  // the group whose pixels are there
  for (const Piece& piece : plan.pieces) {
    const Part& p = *piece.part;
    if (done != p.in_channel) f.kernels->dense.column_sums(x + p.in_channel, count, channels, p.in_channels, layer.x.zero, pixels);
    done = p.in_channel;
    const WindowSums& w = piece.window_sums;
    f.kernels->sums.windows(pixels, w.across.data(), static_cast<int>(w.across.size()), 0, count - w.reach, lines);
    f.kernels->sums.windows(lines, w.down.data(), static_cast<int>(w.down.size()), w.begin, w.end, windows);
    const Grid& g = piece.dense.from;
    int32_t* row = out + piece.sums;
    const int64_t base = (piece.x - p.in_channel) / channels, step = g.column / channels;
    for (int64_t n = 0; n < plan.image.batch; ++n)
      for (int32_t line = 0; line < g.lines; ++line, row += g.columns) {
        const int32_t* from = windows + base + (n * g.image + line * g.line) / channels;
        for (int32_t c = 0; c < g.columns; ++c) row[c] = from[c * step];
      }
  }
}

// A few rows times weights in planes: threads share the columns.
void run_planes(const Plan& plan, const Piece& piece, const Frame& f) {
  const Level& level = f.levels[plan.number];
  const Finish finish = at_level(piece, level).finish;
  const DenseCall call = call_of(plan, piece, level, f);
  const int columns = plan.layer->columns;
  PlaneCall c{call.x, plan.layer->inputs, call.y, columns, call.other, columns, call.row_sums, static_cast<int32_t>(piece.rows), 0, columns};
  const int tasks = f.pool->threads() == 1 ? 1 : std::min((columns + 15) / 16, 4 * f.pool->threads());
  const int share = ((columns + tasks - 1) / tasks + 15) / 16 * 16;
  f.pool->run(tasks, [&](int task) {
    PlaneCall own = c;
    own.column = std::min(task * share, columns);
    own.column_end = std::min(own.column + share, columns);
    if (own.column < own.column_end) f.kernels->planes.matvec(plan.layer->planes->view, prefix_of(*plan.layer, level), finish, own);
  });
}

void run_piece(const Plan& plan, const Piece& piece, const Frame& f) {
  const Level& level = f.levels[plan.number];
  if (plan.layer->planes && piece.rows <= rows_by_planes) return run_planes(plan, piece, f);
  const Dense dense = at_level(piece, level);
  const DenseCall call = call_of(plan, piece, level, f);
  const int panels = piece.panels();
  const bool decoded = plan.scratch >= 0;
  if (!decoded) {
    f.pool->run(panels * piece.blocks(), [&](int task) {
      DenseCall c = call;
      c.panel = task % panels;
      c.row = task / panels * piece.block;
      c.row_end = std::min(c.row + piece.block, piece.rows);
      c.w = reinterpret_cast<const int8_t*>(plan.layer->bytes->data() + panel_start(*piece.part, c.panel));
      f.kernels->dense.run(dense, c);
    });
    return;
  }
  const int workers = std::min(panels, f.pool->threads());
  f.pool->run(workers, [&](int worker) {
    int8_t* w = f.at<int8_t>(plan.scratch) + worker * plan.scratch_each;
    for (int panel = worker; panel < panels; panel += workers) {
      decode_panel(*plan.layer, *piece.part, panel, level, *f.kernels, w);
      DenseCall c = call;
      c.w = w;
      c.panel = panel;
      c.row = 0;
      c.row_end = piece.rows;
      f.kernels->dense.run(dense, c);
    }
  });
}

void run_layer(const Plan& plan, const Frame& f) {
  if (plan.row_sums >= 0) sum_rows(plan, f);
  for (const Piece& piece : plan.pieces)
    if (piece.rows > 0) run_piece(plan, piece, f);
}

// ----------------------------------------------------------------------------------------------------------- lowering

// The value that `node` adds to the only output of a layer, if the sum can be finished with it: a coded value that is
// there already, and a coded sum, all with one step.
struct Residual {
  const Node* add = nullptr;
  int other = -1;
  Coding out;
};

Residual residual_of(Lowering& lower, const Node& node, const Layer& layer, const Shape& shape) {
  Residual r;
  const Node* add = layer.codes && layer.y.uniform() ? lower.only_reader(node.outputs[0]) : nullptr;
  if (add == nullptr || add->op != "add" || add->inputs.size() != 2 || add->inputs[0] == add->inputs[1]) return r;
  if (!lower.coding(*add, 0, r.out) || !r.out.uniform()) return r;
  const size_t slot = add->inputs[0] == node.outputs[0] ? 1 : 0;
  const int other = lower.input(*add, slot);
  if (other < 0 || !lower.value(other).codes || !lower.value(other).coding.uniform() || lower.value(other).shape != shape) return r;
  r.add = add;
  r.other = other;
  return r;
}

void finish_with(Piece& piece, const Layer& layer, const Residual& r, const Coding& other) {
  Finish& f = piece.dense.finish;
  const auto held = [](const std::optional<double>& x, float otherwise) { return x ? static_cast<float>(*x) : otherwise; };
  f.step = layer.y.step();
  f.other_step = other.step();
  f.other_zero = other.zero;
  f.sum_low = held(r.add->low, -INFINITY);
  f.sum_high = held(r.add->high, INFINITY);
  f.out_step = r.out.step();
  f.out_zero = r.out.zero;
  f.out_low = 0;
  f.out_high = r.out.high;
}

bool needs_decoding(const Layer& layer) { return layer.scheme == Layer::table || layer.planes != nullptr; }

int64_t multiplies_of(const std::vector<Piece>& pieces) {
  int64_t out = 0;
  for (const Piece& piece : pieces) {
    int64_t inputs = 0;
    for (const Stretch& s : piece.part->stretches) inputs += static_cast<int64_t>(s.pixels) * piece.part->in_channels;
    out += piece.rows * inputs * piece.part->columns;
  }
  return out;
}

struct Shapes {
  Shape x, y;
  Image image;    // of the input as rows of pixels
  Window window;
};

// Shapes of a layer for its input, or why it cannot be.
bool shapes_of(Lowering& lower, const Node& node, const Layer& layer, const Value& x, Shapes& out) {
  out.x = x.shape;
  if (layer.flat) {
    if (x.shape.empty() || x.shape.back() != layer.inputs) return lower.refuse(node, "its input does not fit its weight");
    out.y = x.shape;
    out.y.back() = layer.columns;
    const int64_t rows = elements(x.shape) / layer.inputs;
    out.image = {rows, 1, 1, layer.inputs, layer.inputs, layer.inputs, 0, rows * layer.inputs};
    out.window = {0, 0, 1, 1};
    return true;
  }
  if (x.shape.size() != (layer.line ? 3u : 4u)) return lower.refuse(node, "its input has another number of axes than its kernel");
  const int64_t height = layer.line ? 1 : x.shape[2], width = x.shape.back();
  int64_t channels = 0;
  for (const Part& p : layer.parts) channels = std::max<int64_t>(channels, p.in_channel + p.in_channels);
  if (x.shape[1] != channels) return lower.refuse(node, "its input does not have the channels of its weight");
  out.image = image_of(x);
  out.window = window_of(layer, height, width);
  if (out.window.height < 1 || out.window.width < 1) return lower.refuse(node, "its input is smaller than its kernel");
  out.y = {x.shape[0], layer.columns};
  if (!layer.line) out.y.push_back(out.window.height);
  out.y.push_back(out.window.width);
  return true;
}

Image image_of_output(const Layer& layer, const Value& y) {
  if (!layer.flat) return image_of(y);
  const int64_t rows = elements(y.shape) / layer.columns;
  return {rows, 1, 1, layer.columns, layer.columns, layer.columns, 0, rows * layer.columns};
}

// Rows of a linear layer are columns of one line, so that kernels see one long run of rows.
void flatten(Piece& piece, int64_t inputs, int64_t columns) {
  const int32_t rows = static_cast<int32_t>(piece.rows);
  piece.dense.from = {1, rows, 0, 0, inputs};
  piece.dense.to = {1, rows, 0, 0, columns};
}

std::string kernel_name(const Layer& layer, bool fused) {
  std::string name = layer.op == "linear" ? "dense" : layer.op == "conv" ? "dense conv" : "dense sub-filters";
  if (layer.scheme == Layer::midrise) name += " mid-rise";
  if (layer.scheme == Layer::table) name += " table";
  if (layer.planes) name += " planes";
  return fused ? name + " + add" : name;
}

// A plan with its input as the layer's kernels want it, codes or reals, rows or image; null if the node was refused.
std::shared_ptr<Plan> planned(Lowering& lower, const Node& node, const Layer& layer, int number, Shapes& shapes) {
  auto plan = std::make_shared<Plan>();
  plan->layer = &layer;
  plan->number = number;
  int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel"), nullptr;
  x = layer.kind == Layer::real ? lower.reals(x) : lower.encoded(x, layer.x);
  if (lower.value(x).type != Type::f32) return lower.refuse(node, "its input is not float32"), nullptr;
  const size_t rank = lower.value(x).shape.size();
  if (!layer.flat && rank != 3 && rank != 4) return lower.refuse(node, "its input is no image"), nullptr;
  plan->x = layer.flat ? lower.rows(x) : lower.image(x);
  if (!shapes_of(lower, node, layer, lower.value(plan->x), shapes)) return nullptr;
  plan->image = shapes.image;
  return plan;
}

bool lower_sums(Lowering& lower, const Node& node, const Layer& layer, int number) {
  Shapes shapes;
  const auto plan = planned(lower, node, layer, number, shapes);
  if (plan == nullptr) return false;
  const Residual residual = residual_of(lower, node, layer, shapes.y);
  plan->other = residual.add == nullptr ? -1 : layer.flat ? lower.rows(residual.other) : lower.image(residual.other);
  const Node* last = residual.add != nullptr ? residual.add : &node;
  Coding coding = residual.add != nullptr ? residual.out : layer.y;
  std::shared_ptr<uint8_t[]> table;
  const Node* after = layer.codes ? fused_table(lower, *last, coding, table) : nullptr;
  if (after != nullptr) last = after;
  plan->y = lower.output(*last, 0, Type::f32, shapes.y, !layer.flat, layer.codes);
  if (residual.add != nullptr) lower.fuse(*residual.add);
  if (after != nullptr) lower.fuse(*after);

  const Image to = image_of_output(layer, lower.value(plan->y));
  int64_t sums = 0;
  for (const Part& part : layer.parts) {
    Piece piece = place(layer, part, shapes.image, shapes.window, 4);
    piece.dense.to = grid_in(part, to, piece.dense.from);
    piece.y = first_in(part, to);
    if (plan->other >= 0) {
      const Image beside = image_of_output(layer, lower.value(plan->other));
      piece.dense.beside = grid_in(part, beside, piece.dense.from);
      piece.beside = first_in(part, beside);
      finish_with(piece, layer, residual, lower.value(plan->other).coding);
    }
    if (layer.flat) {
      flatten(piece, layer.inputs, layer.columns);
      if (plan->other >= 0) piece.dense.beside = piece.dense.to;
    }
    cut(piece, part.stride_x * shapes.image.channels, lower.options().threads);
    if (layer.scheme == Layer::midrise && !layer.flat) piece.window_sums = window_sums(piece, shapes.image);
    piece.sums = sums;
    sums += piece.rows;
    plan->scratch_each = std::max(plan->scratch_each, (panel_bytes(part, 0) + 127) / 64 * 64);
    plan->pieces.push_back(std::move(piece));
  }
  Step step{node.name(), kernel_name(layer, residual.add != nullptr), {plan->x}, {plan->y}, nullptr};
  if (plan->other >= 0) step.reads.push_back(plan->other);
  const auto scratch = [&](int64_t bytes) {
    step.writes.push_back(lower.scratch(bytes));
    return step.writes.back();
  };
  const bool half = layer.scheme == Layer::midrise;
  plan->row_sums = half ? scratch(4 * sums) : -1;
  plan->channel_sums = half && !layer.flat ? scratch(3 * 4 * (shapes.image.elements / shapes.image.channels)) : -1;
  plan->scratch = needs_decoding(layer) ? scratch(plan->scratch_each * lower.options().threads) : -1;
  step.macs = multiplies_of(plan->pieces);
  step.bytes = packed_bytes(layer);
  const int64_t codes = layer.flat ? to.elements : image_of(lower.value(plan->y)).elements;
  const bool tabled = after != nullptr;
  step.work = [plan, table, codes, tabled](const Frame& f) {
    run_layer(*plan, f);
    if (!tabled) return;
    const int tasks = codes < 1 << 16 ? 1 : f.pool->threads();
    f.pool->run(tasks, [&](int task) {
      const int64_t first = codes * task / tasks, end = codes * (task + 1) / tasks;
      uint8_t* y = f.at<uint8_t>(plan->y) + first;
      f.kernels->pointwise.lookup(y, y, end - first, table.get());
    });
  };
  lower.emit(std::move(step));
  return true;
}

// ------------------------------------------------------------------------------------------------------- real layers

void run_real_piece(const Plan& plan, const Piece& piece, const Frame& f) {
  const Layer& layer = *plan.layer;
  const Level& level = f.levels[plan.number];
  const Dense dense = at_level(piece, level);
  const int panels = piece.panels();
  const auto call_for = [&](int panel, const float* w, int64_t row, int64_t row_end) {
    const int first = piece.part->first;
    f.kernels->sequence.real_dense(dense, {f.at<const float>(plan.x) + piece.x, w, f.at<float>(plan.y) + piece.y,
                                           level.real_bias.data() + first, row, row_end, panel});
  };
  if (plan.scratch < 0) {
    f.pool->run(panels * piece.blocks(), [&](int task) {
      const int panel = task % panels;
      const int64_t row = task / panels * piece.block;
      const auto* w = reinterpret_cast<const float*>(layer.bytes->data() + panel_start(*piece.part, panel));
      call_for(panel, w, row, std::min(row + piece.block, piece.rows));
    });
    return;
  }
  const int workers = std::min(panels, f.pool->threads());
  f.pool->run(workers, [&](int worker) {
    float* w = reinterpret_cast<float*>(f.at<uint8_t>(plan.scratch) + worker * plan.scratch_each);
    for (int panel = worker; panel < panels; panel += workers) {
      decode_reals(layer, *piece.part, panel, level, *f.kernels, w);
      call_for(panel, w, 0, piece.rows);
    }
  });
}

// A few rows times weights with scales in groups.
void run_groups(const Plan& plan, const Frame& f) {
  const PlaneStore& s = *plan.layer->planes;
  const Level& level = f.levels[plan.number];
  const int columns = plan.layer->columns;
  GroupCall call{f.at<const float>(plan.x), plan.layer->inputs, f.at<float>(plan.y), columns, s.scale.data(), s.scale_row,
                 s.group, level.real_bias.data(), static_cast<int32_t>(plan.pieces[0].rows), 0, columns};
  f.kernels->planes.matvec_groups(s.view, {plan.layer->bits, nullptr}, call);
  float* y = f.at<float>(plan.y);
  for (int64_t i = 0; i < plan.pieces[0].rows * columns; ++i) {
    const size_t o = static_cast<size_t>(i % columns);
    y[i] = std::min(std::max(y[i], level.low[o]), level.high[o]);
  }
}

bool lower_real(Lowering& lower, const Node& node, const Layer& layer, int number) {
  Shapes shapes;
  const auto plan = planned(lower, node, layer, number, shapes);
  if (plan == nullptr) return false;
  const bool codes = layer.codes;
  plan->y = codes ? lower.temporary(Type::f32, shapes.y, !layer.flat) : lower.output(node, 0, Type::f32, shapes.y, !layer.flat, false);
  const Image to = image_of_output(layer, lower.value(plan->y));
  for (const Part& part : layer.parts) {
    Piece piece = place(layer, part, shapes.image, shapes.window, 1);
    piece.dense.to = grid_in(part, to, piece.dense.from);
    piece.y = first_in(part, to);
    if (layer.flat) flatten(piece, layer.inputs, layer.columns);
    cut(piece, 4 * part.stride_x * shapes.image.channels, lower.options().threads);
    plan->scratch_each = std::max(plan->scratch_each, (panel_bytes(part, 0) + 127) / 64 * 64);
    plan->pieces.push_back(std::move(piece));
  }
  const bool groups = layer.planes != nullptr && plan->pieces[0].rows <= rows_by_planes;
  Step step{node.name(), groups ? "float groups" : layer.decoded ? "float decoded" : "float", {plan->x}, {plan->y}, nullptr};
  if (!groups && (layer.decoded || layer.planes)) {
    plan->scratch = lower.scratch(plan->scratch_each * lower.options().threads);
    step.writes.push_back(plan->scratch);
  } else {
    plan->scratch = -1;
  }
  step.macs = multiplies_of(plan->pieces);
  step.bytes = packed_bytes(layer);
  step.work = [plan, groups](const Frame& f) {
    if (groups) return run_groups(*plan, f);
    for (const Piece& piece : plan->pieces)
      if (piece.rows > 0) run_real_piece(*plan, piece, f);
  };
  lower.emit(std::move(step));
  if (codes) lower.settle(node, 0, plan->y);
  return true;
}

bool lower_layer(Lowering& lower, const Node& node) {
  int number = -1;
  const Layer* layer = lower.layer(node, number);
  if (layer == nullptr) return lower.refuse(node, "it has no kernel");
  switch (layer->kind) {
    case Layer::sums: return lower_sums(lower, node, *layer, number);
    case Layer::depthwise: return lower_depthwise(lower, node, *layer, number);
    default: return lower_real(lower, node, *layer, number);
  }
}

const Rule rules[] = {
    {"conv", lower_layer, nullptr},
    {"conv_transpose", lower_layer, nullptr},
    {"linear", lower_layer, nullptr},
};

}  // namespace

const Room linear_room{rules, sizeof rules / sizeof *rules};

}  // namespace bl
