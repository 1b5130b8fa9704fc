"""BOT with embeddings that train: the other reading of the paper's bottom freezing."""

from lfreeze.kinds.static import Bottom


class BottomWithEmbeddings(Bottom):
    """Freezes the layers nearest to the input and trains the embeddings in front of them.

    The backward pass then crosses every frozen layer. Beside BOT in one sweep, it shows which of
    the two the paper's memory and speed (abstract, §4.5) speak of.
    """

    label = "BOT-E"
    freezes_embeddings = False
