"""The dial: choices are monotone, escalation is plain running where it should be, costs are counted exactly."""

import doctest
import importlib
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import coded, convnet, fixed_points

import bitladder as bl
from bitladder import device, dial
from bitladder.ir.graph import Graph, Node, Value

X = np.random.default_rng(0).normal(size=(23, 2, 6, 6)).astype(np.float32)
WIDTHS = (2, 4, 8)
MODULES = ("", ".cascade", ".climb", ".escalation", ".layers", ".rungs", ".samples", ".tasks")


@pytest.fixture(scope="module")
def model():
    return bl.Model(convnet())


def two_heads():
    """A trunk with two outputs: ten scores and three scores."""
    return bl.Model(
        Graph(
            inputs=(Value("x", "float32", ("batch", 6)),),
            outputs=("fine", "coarse"),
            nodes=(
                Node("linear", ("x", "trunk"), ("h",), {}, (0.0, None)),
                Node("linear", ("h", "head1"), ("fine",)),
                Node("linear", ("h", "head2"), ("coarse",)),
            ),
            constants={
                "trunk": coded("nested8", (16, 6), 1),
                "head1": coded("nested8", (10, 16), 2),
                "head2": coded("nested8", (3, 16), 3),
            },
            encodings={"x": fixed_points(8, 5), "h": fixed_points(8, 4)},
        )
    )


def test_examples_run():
    """What docstrings show is true."""
    results = [doctest.testmod(importlib.import_module(f"bitladder.dial{name}")) for name in MODULES]
    assert not sum(r.failed for r in results)
    assert sum(r.attempted for r in results) > 8


# ------------------------------------------------------------------------------------------------------------ choosing


def rungs(with_accuracy=True):
    """Tables of any numbers: slower at fewer bits, less accurate at more, whatever chance gives."""
    number = st.floats(0, 1, width=32)
    accuracy = number if with_accuracy else st.none()
    row = st.tuples(accuracy, st.floats(0, 10, width=32), st.integers(1, 1000))
    tables = st.dictionaries(st.integers(1, 8), row, min_size=1)
    return tables.map(lambda t: dial.Rungs(tuple(dial.Rung(b, *r) for b, r in t.items())))


def chosen(table, **demands):
    """The width, or None where what is asked for is refused."""
    try:
        return dial.choose(table, **demands)
    except ValueError as error:
        said = str(error)
    assert said.startswith("choose: ")
    assert "\n" not in said
    return None


DEMANDS = {
    "milliseconds": st.floats(0, 10, width=32),
    "max_bytes": st.integers(0, 1000),
    "accuracy": st.floats(0, 1, width=32),
    "difficulty": st.floats(0, 1, width=32),
    "terminal": st.builds(
        lambda cache, memory: device.Terminal(caches=(1, cache), memory=memory), st.integers(1, 1000), st.integers(1, 1000)
    ),
}
demands = st.fixed_dictionaries({}, optional=DEMANDS)


