"""The command `bitladder`: it reads files, calls the library, prints one table and says what it wrote.

Exit status: 0 done and goal met; 1 an error, one line on standard error; 2 goal missed, best result saved; 130 interrupted.
Only words are parsed here. What a command does is in `bitladder.cli.commands`, imported once the words are known to be good.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bitladder import __version__
from bitladder.cli.terminal import Terminal

DONE, FAILED, MISSED, INTERRUPTED = 0, 1, 2, 130
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and leave status 1."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: error: {message}; see {self.prog} --help\n")


class Version(argparse.Action):
    """Prints the version and whether there is a native core, which is loaded for nothing else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from bitladder import native

        core = f"native core, {native.isas()[0]}" if native.core else f"no native core: {native.why}"
        print(f"bitladder {__version__} ({core})")
        parser.exit()


def widths(text: str) -> int | str:
    """A number of bits, or "auto"."""
    return text if text == "auto" else positive(text)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text!r}")
    return int(text)


FILE = (("file",), {"metavar": "FILE", "help": "a .ladder file"})
JSON = (("--json",), {"action": "store_true", "help": "print one JSON object as the last line"})
QUIET = (("--quiet",), {"action": "store_true", "help": "no progress and no table"})
RECOVER = (("--recover",), {"action": "store_true", "help": "work around damage in the file, and say where it was"})
BITS = (("--bits",), {"type": widths, "default": "auto", "help": "run at this width; auto: as the file's plan says (default)"})


def out(metavar: str, text: str, **more: object) -> tuple[tuple[str, ...], dict[str, object]]:
    """The option that names what is written."""
    return (("-o", "--output"), {"metavar": metavar, "help": text, "required": "default" not in more, **more})


