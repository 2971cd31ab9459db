// What the header of one layer says: its tensors, and where their parts lie in its segments. Checked, not decoded.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "codec/codec.h"
#include "file.h"
#include "stored.h"

namespace bl {

using Floors = std::map<std::string, int>;  // the fewest bits that weights may be run at

struct StoredTensor {
  enum Kind { array, codes, widths } kind = array;
  std::string name;
  StoredArray values;  // of an array; of widths the type and shape of one version

  StoredEncoding encoding;  // of codes
  Shape shape;
  CodeGrid grid;
  int64_t tile = 0;                        // rows that are coded together; the last tile may have fewer
  std::vector<std::vector<Place>> planes;  // a row of tiles; of a nested format one for each bit
  int least = 0;                           // nested: the planes that every width needs; else 0

  std::string of;  // of widths
  std::vector<int> bits;
  std::vector<Blob> versions;
  int least_of = 0, planes_of = 0;  // those of the weight `of` if it is nested and in this layer, else 0

  int width() const;  // bytes of one code in memory
  int64_t rows_of(size_t number) const;  // of tile `number`
};

struct Segment {
  int64_t length = 0;
  uint32_t crc = 0;
  int64_t begin = 0;  // in the file
};

struct LayerHead {
  std::vector<StoredTensor> tensors;
  std::vector<Segment> segments;
  std::vector<int> rungs;  // the planes that have segments of their own, rising: the first has segment 1

  size_t segment_of(int plane, int least) const;  // of plane number `plane`, from 1, where `least` lie in segment 0
  // Of version number `k` of a tensor of widths: the first of the widths that use it is one above that of the version before.
  size_t segment_of_version(const StoredTensor& versions, size_t k) const;
};

// What all layers of a file share.
struct Shared {
  Floors floors;
  const Tree* global = nullptr;  // what entries of codes lack of their encodings
  bool newer = false;
};

// The layer of a header whose tree is `x`.
Problem read_layer(const Tree& x, const Shared& shared, const std::string& where, LayerHead& out);

// The bytes of all tensors of a layer in memory are added to `total`; false if no number holds that.
bool add_decoded(const LayerHead& layer, int64_t& total);

}  // namespace bl
