"""Criteria, orders, searches, the journal, and the class-count rule."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder.assign.classes import GRADIENTS, class_bits, floors, head_of, heads, lifted, nonzero_fraction, searchable
from bitladder.assign.criteria import CRITERIA, low_steps, order, weight_difference
from bitladder.assign.journal import Journal
from bitladder.assign.search import SEARCHES, also, bisection, budget, count, halving, multi_level
from bitladder.formats import QTensor, fit, parse
from bitladder.ir.graph import Graph, Node, Value
from bitladder.stats.differences import Differences, Learned

LAYERS = tuple(f"layer{i:02}" for i in range(95))


def sizes(choice):
    """How many layers each trial had."""
    return [len(trial.names) for trial in choice.trace]


def steady(slope):
    """A loss that rises with every layer."""
    return lambda names: slope * len(names)


# ------------------------------------------------------------------------------------------------------ halving


def test_halving_visits_what_the_patent_says():
    """95 layers: 47, 23, 11, 5, 2, 1, then nothing, with a warning and the threshold not met."""
    found = halving(LAYERS, lambda names: 1.0, 0.01)
    assert sizes(found) == [47, 23, 11, 5, 2, 1]
    assert (found.chosen, found.met, found.evaluations) == ((), False, 6)
    assert "no set of layers" in found.notes[-1]


def test_halving_stops_at_the_first_success():
    """It never tries a larger set after a success."""
    found = halving(LAYERS, steady(0.001), 0.012)
    assert sizes(found) == [47, 23, 11]
    assert found.chosen == LAYERS[:11]
    assert found.met
    assert found.loss == pytest.approx(0.011)


def test_halving_accepts_few_layers_when_told_and_says_so():
    """With accept_at_most = 5 the set of 5 is taken beyond the threshold, and `met` is False."""
    found = halving(LAYERS, lambda names: 1.0, 0.01, accept_at_most=5)
    assert sizes(found) == [47, 23, 11, 5]
    assert (len(found.chosen), found.met) == (5, False)


@pytest.mark.parametrize("n", [0, 1])
def test_halving_of_nothing(n):
    """Half of none or one is none: no evaluation, nothing chosen."""
    found = halving(LAYERS[:n], lambda names: 0.0, 0.01)
    assert (found.chosen, found.met, found.evaluations) == ((), False, 0)


# ---------------------------------------------------------------------------------------------------- bisection


@given(st.integers(0, 200), st.integers(0, 200))
def test_bisection_finds_the_largest_in_few_evaluations(n, limit):
    """For a rising loss: the exact number, in at most ceil(log2(N + 1)) evaluations."""
    names = tuple(map(str, range(n)))
    found = bisection(names, steady(1.0), limit)
    assert found.chosen == names[: min(n, limit)]
    assert found.met
    assert found.evaluations <= math.ceil(math.log2(n + 1))


@given(st.lists(st.floats(-1, 1), max_size=40), st.floats(-0.5, 0.5), st.integers(0, 3), st.sampled_from([halving, bisection]))
def test_any_loss_is_respected(losses, threshold, walk, search):
    """However uneven the loss, a choice that says it is within the threshold is, and its loss is the measured one."""
    names = tuple(map(str, range(len(losses))))
    options = {"walk": walk} if search is bisection else {}
    found = search(names, lambda tried: losses[len(tried) - 1], threshold, **options)
    assert found.chosen == names[: len(found.chosen)]
    if found.chosen:
        assert found.met
        assert found.loss == losses[len(found.chosen) - 1] <= threshold + 1e-9
    assert found.met <= (found.loss <= threshold + 1e-9)
    assert found.evaluations <= math.ceil(math.log2(len(names) + 1)) + walk


def test_walk_looks_beyond_a_bump():
    """Where the loss is uneven, walking finds a longer set that passes; without it the note says that losses are noise."""
    losses = dict(enumerate([0, 0, 0, 0, 9, 2, 0, 9]))
    loss = lambda names: losses[len(names)]
    plain, walked = (bisection(tuple("abcdefg"), loss, 1, walk=w) for w in (0, 2))
    assert (len(plain.chosen), len(walked.chosen)) == (3, 6)
    assert (plain.evaluations, walked.evaluations) == (3, 5)
    assert any("noise" in note for note in walked.notes)


@pytest.mark.parametrize(("n", "want"), [(0, 0), (1, 1)])
def test_bisection_of_none_and_one(n, want):
    """No layers: nothing to do; one layer: one evaluation."""
    found = bisection(LAYERS[:n], lambda names: 0.0, 0.01)
    assert (len(found.chosen), found.met, found.evaluations) == (want, True, want)


def test_bisection_of_95_needs_seven():
    """The figure the patent's procedure is compared with."""
    assert bisection(LAYERS, steady(0.001), 0.05).evaluations == 7


