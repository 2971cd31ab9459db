// The room `sequence`: its table, what its rules share, and embeddings.
#include "sequence.h"

#include <algorithm>

#include "run/pool.h"
#include "reading.h"
#include "view.h"

namespace bl {

int leaving(Lowering& lower, const Node& node, size_t slot, const Shape& shape, Leave& leave) {
  Coding coding;
  if ((slot == 0 && (node.low || node.high)) || !lower.coding(node, slot, coding) || !coding.uniform())
    return lower.temporary(Type::f32, shape, false);
  leave = {true, 1.0f / coding.step(), coding.zero, coding.high};
  return lower.output(node, slot, Type::f32, shape, false, true);
}

int real_rows(Lowering& lower, const Node& node, size_t slot) {
  const int x = lower.input(node, slot);
  if (x < 0) {
    lower.refuse(node, "an input is made by nothing that has a kernel");
    return -1;
  }
  return lower.rows(lower.reals(x));
}

// Rows of a table by number: numbers count from the end where they are negative; others out of range are a fault.
bool lower_embedding(Lowering& lower, const Node& node) {
  Reading table;
  if (const std::string why = read_weight(lower, node, 0, table); !why.empty()) return lower.refuse(node, why);
  if (table.shape.size() != 2) return lower.refuse(node, "its weight must have two axes");
  const int at = real_rows(lower, node, 1);
  if (at < 0) return false;
  const Value indices = lower.value(at);
  if (indices.type != Type::i64 && indices.type != Type::i32) return lower.refuse(node, "its indices must be int32 or int64");
  Shape shape = indices.shape;
  shape.push_back(table.width);
  const int y = lower.temporary(Type::f32, shape, false);
  const int64_t count = elements(indices.shape), n = table.rows;
  const std::string fault = "input of node '" + node.name() + "' must have indices between " + std::to_string(-n) + " and " +
                            std::to_string(n - 1) + ", got one beyond; give valid indices";
  lower.emit({node.name(), "embedding", {at}, {y}, [=](const Frame& f) {
                for (int64_t i = 0; i < count; ++i) {
                  const int64_t given = indices.type == Type::i64 ? f.at<int64_t>(at)[i] : f.at<int32_t>(at)[i];
                  const int64_t row = given < 0 ? given + n : given;
                  if (row < 0 || row >= n) return f.fail(fault.c_str());
                  table.row(f, row, f.at<float>(y) + i * table.width);
                }
              }});
  lower.settle(node, 0, y);
  return true;
}

std::string check_embedding(const Graph& graph, const Node& node) { return check_weight(graph, node, 0); }

namespace {

const Rule rules[] = {
    {"matmul", lower_matmul, nullptr},
    {"softmax", lower_softmax, nullptr},
    {"log_softmax", lower_softmax, nullptr},
    {"layer_norm", lower_layer_norm, nullptr},
    {"rms_norm", lower_rms_norm, nullptr},
    {"instance_norm", lower_channel_norm, nullptr},
    {"group_norm", lower_channel_norm, nullptr},
    {"embedding", lower_embedding, check_embedding},
    {"reduce_sum", lower_reduce, nullptr},
    {"reduce_mean", lower_reduce, nullptr},
    {"reduce_prod", lower_reduce, nullptr},
    {"reduce_max", lower_reduce, nullptr},
    {"reduce_min", lower_reduce, nullptr},
    {"reduce_l2", lower_reduce, nullptr},
    {"reduce_log_sum_exp", lower_reduce, nullptr},
    {"arg_max", lower_arg, nullptr},
    {"arg_min", lower_arg, nullptr},
    {"cum_sum", lower_running, nullptr},
    {"cum_prod", lower_running, nullptr},
    {"lstm", lower_recurrent, check_recurrent},
    {"gru", lower_recurrent, check_recurrent},
    {"rnn", lower_recurrent, check_recurrent},
};

}  // namespace

const Room sequence_room{rules, sizeof rules / sizeof *rules};

}  // namespace bl
