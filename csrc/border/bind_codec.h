#pragma once

#include <nanobind/nanobind.h>

// Puts the codec's functions into the module; the names and types stand in _native.pyi.
void bind_codec(nanobind::module_& m);
