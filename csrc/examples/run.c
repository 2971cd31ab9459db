/* run FILE [BITS [INPUT]]: runs a .ladder file at a width on the raw array in INPUT, or zeros, and prints the outputs. */
#include <stdio.h>
#include <stdlib.h>

#include "bitladder.h"

#define MOST 16 /* inputs or outputs */

static void check(bl_status status) {
  if (status == bl_ok) return;
  fprintf(stderr, "run: error: %s\n", bl_error());
  exit(1);
}

/* Memory for `count` values, all zero. */
static void make(const bl_value *values, int count, void **data, size_t *bytes) {
  int i;
  for (i = 0; i < count; i++) {
    bytes[i] = values[i].bytes;
    data[i] = calloc(bytes[i] + 1, 1);
    if (!data[i]) exit(1);
  }
}

static void print(const bl_value *value, const void *data) {
  size_t i, n = value->bytes / 4;
  printf("%s:", value->name);
  if (value->type != bl_float32) n = 0, printf(" %lu bytes, not float32", (unsigned long)value->bytes);
  for (i = 0; i < n; i++) printf(" %g", ((const float *)data)[i]);
  printf("\n");
}

int main(int argc, char **argv) {
  bl_network *net;
  bl_value in[MOST], out[MOST];
  void *inputs[MOST], *outputs[MOST];
  size_t in_bytes[MOST], out_bytes[MOST];
  int ins, outs, i;
  if (argc < 2 || argc > 4) return fprintf(stderr, "usage: run FILE [BITS [INPUT]]\n"), 2;

  check(bl_open_file(argv[1], NULL, &net));
  if (argc > 2) check(bl_set_bits(net, atoi(argv[2])));
  check(bl_prepare(net, NULL, 0));
  check(bl_inputs(net, in, MOST, &ins));
  check(bl_outputs(net, out, MOST, &outs));
  if (ins > MOST || outs > MOST) return fprintf(stderr, "run: error: more than %d inputs or outputs\n", MOST), 1;
  make(in, ins, inputs, in_bytes);
  make(out, outs, outputs, out_bytes);
  if (argc > 3) {
    FILE *file = fopen(argv[3], "rb");
    if (!file || fread(inputs[0], 1, in_bytes[0], file) != in_bytes[0])
      return fprintf(stderr, "run: error: %s must hold %lu bytes\n", argv[3], (unsigned long)in_bytes[0]), 1;
    fclose(file);
  }
  check(bl_run(net, (const void *const *)inputs, in_bytes, ins, outputs, out_bytes, outs));
  for (i = 0; i < outs; i++) print(&out[i], outputs[i]);
  check(bl_close(net));
  for (i = 0; i < ins; i++) free(inputs[i]);
  for (i = 0; i < outs; i++) free(outputs[i]);
  return 0;
}
