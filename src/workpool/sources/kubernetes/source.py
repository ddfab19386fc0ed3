"""`watch`: every change of one resource of a cluster, as a source for `pool.run`."""

from __future__ import annotations

import os
import threading
from functools import partial
from random import random
from time import monotonic
from typing import Any, Final

from workpool.intake import Intake
from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.errors import KubernetesError, error_of
from workpool.sources.kubernetes.keys import Key, Missing
from workpool.sources.kubernetes.moving import Moving
from workpool.sources.kubernetes.objects import read_page
from workpool.sources.kubernetes.reader import Reader, Stopped
from workpool.sources.kubernetes.reflector import Reflector
from workpool.sources.kubernetes.resources import check_names, find
from workpool.sources.kubernetes.steps import Ended, Failure, Page

__all__ = ["KubernetesSource", "watch"]

_MOMENT: Final = 0.02
_MOMENTS: Final = 50
"""How often `stop` looks."""


def watch(
    resource: str,
    *,
    namespace: str | None = None,
    selector: str | None = None,
    field_selector: str | None = None,
    key: Key = "namespace/name",
    missing: Missing = "namespace/name",
    keep_old: bool = True,
    kubeconfig: str | os.PathLike[str] | None = None,
    context: str | None = None,
    limit: int | None = 500,
    from_cache: bool = False,
    streaming: bool = False,
    idle: float = 70.0,
    resync: float | None = None,
    give_up_after: float | None = None,
) -> KubernetesSource:
    """List and watch one resource, for `pool.run(...)`: each object's changes in order, under its key.

    No object and no final state is lost, and no object's changes change places, over disconnects, versions that have
    expired, restarts of the API server and connections that are half open. What cannot be known is what came and went
    while nobody could watch.

    Cost: one thread while it is read; the live objects are kept, each as it was last (less without `keep_old`).

    Args:
        resource: `group/version/plural`, as "apps/v1/deployments", or "v1/pods" of the core group; or a name that the
            server knows it by: "pods", "Pod", "deploy", "widgets.example.com".
        namespace: Where; None for all of them.
        selector: Only objects with such labels, as "app=web,tier!=cache". One that ceases to match is DELETED.
        field_selector: Only objects with such fields, as "spec.nodeName=node-1".
        key: Names an object's lane: "namespace/name", "uid", `label("app")`, `annotation("...")`, or a function of the
            object. Where an object's key changes, its events under the new one wait for those under the old one.
        missing: What an object without a key does: "namespace/name" has it use that, "skip" leaves it out, and "fail"
            ends the source.
        keep_old: Keep whole objects, for `Event.old` and for what is found to be deleted without having been seen so.
        kubeconfig: The file; None for $KUBECONFIG, ~/.kube/config, or the service account of the pod it runs in.
        context: Of the kubeconfig; None for its current one.
        limit: Objects to a page of a list; None for one page.
        from_cache: Let the first list be of any version: cheaper for the server, and it may show what was before.
        streaming: Ask for a list as a stream, where the server can: it takes less of the server's memory.
        idle: Seconds of silence after which a watch is opened anew: a connection that is dead says nothing.
        resync: Seconds from one repetition of all known objects, as MODIFIED with `resync=True`, to the next; None for
            none.
        give_up_after: Seconds without any success after which the source raises; None to try for ever.

    Raises:
        BadKubeconfig, NoCluster: There is no such configuration, or none at all.
        TypeError, ValueError: An argument is wrong.
    """
    make = partial(
        Reflector, key=key, missing=missing, keep_old=keep_old, limit=limit, from_cache=from_cache,
        streaming=streaming, idle=idle, resync=resync, give_up_after=give_up_after,
    )  # fmt: skip
    check_names(resource, namespace)
    make(0.0, 0.0)  # It looks at the other arguments.
    selectors = {"labelSelector": selector, "fieldSelector": field_selector}
    query = {name: value for name, value in selectors.items() if value}
    return KubernetesSource(Client.load(kubeconfig, context), resource, namespace, query, idle=idle, make=make)


