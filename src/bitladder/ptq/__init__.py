"""Quantization after training: watch values, choose encodings, apply a plan, correct what rounding moved."""
