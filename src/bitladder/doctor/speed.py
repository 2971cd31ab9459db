"""Why a network is slow: what runs where, what only converts, what is far from the machine's peak, and which widths help."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from bitladder import native
from bitladder.doctor.finding import Cost, Finding, Patient, profile
from bitladder.formats import QTensor
from bitladder.ir.graph import Node
from bitladder.runtime.integer import aligned
from bitladder.verify import BORDERS

CONVERTING = 0.1  # share of the time from which conversions are worth a word
WORTH = 0.02  # share of the time from which a layer is
SHORT = 64  # products in a sum
FEW = 8  # positions that use a weight
FASTER = 0.95  # of the time, so that a width counts as faster


def core(patient: Patient) -> list[Finding]:
    """There is no core, or it was told to use a lesser instruction set."""
    if native.core is None:
        return missing_core()
    best, used = native.isas()[0], patient.model.engine.isa or native.isa()
    if used == best:
        return []
    return [Finding("speed", f"runs on {used}, and this machine has {best}", fix="unset BITLADDER_ISA")]


def missing_core() -> list[Finding]:
    fix = "unset BITLADDER_NATIVE" if "BITLADDER_NATIVE" in native.why else "pip install --force-reinstall bitladder"
    return [Finding("speed", f"there is no native core, everything runs on the reference: {native.why}", fix=fix, wrong=True)]


def by_reason(foreign: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The nodes of each reason."""
    found: dict[str, tuple[str, ...]] = {}
    for name, why in foreign.items():
        why = why.replace(f"node {name!r} ", "a node ")
        found[why] = (*found.get(why, ()), name)
    return found


def fallback(patient: Patient) -> list[Finding]:
    """Nodes that the core has no kernel for, by reason."""
    if native.core is None:
        return []
    pieces = [p for p in patient.model.engine.pieces() if p.reason]
    times = [s.milliseconds for s in patient.steps if s.kernel == "reference"]
    foreign = patient.model.engine.reasons()
    spent = {n.name: ms / len(p.graph.nodes) for p, ms in zip(pieces, times, strict=True) for n in p.graph.nodes}
    fix = "replace the operator in the network, or report it: the reference is right and slow"
    found = []
    for why, names in by_reason(foreign).items():
        ms = sum(spent[name] for name in names)
        what = f"no kernel, so they run on the reference: {why}"
        found.append(Finding("speed", what, names, fix, ms, patient.share(ms), wrong=True))
    return found


