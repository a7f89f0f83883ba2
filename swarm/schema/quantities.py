"""Amounts as people write them: sizes, processors, durations. Text or numbers in, integers or seconds out.

`128M` is 128 x 1024 x 1024 bytes, as Docker reads it; `KiB`, `MiB`, `GiB` mean the same. Everything that cannot be read
raises `UsageError` with what was found and an example. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from swarm.errors import UsageError

_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_DURATION_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

BYTES_MAX = 2**53
"""Sizes stay exact in JSON numbers everywhere."""
MEMORY_BYTES_MIN = 6 * 1024 * 1024
"""Docker refuses a smaller memory limit."""
CPU_MILLICORES_MAX = 1_000_000


def parse_size(value: object, *, field: str) -> int:
    """Bytes from `128M`, `1.5G`, `512KiB` or a number of bytes."""
    if isinstance(value, bool):
        raise bad_value(field, value, cause="a size is expected", hint="write it like 128M, 1.5G or 512KiB")
    if isinstance(value, int) and 0 <= value <= BYTES_MAX:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise bad_value(field, value, cause="not a size", hint="write it like 128M, 1.5G or 512KiB")
    amount = int(Decimal(match[1]) * 1024 ** _UNITS[match[2].lower()])
    if amount > BYTES_MAX:
        raise bad_value(field, value, cause="more than any host has", hint="write it like 128M, 1.5G or 512KiB")
    return amount


def parse_memory(value: object, *, field: str) -> int:
    """Bytes of a memory limit: 0 (no limit, nothing reserved) or at least what Docker accepts."""
    amount = parse_size(value, field=field)
    if 0 < amount < MEMORY_BYTES_MIN:
        raise bad_value(field, value, cause="the engine accepts no limit under 6M", hint="ask for 6M or more")
    return amount


def parse_cpus(value: object, *, field: str) -> int:
    """Thousandths of a processor from `0.5`, `2` or `500m`."""
    hint = "write it like 0.5 or 2; a thousandth is the smallest step"
    text = "" if isinstance(value, bool) else str(value).strip()
    scale = 1000
    if text.endswith("m"):
        text, scale = text[:-1], 1
    try:
        amount = Decimal(text if text.isascii() else "") * scale
    except InvalidOperation:
        raise bad_value(field, value, cause="not a number of processors", hint=hint) from None
    if not amount.is_finite() or not 0 <= amount <= CPU_MILLICORES_MAX or amount != amount.to_integral_value():
        raise bad_value(field, value, cause="not a number of processors from 0 to 1000", hint=hint)
    return int(amount)


def parse_duration(value: object, *, field: str, seconds_max: float) -> float:
    """Seconds from `10s`, `1m30s`, `500ms`, or a number of seconds."""
    hint = f"write it like 10s, 1m30s or 500ms, at most {seconds_max:g} seconds"
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
            seconds = float(text)
        elif re.fullmatch(rf"(?:{_DURATION_PART.pattern})+", text, re.ASCII):
            seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION_PART.findall(text))
    if seconds is None:
        raise bad_value(field, value, cause="not a duration", hint=hint)
    if not 0 <= seconds <= seconds_max:  # false for NaN too
        raise bad_value(field, value, cause="out of range", hint=hint)
    return seconds


def parse_count(value: object, *, field: str, count_max: int) -> int:
    """A whole number from 0 to `count_max`."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= count_max:
        raise bad_value(field, value, cause=f"a whole number from 0 to {count_max} is expected", hint="")
    return value


def bad_value(field: str, value: object, *, cause: str, hint: str) -> UsageError:
    """The one error for a value that cannot be read."""
    return UsageError(f"bad value for '{field}': {shown(value)}", cause=cause, hint=hint)


def shown(value: object) -> str:
    """A value as an error message quotes it: on one line and not long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
