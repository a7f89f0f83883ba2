"""Identifiers: what they look like and how they are made.

Every id is text, so that it reads the same in a log line, a label, JSON and a message. A node or cluster id is 128 random
bits in 32 lowercase hexadecimal digits; task ids are the same. An assignment id is `<task id>.<attempt>`.

Promise: ids compare and sort by their text, the same in every process.
"""

from __future__ import annotations

import random
import re
from typing import NewType

NodeId = NewType("NodeId", str)
ClusterId = NewType("ClusterId", str)
TaskId = NewType("TaskId", str)
RequestId = NewType("RequestId", str)

_HEX_32 = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def random_id(rng: random.Random) -> str:
    """128 random bits as 32 lowercase hexadecimal digits. Hand in `random.SystemRandom()` outside of tests."""
    return f"{rng.getrandbits(128):032x}"


def is_id(text: str) -> bool:
    """Whether `text` is 32 lowercase hexadecimal digits."""
    return _HEX_32.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` can name a task or a node: 1 to 63 of a-z 0-9 . _ - , starting and ending with a letter or digit."""
    return _NAME.fullmatch(text) is not None
