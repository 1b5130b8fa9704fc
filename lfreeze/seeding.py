"""Seeds of independent random streams."""

import hashlib


def stream_seed(seed: int, stream: str) -> int:
    """An independent seed for each use of chance, so that one strategy's draws do not move another's."""
    return int.from_bytes(hashlib.sha256(f"{stream}:{seed}".encode()).digest()[:7], "big")
