"""--recipe: what each sets, and what wins over it."""

from dataclasses import fields, replace

import pytest

import train
from engine.recipe.ema import ModelEMA, fitting_tau
from engine.recipe.hyp import OPTIONAL, REQUIRED, read_hyp
from engine.recipe.recipes import RECIPES, recipe_flags, recipe_hyp
from engine.training.options import TrainOptions
from engine.training.setup import read_run_hyp
from tests.helpers.training import hyp_file

ADAMW = {"optimizer": "AdamW", "hyp": "data/hyps/hyp.scratch-tiny.yaml"}
FAST = {"progressive": 4, "amp": "fastest"}


def changed(**given) -> dict:
    """What the options of these keywords have besides, that others have not."""
    options, plain = TrainOptions.of(given), TrainOptions.of({k: v for k, v in given.items() if k != "recipe"})
    names = [f.name for f in fields(options) if f.name != "recipe"]
    return {n: getattr(options, n) for n in names if getattr(options, n) != getattr(plain, n)}


@pytest.mark.parametrize(("name", "flags"), [("stock", {}), ("small", ADAMW), ("fast", ADAMW | FAST)])
def test_each_recipe_sets_its_flags(name, flags):
    assert changed(recipe=name) == flags


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"amp": "auto"}, ADAMW | {"progressive": 4}),
        ({"progressive": 0}, ADAMW | {"amp": "fastest"}),
        # an optimiser and its rates go together
        ({"optimizer": "SGD"}, FAST),
        ({"hyp": "data/hyps/hyp.scratch-low.yaml"}, FAST),
        ({"optimizer": "AdamW"}, FAST | {"hyp": ADAMW["hyp"]}),
        ({"epochs": 3, "imgsz": 320}, ADAMW | FAST),
        # a run that goes on has its own
        ({"resume": "last.pt"}, {}),
        ({"resume_evolve": True}, {}),
    ],
)
def test_flags_that_are_given_win_even_at_their_defaults(given, left):
    assert changed(recipe="fast", **given) == left


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"progressive": 0},
        {"amp": "auto", "epochs": 3},
        {"optimizer": "SGD"},
        {"optimizer": "Adam"},
        {"progressive": 4},
    ]
    + [{"hyp": "data/hyps/hyp.scratch-low.yaml"}, {"hyp": "mine.yaml"}, {"optimizer": "SGD", "progressive": 0}],
)
def test_a_command_line_of_options_gives_the_same_again(recipe, given):
    """Such as that of a run of a study."""
    options = TrainOptions.of({"recipe": recipe} | given)
    assert TrainOptions.of(train.build_parser().given(options.as_words())) == options


def test_the_command_line_tells_what_is_given_from_what_is_not():
    words = ["--recipe", "small", "--optimizer", "SGD", "--epochs", "7"]
    given = train.build_parser().given(words)
    assert given == {"recipe": "small", "optimizer": "SGD", "epochs": 7}
    assert TrainOptions.of(given).optimizer == "SGD"
    assert train.build_parser().given([]) == {}
    assert train.build_parser().given(["--cache", "--img", "64"]) == {"cache": "ram", "imgsz": 64}


def test_values_of_the_hyp_file_win(tmp_path, capsys):
    own = hyp_file(tmp_path, ema_tau=300)
    hyp = read_run_hyp(TrainOptions.of({"recipe": "small", "hyp": own}))
    assert hyp["ema_tau"] == 300
    # and what it doesn't say is the recipe's
    unsaid = {"recipe": "small", "hyp": "hyp.scratch-low.yaml", "epochs": 60}
    hyp = read_run_hyp(TrainOptions.of(unsaid))
    assert hyp == read_hyp("hyp.scratch-low.yaml") | {"ema_tau": 0}
    assert read_run_hyp(TrainOptions.of({"recipe": "stock"})) == read_hyp("hyp.scratch-low.yaml")
    read_run_hyp(TrainOptions.of({"recipe": "fast"}))
    read_run_hyp(TrainOptions.of({"recipe": "small", "hyp": own, "optimizer": "AdamW"}))
    left = (
        "; --optimizer AdamW and --hyp data/hyps/hyp.scratch-tiny.yaml go together and are left out, since one is given "
        "otherwise"
    )
    assert capsys.readouterr().out.splitlines() == [
        f"recipe small sets nothing{left}",
        f"recipe small sets ema_tau 0{left}",
        "recipe fast sets --progressive 4, --amp fastest, --optimizer AdamW, --hyp data/hyps/hyp.scratch-tiny.yaml, "
        "ema_tau 0",
        "recipe small sets --optimizer AdamW",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_what_there_is(name):
    recipe = RECIPES[name]
    TrainOptions.of(recipe.flags | recipe.together)
    # a file always says the others
    assert set(recipe_hyp(name)) <= set(OPTIONAL) and not set(recipe_hyp(name)) & set(REQUIRED)
    assert recipe_flags(name, recipe.flags | recipe.together) == {}
    assert replace(TrainOptions.of({"recipe": name}), epochs=3).recipe == name


@pytest.mark.parametrize("updates", [100, 1000, 20_000])
def test_the_average_remembers_a_tenth_of_the_run_at_its_end(updates):
    decay = 1 - 2.718281828 ** (-updates / fitting_tau(updates))
    assert 1 / (1 - decay) == pytest.approx(updates / 10, rel=1e-3)
    assert fitting_tau(1) > 0


def test_a_short_average_follows_the_weights():
    import torch

    means = []
    for tau in (2000, fitting_tau(200)):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(model.weight)
        ema = ModelEMA(model, tau=tau)
        for step in range(200):
            torch.nn.init.constant_(model.weight, step % 2)
            ema.update(model)
        means.append(ema.model.weight.item())
    # weights that jump between 0 and 1: one is where they are, the other where they are on average
    assert means[0] > 0.9 and abs(means[1] - 0.5) < 0.05
