// A file as a network: where everything lies is known and checked before any segment is read.
#include "file.h"

#include <algorithm>
#include <new>

#include "checked.h"
#include "container.h"
#include "crc32.h"
#include "cursor.h"
#include "decode.h"
#include "fields.h"
#include "file_graph.h"
#include "layer_head.h"
#include "problems.h"
#include "trees.h"

namespace bl {

namespace {

// A file with all its headers read.
struct Opened {
  Container file;
  Tree network;
  Strings strings;
  Shared shared;
  std::vector<uint16_t> order;  // the layer of every segment of the file
  std::vector<LayerHead> layers;
  int64_t body = 0;  // bytes of all segments
  std::map<std::string, StoredEncoding> encodings;  // activations
};

Problem tree_of(Cursor& in, const Strings& strings, const std::string& where, Tree& out) {
  std::string why;
  if (!read_tree(in, strings, out, why)) return malformed(where + " cannot be read: " + why);
  return out.map() ? Problem{} : damaged(where, "a map", shown(out));
}

Problem read_widths(const Tree& meta, const char* key, Floors& out) {
  const Tree* found = meta.find(key);
  if (!found) return {};
  const std::string where = std::string("'") + key + "' of meta";
  if (!found->map()) return damaged(where, "bits by weight", shown(*found));
  for (const auto& [name, bits] : *found->map()) {
    if (!bits.whole() || *bits.whole() < 1 || *bits.whole() > 64) return damaged(where, "bits by weight", shown(bits));
    out.emplace(name, static_cast<int>(*bits.whole()));
  }
  return {};
}

Problem read_order(const Tree::Bytes& bytes, size_t layers, std::vector<uint16_t>& out) {
  Cursor in({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  while (in.left()) {
    uint64_t layer = 0;
    if (!in.varint(layer) || layer >= layers) return malformed("'order' names a layer that is not there");
    out.push_back(static_cast<uint16_t>(layer));
  }
  return {};
}

Problem read_network(Opened& o) {
  std::string why;
  Cursor in(o.file.text);
  if (!read_strings(in, o.file.text.size(), o.strings, why)) return malformed("the network header cannot be read: " + why);
  if (Problem p = tree_of(in, o.strings, "the network header", o.network)) return p;
  if (Problem p = checked(o.network, {kRootFields}, "the network header", o.file.newer)) return p;
  const std::string& policy = *o.network.find("policy")->text();
  if (!o.file.newer && policy != "layer" && policy != "plane" && policy != "importance") {
    return damaged("'policy' of the network header", "layer, plane or importance", quoted(policy));
  }
  o.shared.newer = o.file.newer;
  o.shared.global = o.network.find("global");
  if (Problem p = checked(*o.shared.global, {kSharedFields}, "'global' of the network header", o.file.newer)) return p;
  const Tree& meta = *o.network.find("meta");
  Floors defaults;
  if (Problem p = read_widths(meta, "min_bits", o.shared.floors)) return p;
  if (Problem p = read_widths(meta, "default_bits", defaults)) return p;
  return read_order(*o.network.find("order")->bytes(), o.file.records.size(), o.order);
}

Problem read_layers(Opened& o) {
  o.layers.resize(o.file.records.size());
  for (size_t i = 0; i < o.layers.size(); ++i) {
    const std::string where = "layer header " + std::to_string(i);
    std::string text;
    Tree tree;
    if (Problem p = read_record(o.file, i, text)) return p;
    Cursor in(text);
    if (Problem p = tree_of(in, o.strings, where, tree)) return p;
    if (Problem p = read_layer(tree, o.shared, where, o.layers[i])) return p;
  }
  return {};
}

// Gives segments their places in the file, one after the other in its order, up to its end.
Problem place_segments(Opened& o) {
  std::vector<size_t> placed(o.layers.size());
  int64_t end = o.file.start;
  for (const uint16_t layer : o.order) {
    std::vector<Segment>& segments = o.layers[layer].segments;
    if (placed[layer] == segments.size()) return malformed("'order' has more segments of layer " + std::to_string(layer) + " than it has");
    Segment& segment = segments[placed[layer]++];
    segment.begin = end;
    if (!checked_add(end, segment.length, end) || !checked_add(o.body, segment.length, o.body)) {
      return malformed("its segments end beyond any file");
    }
  }
  for (size_t i = 0; i < placed.size(); ++i) {
    if (placed[i] != o.layers[i].segments.size()) return malformed("'order' lacks segments of layer " + std::to_string(i));
  }
  if (end == o.file.total) return {};
  return damaged("the length of the file", std::to_string(end) + " bytes, as its headers say", std::to_string(o.file.total));
}

// Every tensor has a name of its own, which `graph` then knows.
Problem add_names(const std::vector<LayerHead>& layers, Graph& graph) {
  for (const LayerHead& layer : layers) {
    for (const StoredTensor& t : layer.tensors) {
      const bool is_new = graph.constants.try_emplace(t.name).second;
      if (t.name.empty() || !is_new) return damaged("names of tensors", "different from each other", quoted(t.name));
    }
  }
  return {};
}

Problem check_versions(const Graph& graph) {
  for (const auto& [name, constant] : graph.constants) {
    const PerWidth* versions = std::get_if<PerWidth>(&constant);
    if (!versions || graph.constant<Codes>(versions->of)) continue;
    return damaged("'of' of tensor " + quoted(name), "the name of a tensor of codes", quoted(versions->of));
  }
  return {};
}

Problem read_encodings(Opened& o) {
  for (const auto& [name, entry] : *o.network.find("encodings")->map()) {
    const std::string where = "activation " + quoted(name);
    if (Problem p = checked(entry, {kEncodingFields}, where, o.file.newer)) return p;
    if (Problem p = stored_encoding(entry, nullptr, nullptr, o.file.newer, where, o.encodings[name])) return p;
  }
  return {};
}

Problem check_size(const Opened& o, int64_t most) {
  int64_t total = 0;
  bool fits = true;
  for (const LayerHead& layer : o.layers) fits = fits && add_decoded(layer, total);
  for (const auto& [name, encoding] : o.encodings) {
    for (const auto& [key, values] : encoding.params) fits = fits && checked_add(total, values.bytes, total);
  }
  total = std::max(total, o.body);  // nobody needs a file that is longer than what it holds
  if (fits && total <= most) return {};
  return {Status::malformed, "load: the tensors take " + (fits ? std::to_string(total) : "more than 2^63") +
                                 " bytes in memory, must be at most " + std::to_string(most) + "; raise the limit if that is right", 0};
}

// How many segments of `layer` a reader of `bits` needs.
size_t segments_needed(const LayerHead& layer, int bits) {
  size_t last = 0;
  for (const StoredTensor& t : layer.tensors) {
    if (!t.least || !bits) continue;
    const int planes = std::clamp(bits, t.least, t.encoding.format.bits);
    last = std::max(last, layer.segment_of(planes, t.least));
  }
  return last + 1;
}

// How many segments of `layer` are there, one after the other from the first.
size_t segments_there(const LayerHead& layer, uint64_t size) {
  size_t count = 0;
  for (int64_t end = 0; count < layer.segments.size(); ++count) {
    const Segment& segment = layer.segments[count];
    if (!checked_add(segment.begin, segment.length, end) || static_cast<uint64_t>(end) > size) break;
  }
  return count;
}

Problem require_needed(const Opened& o, int bits) {
  int64_t needed = o.file.start;
  for (const LayerHead& layer : o.layers) {
    const Segment& last = layer.segments[segments_needed(layer, bits) - 1];
    int64_t end = 0;
    if (!checked_add(last.begin, last.length, end)) return malformed("its segments end beyond any file");
    needed = std::max(needed, end);
  }
  return require(o.file, needed);
}

Problem read_segments(const Opened& o, size_t number, int bits, Graph& out) {
  const LayerHead& layer = o.layers[number];
  const size_t count = bits ? segments_needed(layer, bits) : segments_there(layer, o.file.data.size());
  std::vector<std::string_view> segments;
  for (size_t i = 0; i < count; ++i) {
    const Segment& segment = layer.segments[i];
    segments.push_back(o.file.data.substr(static_cast<size_t>(segment.begin), static_cast<size_t>(segment.length)));
    if (crc32(segments.back()) == segment.crc) continue;
    const std::string which = "segment " + std::to_string(i) + " of layer " + std::to_string(number);
    return {Status::malformed, "load: " + which + " has a wrong checksum; fetch the file again", 0};
  }
  return decode_layer(layer, segments, bits, out);
}

Problem read_all(std::string_view data, int bits, int64_t most, Graph& out) {
  Opened o;
  if (Problem p = open_container(data, o.file)) return p;
  if (Problem p = read_network(o)) return p;
  if (Problem p = read_layers(o)) return p;
  if (Problem p = place_segments(o)) return p;
  if (Problem p = read_encodings(o)) return p;
  if (Problem p = add_names(o.layers, out)) return p;
  if (Problem p = check_size(o, most)) return p;
  if (Problem p = require_needed(o, bits)) return p;
  for (size_t i = 0; i < o.layers.size(); ++i) {
    if (Problem p = read_segments(o, i, bits, out)) return p;
  }
  for (const auto& [name, stored] : o.encodings) {
    if (Problem p = decode_encoding(stored, {}, "activation " + quoted(name), out.encodings[name])) return p;
  }
  if (Problem p = check_versions(out)) return p;
  out.meta = *o.network.find("meta");
  return read_graph(*o.network.find("graph"), o.file.newer, out);
}

}  // namespace

Problem read_file(const uint8_t* data, size_t size, int bits, Graph& out, int64_t most) try {
  out = Graph{};
  return read_all({reinterpret_cast<const char*>(data), size}, bits, most, out);
} catch (const std::bad_alloc&) {
  return {Status::no_memory, "load: there is not enough memory for this file; ask for fewer bits", 0};
}

}  // namespace bl