def in_float(patient: Patient) -> list[Finding]:
    """Weighted layers that compute in float, by the reason; each says which line of a plan makes it integer."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for weight, node in patient.graph.weights():
        if patient.truth.kinds.get(node.name) == "float" and (said := float_because(patient, weight, node)):
            found[said] = (*found.get(said, ()), node.name)
    out = []
    for (what, fix), names in found.items():
        ms = patient.time_of(names)
        out.append(Finding("speed", what, names, fix, ms, patient.share(ms)))
    return out


def float_because(patient: Patient, weight: str, node: Node) -> tuple[str, str] | None:
    """Why a weighted layer has no integer sums, and what would change that; None for operators that never sum integers."""
    if node.op not in ("conv", "conv_transpose", "linear"):
        return None
    w, encoding = patient.graph.constants[weight], patient.graph.encodings.get(node.inputs[0])
    if not isinstance(w, QTensor):
        return "weights are float, so the layer is", "give them a format in the plan, such as '*': int8"
    if encoding is None:
        return "inputs are float, so the layer is", "quantize activations too: --plan FORMAT,a=int8"
    if aligned(encoding, w, node.op, int(node.attrs.get("groups", 1))) is None:
        return f"steps of {w.format} differ within a sum, which has no unit", "use a format per channel: int8, int4 or nested8"
    return "the layer has no integer sum", "use int8 weights and activations"


def between(patient: Patient) -> list[Finding]:
    """Float nodes without weights, if they take much of the time."""
    weighted = {node.name for _, node in patient.graph.weights()}
    kinds = patient.truth.kinds
    names = tuple(n.name for n in patient.graph.nodes if kinds[n.name] == "float" and n.name not in weighted)
    steps = [s for s in patient.steps if s.node in names and s.kernel not in (*BORDERS, "reference")]
    ms = sum(s.milliseconds for s in steps)
    if patient.share(ms) < CONVERTING:
        return []
    dearest = tuple(dict.fromkeys(s.node for s in sorted(steps, key=lambda s: -s.milliseconds)))
    what = "layers without weights compute in float (sums of codes, softmax, norms and their kin)"
    return [Finding("speed", what, dearest, "nothing in the file; fewer of them in the network", ms, patient.share(ms))]


def conversions(patient: Patient) -> list[Finding]:
    """Steps that only bring values into another form."""
    steps = [s for s in patient.steps if s.kernel in BORDERS]
    ms = sum(s.milliseconds for s in steps)
    if patient.share(ms) < CONVERTING:
        return []
    names = tuple(dict.fromkeys(s.node for s in sorted(steps, key=lambda s: -s.milliseconds)))
    fix = "give float layers in between integers or a kernel (see the findings above); a larger batch spreads what is left"
    what = "values are encoded, decoded or laid out anew between layers"
    return [Finding("speed", what, names, fix, ms, patient.share(ms))]


def far_from_peak(patient: Patient) -> list[Finding]:
    """Layers that take much of the time and use little of what the machine can do, by what holds them back."""
    nodes = {n.name: n for n in patient.graph.nodes}
    slow: dict[tuple[str, str], list[Cost]] = {}
    for c in patient.costs:
        if c.step.macs and c.share > WORTH and c.bound == "overhead" and c.step.node in nodes:
            slow.setdefault(held_back(patient, nodes[c.step.node], c), []).append(c)
    found = []
    for (what, fix), costs in slow.items():
        ms, macs = (sum(getattr(c.step, name) for c in costs) for name in ("milliseconds", "macs"))
        text = f"{what}: {100 * macs / ms / patient.peak:.0f} % of the machine's peak"
        found.append(Finding("speed", text, tuple(c.step.node for c in costs), fix, ms, patient.share(ms)))
    return found


def held_back(patient: Patient, node: Node, cost: Cost) -> tuple[str, str]:
    """Why a layer does few products in its time, and what helps."""
    weight = patient.graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = getattr(weight, "shape", ())
    if node.attrs.get("groups", 1) != 1:
        return "grouped layers do few products with each number read", "nothing in the file; fewer, wider groups would help"
    if shape and prod(shape[1:]) < SHORT:
        return f"sums of fewer than {SHORT} products fill a kernel badly", "nothing in the file; more input channels would help"
    if shape and cost.step.macs < FEW * prod(shape):
        return "each weight is used for a few positions only", "run several samples at once"
    return "far from the peak for no reason known here", "report it with the shapes of the layer"


def widths(patient: Patient) -> list[Finding]:
    """Which widths of a nested file are faster than the widest, and why the others are not."""
    model = patient.model
    if native.core is None or len(model.widths) < 2:
        return []
    wide, *rest = sorted({w for w in (8, 4, 2, model.widths[-1]) if w in model.widths}, reverse=True)
    times = {b: sum(s.milliseconds for s in profile(model.engine, patient.sample, b)) for b in (wide, *rest)}
    if not rest:
        return []
    ratios = {b: times[b] / times[wide] for b in rest}
    told = ", ".join(f"{b} bits {r:.2f}" for b, r in ratios.items())
    bound = {kind: sum(c.share for c in patient.costs if c.bound == kind) for kind in ("memory", "products")}
    what = f"time against {wide} bits: {told}; {100 * bound['memory']:.0f} % of it waits for memory, where fewer bits help"
    slow = [str(b) for b, r in ratios.items() if r > FASTER]
    fix = (
        f"{', '.join(slow)} bits save bytes, not time: products, not memory, hold this network back"
        if slow
        else f"load at {rest[-1]} bits where its accuracy does"
    )
    return [Finding("speed", what, fix=fix, milliseconds=times[wide])]