@pytest.mark.parametrize("name", ["milliseconds", "max_bytes", "accuracy", "difficulty"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_choices_are_monotone(name, data):
    """Whatever else is required: more speed never gives more bits, more accuracy or difficulty never fewer."""
    table, others = data.draw(rungs(data.draw(st.booleans()) or name == "accuracy")), data.draw(demands)
    low, high = sorted(data.draw(st.tuples(DEMANDS[name], DEMANDS[name])))
    strict, loose = (low, high) if name in ("milliseconds", "max_bytes") else (high, low)
    at_strict, at_loose = (chosen(table, **{**others, name: value}) for value in (strict, loose))
    if at_strict is not None:
        assert at_loose is not None, "what is possible stays possible when less is asked"
        assert at_strict <= at_loose if name in ("milliseconds", "max_bytes") else at_strict >= at_loose


@settings(max_examples=100, deadline=None)
@given(table=rungs(), small=st.integers(1, 1000), large=st.integers(1, 1000), limit=st.floats(0, 10, width=32))
def test_a_larger_cache_never_gives_fewer_bits(table, small, large, limit):
    """With the same memory, whatever speed is required."""
    small, large = sorted((small, large))
    a, b = (chosen(table, terminal=device.Terminal(caches=(size,)), milliseconds=limit) for size in (small, large))
    assert (a is None) == (b is None)
    assert a is None or a <= b


@settings(max_examples=100, deadline=None)
@given(table=rungs(), others=demands)
def test_what_is_chosen_is_what_was_required(table, others):
    """The width chosen satisfies every demand, and reaches what narrower ones do not."""
    bits = chosen(table, **others)
    if bits is None:
        return
    (rung,) = (r for r in table if r.bits == bits)
    assert rung.milliseconds <= others.get("milliseconds", inf)
    assert rung.nbytes <= min(others.get("max_bytes", inf), getattr(others.get("terminal"), "memory", inf))
    assert rung.accuracy >= others.get("accuracy", 0)
    if set(others) == {"accuracy"}:
        assert all(r.accuracy < others["accuracy"] for r in table if r.bits < bits)


TABLE = dial.Rungs((dial.Rung(2, 0.86, 1.0, 250), dial.Rung(4, 0.89, 1.5, 500), dial.Rung(8, 0.88, 2.0, 1000)))


def test_choices_by_each_demand():
    """Worked values of every kind of demand."""
    assert [dial.choose(TABLE, difficulty=d) for d in (0, 0.5, 1)] == [2, 4, 4]
    assert dial.choose(TABLE, terminal=device.Terminal(caches=(300,))) == 2
    assert dial.choose(TABLE, terminal=device.Terminal(caches=(10,))) == 2, "nothing fits: the fewest bytes"
    assert dial.choose(TABLE, terminal=device.Terminal(caches=(10_000,))) == 4, "the most accurate, not the widest"
    assert dial.choose(TABLE, terminal=device.Terminal(caches=(300,)), accuracy=0.87) == 4, "a cache is no limit"
    plain = dial.Rungs(tuple(dial.Rung(b) for b in (2, 4, 8)))
    assert [dial.choose(plain, difficulty=d) for d in (0, 0.5, 1)] == [2, 4, 8]
    assert dial.choose(plain) == 8


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ({"milliseconds": 0.5}, "choose: milliseconds must be at least 1, which 2 bits take, got 0.5"),
        ({"max_bytes": 100}, "choose: bytes must be at least 250, which 2 bits take, got 100"),
        ({"terminal": device.Terminal(memory=10)}, "choose: bytes must be at least 250, which 2 bits take, got 10"),
        ({"accuracy": 0.95}, "choose: accuracy must be at most 0.89, which 4 bits reach, got 0.95"),
        (
            {"accuracy": 0.88, "milliseconds": 1.2},
            "choose: what is required needs 4 bits, the limits leave 2, accuracy 0.86; "
            "allow 1.5 milliseconds and 500 bytes or ask for less",
        ),
        ({"difficulty": 1.5}, "choose: difficulty must be from 0 (easy) to 1 (hard), got 1.5"),
    ],
)
def test_impossible_demands_say_what_is_possible(demand, words):
    """One line with the nearest that there is."""
    with pytest.raises(ValueError) as caught:
        dial.choose(TABLE, **demand)
    assert str(caught.value) == words


def test_what_was_not_measured_cannot_be_required():
    """Limits of time need times, demands of accuracy accuracies."""
    plain = dial.Rungs((dial.Rung(2), dial.Rung(4)))
    for demand in ({"milliseconds": 1}, {"max_bytes": 1}, {"accuracy": 0.5}):
        with pytest.raises(ValueError, match="the rungs do not all have"):
            dial.choose(plain, **demand)


def test_rungs_are_measured_and_kept_in_the_file(model, tmp_path):
    """Accuracy with its interval, times and bytes; the table comes back with the network, whose planes stay as they were."""
    narrow = model.at(3)(X).argmax(1)
    table = dial.measure_rungs(model, lambda m: m(X).argmax(1) == narrow, X[:1], widths=WIDTHS, repeats=2)
    assert [r.bits for r in table] == list(WIDTHS)
    assert all(r.spread is not None and r.low <= r.milliseconds <= r.high for r in table)
    assert [r.nbytes for r in table] == [device.weight_bytes(model.at(b)) for b in WIDTHS]
    table.kept(model).save(tmp_path / "net.ladder")
    back = bl.load(tmp_path / "net.ladder")
    assert dial.Rungs.of(back) == table
    assert dial.Rungs.of(back.at(4)) == table
    assert np.array_equal(back(X), model(X))
    assert "bits" in str(table)
    with pytest.raises(ValueError, match="rungs: this network keeps none"):
        dial.Rungs.of(model)


