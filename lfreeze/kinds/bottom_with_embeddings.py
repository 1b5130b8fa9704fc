"""BOT-E: BOT with trainable embeddings, the other reading of the paper's bottom freezing."""

from lfreeze.kinds.bottom import Bottom
from lfreeze.strategy import register


@register
class BottomWithEmbeddings(Bottom):
    """Freezes the layers nearest to the input and trains the embeddings in front of them.

    The backward pass then crosses every frozen layer. Run together with BOT, it shows which of the
    two readings the paper's memory and speed (abstract, §4.5) describe.
    """

    label = "BOT-E"
    order = 70
    freezes_embeddings = False
