"""The summary of a run, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from workpool.cli.meter import MAX_KEYS

__all__ = ["Summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to. The names of the fields are the keys of `--json`."""

    events: int
    """Events that were handled."""
    keys: int
    """Their distinct keys, counted up to MAX_KEYS."""
    seconds: float
    events_per_second: float
    deepest_lane: int
    overtakes: int
    bad_lines: int
    failed: int
    """Events whose handlers raised; they are among those left."""
    left: int
    """Events that were accepted and not handled."""
    in_flight: int
    """Events whose handlers had not returned when the command gave up waiting."""

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(asdict(self))

    def to_text(self) -> str:
        """A few aligned lines; faults only where there are any."""
        rows = [
            ("events", f"{self.events:,}"),
            ("keys", f"{self.keys:,}" + "+" * (self.keys >= MAX_KEYS)),
            ("seconds", f"{self.seconds:,.2f}"),
            ("events/s", f"{self.events_per_second:,.0f}"),
            ("deepest lane", f"{self.deepest_lane:,}"),
            ("overtakes", f"{self.overtakes:,} events did not wait for an earlier one of another key"),
        ]
        faults = {"bad lines": self.bad_lines, "failed": self.failed, "left": self.left, "in flight": self.in_flight}
        rows += [(name, f"{count:,}") for name, count in faults.items() if count]
        return "\n".join(f"{name:>12}  {value}" for name, value in rows)
