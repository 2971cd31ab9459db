"""Which rung to stand on: the width of a network from what is required of it, for all samples, by layer, or one by one.

- `choose`, `choose_layers`: one width, or one for each weight, from measured tables and a requirement.
- `Escalation`: every sample runs at few bits, and those whose margin is small run on with more planes of the same weights.
- `Cascade`: what one network says of a sample decides at which width the next one looks at it.
- `Tasks`: one set of weights serves several tasks, each at its own width.

All of them only call a `Model` and its `at`; weights are shared and nothing is packed again. After claims 1 to 11 of
EP3671575 (choosing a width by speed, accuracy, difficulty or terminal; tasks at two widths; cascades).

>>> from bitladder import dial
>>> rungs = dial.Rungs((dial.Rung(2, accuracy=0.86, milliseconds=1.0), dial.Rung(4, accuracy=0.88, milliseconds=1.5)))
>>> dial.choose(rungs, accuracy=0.87), dial.choose(rungs, milliseconds=1.2)
(4, 2)
"""

from bitladder.dial.cascade import Cascade, by_class, by_margin
from bitladder.dial.climb import Climb, Rule, margin
from bitladder.dial.escalation import Escalation, fit, fit_rule
from bitladder.dial.layers import choose_layers, layer_bytes, layer_losses
from bitladder.dial.rungs import Rung, Rungs, choose, measure_rungs
from bitladder.dial.tasks import Tasks

__all__ = [
    "Cascade",
    "Climb",
    "Escalation",
    "Rule",
    "Rung",
    "Rungs",
    "Tasks",
    "by_class",
    "by_margin",
    "choose",
    "choose_layers",
    "fit",
    "fit_rule",
    "layer_bytes",
    "layer_losses",
    "margin",
    "measure_rungs",
]
