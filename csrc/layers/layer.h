// Weighted nodes: their weights packed once for the kernels, and what of them depends on the width.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "kernels.h"
#include "lower/lower.h"
#include "memory.h"
#include "planes.h"

namespace bl {

// A stretch of the kernel whose inputs lie next to each other in an image: `pixels` of them from (dy, dx) on, counted from
// where the window starts. The first belongs to kernel position (ky, kx), each further one to `kx_step` more.
struct Stretch {
  int dy, dx;
  int pixels;
  int ky, kx, kx_step;
};

// Outputs that share a window: all of a convolution or linear layer, a group of one, or a phase of a transposed one (S10).
struct Part {
  int in_channel = 0, in_channels = 0;  // of the image's channels
  int column = 0, columns = 0;          // of the output's channels
  int first = 0;                        // where its columns stand in the tables of a Level (64 at a time)
  std::vector<Stretch> stretches;
  int quads = 0;                        // 4 inputs each; single inputs if real
  int base_y = 0, base_x = 0;           // where the first output's window starts, pads not yet taken off
  int stride_y = 1, stride_x = 1;       // of the window over the image
  int out_y = 0, out_x = 0;             // the first output; further ones every (step_y, step_x)
  int step_y = 1, step_x = 1;
  int64_t data = 0;                     // where its panels begin, in bytes
};

// Weights held as bit planes.
struct PlaneStore {
  Block data;
  Planes view;
  int32_t group = 0;        // inputs that share a scale, if there are such groups
  std::vector<float> scale; // [group][scale_row]
  int64_t scale_row = 0;
};

struct Layer {
  enum Kind : uint8_t { sums, depthwise, real, read } kind = sums;  // integer sums; the same for one channel each; float32;
                                                                // not packed, read as codes: only the width counts (reading.h)
  enum Scheme : uint8_t { plain, midrise, table } scheme = plain;
  std::string node, op, weight;
  int bits = 8, least = 1;              // of the stored codes
  int lowest = 0;                       // the smallest code
  int columns = 0;
  int64_t inputs = 0;                   // of one window
  std::vector<Part> parts;
  int tables = 0;                       // length of a Level's tables
  Coding x, y;                          // of the input and, if `codes`, of the output
  bool codes = false;
  double low = -1.0 / 0.0, high = 1.0 / 0.0;  // the node's clip
  int strides[2] = {1, 1}, dilations[2] = {1, 1}, pads[4] = {0, 0, 0, 0}, kernel[2] = {1, 1};  // pads: top, bottom, left, right
  int output_padding[2] = {0, 0};
  int groups = 1;
  enum Same : uint8_t { given, upper, lower } same = given;  // pads that follow from the input's size
  bool flat = false;                    // linear: rows instead of an image
  bool line = false;                    // an image of one spatial axis

  // Packed once. `bytes`: panels as dense.h says, each weight its integer (plain), its code moved to the top of the byte
  // with the top bit flipped (mid-rise), or its code (table). If real: panels [input][width] of float32, or, if `decoded`, of
  // codes, which become reals before each use.
  std::shared_ptr<const Block> bytes;
  std::shared_ptr<const PlaneStore> planes;  // instead of bytes, where a layer is bound by memory
  bool decoded = false;
  int shift = 0;                        // plain: what is packed is the integer times 2^-shift
  std::vector<std::vector<int32_t>> weight_sums;  // [width - 1][tables]: sums of what multiplies x, one entry only if plain
  std::vector<float> unit;              // plain: [columns] the unit of sums; else the step of x
  std::vector<float> range;             // [columns] mid-rise: the range; table: the scale
  std::vector<std::vector<int8_t>> levels;  // table: [width - 1], of the code that a prefix stands for
  const Array* bias = nullptr;          // in the graph
  const PerWidth* biases = nullptr;
  int64_t rows = 0;                     // of one call, as far as known when packed
};

struct Level {
  int bits = 8;
  uint8_t mask = 0xff;
  bool half = false;                    // sums of x are added: mid-rise
  int shift = 0;
  std::vector<int32_t> bias;            // [tables]
  std::vector<float> scale, low, high;
  const int32_t* weight_sums = nullptr;
  int8_t table[256] = {};               // what each code stands for: table schemes
  std::vector<float> integers, real_bias;  // of real layers: what each code stands for; [tables]
};

// The layers of a graph without their weights, and why a weighted node is none (`without`: name, reason).
void find_layers(const Graph& graph, std::vector<Layer>& out, std::vector<std::pair<std::string, std::string>>& without);
// Packs the weights of a layer; `as_planes` holds bit planes.
Problem pack_layer(const Graph& graph, Layer& layer, bool as_planes);
// The tables of a layer at a width.
Level level_of(const Layer& layer, int bits);

// Panel `panel` of a part as the dense kernel reads it, decoded into `out` at a level: through the level's table.
void decode_panel(const Layer& layer, const Part& part, int panel, const Level& level, const Kernels& kernels, int8_t* out);
// The same of a real layer.
void decode_reals(const Layer& layer, const Part& part, int panel, const Level& level, const Kernels& kernels, float* out);
// The planes a level reads and what they stand for.
Prefix prefix_of(const Layer& layer, const Level& level);
// Where a panel of a part begins among the layer's bytes, and its length.
int64_t panel_start(const Part& part, int panel);
int64_t panel_bytes(const Part& part, int panel);
int64_t packed_bytes(const Layer& layer);  // of its weights with everything that all widths share

bool is_weighted(const Node& node);
std::vector<size_t> read_slots(const Node& node);  // of the weights that a node reads as codes
// The ring that a weighted node asks of its input: top, bottom, left, right.
std::array<int, 4> ring_of(const Layer& layer);

// What the size of the input decides: the pads that come first and the size of the output.
struct Window {
  int64_t top, left, height, width;
};
Window window_of(const Layer& layer, int64_t height, int64_t width);

}  // namespace bl
