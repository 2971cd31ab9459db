#include "lower.h"

namespace bl {

const Room pointwise_room{nullptr, 0};

}  // namespace bl
