"""`python -m bench NAME [--quick] [--full] [--network N] [--json] [--data-dir DIR] [--threads N]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.options import Options

BENCHES = {
    "criteria": "bench.criteria",
    "nested": "bench.nested",
    "kernels": "bench.kernels",
    "networks": "bench.networks",
    "rounding": "bench.rounding",
    "presets": "bench.presets",
    "accuracy": "bench.accuracy",
    "accuracy_slow": "bench.accuracy_slow",
    "embeddings": "bench.embeddings",
    "predicted": "bench.predicted",
    "codec": "bench.codec",
    "robustness": "bench.robustness",
    "types": "bench.types",
    "formats": "bench.formats",
    "compare": "bench.compare",
    "training": "bench.training",
    "train_nested": "bench.train_nested",
    "train_noise": "bench.train_noise",
    "train_sparse": "bench.train_sparse",
    "train_updates": "bench.train_updates",
    "train_variants": "bench.train_variants",
}
LATER = ("exchange",)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m bench", description="Measure us and the named peers; see bench/README.md.")
    p.add_argument("name", metavar="NAME", help=", ".join([*BENCHES, *LATER]))
    p.add_argument("--quick", action="store_true", help="under 12 minutes on two cores: fewer samples")
    p.add_argument("--full", action="store_true", help="ResNet-56 and the slow peers too")
    p.add_argument("--network", type=int, choices=(20, 56), help="this ResNet alone; its result has a file of its own")
    p.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    p.add_argument("--data-dir", type=Path, default=Path("../shared/data"), help="holds cifar10/ and resnet_cifar10/")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return p


def trouble(name: str) -> str | None:
    """Why there is no such benchmark to run; None if there is one."""
    if name in LATER:
        return f"bench: {name} is not there yet; there are {', '.join(BENCHES)}"
    if name not in BENCHES:
        return f"bench: NAME must be one of {', '.join([*BENCHES, *LATER])}, got {name!r}"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 when measured, 1 for an error, 130 when interrupted."""
    given = parser().parse_args(argv)
    if (why := trouble(given.name)) is not None:
        print(why, file=sys.stderr)
        return 1
    flags = [f for f in ("--quick", "--full") if getattr(given, f[2:])]
    flags += [] if given.network is None else [f"--network {given.network}"]
    command = " ".join(["python -m bench", given.name, *flags])
    options = Options(given.quick, given.full, given.network, given.data_dir, given.threads, command)
    try:
        result = importlib.import_module(BENCHES[given.name]).bench(options)
    except (FileNotFoundError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bench: interrupted; the same command goes on from here: {command}", file=sys.stderr)
        return 130
    result = replace(result, bench=options.named(result.bench))
    path = result.save()
    print(result.text())
    print(f"written to {path}")
    if given.json:
        print(json.dumps(result.json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
