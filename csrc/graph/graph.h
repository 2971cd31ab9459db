// What a network is, as src/bitladder/ir/graph.py has it: values with names, nodes in order, constants, encodings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tree.h"

namespace bl {

using Shape = std::vector<int64_t>;

enum class Type : uint8_t { boolean, i8, u8, i16, u16, i32, u32, i64, u64, f16, f32, f64 };
size_t size_of(Type type);         // bytes of one element
const char* name_of(Type type);    // as numpy calls it
bool type_named(const std::string& name, Type& out);

int64_t elements(const Shape& shape);  // at most INT64_MAX

// A dense array in C order, owned.
struct Array {
  Type type = Type::f32;
  Shape shape;
  std::vector<uint8_t> bytes;
  template <class T>
  const T* as() const { return reinterpret_cast<const T*>(bytes.data()); }
};

// A number format: what its text says. `bits` of a tree or sign scheme counts all planes.
struct Format {
  enum Kind : uint8_t { fixed, integer, ternary, midrise, tree, sign, codebook, log, product } kind = integer;
  int bits = 8;
  bool is_unsigned = false;
  bool per_tensor = false;
  int group = 0;  // neighbouring inputs that share parameters; 0: none
  int levels = 0;  // of a codebook, or the centroids of a product codebook
  int octave = 1;  // levels in an octave, of a log format
  int dim = 1;     // weights that one code stands for, neighbours along axis 1
  bool by_table() const { return kind == tree || kind == sign || kind == codebook; }  // what codes stand for
  bool nested() const { return kind == midrise || kind == tree || kind == sign; }
  int least_bits() const { return kind == sign ? 2 : 1; }  // of a nested format: the shortest prefix that is a code
  int low() const;   // the smallest code
  int high() const;  // the largest code
};

// A format with its parameters: float32 arrays "scale", "zero_point", "fl", "range", int8 tables "levels1" and so on, "levels"
// of a codebook, "centroids".
struct Encoding {
  Format format;
  std::vector<int> axes;
  std::map<std::string, Array> params;
  const Array* param(const std::string& name) const;
};

// A weight as codes. Codes of a nested format are unsigned of `format.bits` bits; others as the format says. One byte each
// where they fit in 8 bits, else two or four (little-endian, `width` bytes). The shape is that of the codes.
struct Codes {
  Encoding encoding;
  Shape shape;
  int width = 1;
  std::vector<uint8_t> bytes;
  int64_t code(int64_t i) const;  // code number i
};

// One version of an array for each width of the weight `of`; stacked along the first axis.
struct PerWidth {
  std::string of;
  std::vector<int> bits;
  Array versions;
  int row(int width) const;  // which version a network at `width` bits uses: that width's, else the next wider, else the widest
};

using Constant = std::variant<Array, Codes, PerWidth>;

struct Input {
  std::string name;
  Type type = Type::f32;
  bool any_shape = false;
  Shape shape;                         // -1 where an axis is free
  std::vector<std::string> free_axes;  // the names of free axes, empty text elsewhere
};

struct Node {
  std::string op;
  std::vector<std::string> inputs;  // empty text: absent
  std::vector<std::string> outputs;
  Tree attrs;
  bool clipped = false;
  std::optional<double> low, high;  // a fused activation: outputs are clipped to these
  const std::string& name() const { return outputs[0]; }
};

struct Graph {
  std::vector<Input> inputs;
  std::vector<std::string> outputs;
  std::vector<Node> nodes;
  std::map<std::string, Constant> constants;
  std::map<std::string, Encoding> encodings;  // activations
  Tree meta;

  template <class T>
  const T* constant(const std::string& name) const {
    auto it = constants.find(name);
    return it == constants.end() ? nullptr : std::get_if<T>(&it->second);
  }
  const Encoding* encoding(const std::string& name) const;
  int least_bits(const std::string& weight) const;  // from meta.min_bits and the scheme
};

// Attributes of a node, with what stands for an absent one.
int64_t attr(const Node& node, const char* key, int64_t otherwise);
double attr(const Node& node, const char* key, double otherwise);
std::string attr(const Node& node, const char* key, const char* otherwise);
Shape attr(const Node& node, const char* key, const Shape& otherwise);

}  // namespace bl
