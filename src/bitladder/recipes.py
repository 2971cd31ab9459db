"""Recipes as YAML files: every word of `quantize` that says how, and how its file is written; docs/recipe.schema.json has them.

A recipe says how, never what on: the network and the data are named where it is used. Words that it leaves out mean what
they do in Python. It is checked before anything else happens, and an unknown word is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import glob
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from bitladder import file
from bitladder.assign.accept import RULES
from bitladder.assign.classes import MODES as HEADS
from bitladder.assign.search import SEARCHES
from bitladder.assign.solve import SOLVERS
from bitladder.assign.times import TIMES
from bitladder.disk import replacing
from bitladder.errors import require
from bitladder.formats.uniform import COVERS
from bitladder.model import Model
from bitladder.ptq.align import MODES as ALIGNS
from bitladder.ptq.plan import ACTIVATIONS
from bitladder.recipe import EFFORTS, ROUNDINGS, UNSAID, quantize, settings
from bitladder.stats.differences import NORMALIZATIONS, STATISTICS

SAVING = {"coder": "best", "order": "plane"}  # how the file is written, and what is usual
OWN = ("plan", "result", "recipe", "widths", "default_bits", "min_bits", "recovered", "rungs")  # of a file's meta, not given

# Words that take one of a few texts.
CHOICES: dict[str, tuple[str, ...]] = {
    "accept": tuple(RULES),
    "search": (*SEARCHES, *SOLVERS),
    "times": tuple(TIMES),
    "statistic": tuple(STATISTICS),
    "normalize": tuple(NORMALIZATIONS),
    "head_rule": tuple(HEADS),
    "cover": tuple(COVERS),
    "align": tuple(ALIGNS),
    "rounding": ROUNDINGS,
    "effort": tuple(EFFORTS),
    "coder": ("raw", "fast", "best"),
    "order": ("layer", "plane", "importance"),
}
TYPES: dict[str, Any] = {"plan": str | dict[str, str | None] | None, "meta": dict[str, Any] | None}

# What a word means, for editors that show a schema.
MEANS = {
    "plan": "formats by pattern, the last match wins, a= for activations, null for float; or a text such as nested8,a=fixed8",
    "max_drop": "largest loss of the score against float, a fraction: 0.01 is one point",
    "accept": "plausible: the loss must not surely be above max_drop; proved: it must surely be within it",
    "criterion": "how layers are ranked; or a sum such as gradient+0.5*error",
    "search": "how a plan is found",
    "budget": "0.5MB, 300kB, avg_bits=4 or 5ms, instead of a loss",
    "levels": "what a sensitivity table may choose from: 8,4,3,2 or nested4,int4/64",
    "times": "whose milliseconds: the native core's, or ONNX Runtime's for each layer alone",
    "low": "bits of layers that can do with few",
    "count": "put so many layers at few bits",
    "statistic": "of weight differences",
    "normalize": "of weight differences",
    "start": "learn from the float network, or from its version in a format such as fixed8",
    "cycles": "of learning; by effort if left out",
    "skip_smallest": "never lower the layer ranked first",
    "accept_at_most": "halving: take so few layers in any case",
    "head_rule": "bits of classifiers by their number of classes",
    "cover": "how ranges are chosen",
    "align": "how sums of fixed-point channels agree",
    "rounding": "of weights; by effort if left out",
    "equalize": "scale channels between neighbouring layers alike first",
    "time_limit": "seconds after which the best so far is finished in the quickest way",
    "meta": "labels, normalisation, layout and what else deployment needs, kept in the file",
    "keep": "store so many planes of every nested weight; the plan becomes the default",
    "effort": "how hard to try",
    "seed": "for everything random",
    "coder": "how codes are stored",
    "order": "what comes first in the file",
}


def words() -> dict[str, Any]:
    """Every word of `quantize` that says how, and what it means when nobody says."""
    given = inspect.signature(quantize).parameters.items()
    return {name: p.default for name, p in given if name not in UNSAID or name == "meta"}


def grammar() -> Any:
    """The pydantic model of a recipe, made from the signature of `quantize`."""
    pydantic = require("pydantic", "recipes", "recipe")
    hints, usual = get_type_hints(quantize), words() | SAVING
    fields = {}
    for name, default in usual.items():
        kind: Any = TYPES.get(name, hints.get(name, str))
        if name in CHOICES:
            kind = Literal[CHOICES[name]] if default is not None else Literal[CHOICES[name]] | None
        fields[name] = (Annotated[kind, pydantic.Field(description=MEANS.get(name))], default)
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return pydantic.create_model("recipe", __config__=config, **fields)


def schema() -> dict[str, Any]:
    """What a recipe may say, as a JSON Schema."""
    made = grammar().model_json_schema()
    told = {"title": "Bitladder recipe", "description": "How `bitladder quantize` makes a file: docs/recipes.md"}
    properties = {name: {k: v for k, v in p.items() if k != "title"} for name, p in made["properties"].items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **told, **made, **told, "properties": properties}


# ----------------------------------------------------------------------------------------------------------- reading


def read(path: str) -> dict[str, Any]:
    """The words of a recipe file, in its order, each as `quantize` takes it."""
    yaml = require("yaml", "recipes", "recipe")
    try:
        found = yaml.load(Path(path).read_text("utf-8"), loader(yaml))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe: {path!r} cannot be read ({error}); check the path") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"recipe: {path!r} is not YAML ({' '.join(str(error).split())}); mend it") from None
    return checked({} if found is None else found, path)


def checked(found: Any, path: str) -> dict[str, Any]:
    """The words of a recipe after a look at each."""
    known = words() | SAVING
    if not isinstance(found, dict):
        got = type(found).__name__
        raise ValueError(f"recipe: {path!r} must map words such as plan or max_drop, got {got}; see recipe.schema.json")
    for word in found:
        if word not in known:
            near = difflib.get_close_matches(str(word).replace("-", "_"), known, 1, 0.0)[0]
            raise ValueError(f"recipe: {path!r} has no word {word!r}; the nearest is {near!r}, all are in recipe.schema.json")
    model, pydantic = grammar(), require("pydantic", "recipes", "recipe")
    try:
        taken = model.model_validate(found).model_dump(exclude_unset=True)
    except pydantic.ValidationError as error:
        word = str(error.errors()[0]["loc"][0])
        must = wanted(model.model_json_schema()["properties"][word])
        raise ValueError(f"recipe: {word!r} of {path!r} must be {must}, got {shown(found[word])}") from None
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"recipe: {path!r} must hold what JSON can ({error}); mend 'meta'") from None
    return {word: taken[word] for word in found}


def wanted(entry: Mapping[str, Any]) -> str:
    """What an entry of the schema asks for, in words.

    >>> wanted({"anyOf": [{"enum": ["nearest", "rate"], "type": "string"}, {"type": "null"}]})
    'one of nearest, rate'
    """
    names = {"string": "text", "integer": "a whole number", "number": "a finite number", "boolean": "true or false"}
    if "anyOf" in entry:
        return " or ".join(wanted(e) for e in entry["anyOf"] if e.get("type") != "null")
    if "enum" in entry:
        return "one of " + ", ".join(map(str, entry["enum"]))
    if entry.get("type") == "object":
        return "a map from text in quotes" + (" to text" if isinstance(entry.get("additionalProperties"), dict) else "")
    return names.get(str(entry.get("type")), str(entry.get("const", "something else")))


def shown(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def loader(yaml: Any) -> Any:
    """YAML's safe loader, which here refuses words given twice and aliases, and knows numbers such as 1e-3, but no dates."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):  # a few lines of them can stand for gigabytes
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases are not taken here; write the value again", mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if (key.tag, str(key.value)) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add((key.tag, str(key.value)))
            return dict(super().construct_mapping(node, deep=deep))

    exponents = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
    times = "tag:yaml.org,2002:timestamp"
    known = Loader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {first: [r for r in found if r[0] != times] for first, found in known}
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponents, list("-+0123456789"))
    return Loader


