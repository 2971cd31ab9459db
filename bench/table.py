"""Results for readers: `python -m bench.table` makes the tables in README.md, docs/performance.md and docs/reliability.md
from bench/results/.

Every result file is the JSON object that `python -m bench NAME --json` prints. A figure is shown whether its goal was met
or not; one that was not measured says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
README, PAGE, FILES = ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results: made by python -m bench.table -->", "<!-- end of results -->"
ELSEWHERE = {"compare": "[comparison](comparison.md)"}  # pages with rows that docs/performance.md need not repeat
NOTHING = "No benchmark has been run yet; `make bench` runs them and fills in this table."

# What figures are called for people, and how a number is held against its goal.
SAYS = (
    (r"fixed8_loss", "8-bit fixed point per channel: points lost against float", "at most"),
    (r"layers_at_4_bits", "share of layers at 4 bits, losing at most 1 point against 8, error feedback", "at least"),
    (r"layers_at_4_bits_nearest", "share of layers at 4 bits, losing at most 1 point against 8, nearest", "at least"),
    (r"evaluations", "evaluations that finding these layers took", "at most"),
    (r"rank_of_predicted_losses", "rank correlation of predicted with measured losses, 30 random plans", "at least"),
    (r"area_vs_one_by_one", "area under the loss curve, over that of the one-by-one order", "at most"),
    (r"area_vs_(range|random)", r"area under the loss curve, over that of the \1 order", "below"),
    (r"(\w+)_time", r"\1, one thread: time over that of the faster of ONNX Runtime and OpenVINO at int8", "at most"),
    (r"switch_ms", "ResNet-50: milliseconds that a change of width costs", "at most"),
    (r"switch_bytes", "ResNet-50: bytes that a width keeps for itself, over those of the weights", "at most"),
    (r"memory", "ResNet-50: memory once loaded, over its codes and its arena", "at most"),
    (r"matvec_memory_(\d)_vs_8", r"matrix times vector from memory: time at \1 bits over that at 8 bits", "at most"),
    (r"matvec_cache_(\d)", r"matrix times vector in cache, \1 bits: time over MatMulNBits at its best setting", "at most"),
    (r"matvec_cache_(\d)_blocks_32", r"matrix times vector in cache, \1 bits: time over MatMulNBits, blocks of 32", "at most"),
    (r"transposed_vs_stuffing", "transposed convolution, worst shape: time over that of zero-stuffing", "at most"),
    (
        r"transposed_vs_peer",
        "transposed convolution, worst shape: time over that of the fastest peer, float or int8",
        "at most",
    ),
    (r"peak_(\w+)_(\w+)", r"layers of \1 on \2: share of the measured multiply-accumulate peak", "at least"),
    (r"trials_(\w+)", r"files, \1: trials, all of which must be as promised (docs/reliability.md)", "at least"),
    (r"bombs_ms", "files, bombs: milliseconds until the worst is refused", "at most"),
    (r"bombs_mib", "files, bombs: MiB that the worst takes", "at most"),
    (r"borders_below", "files: borders surely more than half a point below a shorter beginning", "at most"),
    (r"codebook4_lost", "4-bit codebooks by weighted entropy: points lost against float", "at most"),
    (r"nested_(\d)_loss", r"one nested file at \1 bits: points lost against a network rounded for \1 bits alone", "at most"),
    (r"resnet(\d+)_bytes_at_([\d.]+)_lost", r"ResNet-\1, at most \2 points lost: bytes of the file over NNCodec's", "at most"),
    (r"planes_over_symbols", "coding eight planes one by one: bytes over those of coding whole symbols", "at most"),
    (r"header_overhead", "share of a 10 MB file that is prelude and headers", "at most"),
    (r"decode_resnet(\d+)_(fast|best)_(\w+)", r"weights a second that one core decodes, ResNet-\1, coder `\2`, \3", "at least"),
    (r"decode_(fast|best)_(\w+)", r"weights a second that one core decodes, coder `\1`, \2", "at least"),
    (r"encode_resnet56_vs_nncodec", "encoding ResNet-56, coder `best`: time over NNCodec's", "at most"),
    (r"resnet(\d+)_all_widths", r"ResNet-\1, all widths in one file: bytes over the best 8-bit file of one width", "at most"),
    (r"types_near_(\d)", r"types, \1 bits: share of channels within 0.3 dB of the best length, from ten images", "at least"),
    (r"types_over_normal", "types: decibels better than the step of a normal density for all", "at least"),
    (
        r"resnet(\d+)_peers_(\d)",
        r"ResNet-\1, weights at \2 bits: points behind the most accurate peer at its bytes, nothing trained",
        "below",
    ),
    (
        r"resnet(\d+)_loss_(\d)_bits",
        r"ResNet-\1, \2 bits a weight in the mean, nothing trained: points lost against float",
        "at most",
    ),
    (
        r"resnet(\d+)_loss_(\d)_bits_coded",
        r"ResNet-\1, \2 bits a weight in the coded file: points lost against float",
        "at most",
    ),
    (r"resnet(\d+)_nested_loss_(\d)_bits", r"ResNet-\1, one nested file at \2 bits: points lost against float", "at most"),
    (r"resnet(\d+)_loss_powers", r"ResNet-\1, 4 bits: points lost with fixed point against float scales", "at most"),
    (r"resnet(\d+)_loss_fast", r"ResNet-\1, preset `fast`, 4 bits a weight in the mean: points lost against float", "at most"),
    (r"resnet(\d+)_seconds_(\w+)", r"ResNet-\1, preset `\2`: seconds for a plan of 4 bits a weight in the mean", "at most"),
    (
        r"resnet(\d+)_layers_at_(\d)_bits_in_passes",
        r"ResNet-\1: share of layers at \2 bits, best rounding, within what they may lose against 8",
        "at least",
    ),
    (r"minilm_cosine_(\d)", r"MiniLM, weights at \1 bits: mean cosine of embeddings of 1,000 sentences to float", "at least"),
    (r"escalation_costs_won", "escalation: costs at which it surely beats fixed widths that cost the same", "at least"),
    (r"escalation_bits_as_good_as_(\d)", r"escalation: mean bits that lose at most 0.2 points against \1 bits", "below"),
    (r"noise: perplexity of int4 .*", r"\g<0>", "below"),
    (r"noise: perplexity of products over float", r"\g<0>", "at most"),
    (r"noise: products smaller by", r"\g<0>", "at least"),
    (r"(nested training|updates|sparse): points (lost|behind) .*", r"\g<0>", "at most"),
    (r"updates: points off without a memory|sparse: points over .*", r"\g<0>", "at least"),
)

HEAD = """# Performance

