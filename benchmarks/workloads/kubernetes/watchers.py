"""Ways to follow pods, each as its users would write it; and the process that one of them is measured in.

Each is given the address of a server, which KUBECONFIG names as well, and calls `handle` with each event until the
process ends. The bare loops, and the `Watch` of the official client and of kubernetes_asyncio, lose what happens while
they are away, unless their users see to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import count
from typing import Any

Handler = Callable[[Any], object]
Watcher = Callable[[str, Handler], object]

JSON = "urllib3 + json"
ORJSON = "urllib3 + orjson"
WITHOUT_OLD = "workpool, no keep_old"
ON_LOOP = "workpool, asyncio"
OFFICIAL = "kubernetes Watch"
INFORMER = "kubernetes SharedInformer"
ASYNCIO = "kubernetes_asyncio Watch"
LIGHTKUBE = "lightkube"
KOPF = "kopf"


def watch_bare(address: str, handle: Handler, loads: Callable[[bytes], Any]) -> None:
    """List, then watch from there: not what happens if anything fails."""
    urllib3 = import_module("urllib3")
    http = urllib3.PoolManager()
    listed = loads(http.request("GET", f"{address}/api/v1/pods").data)
    for item in listed["items"]:
        handle({"type": "ADDED", "object": item})
    fields = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
    for line in http.request("GET", f"{address}/api/v1/pods", fields=fields, preload_content=False):
        handle(loads(line))


def watch_json(address: str, handle: Handler) -> None:
    watch_bare(address, handle, json.loads)


def watch_orjson(address: str, handle: Handler) -> None:
    watch_bare(address, handle, import_module("orjson").loads)


def watch_workpool(address: str, handle: Handler, keep_old: bool = True) -> None:  # noqa: ARG001 - the kubeconfig has it
    source = import_module("workpool.sources.kubernetes").watch("v1/pods", keep_old=keep_old)
    import_module("workpool").EventWorkerPool(lambda event: handle(event.object)).run(source)


def watch_without_old(address: str, handle: Handler) -> None:
    watch_workpool(address, handle, keep_old=False)


def watch_on_loop(address: str, handle: Handler) -> None:  # noqa: ARG001
    async def handle_on_loop(event: Any) -> None:
        handle(event.object)

    async def run() -> None:
        source = import_module("workpool.sources.kubernetes").watch("v1/pods")
        await import_module("workpool.asyncio").EventWorkerPool(handle_on_loop).run(source)

    asyncio.run(run())


def watch_official(address: str, handle: Handler) -> None:  # noqa: ARG001
    kubernetes = import_module("kubernetes")
    kubernetes.config.load_kube_config()
    api = kubernetes.client.CoreV1Api()
    for event in kubernetes.watch.Watch().stream(api.list_pod_for_all_namespaces):
        handle(event)


def watch_informer(address: str, handle: Handler) -> None:  # noqa: ARG001
    kubernetes = import_module("kubernetes")
    informers = import_module("kubernetes.informer")
    kubernetes.config.load_kube_config()
    informer = informers.SharedInformer(kubernetes.client.CoreV1Api().list_pod_for_all_namespaces)
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(kind, handle)
    informer.start()
    threading.Event().wait()


def watch_asyncio(address: str, handle: Handler) -> None:  # noqa: ARG001
    client, config, watch = (import_module(f"kubernetes_asyncio.{name}") for name in ("client", "config", "watch"))

    async def run() -> None:
        await config.load_kube_config()
        async with client.ApiClient() as api, watch.Watch() as watching:
            async for event in watching.stream(client.CoreV1Api(api).list_pod_for_all_namespaces):
                handle(event)

    asyncio.run(run())


def watch_lightkube(address: str, handle: Handler) -> None:  # noqa: ARG001
    client = import_module("lightkube").Client()
    pod = import_module("lightkube.resources.core_v1").Pod
    for event in client.watch(pod, namespace="*"):
        handle(event)


def watch_kopf(address: str, handle: Handler) -> None:  # noqa: ARG001
    kopf = import_module("kopf")

    async def see(event: Any, **_: Any) -> None:
        handle(event)

    kopf.on.event("v1", "pods")(see)
    kopf.on.login()(kopf.login_with_kubeconfig)
    kopf.run(standalone=True, clusterwide=True)


MODULES = {
    JSON: ["urllib3"],
    ORJSON: ["urllib3", "orjson"],
    "workpool": ["workpool.sources.kubernetes"],
    WITHOUT_OLD: ["workpool.sources.kubernetes"],
    ON_LOOP: ["workpool.sources.kubernetes", "workpool.asyncio"],
    OFFICIAL: ["kubernetes"],
    INFORMER: ["kubernetes.informer"],
    ASYNCIO: ["kubernetes_asyncio.client", "kubernetes_asyncio.config", "kubernetes_asyncio.watch"],
    LIGHTKUBE: ["lightkube", "lightkube.resources.core_v1"],
    KOPF: ["kopf"],
}
"""What each imports, before the clock."""
WATCHERS: dict[str, Watcher] = {
    JSON: watch_json,
    ORJSON: watch_orjson,
    "workpool": watch_workpool,
    WITHOUT_OLD: watch_without_old,
    ON_LOOP: watch_on_loop,
    OFFICIAL: watch_official,
    INFORMER: watch_informer,
    ASYNCIO: watch_asyncio,
    LIGHTKUBE: watch_lightkube,
    KOPF: watch_kopf,
}


class Marks:
    """A handler that does next to nothing: it counts, and takes the time at some numbers of events.

    At the last it prints, as JSON, the nanoseconds on the clock and of the processor at each, from the start; and ends
    the process there and then, for how to end each of the subjects is no part of this.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = frozenset(numbers)
        self._last = max(numbers)
        self._next = count(1).__next__
        self._taken: list[tuple[int, int]] = []
        self._begin = time.perf_counter_ns(), time.process_time_ns()

    def __call__(self, event: object) -> None:  # noqa: ARG002
        number = self._next()
        if number in self._numbers:
            clock, processor = self._begin
            self._taken.append((time.perf_counter_ns() - clock, time.process_time_ns() - processor))
            if number == self._last:
                print(json.dumps(self._taken), flush=True)
                os._exit(0)


def follow(row: str, address: str, numbers: Sequence[int]) -> None:
    """Follow the pods of a server, and print the marks; null where what that needs is not installed."""
    try:
        for module in MODULES[row]:
            import_module(module)
    except ImportError as error:
        print(f"{row}: {error}", file=sys.stderr)
        print("null")
        return
    WATCHERS[row](address, Marks(numbers))


if __name__ == "__main__":
    follow(sys.argv[1], sys.argv[2], [int(number) for number in sys.argv[3:]])