def test_nan_counts_as_failed():
    """A loss that is no number never passes, and a note says that it happened."""
    found = bisection(LAYERS[:4], lambda names: math.nan, 1.0)
    assert found.chosen == ()
    assert any("not numbers" in note for note in found.notes)


def test_coarse_evaluation_is_noted():
    """100 samples cannot resolve one percent; 1,000 can."""
    assert "too coarse" in bisection(LAYERS, steady(0.001), 0.01, samples=100).notes[0]
    assert not bisection(LAYERS, steady(0.001), 0.01, samples=1000).notes


def test_losses_are_asked_for_once():
    """A set is evaluated once however often it comes up, and never again when the memo has it."""
    asked, memo = [], {}

    def loss(names):
        asked.append(names)
        return 0.001 * len(names)

    first = bisection(LAYERS, loss, 0.02, walk=3, memo=memo)
    again = bisection(LAYERS, loss, 0.02, walk=3, memo=memo)
    assert len(asked) == len(set(asked)) == first.evaluations
    assert (again.chosen, again.trace, again.evaluations) == (first.chosen, first.trace, 0)


def test_count():
    """The number that was asked for, unmeasured or measured; a number beyond the layers is refused."""
    assert count(LAYERS, 3).chosen == LAYERS[:3]
    measured = count(LAYERS, 3, steady(1.0), 2.0)
    assert (measured.chosen, measured.met, measured.loss) == (LAYERS[:3], False, 3.0)
    with pytest.raises(ValueError, match="must be 0 to 95, got 96"):
        count(LAYERS, 96)


# ------------------------------------------------------------------------------------------------ several widths


def test_budget_goes_down_level_by_level():
    """All layers reach 4 bits before one reaches 3; the last step is the one that meets the budget."""
    names = tuple("abcd")
    found = budget(names, lambda plan: sum(plan.values()), 15)
    assert found.plan == {"a": 3, "b": 4, "c": 4, "d": 4}
    assert found.met
    assert found.evaluations <= math.ceil(math.log2(3 * 4 + 1)) + 1


@given(st.integers(0, 12), st.integers(0, 100))
def test_budget_is_the_first_step_that_meets_it(n, target):
    """The same plan as walking down one step at a time."""
    names = tuple(map(str, range(n)))
    found = budget(names, lambda plan: sum(plan.values()), target, (8, 4, 2))
    plan = dict.fromkeys(names, 8)
    for bits in (4, 2):
        for name in names:
            if sum(plan.values()) > target:
                plan[name] = bits
    assert found.plan == plan
    assert found.met == (sum(plan.values()) <= target)


def test_budget_respects_heads_and_says_when_it_cannot():
    """A head stays at its floor; an impossible budget gives the smallest plan and a line with the least possible."""
    found = budget(("head", "a"), lambda plan: sum(plan.values()), 5, floors={"head": 11})
    assert found.plan == {"head": 11, "a": 2}
    assert not found.met
    assert "must be at least 13" in found.notes[0]


