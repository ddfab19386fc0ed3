"""Keep a ConfigMap for each app that names its ready pods: a controller that is in order per app, and has no lock.

    python examples/controller.py shop          in the namespace "shop", until Ctrl-C or SIGTERM

With the label "app" as the key, one worker at a time follows an app, in order, while other apps go on: so what is known
of an app needs no lock. What is written is always the whole. So an event that is given up on is made good by the next
one of its app, and at the latest by the resync.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Any

from kubernetes.client import ApiException, CoreV1Api, V1ConfigMap, V1ObjectMeta
from kubernetes.config import load_config

from workpool import EventWorkerPool, Retry, Skip
from workpool.sources.kubernetes import Event, label, watch


class Controller:
    def __init__(self, api: CoreV1Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.apps: dict[str, dict[str, bool]] = {}  # By app and pod: is it ready?
        patient = Retry(attempts=8, base=0.5, cap=20, then=Skip())
        self.pool = EventWorkerPool[Any, Event](self.follow, on_failure=patient)
        self.source = watch("v1/pods", namespace=namespace, key=label("app"), missing="skip", resync=600)

    def follow(self, event: Event) -> None:
        app, name = str(event.key), event.object["metadata"]["name"]
        if event.type == "MODIFIED" and (old := event.old_key) != app:
            # Its old app is another lane, and has to hear of it too.
            self.pool.add(old, Event("DELETED", event.object, old))
        pods = self.apps.setdefault(app, {})
        pods[name] = is_ready(event.object)
        if event.type == "DELETED":
            del pods[name]
        if not pods:
            del self.apps[app]
        self.write(f"{app}-ready", pods)

    def write(self, name: str, pods: dict[str, bool]) -> None:
        labels = {"app.kubernetes.io/managed-by": "ready-pods"}
        metadata = V1ObjectMeta(name=name, labels=labels)
        ready = " ".join(sorted(pod for pod in pods if pods[pod]))
        made = V1ConfigMap(metadata=metadata, data={"pods": ready})
        try:
            if pods:
                self.api.replace_namespaced_config_map(name, self.namespace, made)
            else:
                self.api.delete_namespaced_config_map(name, self.namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            if pods:
                self.api.create_namespaced_config_map(self.namespace, made)

    def run(self) -> None:
        with self.pool, suppress(KeyboardInterrupt):  # Leaving the block drains.
            self.pool.run(self.source)


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


if __name__ == "__main__":
    load_config()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # What a pod is sent ends it as Ctrl-C does.
    Controller(CoreV1Api(), sys.argv[1]).run()
