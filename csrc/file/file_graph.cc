#include "file_graph.h"

#include <set>
#include <string_view>

#include "fields.h"
#include "graph/words.h"
#include "problems.h"

namespace bl {

namespace {

Problem read_input(const Tree& entry, bool newer, Input& out) {
  if (Problem p = checked(entry, {kInputFields}, "an input", newer)) return p;
  out.name = *entry.find("name")->text();
  type_named(*entry.find("dtype")->text(), out.type);
  const Tree& shape = *entry.find("shape");
  out.any_shape = shape.is_null();
  if (out.any_shape) return {};
  for (const Tree& n : *shape.list()) {
    out.shape.push_back(n.whole() ? *n.whole() : -1);
    out.free_axes.push_back(n.text() ? *n.text() : "");
  }
  return {};
}

std::optional<double> limit(const Tree& x) {
  if (x.whole()) return static_cast<double>(*x.whole());
  return x.real() ? std::optional(*x.real()) : std::nullopt;
}

std::vector<std::string> names(const Tree& list) {
  std::vector<std::string> out;
  for (const Tree& name : *list.list()) out.push_back(*name.text());
  return out;
}

Problem read_node(const Tree& entry, bool newer, Node& out) {
  if (Problem p = checked(entry, {kNodeFields}, "a node", newer)) return p;
  out.op = *entry.find("op")->text();
  out.inputs = names(*entry.find("inputs"));
  out.outputs = names(*entry.find("outputs"));
  const Tree *attrs = entry.find("attrs"), *clip = entry.find("clip");
  if (attrs) out.attrs = *attrs;
  else out.attrs.value = Tree::Map{};
  out.clipped = clip;
  if (clip) {
    out.low = limit((*clip->list())[0]);
    out.high = limit((*clip->list())[1]);
  }
  return {};
}

Problem check_operators(const Graph& graph) {
  std::set<std::string> unknown;
  for (const Node& node : graph.nodes) {
    if (!is_operator(node.op)) unknown.insert(node.op);
  }
  if (unknown.empty()) return {};
  std::string all;
  for (const std::string& op : unknown) all += (all.empty() ? "" : ", ") + op;
  return {Status::unsupported, "load: operators " + quoted(all) + " are unknown here; install a version that has them", 0};
}

using Names = std::set<std::string_view>;

Problem check_nodes(const Graph& graph, Names known) {
  for (const Node& node : graph.nodes) {
    const std::string where = "node " + quoted(node.name());
    for (const std::string& name : node.inputs) {
      if (!name.empty() && !known.count(name)) {
        return malformed(where + " reads " + quoted(name) + ", which nothing before it makes");
      }
    }
    for (const std::string& name : node.outputs) {
      if (!known.insert(name).second) return malformed("value " + quoted(name) + " is made twice, the second time by " + where);
    }
  }
  for (const std::string& name : graph.outputs) {
    if (!known.count(name)) return malformed("output " + quoted(name) + " is never made");
  }
  return {};
}

Problem check_names(const Graph& graph) {
  Names made, known;
  for (const auto& constant : graph.constants) known.insert(constant.first);
  for (const Input& input : graph.inputs) {
    if (!known.insert(input.name).second) return damaged("inputs", "names of their own", quoted(input.name));
    made.insert(input.name);
  }
  for (const Node& node : graph.nodes) made.insert(node.outputs.begin(), node.outputs.end());
  for (const auto& encoding : graph.encodings) {
    if (!made.count(encoding.first)) return damaged("encodings", "of values that the graph makes", quoted(encoding.first));
  }
  return check_nodes(graph, std::move(known));
}

}  // namespace

Problem read_graph(const Tree& entry, bool newer, Graph& out) {
  if (Problem p = checked(entry, {kGraphFields}, "the graph", newer)) return p;
  for (const Tree& input : *entry.find("inputs")->list()) {
    if (Problem p = read_input(input, newer, out.inputs.emplace_back())) return p;
  }
  out.outputs = names(*entry.find("outputs"));
  for (const Tree& node : *entry.find("nodes")->list()) {
    if (Problem p = read_node(node, newer, out.nodes.emplace_back())) return p;
  }
  if (Problem p = check_operators(out)) return p;
  return check_names(out);
}

}  // namespace bl