def test_rungs_of_another_terminal():
    """Times are replaced, the rest stays; rungs that a wider one beats can be left out."""
    times = device.Times({2: device.Time(3.0, 2.0, 4.0), 4: device.Time(2.0, 2.0, 2.0)})
    there = TABLE.timed(times)
    assert [r.milliseconds for r in there] == [3.0, 2.0, None]
    assert [r.accuracy for r in there] == [r.accuracy for r in TABLE]
    assert [r.bits for r in there.unbeaten()] == [4, 8]
    assert TABLE.unbeaten() == TABLE


@pytest.mark.parametrize(
    "said", [3, [{"bits": "2"}], [{"bits": 2, "name": 1}], [{}], [{"bits": 2, "accuracy": "high"}], [], [None]]
)
def test_a_table_that_is_none_is_refused(said):
    """Meta of a file is anybody's: one line."""
    with pytest.raises(ValueError, match=r"^rungs: "):
        dial.Rungs.of_json(said)


# -------------------------------------------------------------------------------------------------------------- layers

tables = st.dictionaries(
    st.sampled_from("abcde"),
    st.dictionaries(st.integers(1, 8), st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1),
    min_size=1,
)


def columns(found):
    return ({n: {b: float(r[i]) for b, r in t.items()} for n, t in found.items()} for i in (0, 1))


def layers(found, **demands):
    costs, losses = columns(found)
    try:
        return dial.choose_layers(costs, losses, **demands)
    except ValueError as error:
        said = str(error)
    assert said.startswith("choose_layers: ")
    return None


@settings(max_examples=150, deadline=None)
@given(found=tables, a=st.floats(0, 200), b=st.floats(0, 200), name=st.sampled_from(["budget", "max_loss"]))
def test_layers_are_monotone(found, a, b, name):
    """A tighter budget gives no weight more bits, a tighter loss none fewer; and what was required holds."""
    tight, loose = (layers(found, **{name: value}) for value in sorted((a, b)))
    if tight is None:
        return
    assert loose is not None
    assert all(tight[n] <= loose[n] if name == "budget" else tight[n] >= loose[n] for n in found)
    costs, losses = columns(found)
    total = sum((costs if name == "budget" else losses)[n][tight[n]] for n in found)
    assert total <= min(a, b)


def test_layers_take_what_saves_most():
    """The budget goes where a unit of it saves the most loss, and both demands together spend no more than needed."""
    costs = {"a": {2: 1, 4: 2, 8: 4}, "b": {2: 10, 4: 20, 8: 40}}
    losses = {"a": {2: 5, 4: 1, 8: 0}, "b": {2: 5, 4: 4, 8: 0}}
    assert dial.choose_layers(costs, losses, budget=12) == {"a": 4, "b": 2}
    assert dial.choose_layers(costs, losses, max_loss=5) == {"a": 8, "b": 2}
    assert dial.choose_layers(costs, losses, max_loss=0) == {"a": 8, "b": 8}
    assert dial.choose_layers(costs, losses, budget=100, max_loss=5) == {"a": 8, "b": 2}
    for demands, words in (
        ({"budget": 5}, "budget must be at least 11, the cheapest widths, got 5"),
        ({"max_loss": -1}, "max_loss must be at least 0, the least there is, got -1; allow more"),
        ({"budget": 12, "max_loss": 2}, "max_loss must be at least 6, the least within a budget of 12, got 2; allow more"),
        ({}, "give a budget, a max_loss, or both"),
    ):
        with pytest.raises(ValueError) as caught:
            dial.choose_layers(costs, losses, **demands)
        assert str(caught.value) == f"choose_layers: {words}"
    with pytest.raises(ValueError, match="losses of weight 'a' must be finite"):
        dial.choose_layers({"a": {2: 1}}, {"a": {2: float("nan")}}, budget=100)
    with pytest.raises(ValueError, match="weight 'b' must have costs and losses at the same widths"):
        dial.choose_layers(costs, {"a": losses["a"]}, budget=100)


def test_a_step_that_is_too_dear_ends_the_climb():
    """Cheaper steps behind it are not taken, or a larger budget would take them back."""
    costs, losses = {"a": {2: 0, 8: 10}, "b": {2: 0, 8: 3}}, {"a": {2: 100, 8: 0}, "b": {2: 1, 8: 0}}
    assert dial.choose_layers(costs, losses, budget=5) == {"a": 2, "b": 2}
    assert dial.choose_layers(costs, losses, budget=10) == {"a": 8, "b": 2}
    assert dial.choose_layers({"a": {2: 9, 4: 3, 8: 3}}, {"a": {2: 5, 4: 2, 8: 4}}, budget=3) == {"a": 4}


