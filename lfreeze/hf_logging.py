"""Context managers that silence the Hugging Face libraries."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """No warnings and no progress bars of transformers: a faulty checkpoint is an error here, not a warning."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with _errors_only(logging), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def silence_hub() -> Iterator[None]:
    """No warnings of huggingface_hub."""
    from huggingface_hub.utils import logging

    with _errors_only(logging):
        yield


@contextlib.contextmanager
def silence_datasets() -> Iterator[None]:
    """No messages and no progress bars of datasets, whose errors are errors here."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    bars, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # A first row that is longer than the header is cut off with this warning.
            warnings.filterwarnings("error", "Length of header or names does not match")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


@contextlib.contextmanager
def _errors_only(logging: Any) -> Iterator[None]:
    """Set the verbosity of a library's logging module, which both libraries have."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
