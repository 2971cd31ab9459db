"""Moves, products of activations, softmax, norms, reductions and recurrence in the native core, against the reference."""

import numpy as np
import pytest

import bitladder as bl
from bitladder import native
from bitladder.engine import Engine
from bitladder.formats import Encoding, Int, QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.runtime.reference import run

pytestmark = pytest.mark.skipif(native.core is None, reason=f"no native core: {native.why}")

ISAS = native.isas()


def u8(scale, zero=128):
    """An activation encoding of 8 unsigned bits."""
    params = {"scale": np.float32(scale).reshape(()), "zero_point": np.float32(zero).reshape(())}
    return Encoding(Int(8, per="tensor", unsigned=True), params)


def graph_of(nodes, feeds, constants=None, encodings=None, outputs=None):
    """A graph of these nodes whose inputs look like `feeds`."""
    return Graph(
        inputs=tuple(Value(name, x.dtype.name, x.shape) for name, x in feeds.items()),
        outputs=tuple(outputs or nodes[-1].outputs[:1]),
        nodes=tuple(nodes),
        constants=constants or {},
        encodings=encodings or {},
    )


def compare(graph, feeds, *, exact=False, bits=None, isa="", threads=1, steps=0.0):
    """Assert that the core runs all of `graph` and gives what the reference gives; floats within 1e-5 or so many `steps`."""
    engine = Engine(graph, threads=threads, isa=isa)
    got = engine.run(feeds, bits)
    assert not [p for p in engine.pieces() if p.reason], engine.foreign
    want = run(graph if bits is None else graph.at(bits), feeds)
    for name, y in want.items():
        assert got[name].shape == y.shape, (name, got[name].shape, y.shape)
        assert got[name].dtype == y.dtype, (name, got[name].dtype, y.dtype)
        if exact or y.dtype.kind != "f":
            assert np.array_equal(got[name], y), (name, np.sum(got[name] != y), y.size)
        elif steps:
            assert np.max(np.abs(got[name] - y)) <= steps * 1.001, name
            assert np.mean(got[name] != y) < 0.02, (name, np.mean(got[name] != y))
        else:
            assert np.allclose(got[name], y, rtol=1e-5, atol=1e-5, equal_nan=True), (name, np.nanmax(np.abs(got[name] - y)))


def ints(*values):
    return np.array(values, np.int64)


X = (2, 3, 4, 6)
MOVES = {
    "reshape": ("reshape", [ints(0, -1, 6)], {}),
    "flatten": ("flatten", [], {"axis": 2}),
    "flatten last": ("flatten", [], {"axis": -1}),
    "unsqueeze": ("unsqueeze", [ints(0, -1)], {}),
    "identity": ("identity", [], {}),
    "transpose": ("transpose", [], {"perm": (0, 2, 1, 3)}),
    "transpose last": ("transpose", [], {"perm": (0, 1, 3, 2)}),
    "transpose all": ("transpose", [], {}),
    "expand": ("expand", [ints(5, 1, 1, 1, 1)], {}),
    "tile": ("tile", [ints(1, 2, 1, 3)], {}),
    "slice": ("slice", [ints(1, -2), ints(9, 99), ints(1, -1), ints(1, 1)], {}),
    "slice back": ("slice", [ints(-1, 5), ints(-99, 0), ints(2, 3), ints(-1, -2)], {}),
    "slice first": ("slice", [ints(1), ints(2)], {}),
    "gather": ("gather", [ints(2, -1, 0)], {"axis": 2}),
    "gather one": ("gather", [np.array(1)], {"axis": -1}),
    "gather table": ("gather", [ints(1, 0, 1, -2).reshape(2, 2)], {"axis": 0}),
}


@pytest.mark.parametrize("case", MOVES)
def test_moves_keep_codes(case):
    """Reals and codes, codes whose encoding stays, changes, or ends; clips act."""
    op, rest, attrs = MOVES[case]
    feeds = {"x": np.random.default_rng(1).normal(size=X).astype(np.float32)}
    names = [f"c{i}" for i in range(len(rest))]
    constants = dict(zip(names, rest, strict=True))
    for encodings in ({}, {"x": u8(0.02)}, {"x": u8(0.02), "y": u8(0.02)}, {"x": u8(0.02), "y": u8(0.03, 7)}, {"y": u8(0.1)}):
        for clip in (None, (-0.5, 1.0)):
            node = Node(op, ("x", *names), ("y",), attrs, clip)
            compare(graph_of([node], feeds, constants, encodings), feeds, exact=True, threads=2)