def test_layers_of_a_network(model):
    """Bytes and losses of each weight, one by one, and a plan of them that runs."""
    wide = model.at(8)(X)
    score = lambda m: -float(np.abs(m(X) - wide).mean())
    costs, losses = dial.layer_bytes(model, WIDTHS), dial.layer_losses(model, score, WIDTHS)
    assert set(costs) == set(losses) == {"w1", "w2", "w3"}
    assert costs["w1"][2] < costs["w1"][8]
    assert losses["w1"][8] == 0 < losses["w1"][2]
    assert losses["w2"][4] == max(0.0, score(model.at(8)) - score(model.at({"w1": 8, "w2": 4, "w3": 8})))
    plan = dial.choose_layers(costs, losses, budget=sum(c[4] for c in costs.values()))
    assert model.at(plan)(X).shape == wide.shape


# ---------------------------------------------------------------------------------------------------------- escalation


@pytest.mark.parametrize("combine", ["last", "mean"])
def test_thresholds_of_zero_are_the_narrowest_width(model, combine):
    """Nobody goes on, nothing is paid for but the first pass."""
    climb = dial.Escalation(model, WIDTHS, (0, 0), combine).run(X)
    assert np.array_equal(climb.outputs["scores"], model.at(2)(X))
    assert (climb.counts, climb.cost) == ({2: 23}, 2.0)


def test_a_margin_at_the_threshold_stops():
    """Below it goes on, the threshold itself does not: at 0 not even a tie goes on, and certainty does below infinity."""
    scores = {2: np.array([[1.0, 1.0], [900.0, 0.0]]), 4: np.array([[1.0, 0.0], [900.0, 0.0]])}
    assert dial.Rule((2, 4), (0,)).replay(scores).costs.tolist() == [2, 2]
    assert dial.Rule((2, 4), (1,)).replay(scores).costs.tolist() == [6, 2]
    assert dial.Rule((2, 4), (inf,)).replay(scores).costs.tolist() == [6, 6]


def test_thresholds_of_infinity_are_the_widest_width(model):
    """Everybody goes on to the end, and every pass is paid for."""
    climb = dial.Escalation(model, WIDTHS, (inf, inf)).run(X)
    assert np.array_equal(climb.outputs["scores"], model.at(8)(X))
    assert (climb.counts, climb.cost) == ({8: 23}, 14.0)


def test_means_of_all_passes(model):
    """Weighted by the widths, or as given."""
    passes = [model.at(b)(X) for b in WIDTHS]
    for weights, w in ((None, WIDTHS), ((1, 1, 2), (1, 1, 2))):
        got = dial.Escalation(model, WIDTHS, (inf, inf), "mean", weights)(X)
        mean = sum(p * float(v) for p, v in zip(passes, w, strict=True)) / sum(w)
        assert np.allclose(got, mean, rtol=1e-6)
        assert got.dtype == passes[0].dtype


