#pragma once

#include <nanobind/nanobind.h>

// Puts the functions of training into the module; the names and types stand in _native.pyi.
void bind_straight(nanobind::module_& m);