def test_levels_are_nested_and_share_the_threshold():
    """The set at 3 bits lies within the set at 4; the whole plan stays within the whole threshold."""
    price = {4: 1.0, 3: 2.5, 2: 6.0}
    found = multi_level(LAYERS[:30], lambda plan: sum(price[b] for b in plan.values()), 30.0)
    at = {b: {n for n, bits in found.plan.items() if bits <= b} for b in (4, 3, 2)}
    assert at[2] <= at[3] <= at[4]
    assert len(at[4]) == 10
    assert len(at[3]) == 6
    assert found.loss == sum(price[b] for b in found.plan.values()) <= 30.0
    assert found.met
    assert found.evaluations == len(found.trace)


def test_silent_layers_must_pass():
    """Layers without information join only if the loss of all together allows."""
    base = bisection(("a", "b"), steady(1.0), 2.0)
    assert also(base, ("frozen",), steady(1.0), 2.0).chosen == ("a", "b")
    assert also(base, ("frozen",), steady(0.5), 2.0).chosen == ("a", "b", "frozen")


def test_tables_are_complete():
    """Every name that the command line takes is there, with what it needs."""
    assert list(CRITERIA) == ["weight_difference", "range", "accuracy", "error", "gradient", "divergence", "random"]
    assert {"halving", "bisection", "count", "budget"} <= set(SEARCHES)


# ------------------------------------------------------------------------------------------------------ journal


def test_journal_goes_on_where_it_stopped(tmp_path):
    """What was written is there again, exactly; a torn last line is dropped and written over."""
    path = tmp_path / "search.jsonl"
    first = Journal(path, "net 1")
    first["a|b"], first["c"] = 0.1 + 0.2, math.inf
    with path.open("ab") as file:
        file.write(b'00000000 {"key": "torn"')
    again = Journal(path, "net 1")
    assert dict(again) == {"a|b": 0.1 + 0.2, "c": math.inf}
    again["d"] = 2.0
    assert len(Journal(path, "net 1")) == 3


@given(cut=st.integers(0, 300), flip=st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_journal_survives_damage(tmp_path_factory, cut, flip):
    """Any cut or flipped byte loses entries from the end only, and never gives a wrong number."""
    path = tmp_path_factory.mktemp("journal") / "search.jsonl"
    written = Journal(path, "net")
    for i in range(5):
        written[f"layer{i}"] = i / 3
    data = bytearray(path.read_bytes())
    data[min(flip, len(data) - 1)] ^= 1
    path.write_bytes(bytes(data[: max(len(data) - cut, 0)]))
    kept = dict(Journal(path, "net"))
    assert kept == {f"layer{i}": i / 3 for i in range(len(kept))}


def test_journal_of_another_network_is_not_believed(tmp_path):
    """Numbers about something else are dropped, with a line that says so."""
    Journal(tmp_path / "j", "net 1")["a"] = 1.0
    other = Journal(tmp_path / "j", "net 2")
    assert dict(other) == {}
    assert "started anew" in other.fresh


# ------------------------------------------------------------------------------------------------------ criteria


def network(classes=10, **changes):
    """Two linear layers with a softmax behind them."""
    rng = np.random.default_rng(0)
    constants = {
        "first.weight": rng.standard_normal((6, 4)).astype(np.float32),
        "last.weight": 0.1 * rng.standard_normal((classes, 6)).astype(np.float32),
        "last.bias": np.zeros(classes, np.float32),
    }
    nodes = (
        Node("linear", ("x", "first.weight"), ("h",), clip=(0.0, None)),
        Node("linear", ("h", "last.weight", "last.bias"), ("logits",)),
        Node("softmax", ("logits",), ("y",), {"axis": -1}),
    )
    return Graph(
        **{"inputs": (Value("x", shape=("n", 4)),), "outputs": ("y",), "nodes": nodes, "constants": constants, **changes}
    )


def learned(moves, rates=None):
    """What learning leaves behind when each layer moves by the given amount in every cycle."""
    differences = {name: Differences().update(np.full((2, 2), d)) for name, d in moves.items()}
    initial = {name: np.full((2, 2), 2.0, np.float32) for name in moves}
    return Learned(differences, initial, rates or dict.fromkeys(moves, 0.1))


def test_every_criterion_gives_a_number_per_layer():
    """The same names in the order of the graph, and nothing that is no number."""
    graph = network()
    names = tuple(name for name, _ in graph.weights())
    given = {"graph": graph, "low": parse("fixed4"), "names": names, "seed": 3, "loss": steady(1.0)}
    given |= {"apart": steady(0.5), "samples": {"x": np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)}}
    given["codes"] = {n: QTensor.of(graph.constants[n], fit(parse("nested3"), graph.constants[n], axis=0)) for n in names}
    given["learned"] = Learned(
        {n: Differences().update(graph.constants[n]) for n in names},
        {n: graph.constants[n] for n in names},
        dict.fromkeys(names, 0.1),
    )
    for criterion in CRITERIA.values():
        values = criterion.values(*(given[need] for need in criterion.needs))
        assert tuple(values) == names
        assert np.isfinite(list(values.values())).all()
        assert set(criterion.order(values).ranked) == set(names)