COMMANDS: dict[str, tuple[str, list[tuple[tuple[str, ...], dict]]]] = {
    "demo": (
        "the whole path on handwritten digits, in about a minute",
        [out("DIR", "folder to write in (default: %(default)s)", default="bitladder-demo"), JSON, QUIET],
    ),
    "quantize": (
        "a trained network in, one small file out",
        [
            (("net",), {"metavar": "NET", "help": "an .onnx file, or file.py:function that returns a torch module"}),
            (
                ("--weights",),
                {"metavar": "FILE.safetensors", "help": "weights of the module, or codes for any NET, as export writes them"},
            ),
            (
                ("--data",),
                {"metavar": "CALIB.npz", "help": "one array per input by name, or x; y for labels; codes need none"},
            ),
            (("--eval",), {"metavar": "EVAL.npz", "help": "data to choose by; without y, agreement with the float network"}),
            (("--max-drop",), {"type": float, "help": "largest loss of the score, a fraction (default: 0.01 with --eval)"}),
            (
                ("--test",),
                {"metavar": "TEST.npz", "help": "data that nothing is chosen by, to judge the result on (default: --eval)"},
            ),
            (
                ("--accept",),
                {"metavar": "RULE", "help": "plausible: the loss not surely above max-drop; proved: surely within it"},
            ),
            (("--recipe",), {"metavar": "FILE.yaml", "help": "words for all that is not said here (docs/recipes.md)"}),
            (("--recipe-out",), {"metavar": "FILE.yaml", "help": "write what was said as a recipe that makes the same file"}),
            (
                ("--lock",),
                {
                    "action": "store_const",
                    "const": True,
                    "help": "write hashes, versions and settings beside the recipe, or OUT.ladder",
                },
            ),
            (
                ("--locked",),
                {"action": "store_const", "const": True, "help": "make the file that the lock is of, or say what differs"},
            ),
            (
                ("--plan",),
                {
                    "metavar": "SPEC|recipe.yaml",
                    "help": "formats, as nested8 or fixed4,a=fixed8, a recipe, or the plan of a .ladder or .safetensors file",
                },
            ),
            (("--criterion",), {"metavar": "NAME", "help": "how layers are ranked (default: weight_difference)"}),
            (("--search",), {"metavar": "NAME", "help": "how a plan is found (default: bisection)"}),
            (("--statistic",), {"metavar": "NAME", "help": "of weight differences: mean_square, mean, variance or std"}),
            (("--normalize",), {"metavar": "NAME", "help": "of weight differences: none, relative or step (default: none)"}),
            (("--start",), {"metavar": "FORMAT", "help": "learn from the float network, or from its version in fixed8"}),
            (("--cycles",), {"type": positive, "metavar": "K", "help": "cycles of learning (default: by effort)"}),
            (("--skip-smallest",), {"action": "store_const", "const": True, "help": "never lower the layer ranked first"}),
            (("--accept-at-most",), {"type": positive, "metavar": "M", "help": "halving: accept so few layers in any case"}),
            (("--head-rule",), {"metavar": "NAME", "help": "bits of classifiers: log2, threshold, linear (default: log2)"}),
            (("--cover",), {"metavar": "RULE", "help": "how ranges are chosen: max, kstd, mse or pdf (default: mse)"}),
            (("--align",), {"metavar": "MODE", "help": "fixed-point channels: weights or sums (default: weights)"}),
            (
                ("--rounding",),
                {"metavar": "NAME", "help": "nearest, feedback, sequence, moments, rate or trellis (default: by effort)"},
            ),
            (("--equalize",), {"action": "store_const", "const": True, "help": "scale channels between layers alike first"}),
            (("--time-limit",), {"type": float, "metavar": "S", "help": "return the best that is found in so many seconds"}),
            (("--meta",), {"metavar": "FILE.json", "help": "class labels, normalisation, layout, to keep in the file"}),
            (
                ("--budget",),
                {"metavar": "SIZE", "help": "0.5MB, avg_bits=4 or 5ms; bytes are coded ones with --table or --rounding rate"},
            ),
            (
                ("--table",),
                {"metavar": "FILE", "help": "a sensitivity table to solve --budget or --max-drop from; measured if not there"},
            ),
            (("--levels",), {"metavar": "LIST", "help": "with a table, what layers may be: 8,4,3,2 or nested4,int4/64"}),
            (("--times",), {"metavar": "NAME", "help": "whose milliseconds: native or onnxruntime (default: native)"}),
            (("--low",), {"type": positive, "help": "bits of layers that can do with few (default: 4)"}),
            (("--count",), {"type": positive, "help": "put so many layers at few bits"}),
            (("--keep",), {"type": positive, "help": "store this many planes of every layer; the plan becomes the default"}),
            (("--effort",), {"choices": ("fast", "balanced", "best"), "help": "how hard to try (default: balanced)"}),
            (("--seed",), {"type": int, "help": "for everything random (default: 0)"}),
            (
                ("--coder",),
                {"choices": ("raw", "fast", "best"), "help": "how codes are stored (default: best)"},
            ),
            (
                ("--order",),
                {
                    "choices": ("layer", "plane", "importance"),
                    "help": "what comes first in the file, which runs when cut (default: plane)",
                },
            ),
            out("OUT.ladder", "the file to write"),
            JSON,
            QUIET,
        ],
    ),
    "show": (
        "layers, formats, bytes, and the widths a file can run at",
        [
            FILE,
            (("--recipe",), {"action": "store_true", "help": "print the recipe that made the file, as YAML, and nothing else"}),
            RECOVER,
            JSON,
            QUIET,
        ],
    ),
    "run": (
        "outputs of a network for the arrays of an .npz file",
        [
            FILE,
            (("input",), {"metavar": "INPUT.npz", "help": "one array per input by name, or x"}),
            BITS,
            (
                ("--milliseconds",),
                {
                    "type": float,
                    "metavar": "T",
                    "help": "at the most accurate width of those measured in the file that takes at most T",
                },
            ),
            (
                ("--min-accuracy",),
                {"type": float, "metavar": "A", "help": "at the narrowest width that was measured to reach A, a fraction"},
            ),
            (("--threads",), {"type": positive, "metavar": "N", "help": "at most this many threads"}),
            RECOVER,
            out("OUT.npz", "where to write one array per output"),
            JSON,
            QUIET,
        ],
    ),
    "export": (
        "write ONNX with quantize and dequantize nodes, or the tensors as safetensors",
        [
            FILE,
            (("out",), {"metavar": "OUT.onnx|OUT.safetensors", "help": "the file to write"}),
            (("--float",), {"action": "store_true", "help": "safetensors: float32 weights instead of codes"}),
            BITS,
            JSON,
            QUIET,
        ],
    ),
    "diff": (
        "what turns one file into another, as a small third one",
        [
            (("base",), {"metavar": "A", "help": "the .ladder file that the others have"}),
            (("file",), {"metavar": "B", "help": "the .ladder file that they are to get"}),
            out("OUT.delta", "the file to write"),
            JSON,
            QUIET,
        ],
    ),
    "patch": (
        "make a file of another one and a delta",
        [
            (("base",), {"metavar": "A", "help": "the .ladder file that the delta was made from"}),
            (("delta",), {"metavar": "D", "help": "a file that diff wrote"}),
            out("OUT.ladder", "the file to write"),
            JSON,
            QUIET,
        ],
    ),
    "verify": (
        "whether every instruction set and ONNX Runtime give the integers of the reference",
        [
            FILE,
            (("--data",), {"metavar": "X.npz", "help": "inputs to compare on; seeded random ones by default"}),
            (("--bits",), {"type": widths, "help": "at this width only; by default at the plan's and at all that differ"}),
            JSON,
            QUIET,
        ],
    ),
    "doctor": (
        "why a network is slow, wrong or big, and the fix",
        [
            (("net",), {"metavar": "FILE|NET", "help": "a .ladder file, or a float network, of which it says what to expect"}),
            (("--weights",), {"metavar": "FILE.safetensors", "help": "weights of a torch module"}),
            (("--data",), {"metavar": "X.npz", "help": "inputs; with random ones, the default, ranges are not judged"}),
            (("--threads",), {"type": positive, "metavar": "N", "help": "threads to time with (default: 1)"}),
            BITS,
            JSON,
            QUIET,
        ],
    ),
    "bench": (
        "how long a network takes, beside other runtimes",
        [
            (("net",), {"metavar": "FILE|NET", "help": "a .ladder file, or a network that is quantized as int8 to be timed"}),
            (("--weights",), {"metavar": "FILE.safetensors", "help": "weights of a torch module"}),
            (("--data",), {"metavar": "X.npz", "help": "inputs; random ones by default"}),
            (("--threads",), {"type": positive, "metavar": "N", "default": 1, "help": "of every runtime (default: 1)"}),
            (("--batch",), {"type": positive, "metavar": "N", "default": 1, "help": "samples at a time (default: 1)"}),
            (
                ("--bits",),
                {
                    "type": widths,
                    "default": "auto",
                    "help": "at this width, and a NET is then nested8 (default: the file's widths)",
                },
            ),
            (("--against",), {"metavar": "NAMES", "help": "onnxruntime, openvino, or both with a comma"}),
            JSON,
            QUIET,
        ],
    ),
    "report": (
        "one self-contained page about a network",
        [
            FILE,
            (("--table",), {"metavar": "FILE", "help": "a sensitivity table, which the page solves for other budgets"}),
            out("PAGE.html", "the page to write"),
            JSON,
            QUIET,
        ],
    ),
}


