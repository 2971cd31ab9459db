// What the two borders of the core, C (capi.cc) and Python (bind.cc), check in the same way.
#pragma once

#include <new>
#include <string>
#include <vector>

#include "run/network.h"

namespace bl {

// The options for opening a network; `isa` empty takes the best set of this machine, 0 threads or samples are 1.
Problem choose(int64_t threads, int64_t batch, const std::string& isa, Options& out);

// Whether these are shapes for the inputs of `graph`: one each, of its rank and its fixed sizes, and none too large to exist.
Problem check_shapes(const Graph& graph, const std::vector<Shape>& shapes);

// Whether these are widths for weights of `graph`. One that is wider than its weight is as good as all there is.
Problem check_widths(const Graph& graph, const Widths& widths);

// "(2, 3)"; a size below zero is free and reads "any".
std::string text_of(const Shape& shape);

// What `body` gives back. No exception goes past it: one from the standard library means there is no memory.
template <class Body>
Problem guarded(Body body) noexcept {
  try {
    return body();
  } catch (...) {
    return {Status::no_memory, {}, 0};
  }
}

}  // namespace bl
