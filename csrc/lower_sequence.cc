#include "lower.h"

namespace bl {

const Room sequence_room{nullptr, 0};

}  // namespace bl
