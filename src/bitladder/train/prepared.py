"""A quantized graph as a module that learns: fake-quantized weights and activations (`straight.py`), one width at a time.

Batch norm is folded into the weights before: its factor is part of the channel's range, which a nested file has once for all
widths. What it does to means stays: in training the outputs of a layer that had one are centred by the batch's means, and
running means and shifts are kept for every width (mean-only batch normalization; Salimans and Kingma, 2016). Both end as a bias
per width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bitladder.convert.to_torch import learned, place
from bitladder.convert.torch_ops import TORCH_OPS, tensor
from bitladder.formats import Encoding, Format, QTensor, fit
from bitladder.formats.tensor import store
from bitladder.ir.graph import CHANNEL_AXIS, Graph, Node, PerWidth
from bitladder.runtime.integer import aligned
from bitladder.runtime.reference import clipped
from bitladder.train.straight import SCALES, TINY, rounded

Tensor = Any
Seen = Callable[[str, Tensor, Tensor], Tensor]  # (weight, its master, the master in its format) -> what the network sees

BIASED = ("conv", "conv_transpose", "linear")
MOMENTUM = 0.1  # of running means


class Shelf(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by the checker
    """Tensors under any names, dotted ones as in nested modules."""

    def __init__(self) -> None:
        super().__init__()
        self._homes: dict[str, tuple[torch.nn.Module, str]] = {}

    def put(self, name: str, value: Tensor, *, learns: bool) -> None:
        self._homes[name] = place(self, name, torch.nn.Parameter(value) if learns else value)

    def __getitem__(self, name: str) -> Tensor:
        home, attribute = self._homes[name]
        return getattr(home, attribute)

    def get(self, name: str, default: Any) -> Any:
        return self[name] if name in self._homes else default

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def names(self) -> list[str]:
        return list(self._homes)


class Prepared(torch.nn.Module):  # type: ignore[misc]
    """A quantized graph that learns.

    masters: the float weights behind the codes. ranges: what codes are proportional to, by `weight/parameter` and
    `activation/parameter`. biases and means: per width, by `bias/bits` of the weight. others: weights that stay in float.
    activations: their encodings at each width, where they have the width of the weights (`follows`).
    `see`, if set, says what the network sees of each weight in training: a mask, or noise in place of rounding. momentum: how
    far running means go to those of a batch.
    """

    def __init__(
        self,
        graph: Graph,
        masters: Mapping[str, np.ndarray],
        wanted: Mapping[str, np.ndarray],
        widths: tuple[int, ...],
        learn_ranges: bool = True,
        activations: Mapping[int, Mapping[str, Encoding]] | None = None,
    ):
        super().__init__()
        self.graph, self.widths, self.bits = graph, widths, widths[0]
        self.see: Seen | None = None
        self.momentum = MOMENTUM
        self.masters, self.ranges, self.biases, self.means, self.others = (Shelf() for _ in range(5))
        self._fixed: dict[str, Tensor] = {}
        self._units: dict[tuple[str, int], Tensor | None] = {}
        self._owner = {n.inputs[2]: n.inputs[1] for n in graph.nodes if self._biased(n)}
        self._narrow = {b: {n: c.format for n, c in graph.at(b).constants.items() if isinstance(c, QTensor)} for b in widths}
        for name, c in graph.constants.items():
            if isinstance(c, QTensor):
                w = np.array(masters[name] if name in masters else c.decode(), np.float32)
                self.masters.put(name, torch.from_numpy(w), learns=True)
                self._hold(name, c.encoding, learn_ranges)
        self._at = activations or dict.fromkeys(widths, graph.encodings)
        self.follows = activations is not None
        self._source = sources(graph)
        for bits, encodings in self._at.items():
            for name, encoding in encodings.items():
                if self._source[name] == name and (self.follows or bits == widths[0]):
                    self._hold(self._key(name, bits), encoding, learn_ranges)
        for bias, weight in self._owner.items():
            self._hold_biases(bias, weight, wanted.get(weight))
        free = learned(graph)
        for name, c in graph.constants.items():
            if name in self.masters or name in self._owner or isinstance(c, QTensor):
                continue
            assert isinstance(c, np.ndarray)
            if name in free:
                self.others.put(name, tensor(c), learns=True)
            else:
                self._fixed[name] = tensor(c)

    def _biased(self, node: Node) -> bool:
        """Whether a node adds a bias to products with a coded weight."""
        coded = node.op in BIASED and isinstance(self.graph.constants.get(node.inputs[1]), QTensor)
        return coded and len(node.inputs) > 2 and node.inputs[2] in self.graph.constants

    def _hold(self, name: str, encoding: Encoding, learn: bool) -> None:
        """Keep the parameters of an encoding that are not tables."""
        for key, p in encoding.params.items():
            if np.asarray(p).dtype == np.float32:
                self.ranges.put(f"{name}/{key}", tensor(np.asarray(p)), learns=learn and key in SCALES)

    def _key(self, name: str, bits: int) -> str:
        """Under which name the ranges of an activation are kept: that of the value it is a copy of, and its width."""
        return f"{self._source[name]}@{bits}" if self.follows else self._source[name]

    def _hold_biases(self, bias: str, weight: str, wanted: np.ndarray | None) -> None:
        """Keep a bias for every width of its weight, as mean and shift where the outputs are centred."""
        widths = [self._narrow[b][weight].bits for b in self.widths]
        centred = wanted is not None and (len(set(widths)) == len(widths) or len(set(self.widths)) == 1)
        for bits, width in dict(zip(widths, self.widths, strict=True)).items():
            c = self.graph.at(width).constants[bias]
            assert isinstance(c, np.ndarray)
            now = torch.from_numpy(np.array(c, np.float32))
            shift = now if not centred else torch.from_numpy(np.array(wanted, np.float32))
            self.biases.put(f"{bias}/{bits}", shift.clone(), learns=True)
            if centred:
                self.means.put(f"{bias}/{bits}", shift - now, learns=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:  # what .to(device) goes through
        self._fixed = {name: fn(value) for name, value in self._fixed.items()}
        return super()._apply(fn, recurse)

    # ------------------------------------------------------------------------------------------------- widths, ranges

    def at(self, bits: int) -> Any:
        """Choose the width to compute at from now on; as a context, only within it."""
        if bits not in self.widths:
            raise ValueError(f"at: width must be one of those prepared, {list(self.widths)}, got {bits}; prepare with it")
        before, self.bits = self.bits, bits
        return self._until_left(before)

    @contextmanager
    def _until_left(self, before: int) -> Iterator[Prepared]:
        try:
            yield self
        finally:
            self.bits = before

    def weights(self) -> dict[str, Tensor]:
        """The masters by the names of their weights."""
        return {name: self.masters[name] for name in self.masters.names()}

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer such as Adam: a tensor's rate is `rate` of its size, a tenth of it for ranges."""
        out = []
        for name, p in self.named_parameters():
            size = float(p.detach().double().square().mean().sqrt()) or 1.0
            out.append({"params": [p], "lr": rate * size * (0.1 if name.startswith("ranges.") else 1.0)})
        return out

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def refit(self, cover: str = "mse") -> None:
        """Choose the ranges of weights anew, for the masters as they are."""
        users = dict(self.graph.weights())
        for name, w in self.weights().items():
            old = self.graph.constants[name]
            assert isinstance(old, QTensor)
            axis = CHANNEL_AXIS[users[name].op]
            slices = len(old.encoding.axes) > 1
            for key, p in fit(old.format, w.cpu().numpy(), axis=axis, cover=cover, slices=slices).params.items():
                if f"{name}/{key}" in self.ranges:
                    self.ranges[f"{name}/{key}"].copy_(torch.from_numpy(np.asarray(p)).reshape(old.encoding.params[key].shape))

    # ---------------------------------------------------------------------------------------------------- computing

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs at the chosen width for inputs in the graph's order: one tensor, or a tuple of them."""
        names = [v.name for v in self.graph.inputs]
        if len(inputs) != len(names):
            raise TypeError(f"forward: takes {len(names)} tensors ({', '.join(names)}), got {len(inputs)}")
        env: dict[str, Tensor] = {**self._fixed, **{n: self.others[n] for n in self.others.names()}}
        env |= {name: self.activation(name, in_pixels(x)) for name, x in zip(names, inputs, strict=True)}
        env |= {name: self.weight(name) for name in self.masters.names()}
        for node in self.graph.nodes:
            for name, value in zip(node.outputs, self._outputs(node, env), strict=False):
                env[name] = self.activation(name, value)
        outputs = tuple(env[name] for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _outputs(self, node: Node, env: Mapping[str, Tensor]) -> list[Tensor]:
        args = [env.get(name) if name else None for name in node.inputs]
        out: Any
        if self._biased(node):
            out = self._products(node, TORCH_OPS[node.op], args[0], args[1])
        else:
            out = TORCH_OPS[node.op](*args, **node.attrs)
        outs = list(out) if isinstance(out, tuple | list) else [out]
        if node.clip is not None:
            outs[0] = torch.relu(outs[0]) if node.clip == (0, None) else clipped(outs[0], node.clip)
        return outs

    def weight(self, name: str) -> Tensor:
        """What the network sees of a weight: its master in its format at the chosen width."""
        master, fmt = self.masters[name], self._narrow[self.bits][name]
        encoding = self._encoding(name)
        held = rounded(master, fmt, self._params(name, encoding, fmt), encoding.axes)
        return held if self.see is None or not self.training else self.see(name, master, held)

    def activation(self, name: str, value: Tensor) -> Tensor:
        """An activation in its format, where it has one."""
        encoding = self._at[self.bits].get(name)
        if encoding is None:
            return value
        params = self._params(self._key(name, self.bits), encoding, encoding.format)
        return rounded(value, encoding.format, params, encoding.axes, cut=True)

    def _encoding(self, name: str) -> Encoding:
        """The encoding that a weight began with."""
        c = self.graph.constants[name]
        assert isinstance(c, QTensor)
        return c.encoding

    def _params(self, name: str, encoding: Encoding, fmt: Format) -> dict[str, Any]:
        """The parameters of an encoding as they are now; scales stay above zero."""
        out = {}
        for key, p in encoding.params.items():
            now = self.ranges.get(f"{name}/{key}", p)
            out[key] = now.clamp_min(TINY) if key in SCALES else now
        keep = getattr(fmt, "keep", None)
        return out if keep is None else keep(out)

    def _products(self, node: Node, op: Callable[..., Tensor], x: Tensor, w: Tensor) -> Tensor:
        """Products and a bias, rounded as its file is; in training less the batch's means where these are centred.

        In training the bias goes into the products, which is a pass less; else it is added to sums that are exact.
        """
        key = f"{node.inputs[2]}/{self._narrow[self.bits][node.inputs[1]].bits}"
        centred = key in self.means
        if self.training and not centred:
            return op(x, w, self._in_units(node, self.biases[key]), **node.attrs)
        bare = op(x, w, None, **node.attrs)
        channel = bare.ndim - 1 if node.op == "linear" else 1
        if self.training:
            mean = bare.mean(tuple(a for a in range(bare.ndim) if a != channel))
            self.means[key].lerp_(mean.detach(), self.momentum)
            bias = self.biases[key] - mean
        else:
            bias = self._in_units(node, self.biases[key] - self.means[key] if centred else self.biases[key])
        return bare + bias.view([-1 if a == channel else 1 for a in range(bare.ndim)])

    def _in_units(self, node: Node, bias: Tensor) -> Tensor:
        """A bias as integer nodes add it: in multiples of the unit of their sums, where these have one a channel."""
        x = self._at[self.bits].get(node.inputs[0])
        w = self._encoding(node.inputs[1])
        if x is None or w.format.group is not None:
            return bias
        fmt = self._narrow[self.bits][node.inputs[1]]
        with torch.no_grad():
            if x.axes == () and w.axes in ((), (CHANNEL_AXIS[node.op],)):
                params = self._params(self._key(node.inputs[0], self.bits), x, x.format)
                steps = (fmt.step(self._params(node.inputs[1], w, fmt)) * x.format.step(params)).reshape(-1)
            else:
                steps = self._held_unit(node, x)
            if steps is None or steps.numel() not in (1, bias.numel()):
                return bias
            near = ((bias.double() / steps.double()).round() * steps.double()).to(bias.dtype)
        return bias + (near - bias).detach()

    def _held_unit(self, node: Node, x: Encoding) -> Tensor | None:
        """The units of a node's sums where fractional lengths, which are held, differ along inputs; None where none are."""
        key = (node.inputs[1], self.bits)
        if key not in self._units:
            w = self.graph.at(self.bits).constants[node.inputs[1]]
            assert isinstance(w, QTensor)
            lengths = "fl" in x.params and "fl" in w.encoding.params
            together = aligned(x, w, node.op, node.attrs.get("groups", 1)) if lengths else None
            self._units[key] = None if together is None else torch.from_numpy(together[1])
        found = self._units[key]
        return None if found is None else found.to(self.masters[node.inputs[1]].device)

    # ---------------------------------------------------------------------------------------------------- the result

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def to_graph(self, bits: int | None = None) -> Graph:
        """The graph with codes, ranges and biases as they are now, and activations for a width."""
        bits = self.bits if bits is None else bits
        constants: dict[str, Any] = dict(self.graph.constants)
        for name in self.masters.names():
            encoding = self._encoding(name)
            now = Encoding(encoding.format, self._arrays(name, encoding), encoding.axes)
            codes = now.encode(self.masters[name].detach().cpu().numpy())
            constants[name] = QTensor(now, store(codes, encoding.format))
        for bias, weight in self._owner.items():
            constants[bias] = self._versions(bias, weight)
        constants |= {name: self.others[name].detach().cpu().numpy().copy() for name in self.others.names()}
        coded = self._at[bits].items()
        held = {self._key(n, bits): Encoding(e.format, self._arrays(self._key(n, bits), e), e.axes) for n, e in coded}
        encodings = {name: held[self._key(name, bits)] for name, _ in coded}
        meta = {k: v for k, v in self.graph.meta.items() if k != "result"}
        return self.graph.with_(constants=constants, encodings=encodings, meta={**meta, "trained": list(self.widths)})

    def _arrays(self, name: str, encoding: Encoding) -> dict[str, np.ndarray]:
        """The parameters of an encoding as a file holds them."""
        now = self._params(name, encoding, encoding.format)
        return {k: p.detach().cpu().numpy().copy() if isinstance(p, torch.Tensor) else p for k, p in now.items()}

    def _versions(self, bias: str, weight: str) -> Any:
        """A bias: one array, or one for every width of a nested weight."""
        found = {}
        for key in (k for k in self.biases.names() if k.rpartition("/")[0] == bias):
            shift = self.biases[key]
            now = shift - self.means[key] if key in self.means else shift
            found[int(key.rpartition("/")[2])] = now.detach().cpu().numpy().copy()
        nested = hasattr(self._encoding(weight).format, "at")
        return PerWidth(weight, found) if nested else next(iter(found.values()))


def in_pixels(x: Tensor) -> Tensor:
    """Images in the order of memory that convolutions are fastest in, channel after channel of a pixel; the values stay."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x


def sources(graph: Graph) -> dict[str, str]:
    """For every activation with an encoding, the one that it copies: nodes that move values about share their encodings."""
    out = {name: name for name in graph.encodings}
    for node in graph.nodes:
        before, after = (graph.encodings.get(names[0]) for names in (node.inputs, node.outputs))
        if before is not None and after is not None and node.clip is None and alike(before, after):
            out[node.outputs[0]] = out[node.inputs[0]]
    return out


def alike(a: Encoding, b: Encoding) -> bool:
    """Whether two encodings are the same in all that they hold."""
    same = a.format == b.format and a.axes == b.axes and a.params.keys() == b.params.keys()
    return same and all(np.array_equal(p, b.params[k]) for k, p in a.params.items())
