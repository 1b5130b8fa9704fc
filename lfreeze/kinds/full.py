"""ALL: full fine-tuning, the baseline that every other strategy is compared with (§4.2)."""

from lfreeze.strategy import Kind, register


@register
class Full(Kind):
    """Freezes nothing."""

    label = "ALL"
    order = 0
    paper_percents = ("",)
    takes_ratio = False
    baseline = True
