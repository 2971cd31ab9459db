/* Bitladder's native core for C: open a .ladder file, choose widths, run.
 *
 *   bl_network *net;
 *   if (bl_open_file("net.ladder", NULL, &net) == bl_ok) {
 *     bl_set_bits(net, 4);
 *     bl_prepare(net, NULL, 0);
 *     bl_run(net, inputs, input_bytes, 1, outputs, output_bytes, 1);
 *     bl_close(net);
 *   }
 *
 * Every function gives back a status; if it is not bl_ok, bl_error() says in one line what was wrong. No function prints,
 * ends the program, or lets an exception out.
 *
 * Threads: any number of threads may call any functions on the same network. Runs go on side by side. A run works with the
 * widths and shapes that were set when it began. A handle is never reused: calls on a network that was closed give back
 * bl_closed, and so they do if it is closed by another thread; a run that has begun finishes.
 *
 * This header is C89. */
#ifndef BITLADDER_H
#define BITLADDER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BL_API __attribute__((visibility("default")))
#else
#define BL_API
#endif

typedef enum bl_status {
  bl_ok = 0,
  bl_malformed = 1,   /* the file is not what it says it is */
  bl_truncated = 2,   /* the file ends too early; bl_error says how many bytes would do */
  bl_unsupported = 3, /* the network holds something that the core cannot run; bl_error names it */
  bl_wrong_input = 4, /* an argument, a shape or a size is not what it must be */
  bl_busy = 5,        /* not now: something else is in the way */
  bl_no_memory = 6,
  bl_closed = 7,      /* no network is open under this handle */
  bl_unreadable = 8   /* the operating system cannot open or read the file */
} bl_status;

/* Types of elements, as numpy calls them. */
typedef enum bl_type {
  bl_bool = 0, bl_int8 = 1, bl_uint8 = 2, bl_int16 = 3, bl_uint16 = 4, bl_int32 = 5, bl_uint32 = 6, bl_int64 = 7,
  bl_uint64 = 8, bl_float16 = 9, bl_float32 = 10, bl_float64 = 11
} bl_type;

enum { bl_max_rank = 8 };

typedef struct bl_network bl_network; /* a handle; nothing stands behind the pointer */

typedef struct bl_options {
  int threads;     /* of the network, the caller's among them; 0: one */
  ptrdiff_t batch; /* a hint: how many samples come at a time; 0: one */
  const char *isa; /* "scalar", "avx2", "avx512" or "neon"; NULL: the best this machine has */
  size_t most;     /* bytes that the file's tensors may take when they are decoded; 0: 8 GiB */
} bl_options;

/* What an input or output is. `name` lives until the network is closed. */
typedef struct bl_value {
  const char *name;
  bl_type type;
  int rank;                     /* -1: any */
  ptrdiff_t shape[bl_max_rank]; /* -1 where a size is free */
  size_t bytes;                 /* of the whole array; 0 where a size is free */
} bl_value;

/* A shape of an input, for bl_prepare. */
typedef struct bl_shape {
  int rank;
  ptrdiff_t size[bl_max_rank];
} bl_shape;

/* Opens the network in `size` bytes at `data`, which may go away afterwards. `options` may be NULL. A file that is cut off
 * still opens if the planes of its lowest width are there. On failure *out is NULL. */
BL_API bl_status bl_open(const void *data, size_t size, const bl_options *options, bl_network **out);
BL_API bl_status bl_open_file(const char *path, const bl_options *options, bl_network **out);

/* Widths of nested weights: all of them to `bits`, 0 for as many as there are; or one weight, by name, over that. Shapes
 * that were prepared stay prepared. Weights are not copied. */
BL_API bl_status bl_set_bits(bl_network *network, int bits);
BL_API bl_status bl_set_width_of(bl_network *network, const char *weight, int bits);

/* Descriptions of the inputs or outputs: at most `room` of them to `values`, and to *count how many there are. `values` may
 * be NULL if `room` is 0. Shapes are those of the last bl_prepare; before it, inputs are described as the file has them and
 * outputs not at all. */
BL_API bl_status bl_inputs(bl_network *network, bl_value *values, int room, int *count);
BL_API bl_status bl_outputs(bl_network *network, bl_value *values, int room, int *count);

/* Makes ready to run on inputs of these shapes, one for each input. With `shapes` NULL and `count` 0 a free size becomes 1. */
BL_API bl_status bl_prepare(bl_network *network, const bl_shape *shapes, int count);

/* Runs. Arrays are dense and in C order; sizes are in bytes and must be exactly those of the prepared shapes. Outputs must
 * not overlap inputs or each other. */
BL_API bl_status bl_run(bl_network *network, const void *const *inputs, const size_t *input_bytes, int input_count,
                        void *const *outputs, const size_t *output_bytes, int output_count);

/* Closes. Runs that have begun in other threads finish first in their own time; their memory goes with the last of them. */
BL_API bl_status bl_close(bl_network *network);

/* What went wrong in the last call of this thread, in one line; "" if nothing. Valid until this thread's next call. */
BL_API const char *bl_error(void);

/* The version, such as "0.1.0". */
BL_API const char *bl_version(void);

#ifdef __cplusplus
}
#endif
#endif
