"""What ``pip install lfreeze`` brings is enough for everything in ``lfreeze`` but LoRA."""

from __future__ import annotations

import subprocess
import sys

# Dependencies of the experiment and of the extra ``lora``; assigning None makes their import fail.
_EXTRAS = (
    "peft", "pyarrow", "polars", "ray", "matplotlib", "scipy", "click", "jinja2", "rich", "pydantic", "tomli_w",
    "sentencepiece", "pynvml", "accelerate", "pandas",
)  # fmt: skip

_SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({_EXTRAS!r}))
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification
import lfreeze

for module in {{module}}:
    __import__(module)
sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=4, vocab_size=50)
model = LlamaForSequenceClassification(LlamaConfig(**sizes))
print(lfreeze.freeze(model, "BOT50").frozen_layers)
adaptive = lfreeze.AdaptiveFreezing(model, "ADT-L50", probe_steps=1)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.tensor([[1, 2]])).logits.sum().backward()
optimizer.step()
print(len(adaptive.step(optimizer).frozen_layers), lfreeze.FreezeCallback("TOP25").plan)
for use in (lambda: lfreeze.freeze(model, "LoRA"), lambda: lfreeze.merge_lora(model)):
    try:
        use()
    except lfreeze.StrategyError as error:
        print(error)
lfreeze.Strategy.parse("LoRA").implementation.undo(model)
for causal_lm in (False, True):
    found = lfreeze.estimate(model.config.to_dict(), batch_size=2, max_length=8, causal_lm=causal_lm)
    print(*[s.strategy for s in found.strategies])
print(len(lfreeze.PAPER_STRATEGIES))
"""


def test_freezing_needs_no_extra() -> None:
    modules = (
        "lfreeze.cost", "lfreeze.models.loading", "lfreeze.models.preflight", "lfreeze.data.loading",
        "lfreeze.data.encoding_cache", "lfreeze.training.loop", "lfreeze.tiny.tasks", "lfreeze.hub", "lfreeze.__main__",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.replace("{module}", repr(modules))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    missing = "strategy LoRA needs the package peft, which is not installed: pip install 'lfreeze[lora]'"
    estimated = "ALL LoRA BOT25 BOT50"
    lines = ["(0, 1)", "2 None", missing, missing, estimated, estimated, "17"]
    assert done.stdout.splitlines() == lines
