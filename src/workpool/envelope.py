"""What an event travels in, where its pool keeps more of it than the event itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Envelope", "opened"]


@dataclass(slots=True, eq=False)
class Envelope:
    """An event, and what is kept with it until it has ended."""

    event: Any
    added: float | None = None
    """When it was added; None where that is not kept."""
    context: Any = None
    """The context (`contextvars`) of who added it; None where that is not kept."""


def opened(event: Any) -> Any:
    """The event itself, whether it travels in an envelope or not."""
    return event.event if type(event) is Envelope else event