def test_squeeze_concat_and_split():
    """Several inputs, several outputs, whole numbers too."""
    rng = np.random.default_rng(2)
    feeds = {k: rng.normal(size=(2, 1, n, 5)).astype(np.float32) for k, n in (("a", 3), ("b", 4))}
    for encodings in ({}, {"a": u8(0.02), "b": u8(0.05), "y": u8(0.03)}, {k: u8(0.02) for k in "aby"}):
        node = Node("concat", ("a", "b"), ("y",), {"axis": -2})
        compare(graph_of([node], feeds, {}, encodings), feeds, exact=True)
    squeeze = Node("squeeze", ("a", "axes"), ("y",))
    compare(graph_of([squeeze], feeds, {"axes": ints(1)}), feeds, exact=True)
    compare(graph_of([Node("squeeze", ("a",), ("y",))], feeds), feeds, exact=True)
    split = Node("split", ("b", "n"), ("p", "q"), {"axis": 2})
    compare(graph_of([split], feeds, {"n": ints(1, 3)}, {"b": u8(0.02), "q": u8(0.02)}, ["p", "q"]), feeds, exact=True)
    even = Node("split", ("b",), ("p", "q", "r"), {"axis": 3, "num_outputs": 3})
    compare(graph_of([even], feeds, outputs=["p", "q", "r"]), feeds, exact=True)
    whole = {"a": rng.integers(-9, 9, (3, 4)), "b": rng.integers(-9, 9, (2, 4))}
    compare(graph_of([Node("concat", ("a", "b"), ("y",), {"axis": 0})], whole), whole)


def test_shapes_are_computed_beforehand():
    """The arithmetic that exporters write about shapes is done when a network is lowered."""
    feeds = {"x": np.zeros((2, 6, 4), np.float32)}
    nodes = [
        Node("shape", ("x",), ("s",)),
        Node("gather", ("s", "one"), ("n",), {"axis": 0}),
        Node("div", ("n", "two"), ("half",)),
        Node("unsqueeze", ("half", "axis"), ("h",)),
        Node("concat", ("zero", "h", "rest"), ("to",), {"axis": 0}),
        Node("reshape", ("x", "to"), ("y",)),
    ]
    constants = {"one": np.array(1), "two": np.array(2), "axis": ints(0), "zero": ints(0), "rest": ints(-1)}
    compare(graph_of(nodes, feeds, constants), feeds)
    constants = {**constants, "start": np.array(0), "step": np.array(1)}
    compare(graph_of([*nodes[:2], Node("range", ("start", "n", "step"), ("y",))], feeds, constants), feeds)


def test_numbers_out_of_range_are_refused():
    """Negative indices count from the end; others beyond it are an error that names the node."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    good = {"i": np.array([[0, -1], [3, -4]])}
    for op, inputs in (("embedding", ("w", "i")), ("gather", ("w", "i"))):
        graph = graph_of([Node(op, inputs, ("y",))], good, {"w": table})
        compare(graph, good, exact=True)
        for bad in (4, -5):
            with pytest.raises(ValueError, match="'y' must have indices between -4 and 3"):
                Engine(graph, threads=1).run({"i": np.array([[0, bad], [0, 0]])})


@pytest.mark.parametrize("text", ["int8", "nested8", "nested5:tree", "nested6:sign", "int4/5", "fixed8", "fixed12"])
def test_embeddings_of_codes(text):
    """Rows are decoded as the reference decodes them, at every width."""
    w = np.random.default_rng(3).normal(size=(9, 23)).astype(np.float32)
    weight = QTensor.of(w, fit(parse(text), w))
    feeds = {"i": np.random.default_rng(4).integers(-9, 9, (3, 5))}
    for encodings in ({}, {"y": u8(0.02)}):
        graph = graph_of([Node("embedding", ("w", "i"), ("y",))], feeds, {"w": weight}, encodings)
        for bits in [None, 2, 3, 4] if hasattr(weight.format, "at") else [None]:
            compare(graph, feeds, exact=True, bits=bits)


def product_case(rng):
    """Shapes of a product with batches that broadcast, its operands seen through transposes or not."""
    m, k, n = (int(v) for v in rng.integers(1, 40, 3))
    batch = [(), (3,), (2, 3)][rng.integers(3)]
    a, b = [*batch, m, k], [*batch, k, n]
    if batch and rng.integers(3) == 0:
        a[0] = 1
    if batch and rng.integers(3) == 0:
        b = b[-2:]
    return a, b


@pytest.mark.parametrize("isa", ISAS)
def test_products_of_codes_are_equal(isa):
    """Zero points, clips, transposes on either side of a product and behind it: the reference's codes."""
    for seed in range(80):
        rng = np.random.default_rng([seed, 5])
        a, b = product_case(rng)
        feeds, nodes, names = {}, [], []
        encodings = {"a": u8(0.02, int(rng.integers(0, 256))), "b": u8(0.03, int(rng.choice([0, 128, 200])))}
        for name, shape in (("a", a), ("b", b)):
            turned = bool(rng.integers(2))
            feeds[name] = rng.normal(size=[*shape[:-2], shape[-1], shape[-2]] if turned else shape).astype(np.float32)
            if turned:
                order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
                nodes.append(Node("transpose", (name,), (name + "t",), {"perm": order}))
                encodings[name + "t"] = encodings[name]
            names.append(nodes[-1].outputs[0] if turned else name)
        clip = [None, (0.0, None), (-0.7, 0.9)][rng.integers(3)]
        nodes.append(Node("matmul", tuple(names), ("y",), {}, clip))
        if rng.integers(2):
            encodings["y"] = u8(0.05, 100)
        rank = max(len(a), len(b))
        if rank > 2 and rng.integers(2):
            nodes.append(Node("transpose", ("y",), ("z",), {"perm": (1, 0, *range(2, rank))}))
            if "y" in encodings:
                encodings["z"] = encodings["y"]
        compare(graph_of(nodes, feeds, {}, encodings), feeds, exact=True, isa=isa, threads=1 + seed % 2)