class KubernetesSource:
    """A resource that is watched; made by `watch`. It is read once."""

    def __init__(
        self,
        client: Client,
        resource: str,
        namespace: str | None,
        query: dict[str, str],
        *,
        idle: float,
        make: partial[Reflector],
    ) -> None:
        where = f" in namespace {namespace}" if namespace else ""
        self.name: str = f"watch of {resource}{where}"
        self._client, self._resource, self._namespace, self._query, self._idle, self._make = (
            client, resource, namespace, query, idle, make,
        )  # fmt: skip
        self._lock = threading.RLock()
        """Around who reads it, and whether it is to be read. Re-entrant: a signal handler may stop it, too."""
        self._intake: Intake[Any, Any] | None = None
        self._moving: Moving | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._synced = False
        self._settled = threading.Event()
        """It is synced, or over."""
        self._over = threading.Event()

    def check(self) -> None:
        """Ask the server once whether this can be read, for whoever wants to hear of it at once: a watch only retries.

        Raises:
            NoCluster: The server does not answer.
            NotAuthorized, Forbidden, UnknownResource: It does, and refuses.
            KubernetesError: It refuses for another reason.
        """
        path = find(self._client, self._resource).path(self._namespace)
        found = self._client.list(path, {**self._query, "limit": "1"}, self._idle)
        if isinstance(found, Page) and read_page(found.body) is None:
            found = Failure(error="the answer is no list")
        if isinstance(found, Failure):
            raise error_of(found, self._client.server, "list", self._resource, self._namespace)

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Wait until all that was there at the start is added.

        Args:
            timeout: How many seconds to wait at most; None until that is so, or the source has ended.

        Returns:
            Whether it is.
        """
        self._settled.wait(timeout)
        return self._synced

    def feed(self, intake: Intake[Any, Any]) -> None:
        """Add every change to a pool, until it is stopped: what `pool.run` calls.

        Raises:
            KubernetesError: The resource cannot be found, or `give_up_after` has passed.
            MissingKey: An object has no key, and `missing` is "fail".
            RuntimeError: It was read before.
        """
        with self._lock:
            if self._thread is not None:
                raise RuntimeError(f"the {self.name} has been read already: make another")
            self._intake, self._moving, self._thread = intake, Moving(intake), threading.current_thread()
        try:
            if not self._stopping.is_set():
                self._read(intake, self._moving)
        except Stopped:
            pass
        finally:
            self._client.close()
            self._over.set()
            self._settled.set()

    def stop(self) -> None:
        """End it, from any thread and any number of times. Once this returns nothing more is added.

        It waits for that, a second at most: a key's function may take its time.
        """
        with self._lock:
            self._stopping.set()
            intake, moving, thread = self._intake, self._moving, self._thread
        if intake is None or moving is None:
            self._client.close()
            self._settled.set()
            return
        intake.close()
        moving.let_go()
        for _ in range(_MOMENTS):
            self._client.interrupt()  # Again and again: a request may have begun just now.
            if thread is threading.current_thread() or self._over.wait(_MOMENT):
                break

    def _read(self, intake: Intake[Any, Any], moving: Moving) -> None:
        try:
            path = find(self._client, self._resource).path(self._namespace)
        except KubernetesError as error:
            if self._stopping.is_set():  # To be interrupted is no failure.
                raise Stopped from error
            raise
        reader = Reader(
            self._client, path, self._query, moving, self._stopping,
            idle=self._idle, synced=self._sync, name=self.name,
        )  # fmt: skip
        try:
            reflector = self._make(monotonic(), random())
            step = reflector.step
            while not isinstance(step, Ended):
                step = reflector.answer(reader.do(step), monotonic(), random())
            reader.flush()
        finally:
            intake.close()
            reader.hang_up()
            moving.close()
        if step.why.error is not None:
            raise step.why.error
        if step.why.status in (401, 403, 404):
            failure = Failure(step.why.status)
            raise error_of(failure, self._client.server, step.why.what, self._resource, self._namespace)
        raise KubernetesError(
            f"{self.name}: given up after {step.why.lasting:.0f} s without success; the last: {step.why.text}"
        )

    def _sync(self) -> None:
        self._synced = True
        self._settled.set()
