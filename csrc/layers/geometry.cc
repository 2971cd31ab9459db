#include "geometry.h"

#include <algorithm>

namespace bl {

namespace {

int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

struct Phase {
  int first;  // the first output of the phase
  int start;  // the input that its window starts from
  std::vector<std::pair<int, int>> taps;  // (input from there, kernel position), rising inputs
};

// Sub-filters along one axis (S10): output t takes w[r + s m] from x[q - m], with r = (t + p) mod s, q = (t + p - r) / s;
// a dilated kernel has weights only where r + s m is a multiple of the dilation.
std::vector<Phase> phases(int kernel, int stride, int dilation, int pad) {
  std::vector<Phase> out;
  const int reach = dilation * (kernel - 1) + 1;
  for (int t = 0; t < stride; ++t) {
    const int r = ((t + pad) % stride + stride) % stride;
    Phase phase{t, floor_div(t + pad - r, stride), {}};
    for (int m = (reach - 1 - r) / stride; m >= 0; --m) {
      const int at = r + stride * m;
      if (at < reach && at % dilation == 0) phase.taps.push_back({-m, at / dilation});
    }
    out.push_back(std::move(phase));
  }
  return out;
}

}  // namespace

void convolution_parts(Layer& l, int out_channels, int in_group) {
  const int out_group = out_channels / l.groups;
  for (int g = 0; g < l.groups; ++g) {
    Part p;
    p.in_channel = g * in_group;
    p.in_channels = in_group;
    p.column = g * out_group;
    p.columns = out_group;
    p.stride_y = l.strides[0];
    p.stride_x = l.strides[1];
    for (int ky = 0; ky < l.kernel[0]; ++ky) {
      if (l.groups == 1 && l.dilations[1] == 1) {
        p.stretches.push_back({ky * l.dilations[0], 0, l.kernel[1], ky, 0, 1});
        continue;
      }
      for (int kx = 0; kx < l.kernel[1]; ++kx) p.stretches.push_back({ky * l.dilations[0], kx * l.dilations[1], 1, ky, kx, 1});
    }
    l.parts.push_back(std::move(p));
  }
}

void transposed_parts(Layer& l, int in_channels, int out_group) {
  const int in_group = in_channels / l.groups;
  const auto rows = phases(l.kernel[0], l.strides[0], l.dilations[0], l.pads[0]);
  const auto columns = phases(l.kernel[1], l.strides[1], l.dilations[1], l.pads[2]);
  for (int g = 0; g < l.groups; ++g) {
    for (const Phase& y : rows) {
      for (const Phase& x : columns) {
        Part p;
        p.in_channel = g * in_group;
        p.in_channels = in_group;
        p.column = g * out_group;
        p.columns = out_group;
        p.base_y = y.start;
        p.base_x = x.start;
        p.out_y = y.first;
        p.out_x = x.first;
        p.step_y = l.strides[0];
        p.step_x = l.strides[1];
        for (auto [dy, ky] : y.taps) {
          for (size_t i = 0; i < x.taps.size(); ++i) {
            const auto [dx, kx] = x.taps[i];
            Stretch* last = p.stretches.empty() || i == 0 ? nullptr : &p.stretches.back();
            if (l.groups == 1 && last != nullptr && last->dx + last->pixels == dx &&
                (last->pixels == 1 || last->kx + last->pixels * last->kx_step == kx)) {
              last->kx_step = last->pixels == 1 ? kx - last->kx : last->kx_step;
              ++last->pixels;
            } else {
              p.stretches.push_back({dy, dx, 1, ky, kx, 1});
            }
          }
        }
        l.parts.push_back(std::move(p));
      }
    }
  }
}

void place_parts(Layer& l) {
  const int unit = l.kind == Layer::real ? 1 : 4;
  int64_t data = 0;
  for (Part& p : l.parts) {
    for (const Stretch& s : p.stretches) p.quads += (s.pixels * p.in_channels + unit - 1) / unit;
    p.first = l.tables;
    p.data = data;
    const int padded = (p.columns + 15) / 16 * 16;
    l.tables += (p.columns + 63) / 64 * 64;
    data += static_cast<int64_t>(padded) * p.quads * 4;
  }
}

bool read_geometry(const Node& node, const Shape& w, Layer& l, std::string& why) {
  const size_t space = w.size() - 2;
  if (space < 1 || space > 2) {
    why = "kernels of more than two axes have no kernel here";
    return false;
  }
  l.line = space == 1;
  const auto pair = [&](const char* key, int otherwise, int* out) {
    const Shape given = attr(node, key, Shape(space, otherwise));
    const auto number = [&](size_t a) { return a < given.size() && given[a] >= 0 && given[a] <= 4096 ? static_cast<int>(given[a]) : -1; };
    out[0] = space == 2 ? number(0) : otherwise;
    out[1] = number(space - 1);
  };
  pair("strides", 1, l.strides);
  pair("dilations", 1, l.dilations);
  pair("output_padding", 0, l.output_padding);
  l.groups = static_cast<int>(attr(node, "groups", int64_t{1}));
  l.kernel[0] = space == 2 ? static_cast<int>(w[2]) : 1;
  l.kernel[1] = static_cast<int>(w[space + 1]);
  const std::string same = attr(node, "auto_pad", "NOTSET");
  if (same == "SAME_UPPER") l.same = Layer::upper;
  if (same == "SAME_LOWER") l.same = Layer::lower;
  if (const Tree* pads = node.attrs.find("pads"); same == "NOTSET" && pads != nullptr && pads->list() != nullptr) {
    const Tree::List& axes = *pads->list();
    for (size_t a = 0; a < space; ++a)
      for (size_t end = 0; end < 2; ++end) {
        const Tree::List* ends = a < axes.size() ? axes[a].list() : nullptr;
        const int64_t* n = ends != nullptr && ends->size() == 2 ? (*ends)[end].whole() : nullptr;
        if (n == nullptr || *n < 0 || *n > 4096) {
          why = "pads must be (begin, end) pairs from 0 to 4096";
          return false;
        }
        l.pads[(a + 2 - space) * 2 + end] = static_cast<int>(*n);
      }
  }
  const auto sane = [](int n, int low) { return n >= low && n <= 4096; };
  for (int a = 0; a < 2; ++a)
    if (!sane(l.strides[a], 1) || !sane(l.dilations[a], 1) || !sane(l.kernel[a], 1) || !sane(l.output_padding[a], 0)) {
      why = "strides, dilations and kernels must be from 1 to 4096";
      return false;
    }
  return true;
}

std::array<int, 4> ring_of(const Layer& l) {
  if (l.flat) return {0, 0, 0, 0};
  std::array<int, 4> out{};
  for (int a = 0; a < 2; ++a) {
    const int reach = l.dilations[a] * (l.kernel[a] - 1) + 1;
    if (l.op == "conv_transpose") {
      int before = 0;
      for (const Part& p : l.parts)
        for (const Stretch& s : p.stretches) before = std::max(before, -(a == 0 ? p.base_y + s.dy : p.base_x + s.dx));
      out[2 * a] = before;
      out[2 * a + 1] = std::max(0, floor_div(reach - 1 + l.output_padding[a] - l.pads[2 * a + 1], l.strides[a]));
    } else if (l.same != Layer::given) {
      out[2 * a] = out[2 * a + 1] = reach - 1;
    } else {
      out[2 * a] = l.pads[2 * a];
      out[2 * a + 1] = l.pads[2 * a + 1];
    }
  }
  return out;
}

Window window_of(const Layer& l, int64_t height, int64_t width) {
  const int64_t size[2] = {height, width};
  int64_t before[2], out[2];
  for (int a = 0; a < 2; ++a) {
    const int64_t reach = static_cast<int64_t>(l.dilations[a]) * (l.kernel[a] - 1) + 1, stride = l.strides[a];
    if (l.op == "conv_transpose") {
      before[a] = 0;  // taken off in the phases already
      out[a] = (size[a] - 1) * stride + reach + l.output_padding[a] - l.pads[2 * a] - l.pads[2 * a + 1];
    } else if (l.same != Layer::given) {
      const int64_t total = std::max<int64_t>(((size[a] + stride - 1) / stride - 1) * stride + reach - size[a], 0);
      before[a] = l.same == Layer::upper ? total / 2 : total - total / 2;
      out[a] = (size[a] + total - reach) / stride + 1;
    } else {
      before[a] = l.pads[2 * a];
      const int64_t room = size[a] + l.pads[2 * a] + l.pads[2 * a + 1] - reach;
      out[a] = room < 0 ? 0 : room / stride + 1;
    }
  }
  return {before[0], before[1], out[0], out[1]};
}

int64_t panel_start(const Part& p, int panel) { return p.data + int64_t{panel_columns} * 4 * p.quads * panel; }

int64_t panel_bytes(const Part& p, int panel) {
  const int width = std::min(panel_columns, p.columns - panel * panel_columns);
  return int64_t{4} * p.quads * ((width + 15) / 16 * 16);
}

}  // namespace bl
