// A product of two activations, batch by batch: the second operand is packed while running, rows of the first go through
// the dense kernels. Where a product feeds a softmax, a block of scores never leaves the nearest cache.
#pragma once

#include <cstdint>
#include <vector>

#include "run/function_ref.h"
#include "kernels.h"
#include "lower.h"
#include "wait.h"

namespace bl {

struct Product {
  int a = -1, b = -1;
  bool integer = false;           // codes times codes, else reals
  int64_t rows = 0, inputs = 0, columns = 0, batches = 0;
  int64_t a_row = 0, b_k = 0, b_n = 0;         // strides
  std::vector<int64_t> a_first, b_first;       // of each batch
  int a_zero = 0, b_zero = 0;
  float unit = 1;                              // of integer sums
  // Tables for the finish, [columns rounded up to 64].
  std::vector<float> scale, low, high;
  Finish finish;
  Run run{0, 0};

  Shape batch_shape;              // of the output, without its last two axes

  // Bytes that a worker needs for packed operands and sums; what its desk has beyond them is the caller's.
  int64_t desk_bytes() const;
};

// Reads the operands of a `matmul`; false if refused.
bool read_product(Lowering& lower, const Node& node, Product& out);
// What is left of the sums: reals in units, or codes of `coding` (null: reals), held between the clip of `node`.
void finish_product(Product& p, const Node& node, const Coding* coding);

// Packs the second operand of a batch at `desk`.
void pack_second(const Product& p, const Frame& f, int64_t batch, uint8_t* desk);
// Rows [row, row_end) of a batch into y, whose row r - row begins (r - row) * stride elements after it.
void run_rows(const Product& p, const Frame& f, int64_t batch, int64_t row, int64_t row_end, uint8_t* desk, void* y, int64_t stride);

// One batch of many rows where the second operand is the same for all and the first lies in one piece.
void join_batches(Product& p);

// Calls work(batch, row, row_end, desk) for all rows of all batches in blocks of at most `block` rows, with the second
// operand of the batch packed. Desks of `desk_bytes` each lie at `desks`, one for each thread there may be.
void each_block(const Product& p, const Frame& f, int64_t block, uint8_t* desks, int64_t desk_bytes,
                FunctionRef<void(int64_t, int64_t, int64_t, uint8_t*)> work);

}  // namespace bl
