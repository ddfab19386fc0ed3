"""Kubernetes: every change of one resource, in order per object; no object and no final state is lost.

What cannot be recovered: the versions in between, where the server has forgotten them, and deletes that happened while
nothing was watching.

    with EventWorkerPool(handle) as pool:
        pool.run(watch("v1/pods", namespace="shop", key=label("app")))

Who is what: `reflector` decides, without I/O, what to ask of the server and what to add to the pool; `reader` does it,
by the `client`; `moving` holds back what has changed its key; `source` is all of it, for `pool.run`. In the extra
`[kubernetes]`.
"""

try:
    from workpool.sources.kubernetes.errors import (
        BadKubeconfig,
        Forbidden,
        KubernetesError,
        NoCluster,
        NotAuthorized,
        UnknownResource,
    )
    from workpool.sources.kubernetes.events import Event
    from workpool.sources.kubernetes.keys import Key, KeyFunction, Missing, MissingKey, annotation, label
    from workpool.sources.kubernetes.source import KubernetesSource, watch
except ModuleNotFoundError as _error:
    _error.add_note("pip install 'workpool[kubernetes]'")
    raise

__all__ = [
    "BadKubeconfig", "Event", "Forbidden", "Key", "KeyFunction", "KubernetesError", "KubernetesSource", "Missing",
    "MissingKey", "NoCluster", "NotAuthorized", "UnknownResource", "annotation", "label", "watch",
]  # fmt: skip
