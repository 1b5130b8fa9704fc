"""The tiny models' tokenizer: byte-level BPE, so that any text can be encoded.

A pair is encoded as ``<bos> first <sep> second <eos>``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, BOS, EOS, SEP = "<pad>", "<bos>", "<eos>", "<sep>"
SPECIALS = (PAD, BOS, EOS, SEP)
PAD_ID, BOS_ID, EOS_ID, SEP_ID = range(len(SPECIALS))
VOCABULARY_SIZE = 640


def train_tokenizer(texts: Iterable[str], max_length: int, *, vocabulary_size: int = VOCABULARY_SIZE) -> Any:
    """A fast tokenizer of transformers, with at most ``vocabulary_size`` tokens, trained on ``texts``."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {SEP} $B {EOS}",
        special_tokens=[(BOS, BOS_ID), (SEP, SEP_ID), (EOS, EOS_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        sep_token=SEP,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
