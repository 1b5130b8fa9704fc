"""Strategies as data: the selections, computed by hand from the paper's text, and unusable names."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from lfreeze.errors import StrategyError
from lfreeze.strategy import Strategy, kinds, paper_strategies

# Frozen layers counted from 1, as the paper counts, for its models of 18, 32 and 40 layers.
BY_HAND: dict[str, dict[int, list[int]]] = {
    "ALL": {18: [], 32: [], 40: []},
    "LoRA": {18: [], 32: [], 40: []},
    "INT25": {
        18: [4, 8, 12, 16],
        32: [4, 8, 12, 16, 20, 24, 28, 32],
        40: [4, 8, 12, 16, 20, 24, 28, 32, 36, 40],
    },
    "INT33": {
        18: [3, 6, 9, 12, 15, 18],
        32: [3, 6, 9, 12, 15, 18, 21, 24, 27, 30],
        40: [3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39],
    },
    "INT50": {
        18: [2, 4, 6, 8, 10, 12, 14, 16, 18],
        32: [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32],
        40: [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40],
    },
    "BOT25": {
        18: [1, 2, 3, 4],
        32: [1, 2, 3, 4, 5, 6, 7, 8],
        40: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    },
    "BOT50": {
        18: [1, 2, 3, 4, 5, 6, 7, 8, 9],
        32: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        40: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
    },
    "BOT75": {
        18: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
        32: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24],
        40: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30],
    },
    "TOP25": {
        18: [15, 16, 17, 18],
        32: [25, 26, 27, 28, 29, 30, 31, 32],
        40: [31, 32, 33, 34, 35, 36, 37, 38, 39, 40],
    },
    "TOP50": {
        18: [10, 11, 12, 13, 14, 15, 16, 17, 18],
        32: [17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32],
        40: [21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40],
    },
    "TOP75": {
        18: [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18],
        32: [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32],
        40: [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40],
    },
}  # fmt: skip
ADAPTIVE_COUNTS = {
    "25": {18: 4, 32: 8, 40: 10},
    "50": {18: 9, 32: 16, 40: 20},
    "75": {18: 13, 32: 24, 40: 30},
}


@pytest.mark.parametrize("n_layers", [18, 32, 40])
@pytest.mark.parametrize("name", BY_HAND)
def test_selections_by_position(name: str, n_layers: int) -> None:
    strategy = Strategy.parse(name)
    assert [layer + 1 for layer in strategy.frozen_layers(n_layers)] == BY_HAND[name][n_layers]
    assert strategy.frozen_count(n_layers) == len(BY_HAND[name][n_layers])


@pytest.mark.parametrize("kind", ["ADT-L", "ADT-H"])
@pytest.mark.parametrize("percent", ADAPTIVE_COUNTS)
def test_adaptive_strategies_determine_only_the_number_of_layers(kind: str, percent: str) -> None:
    strategy = Strategy.parse(kind + percent)
    for n_layers, count in ADAPTIVE_COUNTS[percent].items():
        assert strategy.frozen_count(n_layers) == count
        with pytest.raises(StrategyError, match="selects its layers during training"):
            strategy.frozen_layers(n_layers)


def test_the_papers_17_strategies() -> None:
    assert paper_strategies() == (
        "ALL", "LoRA", "INT25", "INT33", "INT50", "BOT25", "BOT50", "BOT75", "TOP25", "TOP50", "TOP75",
        "ADT-L25", "ADT-L50", "ADT-L75", "ADT-H25", "ADT-H50", "ADT-H75",
    )  # fmt: skip
    assert {*BY_HAND, *(k + p for k in ("ADT-L", "ADT-H") for p in ADAPTIVE_COUNTS)} == set(
        paper_strategies()
    )
    assert [Strategy.parse(name).name for name in paper_strategies()] == list(paper_strategies())


@pytest.mark.parametrize(
    ("name", "n_layers", "frozen"),
    [
        ("BOT40", 8, [1, 2, 3]),
        ("TOP12.5", 8, [8]),
        ("INT75", 8, [2, 3, 4, 6, 7, 8]),
        ("INT40", 10, [3, 5, 8, 10]),
        ("BOT33", 12, [1, 2, 3, 4]),
        ("BOT29", 100, list(range(1, 30))),
        ("BOT66.7", 3, [1, 2]),
    ],
)
def test_other_ratios(name: str, n_layers: int, frozen: list[int]) -> None:
    assert [layer + 1 for layer in Strategy.parse(name).frozen_layers(n_layers)] == frozen


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bot25", "BOT25"),
        (" BOT25 ", "BOT25"),
        ("BOT25.0", "BOT25"),
        ("lora", "LoRA"),
        ("adt-l50", "ADT-L50"),
        ("all", "ALL"),
        ("bot-lora50", "BOT-LoRA50"),
        ("bitfit", "BitFit"),
        ("Norm", "NORM"),
        ("rnd33", "RND33"),
        ("lisa75", "LISA75"),
    ],
)
def test_names_are_canonical(text: str, name: str) -> None:
    assert Strategy.parse(text).name == name
    assert str(Strategy.parse(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FOO",
        "FOO25",
        "BOT",
        "BOT2x5",
        "ALL50",
        "LoRA8",
        "BOTTOM25",
        "25",
        "BOT1e1",
        "BitFit50",
        "NORM25",
        "BOT-LoRA",
        "RND",
        "LISA",
        # Digits, and letters whose capitals are ASCII, of other scripts.
        "BOT٢٥",
        "BOT２５",
        "ıNT25",
        "BOT1234567890",
        "BOT25.1234567890",
    ],
)
def test_unknown_names_are_refused_with_the_accepted_ones(text: str) -> None:
    with pytest.raises(StrategyError, match="accepted are ALL, LoRA, INT<ratio>") as caught:
        Strategy.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("length", [1, 5000, 10**6])
def test_a_long_name_is_refused_at_once(length: int) -> None:
    for text in (f"BOT{'2' * 9 * length}", f"BOT25.{'3' * 10 * length}", "BOT" * 40 * length):
        with pytest.raises(StrategyError) as caught:
            Strategy.parse(text)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("ratio", ["0.0001", "33.3333", "99.9999", "25.10", "12.50000"])
def test_a_name_keeps_every_accepted_ratio(ratio: str) -> None:
    """The shortest ones were written with an exponent, which no name may have, and long ones were rounded."""
    strategy = Strategy.parse(f"BOT{ratio}")
    assert strategy.ratio == Fraction(ratio) / 100
    assert Strategy.parse(strategy.name) == strategy


@pytest.mark.parametrize("ratio", ["0", "100", "150", "-5", "0.0", "0.00001", "33.33333", "99.99999"])
def test_ratios_outside_0_to_100_are_refused(ratio: str) -> None:
    with pytest.raises(StrategyError, match="not above 0 and below 100"):
        Strategy.parse(f"BOT{ratio}")


def test_a_ratio_that_freezes_nothing_or_everything_is_refused() -> None:
    with pytest.raises(StrategyError, match="BOT5 freezes no layer of a model with 8 layers"):
        Strategy.parse("BOT5").frozen_layers(8)
    with pytest.raises(StrategyError, match="needs a model with at least 2 layers, not 1"):
        Strategy.parse("BOT50").frozen_layers(1)
    with pytest.raises(StrategyError, match="freezes no layer"):
        Strategy.parse("ADT-L10").frozen_count(8)


def test_a_new_kind_is_one_file(tmp_path: Path) -> None:
    """A kind that draws layers by the seed is registered, parsed, and trained with."""
    (tmp_path / "drawn_by_seed.py").write_text(
        "import random\n"
        "from lfreeze.strategy import Kind, register\n\n\n"
        "@register\n"
        "class Random(Kind):\n"
        "    label = 'DRAW'\n\n"
        "    def select(self, n_layers, ratio, seed):\n"
        "        return random.Random(seed).sample(range(n_layers), int(ratio * n_layers))\n"
    )
    code = f"""
