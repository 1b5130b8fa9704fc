"""What was tried with each architecture and optimiser, as the tables in docs/compatibility.md.

python -m tests.support.compatibility    # writes the tables into the page
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lfreeze import freeze
from lfreeze.blocks import model_parts
from lfreeze.cost import cost
from lfreeze.freeze_proof import FreezeProof
from lfreeze.model_shape import ShapeError
from lfreeze.models.shapes import model_shape
from lfreeze.strategy import Strategy
from tests.lfreeze.test_roles import CASES, IDS
from tests.support.architectures import ARCHITECTURES, build
from tests.support.optimizers import OPTIMIZERS, outcome

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
STRATEGIES = ("BOT50", "TOP25", "INT50")
HEADER = (
    f"| architecture | layers | {' | '.join(STRATEGIES)} | closed form |\n|{'---|' * (3 + len(STRATEGIES))}"
)


def architecture_table() -> str:
    """A row for each architecture of the tests."""
    rows = [HEADER]
    for title, model, batch in _models():
        layers = len(model_parts(model).layers)
        outcomes = [_outcome(model, batch, strategy) for strategy in STRATEGIES]
        rows.append(f"| {title} | {layers} | {' | '.join(outcomes)} | {_closed_form(model)} |")
    return "\n".join(rows)


def _models() -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        model = build(name)
        yield type(model).__name__, model, IDS
    for case, (make, batch, *_) in CASES.items():
        torch.manual_seed(0)
        model = make()
        yield f"{type(model).__name__}: {case.split(' (')[0]}", model, batch


def _outcome(model: nn.Module, batch: dict[str, Any], strategy: str) -> str:
    """The depth of a backward pass, if it is the planned one and nothing frozen got a gradient."""
    plan = freeze(model, strategy)
    expected = Strategy.parse(strategy).frozen_layers(plan.n_layers)
    proof = FreezeProof(model)
    handles = proof.observe_depth()
    output = model(**batch)
    next(t for t in output.values() if isinstance(t, torch.Tensor)).float().pow(2).mean().backward()
    for handle in handles:
        handle.remove()
    moved = [n for n, p in model.named_parameters() if p.grad is not None and not p.requires_grad]
    depth = proof.conclude(torch.optim.SGD(model.parameters())).backward_depth
    model.zero_grad()
    if moved or plan.frozen_layers != expected or depth != plan.backward_depth:
        return f"wrong: {plan.frozen_layers}, depth {plan.backward_depth} planned, {depth} measured"
    return f"{len(expected)} frozen, {depth} crossed"


def _closed_form(model: Any) -> str:
    """Whether the predicted cost counts the parameters of the model and of what trains, and the depth."""
    try:
        shape = model_shape(model.config.to_dict())
    except ShapeError:
        return "none"
    for strategy in STRATEGIES:
        plan = freeze(model, strategy)
        predicted = cost(
            shape,
            plan.frozen_layers,
            embeddings_frozen=plan.embeddings_frozen,
            n_labels=model.config.num_labels,
            batch_size=2,
            length=16,
        )
        counts = (predicted.total_parameters, predicted.trainable_parameters, predicted.backward_depth)
        if (plan.total_parameters, plan.trainable_parameters, plan.backward_depth) != counts:
            return f"wrong for {strategy}: {counts}"
    return "agrees"


def optimizer_table() -> str:
    """A row for each optimiser of the tests."""
    rows = ["| optimiser | BOT34 | ADT-L34 |", "|---|---|---|"]
    rows += [f"| {name} | {outcome(name, 'BOT34')} | {outcome(name, 'ADT-L34')} |" for name in OPTIMIZERS]
    return "\n".join(rows)


TABLES = {"architectures": architecture_table, "optimisers": optimizer_table}


def replace_table(page: str, name: str, table: str) -> str:
    """A page with the table between two marks replaced."""
    return re.sub(
        rf"(<!-- table: {name} -->\n).*?(\n<!-- end -->)",
        lambda m: m[1] + table + m[2],
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    for title, make_table in TABLES.items():
        text = replace_table(text, title, make_table())
    PAGE.write_text(text, "utf-8")