*Made from `bench/results/` by `python -m bench.table`; do not edit.*

Every row of the benchmarks' last runs. `bench/README.md` says how they measure and what they cannot show. Losses are in
points of top-1 accuracy, negative ones are gains. The spread is half of a 95 % interval: of a difference where the row is of
accuracy, of the ratio where it is of time.
"""


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The last result of every benchmark, by the names of their files."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def block(found: Sequence[Mapping[str, Any]]) -> str:
    """What stands between the two comments: a row for every figure, and what it was measured with."""
    if not any(result.get("figures") for result in found):
        return NOTHING
    rows = [figure_row(r["bench"], name, figure) for r in found for name, figure in r.get("figures", {}).items()]
    lines = [*table(("benchmark", "figure", "measured", "goal", "met"), rows), ""]
    return "\n".join([*lines, *(f"- {measured_with(result)}" for result in found if result.get("figures"))])


def figure_row(bench: str, name: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one figure."""
    value, goal = figure.get("value"), figure.get("goal")
    words, relation = name.replace("_", " "), ""
    for pattern, says, how in SAYS:
        if match := re.fullmatch(pattern, name):
            words, relation = match.expand(says), f"{how} "
    wanted = "-" if goal is None else relation + number(goal)
    return f"`{bench}`", words, number(value), wanted, verdict(figure, relation.strip(), "_loss" in name)