import lfreeze.kinds
lfreeze.kinds.__path__.append({str(tmp_path)!r})
from tests.lfreeze.training.test_loop import CPU, make_data, make_model, train
from lfreeze.recipe import Recipe
from lfreeze.strategy import Strategy
recipe = Recipe(batch_size=4, max_length=64, steps=3, learning_rate=1e-3, schedule="cosine", lora_rank=4,
                lora_alpha=16, lora_dropout=0.0, max_train_examples=50, probe_steps=1, precision="fp32")
strategy = Strategy.parse("draw50")
for seed in (1, 2):
    record = train(make_model(), make_data(), recipe, strategy, seed, CPU)
    assert record.proof.holds and record.plan.frozen_layers == strategy.frozen_layers(4, seed)
print(strategy.name, [strategy.frozen_layers(8, seed) for seed in (1, 2)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, first = done.stdout.split(" ", 1)
    assert name == "DRAW50"
    selections = eval(first)
    assert [len(s) for s in selections] == [4, 4]
    assert selections[0] != selections[1]
    assert "DRAW" not in kinds()


def run_with_plugin(folder: Path, target: str, module: str) -> subprocess.CompletedProcess[str]:
    """List the kinds where a package with the entry point ``plug = target`` is installed."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lfreeze.kinds]\nplug = {target}\n")
    (folder / "plugin.py").write_text(module)
    code = f"""
import sys
sys.path.insert(0, {str(folder)!r})
from lfreeze.errors import StrategyError
from lfreeze.strategy import Strategy, kinds, paper_strategies
try:
    print(" ".join(kinds()), Strategy.parse("plg50").frozen_layers(4), len(paper_strategies()))
except StrategyError as error:
    print(error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


PLUGIN = """
from lfreeze.kinds.bottom import Bottom
from lfreeze.strategy import register
class Plugged(Bottom):
    label = "PLG"
    order = 45
"""


@pytest.mark.parametrize(
    ("target", "module"),
    [("plugin:Plugged", PLUGIN), ("plugin", PLUGIN.replace("class", "@register\nclass"))],
)
def test_an_installed_package_adds_a_kind_by_its_entry_point(
    tmp_path: Path, target: str, module: str
) -> None:
    """In its place by ``order``; what is not inherited, such as the paper's ratios, stays at its default."""
    done = run_with_plugin(tmp_path, target, module)
    assert (
        done.stdout.strip()
        == "ALL LoRA INT BOT TOP PLG ADT-L ADT-H BOT-E BOT-LoRA RND LISA BitFit NORM (0, 1) 17"
    )


@pytest.mark.parametrize(
    ("target", "module", "message"),
    [
        ("absent", "", "plug = 'absent' in the group lfreeze.kinds does not load (ModuleNotFoundError"),
        ("plugin:Absent", "", "does not load (AttributeError"),
        ("plugin", "1 / 0", "does not load (ZeroDivisionError: division by zero): correct or uninstall"),
        ("plugin", "", "is neither a subclass of lfreeze.strategy.Kind nor a module that registers one"),
        ("plugin:value", "value = 3", "is neither a subclass"),
        (
            "plugin:Plugged",
            PLUGIN.replace("PLG", "bot"),
            "plugin.Plugged has the label 'bot', which lfreeze.kinds.bottom.Bottom has already",
        ),
        (
            "plugin:Plugged",
            PLUGIN.replace("PLG", "PLG2"),
            "the label 'PLG2' of the strategy kind plugin.Plugged",
        ),
        ("plugin:Plugged", PLUGIN.replace("label", "name"), "the label None of the strategy kind"),
    ],
)
def test_an_unusable_entry_point_is_named(tmp_path: Path, target: str, module: str, message: str) -> None:
    output = run_with_plugin(tmp_path, target, module).stdout
    assert message in output
    assert len(output.splitlines()) == 1


def test_strategies_are_known_without_torch() -> None:
    code = (
        "import sys, lfreeze; lfreeze.Strategy.parse('BOT25').frozen_layers(8); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
