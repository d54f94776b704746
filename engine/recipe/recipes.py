"""--recipe: flags and hyper-parameters that go well together, by name. Imports no torch.

recipe_flags("fast", given)        the flags that it sets, beside those given
recipe_hyp("fast")                 hyper-parameters, for files that do not say them
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """``flags`` hold unless they are given. ``together``: flags that fit each other alone, such as an optimiser and the file
    of its rates: they hold unless one of them is given as something else. ``hyp``: hyper-parameters that hold where the file
    does not say them.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    together: dict[str, Any] = field(default_factory=dict)
    hyp: dict[str, float] = field(default_factory=dict)


# AdamW (1711.05101), and an update for every 16 images instead of every 64: a few hundred images are few updates, and these
# are four times as many. The file has the rates, and gains of the loss that fit small images.
_ADAMW = {"optimizer": "AdamW", "hyp": "data/hyps/hyp.scratch-tiny.yaml"}
# The average of the weights remembers a tenth of the run: 2000 updates, as in stock, are longer than a short run is.
# Mosaics are made to the end: without them in the last tenth, as YOLOX does (2107.08430), small sets lose (docs/train.md).
_SHORT = {"together": _ADAMW, "hyp": {"ema_tau": 0}}
RECIPES = {
    "stock": Recipe(),
    "small": Recipe(**_SHORT),
    # the same in less time: small images first (2104.00298), and half the bits where they are computed faster
    "fast": Recipe(flags={"progressive": 4, "amp": "fastest"}, **_SHORT),
}


def recipe_flags(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The flags that a recipe sets, where those of ``given`` have been given."""
    recipe = RECIPES[name]
    fit = all(given.get(flag, value) == value for flag, value in recipe.together.items())
    return {flag: v for flag, v in (recipe.flags | (recipe.together if fit else {})).items() if flag not in given}


def recipe_hyp(name: str) -> dict[str, float]:
    """The hyper-parameters that a recipe sets where the file of a run does not say them."""
    return dict(RECIPES[name].hyp)


def recipe_line(name: str, flags: dict[str, Any], hyp: dict[str, float], said: Collection[str]) -> str:
    """What a recipe sets in a run of ``flags`` and ``hyp``, whose file has ``said`` some of these itself."""
    recipe = RECIPES[name]
    set_by = {flag: v for flag, v in (recipe.flags | recipe.together).items() if flags[flag] == v}
    values = [f"{key} {hyp[key]:g}" for key in recipe.hyp if key not in said]
    line = f"recipe {name} sets {', '.join([*_words(set_by), *values]) or 'nothing'}"
    if recipe.together and not set_by.keys() & recipe.together.keys():
        line += f"; {' and '.join(_words(recipe.together))} go together and are left out, since one is given otherwise"
    return line


def _words(flags: dict[str, Any]) -> list[str]:
    return [f"--{flag} {v}" for flag, v in flags.items()]