# ----------------------------------------------------------------------------------------------------------- writing


def told(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some words that are not what is usual, as a recipe says them."""
    saving = {word: given[word] for word, usual in SAVING.items() if given.get(word, usual) != usual}
    meta = {"meta": dict(given["meta"])} if given.get("meta") else {}
    return settings({word: how for word, how in given.items() if word not in SAVING}) | saving | meta


def of(model: Model) -> dict[str, Any]:
    """The recipe that a file keeps, with what it knows for deployment."""
    meta = model.whole.meta
    if not isinstance(meta.get("recipe"), Mapping):
        raise ValueError("recipe: this file keeps none; it was not made by quantize")
    given = {key: value for key, value in meta.items() if key not in OWN}
    said = meta["recipe"] | ({"meta": given} if given else {})
    order = list(words() | SAVING)
    return {key: said[key] for key in sorted(said, key=lambda key: order.index(key) if key in order else len(order))}


def plan_in(path: str) -> dict[str, str]:
    """The plan of a `.ladder` file: the format of every weight, and what its recipe says of activations."""
    graph = file.load(path)
    meta = graph.meta
    if not isinstance(meta.get("plan"), Mapping):
        raise ValueError(f"plan: {path!r} keeps none; it was not made by quantize")
    recipe = meta.get("recipe")
    patterns = recipe.get("plan") if isinstance(recipe, Mapping) else None
    kept = {k: v for k, v in patterns.items() if k.startswith(ACTIVATIONS)} if isinstance(patterns, Mapping) else {}
    formats = {name: "float" for name, _ in graph.weights()} | meta["plan"]
    return {glob.escape(str(name)): str(fmt) for name, fmt in formats.items()} | kept


def text(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML."""
    yaml = require("yaml", "recipes", "recipe")
    return str(yaml.safe_dump(dict(recipe), sort_keys=False, width=120))


def shown_of(model: Model) -> str:
    """The recipe of a file as YAML, with what else it takes to make the file again."""
    result = model.whole.meta.get("result")
    said = result if isinstance(result, Mapping) else {}
    remarks = ["makes the same file of the same network and calibration data, with the same versions"]
    if said.get("samples") is not None:
        remarks.append(f"evaluation data: {said.get('metric', 'a score')} on {said['samples']} samples")
    if isinstance(of_test := said.get("accepted"), Mapping) and of_test.get("held_out"):
        remarks.append(f"test data: {of_test.get('samples')} samples")
    return "".join(f"# {' '.join(str(remark).split())}\n" for remark in remarks) + text(of(model)).rstrip()


def write(path: str, recipe: Mapping[str, Any]) -> None:
    """Write a recipe, whole or not at all."""
    with replacing(path) as f:
        f.write(text(recipe).encode())
