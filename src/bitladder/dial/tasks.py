"""One source of weights, several tasks, each at its own width, or with its own width in every layer (EP3671575, claim 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitladder.dial.samples import Batch
from bitladder.model import Model

Width = int | Mapping[str, int]  # of all weights, or of some by name


@dataclass(frozen=True)
class Tasks:
    """A model that serves tasks by name: `Tasks(model, {"find": 2, "name": 8})["find"](x)`.

    widths: for each task a width, or a width for each weight. outputs: for each task the outputs of the network that answer
    it, all of them where nothing is said. Weights are shared; a task adds nothing that is proportional to them.
    """

    model: Model
    widths: Mapping[str, Width]
    outputs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    models: Mapping[str, Model] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if lost := sorted(set(self.outputs) - set(self.widths)):
            raise ValueError(f"tasks: outputs name task {lost[0]!r}, which has no width; there are {', '.join(self.widths)}")
        has = self.model.graph.outputs
        for task, names in self.outputs.items():
            if lost := [name for name in names if name not in has]:
                raise ValueError(f"tasks: task {task!r} asks for output {lost[0]!r}; must be among {', '.join(has)}")
        object.__setattr__(self, "models", {task: self.model.at(bits) for task, bits in self.widths.items()})

    def __getitem__(self, task: str) -> Task:
        """What answers one task: call it like the model."""
        if task not in self.models:
            raise KeyError(f"tasks: {task!r} must be one of {', '.join(self.models)}")
        return Task(self.models[task], tuple(self.outputs.get(task, self.model.graph.outputs)))

    def __call__(self, *arrays: Any) -> dict[str, Any]:
        """The answers to all tasks, by name."""
        return {task: self[task](*arrays) for task in self.models}


@dataclass(frozen=True)
class Task:
    """A model at the width of a task, and the outputs that answer it."""

    model: Model
    outputs: tuple[str, ...]

    def __call__(self, *arrays: Any) -> Any:
        """The outputs of the task as the model would give them: one, a tuple, or a dict for a dict."""
        batch = Batch(arrays)
        made = batch.run(self.model)
        return batch.back({name: made[name] for name in self.outputs})
