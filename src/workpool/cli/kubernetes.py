"""`k8s:` on the command line: a resource of a cluster as a source, its keys, and how it is recorded."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Any, Final, cast

from msgspec.json import encode

from workpool.cli.keys import KeyExpression, NoKey
from workpool.cli.meter import MeteredIntake
from workpool.cli.output import Complaint
from workpool.cli.reader import Reader
from workpool.sources.kubernetes import Event, Key, KubernetesError, KubernetesSource, annotation, label, watch
from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.rbac import rbac
from workpool.sources.kubernetes.resources import find

__all__ = ["WatchReader", "open_watch", "print_rbac", "record_all", "write_event"]

PREFIX: Final = "k8s:"

_FLAGS = ("synthetic", "initial", "resync")


class WatchReader(Reader):
    """Reads a watch, until it is stopped."""

    def __init__(self, source: KubernetesSource) -> None:
        super().__init__()
        self._source = source

    def stop(self) -> None:
        """Read no more."""
        self._source.stop()

    def _feed(self, intake: MeteredIntake) -> None:
        self._source.feed(intake)


def open_watch(spec: str, key: str | None, **place: Any) -> WatchReader:
    """A reader of `k8s:RESOURCE`, once the server has said that it can be read.

    Args:
        spec: As on the command line.
        key: As on the command line.
        place: Options of `workpool.sources.kubernetes.watch`.

    Raises:
        Complaint: There is no such resource, no cluster, or no permission.
    """
    return _open(spec, key=_key(key), **place)


def record_all(spec: str, **place: Any) -> WatchReader:
    """The same, with one key for all: in the order in which the server tells."""
    return _open(spec, key=lambda _: "all", keep_old=False, **place)


def print_rbac(specs: Sequence[str], namespace: str | None, kubeconfig: str | None, context: str | None) -> str:
    """The Role and its binding for some resources, as YAML.

    Raises:
        Complaint: There is no such resource, or no cluster to ask.
    """
    names = [_resource(spec) for spec in specs]
    try:
        # Names in full are looked up nowhere.
        client = cast("Client", None) if all("/" in name for name in names) else Client.load(kubeconfig, context)
        return rbac([find(client, name) for name in names], namespace)
    except (KubernetesError, ValueError) as error:
        raise Complaint(str(error)) from error


def _open(spec: str, **options: Any) -> WatchReader:
    try:
        source = watch(_resource(spec), **options)
        source.check()
    except (KubernetesError, ValueError) as error:
        raise Complaint(str(error)) from error
    return WatchReader(source)


def _resource(spec: str) -> str:
    resource = spec.removeprefix(PREFIX)
    if resource == spec or not resource:
        raise Complaint(f"{spec!r} is no resource of Kubernetes: k8s:v1/pods and k8s:apps/v1/deployments are")
    return resource


def _key(expression: str | None) -> Key:
    """The key that `--key` names: `label:NAME`, `annotation:NAME`, `uid`, `namespace/name`, or JMESPath of the event.

    Raises:
        Complaint: It is none of those.
    """
    if expression in (None, "namespace/name"):
        return "namespace/name"
    if expression == "uid":
        return "uid"
    kind, colon, name = expression.partition(":")
    if colon and kind in ("label", "annotation"):
        if not name:
            raise Complaint(f"--key {expression} lacks the name of the {kind}")
        return label(name) if kind == "label" else annotation(name)
    find = KeyExpression(expression)

    def find_in_event(object: dict[str, Any]) -> Hashable:
        try:
            return find({"object": object})
        except NoKey:
            return None

    return find_in_event


def write_event(event: Event) -> None:
    """Print an event as a line of a watch, which is what `run` reads."""
    line: dict[str, Any] = {"type": event.type, "object": event.object}
    line |= {name: True for name in _FLAGS if event[name]}
    sys.stdout.buffer.write(encode(line) + b"\n")
    sys.stdout.buffer.flush()
