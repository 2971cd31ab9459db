"""Fuzzing with coverage, and files mutated by their structure that both readers must take or refuse alike.

The harness is csrc/fuzz/file.cc; it is built here if there is clang (with scalar kernels only: minutes). Its seeds are small
networks in every format (csrc/fuzz/seeds.py) and the golden files. A finding is kept in the working folder, and its path told.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench import work
from bench.options import tell
from bench.robust.count import ROOT, Count
from bench.robust.damage import GOLDEN

FOLDER = work.FOLDER / "fuzz"
SANITIZE = "fuzzer-no-link,address,undefined"
LIMITS = ("-rss_limit_mb=2048", "-malloc_limit_mb=1024", "-timeout=10", "-max_len=2048")
QUICK = ("-entropic=0", "-mutate_depth=1")  # the entropic schedule takes half the time, and few changes get furthest
MUTATE = "test_both_readers_refuse_the_same_files"
CLANGS = ("clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14")


def harness() -> Path | None:
    """The fuzzing program, built if it must be; None without clang and CMake. `BITLADDER_FUZZ_FILE` names one that is there."""
    if given := os.environ.get("BITLADDER_FUZZ_FILE"):
        return Path(given)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # where pip puts CMake
    clang, cmake = next(filter(None, map(shutil.which, CLANGS)), None), shutil.which("cmake", path=path)
    if clang is None or cmake is None:
        return None
    build, env = FOLDER / "build", {**os.environ, "PATH": path, "CC": clang, "CXX": clang.replace("clang", "clang++")}
    options = [f"-DBITLADDER_SANITIZE={SANITIZE}", "-DBITLADDER_ISAS=scalar"]
    tell("robustness: building the fuzzing harness")
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(build), *options],
        [cmake, "--build", str(build), "--target", "fuzz_file", "--parallel", str(os.cpu_count() or 1)],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            tell(f"robustness: the harness does not build: {done.stderr.strip().splitlines()[-1:]}")
            return None
    return build / "fuzz_file"


def fuzz(seconds: int, past: int) -> Count | None:
    """What so many seconds of fuzzing came to; None where there is no harness."""
    program = harness()
    if program is None:
        return None
    corpus, found, seeds = (FOLDER / name for name in ("corpus", "findings", "seeds"))
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("src", "tests"))}
    subprocess.run([sys.executable, str(ROOT / "csrc" / "fuzz" / "seeds.py"), str(seeds)], env=env, check=True)
    folders = [str(folder) for folder in (corpus, seeds, GOLDEN)]
    words = [str(program), *folders, f"-artifact_prefix={found}/", f"-max_total_time={seconds}", f"-seed={past % 2**31 + 1}"]
    done = subprocess.run([*words, *LIMITS, *QUICK, "-print_final_stats=1"], capture_output=True, text=True, errors="replace")
    return said(done.returncode, done.stderr)


def said(status: int, text: str) -> Count:
    """The count of one run, from what it printed.

    >>> said(0, "stat::number_of_executed_units: 1234\\n1234 inputs: 500 read")
    Count(trials=1234, failures=0, lines=(), note='1234 inputs: 500 read', values={})
    """
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    last = re.findall(r"^#(\d+)", text, re.M)
    trials = int(executed[1] if executed else last[-1] if last else 0)
    if status == 0:
        reached = re.search(r"^\d+ inputs: .*", text, re.M)
        return Count(trials, 0, note=reached[0] if reached else "")
    why = next((line for line in text.splitlines() if "ERROR" in line or "SUMMARY" in line), f"status {status}")
    where = re.search(r"Test unit written to (\S+)", text)
    return Count(max(trials, 1), 1, (f"{why[:200]} {where[1] if where else ''}".strip(),))


def mutants(many: int, seed: int) -> Count | None:
    """So many files changed by their structure, given to both readers by their tests; None without a compiler."""
    if shutil.which(os.environ.get("CXX", "c++")) is None and "BITLADDER_DUMP_FILE" not in os.environ:
        return None
    env = {**os.environ, "MUTANTS": str(many), "SEED": str(seed), "OMP_NUM_THREADS": "1"}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-x",
        "-p",
        "no:cacheprovider",
        "tests/test_native_reader.py",
        "-k",
        MUTATE,
    ]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True)
    told = re.search(rf"{many} damaged files, by status: .*", done.stdout)
    if done.returncode == 0 and told:
        return Count(many, 0, note=told[0])
    wrong = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    return Count(many, 1, (f"seed {seed}: {' '.join((wrong or done.stdout.splitlines()[-1:])[:1])[:300]}",))


def main(seconds: int) -> int:
    """The exit status of so many seconds of fuzzing, always from the same seed: 1 for a finding."""
    count = fuzz(seconds, 0)
    if count is None:
        print("fuzzing: skipped: no clang")
        return 0
    print("\n".join([f"fuzzing: {count.trials} inputs, {count.failures} findings", *count.lines]))
    return 1 if count.failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