thresholds = st.lists(st.one_of(st.floats(0, 1), st.just(inf)), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(t=thresholds, combine=st.sampled_from(["last", "mean"]), seed=st.integers(0, 99))
def test_costs_are_those_of_the_passes_made(t, combine, seed):
    """Run by a hand-written loop over samples: outputs, where each stopped, and the sum of the widths of its passes."""
    rng = np.random.default_rng(seed)
    scores = {b: rng.normal(size=(17, 3)).astype(np.float32) for b in WIDTHS}
    climb = dial.Rule(WIDTHS, tuple(t), combine).replay(scores)
    for i in range(17):
        made, sums, weight = [], 0.0, 0.0
        for bits, threshold in zip(WIDTHS, [*t, 0], strict=True):
            made.append(bits)
            sums, weight = sums + bits * scores[bits][i].astype(float), weight + bits
            answer = scores[bits][i] if combine == "last" else sums / weight
            p = np.exp(answer) / np.exp(answer).sum()
            if not np.diff(np.sort(p))[-1] < threshold:
                break
        assert climb.stopped[i] == made[-1]
        assert climb.costs[i] == sum(made)
        assert np.allclose(climb.outputs["scores"][i], answer, rtol=1e-5)
    assert sum(climb.counts.values()) == 17
    assert climb.cost == climb.costs.mean()


@pytest.mark.parametrize("combine", ["last", "mean"])
def test_results_do_not_depend_on_the_batch(model, combine):
    """Each sample alone, in any order, gets the same outputs and pays the same; and replaying known scores is running."""
    escalation = dial.Escalation(model, WIDTHS, middle(model, combine), combine)
    whole = escalation.run(X)
    assert len(whole.counts) == 3, "the thresholds should part the samples"
    alone = [escalation.run(X[i : i + 1]) for i in range(len(X))]
    assert np.array_equal(np.concatenate([a.outputs["scores"] for a in alone]), whole.outputs["scores"])
    assert np.array_equal(np.concatenate([a.costs for a in alone]), whole.costs)
    assert np.array_equal(escalation(X[::-1]), whole.outputs["scores"][::-1])
    replay = escalation.rule.replay({b: model.at(b)(X) for b in WIDTHS})
    assert np.array_equal(replay.outputs["scores"], whole.outputs["scores"])
    assert np.array_equal(replay.stopped, whole.stopped)


def middle(model, combine="last"):
    """Thresholds that part the samples that reach them in halves."""
    first, second = (model.at(b)(X) for b in WIDTHS[:2])
    low = float(np.median(dial.margin(first)))
    on = dial.margin(first) < low
    answers = second if combine == "last" else (2 * first + 4 * second) / 6
    return low, float(np.median(dial.margin(answers)[on]))


def test_arrays_of_any_kind(model):
    """Tensors in, tensors out; a dict by name; several outputs as the model gives them."""
    torch = pytest.importorskip("torch")
    escalation = dial.Escalation(model, WIDTHS, middle(model))
    out = escalation(torch.from_numpy(X))
    assert isinstance(out, torch.Tensor)
    assert np.array_equal(out.numpy(), escalation(X))
    assert np.array_equal(escalation({"image": X}), escalation(X))
    assert np.array_equal(escalation(X.tolist()), escalation(X))
    x = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    pair = dial.Escalation(two_heads(), (2, 8), (inf,))
    assert [np.array_equal(a, b) for a, b in zip(pair(x), two_heads().at(8)(x), strict=True)] == [True, True]
    assert set(pair({"x": x})) == {"fine", "coarse"}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), cost=st.floats(2, 14), combine=st.sampled_from(["last", "mean"]))
def test_fitted_rules_keep_to_the_cost(seed, cost, combine):
    """On the data they were fitted on, and are right at least as often as any single width that costs no more."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 60)
    scores = {b: np.eye(4)[labels] * b / 4 + rng.normal(size=(60, 4)) for b in WIDTHS}
    rule = dial.fit_rule(scores, cost, labels=labels, combine=combine)
    climb = rule.replay(scores)
    assert climb.cost <= cost
    right = (climb.outputs["scores"].argmax(1) == labels).mean()
    assert all(right >= (scores[b].argmax(1) == labels).mean() for b in WIDTHS if b <= cost)


def test_fitting_a_model(model):
    """In batches, with labels or without; the rule is a plain value that can be kept."""
    found = dial.fit(model, X, WIDTHS, 5, batch=7)
    climb = found.run(X)
    assert climb.cost <= 5
    wide = model.at(8)(X).argmax(1)
    assert (climb.outputs["scores"].argmax(1) == wide).mean() >= (model.at(4)(X).argmax(1) == wide).mean()
    assert dial.fit(model, X, WIDTHS, 5, labels=wide).rule == found.rule
    assert dial.Rule.of_json(found.rule.json()) == found.rule
    everything = dial.Rule(WIDTHS, (0.5, inf), "mean", (1, 2, 3))
    assert dial.Rule.of_json(everything.json()) == everything


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: dial.Escalation(m, (4, 2), (0.1,)), "widths must rise"),
        (lambda m: dial.Escalation(m, (2, 4), ()), "2 widths need 1 thresholds from 0 up"),
        (lambda m: dial.Escalation(m, (2, 4), (-0.1,)), "thresholds from 0 up"),
        (lambda m: dial.Escalation(m, (2, 4), (float("nan"),)), "thresholds from 0 up"),
        (lambda m: dial.Escalation(m, (2, 4), (0.1,), "sum"), "combine must be one of last, mean, got 'sum'"),
        (lambda m: dial.Escalation(m, (2, 4), (0.1,), "mean", (1, 0)), "weights must be 2 numbers above 0"),
        (lambda m: dial.Escalation(m, (2, 9), (0.1,)), "width 9 must be one the model can run at"),
        (lambda m: dial.fit(m, X, (2, 9), 4), "width 9 must be one the model can run at"),
        (lambda m: dial.fit(m, X, (2, 4), 1), "cost must be at least 2"),
        (lambda m: dial.fit(m, X, (2, 4), 4, labels=[1, 2]), "labels must be one for each of 23 samples, got shape (2,)"),
        (lambda m: dial.Rule.of_json({}), "must be an object that Rule.json gave"),
        (lambda m: dial.margin(np.zeros((3, 1))), "a margin needs scores of shape"),
        (lambda m: dial.Escalation(m, (2, 4), (1,))(np.float32(1)), "the same number of samples, at least one"),
    ],
)
def test_what_is_no_escalation_is_refused(make, words, model):
    """One line each."""
    with pytest.raises(ValueError) as caught:
        make(model)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- cascades and tasks


def test_a_cascade_runs_the_second_network_at_the_width_of_each_sample(model):
    """The widths are what `decide` says of the first network's output, and each sample has its own."""
    first = model.at(2)
    cascade = dial.Cascade(first, model, dial.by_class({3: 2}, otherwise=8))
    done = cascade.run(X)
    labels = first(X).argmax(1)
    assert done.widths.tolist() == [2 if k == 3 else 8 for k in labels]
    assert len(set(done.widths.tolist())) > 1
    for i, bits in enumerate(done.widths):
        assert np.array_equal(done.outputs["scores"][i], model.at(int(bits))(X[i : i + 1])[0])
    assert np.array_equal(cascade(X), done.outputs["scores"])
    assert np.array_equal(done.first["scores"], first(X))


