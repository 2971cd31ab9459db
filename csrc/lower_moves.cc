#include "lower.h"

namespace bl {

const Room moves_room{nullptr, 0};

}  // namespace bl