def parser() -> Parser:
    """The parser of all commands, made from their table."""
    top = Parser(prog="bitladder", description="The fewest bits per layer that keep a network's accuracy.", allow_abbrev=False)
    top.add_argument("--version", action=Version, nargs=0, help="print the version, and which native core runs")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        for flags, settings in options:
            command.add_argument(*flags, **settings)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of one command line, `sys.argv` by default."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    terminal = Terminal(quiet=args.quiet)
    try:
        if getattr(args, "threads", None):
            os.environ.update(dict.fromkeys(THREADS, str(args.threads)))  # numpy reads them when it is first imported
        from bitladder.cli.commands import RUN

        with terminal:
            outcome = RUN[args.command](args, terminal)
        terminal.finish(outcome, as_json=args.json)
        return DONE if outcome.met else MISSED
    except KeyboardInterrupt:
        terminal.fail(f"interrupted{resume(args)}")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if os.environ.get("BITLADDER_DEBUG") == "1":
            raise
        terminal.fail(one_line(error))
        return FAILED


def resume(args: argparse.Namespace) -> str:
    """How to go on after an interruption."""
    work = f"{getattr(args, 'output', None)}.work"
    if args.command == "quantize" and os.path.isdir(work):
        return f"; what was done is kept in {work}, the same command goes on from there"
    return "; nothing was written, run the same command again"


def one_line(error: Exception) -> str:
    """What went wrong, in one line; a mistake of ours says how to see more of it."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        words = f"{os.fsdecode(error.filename)!r}: {error.strerror.lower()}; check the path"
    if isinstance(error, ValueError | OSError | ImportError | TypeError) and words:
        return words if len(words) <= 600 else words[:597] + "..."
    if isinstance(error, MemoryError):
        return "out of memory; use fewer samples or a machine with more"
    return f"internal error, {type(error).__name__}: {words[:300]}; set BITLADDER_DEBUG=1 to see where, and report it"
