"""Networks as ONNX and tensors as safetensors, written; and codes put back onto a network."""

from __future__ import annotations

import os
from argparse import Namespace

from bitladder import disk
from bitladder.cli.commands import WORDS, by_default, measured, summary
from bitladder.cli.network import net_of
from bitladder.cli.terminal import Outcome, Terminal
from bitladder.model import Model, load
from bitladder.recipe import from_safetensors
from bitladder.recipes import SAVING

BESIDE = ("data", "eval", "test", "recipe", "recipe_out", "lock", "locked")  # options that go with choosing


def export(args: Namespace, terminal: Terminal) -> Outcome:
    """The network as ONNX, or its tensors as safetensors: all there are, unless widths are asked for or floats."""
    disk.check_writable(args.out)
    codes = args.out.endswith(".safetensors") and not args.float
    if args.float and not args.out.endswith(".safetensors"):
        raise ValueError(f"export: --float goes with a .safetensors file, got {args.out!r}; leave it out for ONNX")
    model = load(args.file, None if codes and args.bits == "auto" else args.bits)
    terminal.progress("export", 0, 0)
    if args.out.endswith(".safetensors"):
        model.to_safetensors(args.out, decoded=args.float)
    else:
        model.to_onnx(args.out)
    size = os.path.getsize(args.out)
    return Outcome(str(Model(model.whole) if codes else model), args.out, (), {**summary(model), "file_bytes": size})


def quantize(args: Namespace, terminal: Terminal) -> Outcome:
    """A network with the codes of a safetensors file, saved; there is nothing to choose."""
    if given := [key for key in (*BESIDE, *WORDS) if getattr(args, key, None) is not None]:
        option = "--" + given[0].replace("_", "-")
        raise ValueError(f"quantize: {args.weights!r} holds codes, so there is nothing to choose; leave out {option}")
    terminal.progress("read", 0, 0)
    model = from_safetensors(net_of(args.net), args.weights)
    model.save(args.output, coder=args.coder or SAVING["coder"], order=args.order or SAVING["order"])
    model = Model(model.whole)
    lines = [*measured(model.graph.meta.get("result") or {}), *by_default(model)]
    return Outcome(str(model), args.output, lines, {**summary(model), "file_bytes": os.path.getsize(args.output)})
