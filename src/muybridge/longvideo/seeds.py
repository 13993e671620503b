"""A seed for every segment of a long video."""

from __future__ import annotations

import hashlib

from muybridge.errors import ConfigError


def segment_seed(seed: int, index: int, attempt: int = 0) -> int:
    """The seed of segment `index`, made for the first time (`attempt` 0) or once more.

    The first segment has the seed of the video, so that it is the video one gets without long video. All others have
    63 bits of the SHA-256 of the three numbers: neighbouring seeds share no noise, and the seed of a segment does not
    depend on how many there are. The original draws all segments from one generator instead, which has no seed to go
    back to.

    Raises:
        ConfigError: a seed that is not 0 to 2**63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be between 0 and 2**63 - 1; given {seed}.")
    if index == 0 and attempt == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {index} {attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