def test_weight_difference_normalizations():
    """Literal, by size, by the low-precision step, and by learning rates where they differ."""
    told = learned({"a": 1.0, "b": 3.0})
    assert weight_difference(told) == {"a": 1.0, "b": 9.0}
    assert weight_difference(told, normalize="relative") == {"a": 0.25, "b": 2.25}
    assert weight_difference(told, normalize="step", steps={"a": 0.5, "b": np.full((2, 1), 2.0)}) == {"a": 4.0, "b": 2.25}
    assert weight_difference(learned({"a": 1.0, "b": 3.0}, {"a": 0.5, "b": 1.0})) == {"a": 4.0, "b": 9.0}


def test_low_steps_are_the_formats():
    """One positive step per output channel."""
    steps = low_steps(network(), parse("fixed4"))
    assert {name: step.shape for name, step in steps.items()} == {"first.weight": (6, 1), "last.weight": (10, 1)}
    assert all((step > 0).all() for step in steps.values())


def test_order_sets_silent_layers_apart():
    """Frozen layers are listed at the end, and the one exclusion is not wasted on them; ties keep the graph's order."""
    values = {"frozen": 0.0, "b": 2.0, "a": 2.0, "small": 1.0, "odd": math.nan}
    assert order(values).ranked == ("small", "b", "a")
    assert order(values).silent == ("frozen", "odd")
    skipped = order(values, skip_smallest=True)
    assert (skipped.ranked, skipped.skipped) == (("b", "a"), ("small",))
    assert order(values, zero_is_silence=False).ranked[0] == "frozen"
    assert CRITERIA["accuracy"].order({"a": 1.0, "b": 0.0}).ranked == ("b", "a")


def test_order_takes_patterns():
    """Names or shell patterns choose layers; a pattern that matches nothing is an error that lists the layers."""
    values = {"layer1.conv": 2.0, "layer2.conv": 1.0, "fc": 3.0}
    assert order(values, only=["layer*"]).ranked == ("layer2.conv", "layer1.conv")
    with pytest.raises(ValueError, match="'head' must match a layer"):
        order(values, only=["head"])


