"""Seeds of independent random streams."""

import hashlib


def stream_seed(seed: int, stream: str) -> int:
    """An independent seed for each use of randomness, so that the draws of one do not shift those of another."""
    return int.from_bytes(hashlib.sha256(f"{stream}:{seed}".encode()).digest()[:7], "big")
