"""Where events come from: one module per kind of stream, and what your own has to be for `pool.run`."""

from workpool.intake import Intake, Source

__all__ = ["Intake", "Source"]
