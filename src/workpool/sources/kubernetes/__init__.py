"""Kubernetes: every change of one resource, in order per object; no object and no final state is lost.

What cannot be recovered: the versions in between, where the server has forgotten them, and deletes that happened while
nothing was watching. `events` is what a handler sees, `keys` names its lane, and `reflector` decides, without I/O, what
to ask of the server and what to add to the pool.
"""

from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.keys import Key, KeyFunction, Missing, annotation, label

__all__ = ["Event", "Key", "KeyFunction", "Missing", "annotation", "label"]
