#pragma once

#include <stdint.h>

#include "finish.h"

namespace bl {

struct PlaneKernels {};

}  // namespace bl