def test_a_cascade_of_another_network_with_other_inputs(model):
    """The second task may read arrays of its own; several outputs of the first come as a dict."""
    x = np.random.default_rng(1).normal(size=(23, 6)).astype(np.float32)
    by_margin = dial.by_margin({0.9: 8}, otherwise=2)
    fine, coarse = dial.Cascade(model.at(4), two_heads(), by_margin)(X, then=x)
    wide = dial.margin(model.at(4)(X)) < 0.9
    want = np.where(wide[:, None], two_heads().at(8)(x)[0], two_heads().at(2)(x)[0])
    assert 0 < wide.sum() < 23
    assert np.array_equal(fine, want)
    assert coarse.shape == (23, 3)
    back = dial.Cascade(two_heads(), model, lambda out: np.where(out["coarse"].argmax(1) == 0, 2, 8))
    assert back(x, then=X).shape == (23, 5)


@pytest.mark.parametrize("widths", [[2, 4], np.full(23, 2.5), np.zeros(23, int), 4])
def test_decisions_must_be_widths(widths, model):
    """One whole number from 1 up for each sample."""
    with pytest.raises(ValueError, match="cascade: decide must give 23 whole numbers from 1 up"):
        dial.Cascade(model, model, lambda _: widths)(X)
    with pytest.raises(ValueError, match="`then` must hold 23 samples like the first input, got 3"):
        dial.Cascade(model, model, lambda _: widths)(X, then=X[:3])


def test_two_tasks_share_weights():
    """Each has its width, of the whole network or by weight, and its outputs; codes are not copied."""
    model = two_heads()
    tasks = dial.Tasks(model, {"find": 2, "name": {"trunk": 4, "head1": 8}}, {"find": ["coarse"], "name": ["fine"]})
    x = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    assert np.array_equal(tasks["find"](x), model.at(2)(x)[1])
    assert np.array_equal(tasks["name"](x), model.at({"trunk": 4, "head1": 8})(x)[0])
    assert not np.array_equal(tasks["name"](x), model.at(8)(x)[0])
    both = tasks(x)
    assert np.array_equal(both["find"], tasks["find"](x))
    assert np.array_equal(both["name"], tasks["name"](x))
    wide = dial.Tasks(model, {"a": 2, "b": 8})["b"]({"x": x})
    assert set(wide) == {"fine", "coarse"}


def test_tasks_that_are_not_there():
    """Unknown tasks and outputs are one line that names those there are."""
    with pytest.raises(ValueError, match="task 'a' asks for output 'rough'; must be among fine, coarse"):
        dial.Tasks(two_heads(), {"a": 2}, {"a": ["rough"]})
    with pytest.raises(ValueError, match="outputs name task 'b', which has no width"):
        dial.Tasks(two_heads(), {"a": 2}, {"b": ["fine"]})
    with pytest.raises(KeyError, match="'b' must be one of a"):
        dial.Tasks(two_heads(), {"a": 2})["b"]
