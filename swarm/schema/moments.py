"""Moments of the past as people write them: an index, a time of day, a date, so long ago, or `now`.

| written | means |
| --- | --- |
| `4711` | the state right after the log's entry 4711 |
| `10:30`, `10:30:15` | the newest such time of day that has been, in the reader's time zone |
| `2026-03-01`, `2026-03-01 10:30`, `2026-03-01T10:30:15` | that time in the reader's time zone |
| the same with `Z` or `+01:00` | that time in that zone |
| `45s`, `10m`, `2h`, `3d` | so long ago |
| `now` | the newest there is |

Pure: the present is handed in.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from swarm.errors import UsageError
from swarm.model.archived import Moment
from swarm.schema.quantities import shown

INDEX_MAX = 10**15
_AGO = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HINT = "write an index, 10:30, 2026-03-01T10:30 (local, or with Z or +01:00), 10m (ago) or now"


def read_moment(text: str, *, now_utc: float, local: bool) -> Moment:
    """What a text means. Times without a zone are in the zone of this process when `local`, else in UTC. Raises `UsageError`."""
    text = text.strip()
    if text == "now":
        return Moment()
    if re.fullmatch(r"[0-9]{1,15}", text):
        return Moment(index=int(text))
    ago = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])", text)
    if ago and (moment := now_utc - float(ago[1]) * _AGO[ago[2]]) >= 0:
        return Moment(utc=moment)
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
            hour, _, rest = text.partition(":")
            return Moment(utc=_time_of_day(time.fromisoformat(f"{hour:0>2}:{rest}"), now_utc, local=local))
        if re.match(r"[0-9]{4}-", text):
            return Moment(utc=_in_zone(datetime.fromisoformat(text), local=local).timestamp())
    except (ValueError, OverflowError, OSError):
        pass
    raise UsageError(f"cannot read the time {shown(text)}", hint=_HINT)


def _in_zone(moment: datetime, *, local: bool) -> datetime:
    if moment.tzinfo is not None:
        return moment
    return moment.astimezone() if local else moment.replace(tzinfo=UTC)


def _time_of_day(clock: time, now_utc: float, *, local: bool) -> float:
    """The newest such time that has been: today's, or yesterday's. A day on which clocks change has 23 or 25 hours."""
    today = datetime.fromtimestamp(now_utc, None if local else UTC).date()
    found = _in_zone(datetime.combine(today, clock), local=local).timestamp()
    if found > now_utc:
        found = _in_zone(datetime.combine(today - timedelta(days=1), clock), local=local).timestamp()
    return found


def moment_text(moment: Moment) -> str:
    """As the API reads it: an index, a time in UTC, or `now`."""
    if moment.index is not None:
        return str(moment.index)
    if moment.utc is None:
        return "now"
    return datetime.fromtimestamp(moment.utc, UTC).isoformat().replace("+00:00", "Z")