def test_random_order_is_the_seeds():
    """The same seed gives the same order, another one another."""
    shuffled = [tuple(order(CRITERIA["random"].values(LAYERS, seed), zero_is_silence=False).ranked) for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert set(shuffled[0]) == set(LAYERS)


# ---------------------------------------------------------------------------------------------- classes and heads


def test_class_bits_worked_values():
    """The table of the specification, for weights and for gradients."""
    weights = {2: 8, 16: 8, 17: 9, 32: 9, 64: 10, 100: 11, 1000: 14, 21841: 16}
    gradients = {2: 16, 16: 16, 100: 19, 1000: 22, 21841: 27}
    assert {c: class_bits(c) for c in weights} == weights
    assert {c: class_bits(c, **GRADIENTS) for c in gradients} == gradients
    assert class_bits(21841, most=32) == 19


@given(st.integers(1, 10**6), st.sampled_from(["log2", "threshold", "linear"]), st.sampled_from([{}, GRADIENTS]))
def test_class_bits_rise_within_bounds(classes, mode, kind):
    """More classes never get fewer bits, and no rule leaves its bounds."""
    here, more = (class_bits(c, mode=mode, **kind) for c in (classes, classes + 1))
    base, most = kind.get("base", 8), kind.get("most", 16)
    assert base <= here <= more <= most


def test_class_bits_other_modes():
    """Threshold, literal proportion, and a table that comes with the network."""
    assert [class_bits(c, mode="threshold", high=12) for c in (99, 100)] == [8, 12]
    assert [class_bits(c, mode="linear") for c in (10, 20, 1000)] == [8, 10, 16]
    table = [[1, 8], [50, 10], [500, 13]]
    assert [class_bits(c, mode="table", table=table) for c in (10, 50, 499, 500)] == [8, 10, 10, 13]
    with pytest.raises(ValueError, match="needs rows"):
        class_bits(10, mode="table")
    with pytest.raises(ValueError, match="mode must be one of log2"):
        class_bits(10, mode="square")


def test_head_storage_is_reported():
    """A 2048 x 1000 head at 14 bits costs 1.5 MB more than at 8."""
    assert head_of(1000).extra_bytes(2048 * 1000) == 1_536_000


def test_heads_are_the_last_weighted_layers():
    """Found through the softmax, with their classes; a number stored with the graph wins."""
    assert heads(network(1000)) == {"last.weight": 1000}
    assert heads(network(1000, meta={"classes": {"last.weight": 20}})) == {"last.weight": 20}


def test_heads_of_several_outputs_and_groups():
    """One entry per head; anchors times classes are told apart by the softmax axis; attention is a wall."""
    w = {n: np.ones(s, np.float32) for n, s in {"box": (36, 8, 1, 1), "cls": (189, 8, 1, 1), "up": (8, 3, 2, 2)}.items()}
    nodes = (
        Node("conv_transpose", ("x", "up"), ("f",), {"groups": 2}),
        Node("conv", ("f", "box"), ("boxes",)),
        Node("conv", ("f", "cls"), ("c",)),
        Node("transpose", ("c",), ("t",), {"perm": (0, 2, 3, 1)}),
        Node("reshape", ("t", "target"), ("r",)),
        Node("softmax", ("r",), ("scores",), {"axis": -1}),
        Node("layer_norm", ("f", "", ""), ("embedding",)),
        Node("global_avg_pool", ("f",), ("pooled",)),
    )
    constants = {**w, "target": np.array([0, -1, 21])}
    graph = Graph((Value("x"),), ("boxes", "scores", "embedding"), nodes, constants)
    assert heads(graph) == {"box": 36, "cls": 21}
    assert heads(graph.with_(outputs=("pooled",))) == {"up": 6}


def test_heads_survive_a_search():
    """A head whose rule asks for more than the low width is never offered, and a plan is lifted to its floor."""
    least = floors(heads(network(1000)))
    names = ("first.weight", "last.weight")
    assert least == {"last.weight": 14}
    assert searchable(names, least, 4) == ("first.weight",)
    assert lifted({n: 4 for n in names}, least) == {"first.weight": 4, "last.weight": 14}
    assert searchable(names, floors(heads(network(10)), above=100), 4) == names


@pytest.mark.parametrize("classes", [10, 100, 1000, 10000])
def test_gradients_survive_with_the_rule(classes):
    """At initialisation at least 90 % of the head's gradients are not zero with the rule's bits, at 10 to 10,000 classes;
    with 8 bits and one scale for the tensor fewer than 10 % are left at 1,000."""
    rng = np.random.default_rng(classes)
    logits = 0.5 * rng.standard_normal((16, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradient = p.copy()
    gradient[np.arange(16), rng.integers(0, classes, 16)] -= 1
    assert nonzero_fraction(gradient, class_bits(classes, **GRADIENTS)) >= 0.9
    if classes >= 1000:
        assert nonzero_fraction(gradient, 8) < 0.1
