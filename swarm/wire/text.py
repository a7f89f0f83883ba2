"""Text that others wrote, made fit for a log line and a terminal.

Another node's refusals and errors are shown to people. One that is hostile, or only broken, must not be able to forge a line of
the log, move a cursor or fill a screen with them.

Promise: one line, of characters that print, and not long.
"""

from __future__ import annotations

TEXT_MAX = 500


def plain_text(text: str, longest: int = TEXT_MAX) -> str:
    """`text` on one line: what does not print is a question mark, and what is too long is cut."""
    plain = "".join(each if each.isprintable() else "?" for each in text[: longest + 1])
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