@pytest.mark.parametrize("isa", ISAS)
def test_float_products_are_close(isa):
    for seed in range(30):
        rng = np.random.default_rng([seed, 6])
        a, b = product_case(rng)
        feeds = {"a": rng.normal(size=a).astype(np.float32) / 4, "b": rng.normal(size=b).astype(np.float32)}
        encodings = [{}, {"a": u8(0.02)}][rng.integers(2)]
        compare(graph_of([Node("matmul", ("a", "b"), ("y",))], feeds, {}, encodings), feeds, isa=isa, threads=1 + seed % 2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("coded", [True, False])
def test_attention_is_one_step(isa, coded):
    """Product, scale, mask and softmax together, whatever the mask's shape and wherever the scale stands."""
    for seed in range(24):
        rng = np.random.default_rng([seed, 7])
        batch, heads, q, k, width = (int(v) for v in rng.integers(1, 5, 5) * [1, 1, 7, 9, 4])
        mask = [(batch, 1, 1, k), (q, k), (batch, heads, q, k), (1,), (q, 1)][seed % 5]
        feeds = {
            "q": rng.normal(size=(batch, heads, q, width)).astype(np.float32),
            "k": rng.normal(size=(batch, heads, k, width)).astype(np.float32),
            "m": np.where(rng.random(mask) < 0.3, -1e4, 0).astype(np.float32),
        }
        nodes = [Node("transpose", ("k",), ("kt",), {"perm": (0, 1, 3, 2)}), Node("matmul", ("q", "kt"), ("s",))]
        last = "s"
        if seed % 3:
            op = ("mul", "div")[seed % 2]
            nodes.append(Node(op, ("s", "c"), ("sc",)))
            last = "sc"
        if seed % 4:
            nodes.append(Node("add", ("m", last) if seed % 2 else (last, "m"), ("sm",)))
            last = "sm"
        nodes.append(Node("softmax", (last,), ("y",), {"axis": (-1, 3)[seed % 2]}))
        encodings = {"q": u8(0.02, 120), "k": u8(0.03, 140), "kt": u8(0.03, 140)} if coded else {}
        steps = 0.0
        if seed % 5 < 3:
            encodings["y"] = u8(1 / 255, 0)
            steps = 1 / 255
        if not seed % 4:
            del feeds["m"]
        compare(graph_of(nodes, feeds, {"c": np.float32(2.5)}, encodings), feeds, isa=isa, threads=1 + seed % 2, steps=steps)


@pytest.mark.parametrize("isa", ISAS)
def test_scores_may_be_the_sum_of_two_products(isa):
    """Content and position: one of the products is the mask of the other, whichever comes first and whatever scales them."""
    rng = np.random.default_rng(11)
    feeds = {name: rng.normal(size=(2, 3, 5, 4)).astype(np.float32) for name in ("q", "r", "k", "p")}
    turns = [Node("transpose", (name,), (name + "t",), {"perm": (0, 1, 3, 2)}) for name in ("k", "p")]
    products = [Node("matmul", ("q", "kt"), ("s",)), Node("matmul", ("r", "pt"), ("t",))]
    for scaled in ((), ("s",), ("t",), ("s", "t")):
        scales = [Node("mul", (name, "c"), (name + "c",)) for name in scaled]
        terms = tuple(name + "c" if name in scaled else name for name in ("s", "t"))
        for order in (terms, terms[::-1]):
            nodes = [*turns, *products, *scales, Node("add", order, ("sum",)), Node("softmax", ("sum",), ("y",))]
            compare(graph_of(nodes, feeds, {"c": np.float32(0.5)}), feeds, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_softmax_and_norms(isa):
    """Every axis and every norm, reals and codes on both sides."""
    rng = np.random.default_rng(8)
    feeds = {"x": rng.normal(size=(3, 8, 5, 7)).astype(np.float32) * 3}
    channel = {"s": rng.normal(size=8).astype(np.float32), "b": rng.normal(size=8).astype(np.float32)}
    row = {"s": rng.normal(size=7).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}
    rows = {"s": rng.normal(size=(5, 7)).astype(np.float32), "b": rng.normal(size=(5, 7)).astype(np.float32)}
    cases = [(Node(op, ("x",), ("y",), {"axis": axis}), {}) for op in ("softmax", "log_softmax") for axis in (0, 1, 2, 3, -1)]
    cases += [
        (Node("layer_norm", ("x", "s", "b"), ("y",)), row),
        (Node("layer_norm", ("x", "s"), ("y", "mean", "inverse"), {"epsilon": 1e-3}), row),
        (Node("layer_norm", ("x", "s", "b"), ("y",), {"axis": 2}), rows),
        (Node("rms_norm", ("x", "s"), ("y",)), row),
        (Node("instance_norm", ("x", "s", "b"), ("y",)), channel),
        (Node("group_norm", ("x", "s", "b"), ("y",), {"num_groups": 4}), channel),
    ]
    for node, constants in cases:
        if node.op == "log_softmax":  # spelt by importers as softmax and log
            continue
        for encodings, steps in (({}, 0), ({"x": u8(0.05)}, 0), ({"x": u8(0.05), "y": u8(0.02, 99)}, 0.02)):
            outputs = None if encodings else node.outputs
            compare(graph_of([node], feeds, constants, encodings, outputs), feeds, isa=isa, threads=2, steps=steps)


def test_addition_before_a_norm_is_one_step():
    rng = np.random.default_rng(9)
    feeds = {k: rng.normal(size=(2, 5, 24)).astype(np.float32) for k in "ab"}
    constants = {"s": rng.normal(size=24).astype(np.float32), "t": rng.normal(size=24).astype(np.float32)}
    nodes = [Node("add", ("a", "b"), ("c",)), Node("layer_norm", ("c", "s", "t"), ("y",))]
    for encodings in ({}, {"a": u8(0.02)}, {"b": u8(0.02, 90)}, {"a": u8(0.02), "b": u8(0.03)}):
        compare(graph_of(nodes, feeds, constants, encodings), feeds)
        assert [s.kernel for s in Engine(graph_of(nodes, feeds, constants, encodings)).profile(feeds)].count("add + norm") == 1
    compare(graph_of(nodes, feeds, constants, {"a": u8(0.02), "y": u8(0.02)}), feeds, steps=0.02)


REDUCTIONS = ["reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min", "reduce_l2", "reduce_log_sum_exp"]


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(op):
    rng = np.random.default_rng(10)
    feeds = {"x": rng.normal(size=(3, 4, 5, 6)).astype(np.float32)}
    for axes in ((1,), (-1,), (0, 2), (2, 3), (0, 1, 2, 3), None):
        for keepdims in (0, 1):
            constants = {} if axes is None else {"axes": ints(*axes)}
            node = Node(op, ("x", *constants), ("y",), {"keepdims": keepdims})
            compare(graph_of([node], feeds, constants), feeds)
            if op == "reduce_mean":
                encodings = {"x": u8(0.02, 100), "y": u8(0.01, 90)}
                compare(graph_of([node], feeds, constants, encodings), feeds, exact=True)


def test_places_and_running_sums():
    rng = np.random.default_rng(11)
    feeds = {"x": rng.integers(-4, 5, (3, 4, 5)).astype(np.float32)}
    for axis in (0, 1, -1):
        for op in ("arg_max", "arg_min"):
            for attrs in ({}, {"keepdims": 0}, {"select_last_index": 1}):
                compare(graph_of([Node(op, ("x",), ("y",), {"axis": axis, **attrs})], feeds), feeds)
        for op in ("cum_sum", "cum_prod"):
            for attrs in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
                compare(graph_of([Node(op, ("x", "a"), ("y",), attrs)], feeds, {"a": np.array(axis)}), feeds)


@pytest.mark.parametrize("text", ["float", "int8", "nested8"])
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
def test_recurrence(op, text):
    """Directions, layouts, lengths, first states, peepholes and both kinds of reset; weights as floats or codes."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[op]
    for seed in range(16):
        rng = np.random.default_rng([seed, 12])
        direction = ("forward", "reverse", "bidirectional")[seed % 3]
        ways, layout = 1 + (seed % 3 == 2), int(rng.integers(2))
        time, batch, width, hidden = (int(v) for v in rng.integers(1, 7, 4) * [1, 1, 5, 6])
        state = (batch, ways, hidden) if layout else (ways, batch, hidden)
        feeds = {"x": rng.normal(size=(batch, time, width) if layout else (time, batch, width)).astype(np.float32)}
        constants = {
            "w": rng.normal(size=(ways, gates * hidden, width)).astype(np.float32) / 3,
            "r": rng.normal(size=(ways, gates * hidden, hidden)).astype(np.float32) / 3,
        }
        if text != "float":
            constants = {k: QTensor.of(w, fit(parse(text), w, axis=1)) for k, w in constants.items()}
        slots = ["x", "w", "r", "", "", "", "", ""]
        if rng.integers(2):
            constants["b"], slots[3] = rng.normal(size=(ways, 2 * gates * hidden)).astype(np.float32), "b"
        if rng.integers(2):
            constants["n"], slots[4] = rng.integers(0, time + 1, batch), "n"
        if rng.integers(2):
            feeds["h0"], slots[5] = rng.normal(size=state).astype(np.float32), "h0"
        if op == "lstm" and rng.integers(2):
            feeds["c0"], slots[6] = rng.normal(size=state).astype(np.float32), "c0"
        if op == "lstm" and rng.integers(2):
            constants["p"], slots[7] = rng.normal(size=(ways, 3 * hidden)).astype(np.float32), "p"
        attrs = {"direction": direction, "layout": layout, "hidden_size": hidden}
        if op == "gru":
            attrs["linear_before_reset"] = seed % 2
        if seed % 4 == 3:
            attrs["clip"] = 0.6
        if op == "rnn" and seed % 2:
            attrs["activations"] = ("Relu",) * ways
        outputs = ("y", "h", "c")[: 3 if op == "lstm" else 2]
        while not slots[-1]:
            slots.pop()
        graph = graph_of([Node(op, tuple(slots), outputs, attrs)], feeds, constants, {}, outputs)
        for bits in (None, 3) if text == "nested8" else (None,):
            compare(graph, feeds, bits=bits, threads=1 + seed % 2)


def transformer(torch, width=32, heads=4):
    """A small encoder in torch, with what exporters make of shapes, masks and positions."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
            self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x, bias):
            split = lambda a: a.view(*x.shape[:2], heads, -1).transpose(1, 2)
            q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
            scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5 + bias
            x = self.n1(x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)))
            return self.n2(x + self.down(nn.functional.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.norm = nn.Embedding(50, width), nn.Embedding(16, width), nn.LayerNorm(width)
            self.first, self.second = Block(), Block()

        def forward(self, ids, mask):
            x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
            bias = (1 - mask[:, None, None, :].float()) * -1e4
            x = self.second(self.first(x, bias), bias)
            return (x * mask[:, :, None].float()).sum(1) / mask.sum(1, keepdim=True)

    torch.manual_seed(0)
    return Encoder().eval()


@pytest.mark.parametrize("plan", ["int8", "nested8", "fixed8"])
def test_a_transformer_runs_in_fused_steps(plan):
    """A quantized encoder: one piece, attention and residuals fused, near the reference, the same on every thread count."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(13)
    feeds = {"ids": rng.integers(0, 50, (4, 12)), "mask": np.ones((4, 12), np.int64)}
    feeds["mask"][1, 7:] = 0
    graph = bl.quantize(transformer(torch), [feeds], plan=plan, effort="fast").graph
    want = run(graph, feeds)
    results = {}
    for isa in ISAS:
        for threads in (1, 3):
            engine = Engine(graph, threads=threads, isa=isa)
            got = engine.run(feeds)
            assert [p.reason for p in engine.pieces()] == [""], engine.foreign
            kernels = [s.kernel for s in engine.profile(feeds)]
            assert kernels.count("product + softmax") == 2, kernels
            assert kernels.count("add + norm") == 4, kernels  # places are broadcast over the batch
            for name, y in want.items():
                assert np.max(np.abs(got[name] - y)) < 0.05 * np.max(np.abs(y)), (isa, name)
                results.setdefault(isa, got[name])
                assert np.array_equal(results[isa], got[name]), (isa, threads)
