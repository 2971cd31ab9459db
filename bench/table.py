"""The table of results in README.md, rewritten from bench/results/: `python -m bench.table [README.md]`.

Every result file is the JSON object that `python -m bench NAME --json` prints. A figure is shown whether its goal was met
or not; one that was not measured says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- results: made by python -m bench.table -->", "<!-- end of results -->"
NOTHING = "No benchmark has been run yet; `make bench` runs them and fills in this table."


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The last result of every benchmark, by the names of their files."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def block(found: list[dict[str, Any]]) -> str:
    """What stands between the two comments."""
    if not any(result.get("figures") for result in found):
        return NOTHING
    lines = ["| benchmark | figure | measured | goal | met |", "|---|---|---|---|---|"]
    for result in found:
        for name, figure in result.get("figures", {}).items():
            lines.append("| " + " | ".join(row(result["bench"], name, figure)) + " |")
    return "\n".join([*lines, "", *(f"- `{result['bench']}`: {measured_with(result)}" for result in found)]).strip()


def measured_with(result: Mapping[str, Any]) -> str:
    """The machine and the versions, in a line."""
    return "; ".join(told(result[key]) for key in ("machine", "versions") if result.get(key)) or "machine unknown"


def row(bench: str, name: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one figure."""
    value = figure.get("value")
    met = "-" if figure.get("goal") is None else "yes" if figure.get("met") else "**no**"
    met = "not measured" if value is None else met
    return f"`{bench}`", cell(name.replace("_", " ")), "-" if value is None else number(value), number(figure.get("goal")), met


def number(value: Any) -> str:
    """A figure as people read it.

    >>> number(0.123456), number(12), number([1.0, 2.5]), number(None), number("at most 8")
    ('0.1235', '12', '1 to 2.5', '-', 'at most 8')
    """
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " to ".join(number(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else cell(str(value))


def cell(text: str) -> str:
    """Text that does not break a table."""
    return " ".join(text.split()).replace("|", "\\|")


def told(machine: Any) -> str:
    """A machine in a line."""
    if isinstance(machine, Mapping):
        return cell(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items()))
    return cell(str(machine))


def rewritten(page: str, text: str) -> str:
    """`page` with `text` between the two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"bench.table: the page must hold {BEGIN!r} and {END!r}, got neither or one; put them in")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    path.write_text(rewritten(path.read_text(), block(results())))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
