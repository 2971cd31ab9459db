#pragma once

#include <stdint.h>

#include "finish.h"

namespace bl {

struct SequenceKernels {};

}  // namespace bl
