"""A Kubernetes API server for tests of operators and of watches, with its faults on demand: no cluster, no Docker.

    with ApiServer() as server:
        server.create("v1/pods", {"metadata": {"name": "a", "labels": {"app": "web"}}})
        server.inject("watch", Reset(after=3), Answer(429, retry_after=1))
        ...                                    # your operator, at server.url or by server.write_kubeconfig(path)
        server.wait_for_watches(1)

It models one log of versions with compaction, uids, lists by pages, selectors, watches with bookmarks, streaming
lists, writes, discovery and the token. It has no admission, no schemas, no garbage collection and no controllers: a pod
that is created here is never run. `workpool.testing.plugin` offers it to pytest.

The model (`store`, `query`, `selector`, `resource`) is pure and may be used without the server.
"""

from workpool.testing.kubernetes.faults import (
    Answer,
    Do,
    End,
    ErrorEvent,
    Fault,
    Garbage,
    Hang,
    Reset,
    StreamFault,
    Truncate,
    Unversioned,
)
from workpool.testing.kubernetes.request import Request
from workpool.testing.kubernetes.server import ApiServer
from workpool.testing.kubernetes.status import ApiError

__all__ = [
    "Answer", "ApiError", "ApiServer", "Do", "End", "ErrorEvent", "Fault", "Garbage", "Hang", "Request", "Reset",
    "StreamFault", "Truncate", "Unversioned",
]  # fmt: skip