def verdict(figure: Mapping[str, Any], relation: str, accuracy: bool) -> str:
    """Whether a goal is met: by the number itself or, for accuracies alone, only by the better end of its interval.

    >>> verdict({"value": 0.6, "goal": 0.5, "met": True}, "at most", True)
    'within the interval'
    >>> verdict({"value": 0.6, "goal": 0.5, "met": True}, "at most", False)
    '**no**'
    """
    value, goal = figure.get("value"), figure.get("goal")
    if value is None:
        return "not measured"
    if goal is None:
        return "-"
    if not figure.get("met"):
        return "**no**"
    plain = {"at most": value <= goal, "at least": value >= goal, "below": value < goal}
    return "yes" if plain.get(relation, True) else "within the interval" if accuracy else "**no**"


def measured_with(result: Mapping[str, Any]) -> str:
    """The command, the machine and the versions, in a line."""
    machine = dict(result.get("machine", {}))
    command = machine.pop("command", f"python -m bench {result['bench']}")
    parts = [", ".join(f"{key} {value}" for key, value in part.items()) for part in (machine, result.get("versions", {}))]
    return f"`{command}`: {'; '.join(part for part in parts if part)}"


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """docs/performance.md: every row of every benchmark."""
    lines = [HEAD]
    for result in found:
        if result["bench"] in ELSEWHERE:
            lines += [f"## {result['bench']}", "", f"On a page of its own: {ELSEWHERE[result['bench']]}.", ""]
            continue
        rows = [
            tuple(map(number, (r["what"], r["ours"], r["peer"], r["peer_name"] or None, r["ratio"], r["spread"])))
            for r in result.get("rows", [])
        ]
        lines += [f"## {result['bench']}", "", f"{measured_with(result)}.", ""]
        lines += [*table(("what", "ours", "peer", "peer is", "ours / peer", "spread"), rows), ""]
    return "\n".join(lines if found else [*lines, NOTHING, ""])


def trials(found: Sequence[Mapping[str, Any]]) -> str:
    """What docs/reliability.md says of trials: how many, how many failed, and what that says of all."""
    result = next((r for r in found if r["bench"] == "robustness"), None)
    if result is None:
        return NOTHING
    rows = [(r["what"], number(r["peer"]), number(r["ours"]), bound(r)) for r in result["rows"]]
    lines = table(("trials", "made", "failed", "share that fails, at 95 %"), rows)
    measured = [(n, f) for n, f in result["figures"].items() if not n.startswith("trials_")]
    limits = table(("measured", "at worst", "goal", "met"), [figure_row("robustness", n, f)[1:] for n, f in measured])
    return "\n".join([*lines, "", *limits, "", f"{measured_with(result)}."])


def bound(row: Mapping[str, Any]) -> str:
    """What is known of the share of trials that fail."""
    if row["spread"] is not None:
        return f"below {number(100 * row['spread'])} %"
    return "-" if row["ours"] else "none: these are all"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; cells that hold a bar keep it."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]


def number(value: Any) -> str:
    """A value as people read it.

    >>> number(0.123456), number(319248), number(-0.0), number(None), number("a  b")
    ('0.1235', '319,248', '0', '-', 'a b')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def rewritten(page: str, text: str, name: str = "README.md") -> str:
    """A page with `text` between the two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"bench.table: {name} must hold {BEGIN!r} and {END!r}, one of them is missing; put it in")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main() -> None:
    found = results()
    README.write_text(rewritten(README.read_text(), block(found)))
    PAGE.write_text(page(found))
    FILES.write_text(rewritten(FILES.read_text(), trials(found), FILES.name))
    print(f"wrote {README.name}, docs/{PAGE.name} and docs/{FILES.name}")


if __name__ == "__main__":
    main()
