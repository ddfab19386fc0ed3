"""Every error of the Kubernetes source's.

    WorkpoolError
    └── KubernetesError         the server refused, in a way that has no name below
        ├── BadKubeconfig       the caller's: a file is missing, is no kubeconfig, or has no such context
        ├── NoCluster           the world's: there is nothing to connect to, or nothing answers there
        ├── NotAuthorized       the caller's: the server does not know who asks (401)
        ├── Forbidden           the caller's: it knows, and no role allows it (403)
        └── UnknownResource     the caller's: the server has no such resource (404), or it has several

None of the last four ends a watch: it reports them and goes on. They are raised where there is somebody to read them,
at the start, or once a watch is given up.
"""

from __future__ import annotations

from collections.abc import Sequence

from workpool.errors import WorkpoolError
from workpool.sources.kubernetes.steps import Failure

__all__ = [
    "BadKubeconfig", "Forbidden", "KubernetesError", "NoCluster", "NotAuthorized", "UnknownResource", "error_of",
    "in_one_line",
]  # fmt: skip


class KubernetesError(WorkpoolError):
    """The base of these errors; by itself, a refusal that no other of them names."""


class BadKubeconfig(KubernetesError):
    """A kubeconfig cannot be used: correct it, or name another.

    Attributes:
        path: The file, or the files, as `KUBECONFIG` has them; empty for a configuration that was handed over.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the {f'kubeconfig {path}' if path else 'configuration'} cannot be used: {reason}")
        self.path = path
        self.reason = reason


class NoCluster(KubernetesError):
    """There is no cluster to connect to, or it does not answer.

    Attributes:
        server: Its address; empty where none is known.
        reason: What was tried, and what came of it.
    """

    def __init__(self, server: str, reason: str) -> None:
        if server:
            super().__init__(f"{server} does not answer: {reason}; is that the cluster, and is it up?")
        else:
            super().__init__(f"there is no cluster: {reason}; name a kubeconfig, or set KUBECONFIG")
        self.server = server
        self.reason = reason


class NotAuthorized(KubernetesError):
    """The server does not accept the credentials: log in again, or choose another context.

    Attributes:
        server: Its address.
    """

    def __init__(self, server: str) -> None:
        super().__init__(f"{server} does not accept the credentials: log in again, or choose another context")
        self.server = server


class Forbidden(KubernetesError):
    """No role allows it: give one to whoever this runs as.

    Attributes:
        verb: What was tried, such as "list".
        resource: With what, such as "apps/v1/deployments".
        namespace: Where; None for the whole cluster.
    """

    def __init__(self, verb: str, resource: str, namespace: str | None, cure: str = "") -> None:
        where = "in the whole cluster" if namespace is None else f"in the namespace {namespace}"
        cure = cure or f'"workpool kubernetes rbac k8s:{resource}" prints the one that is needed'
        super().__init__(f"no role allows to {verb} {resource} {where}: {cure}")
        self.verb = verb
        self.resource = resource
        self.namespace = namespace


class UnknownResource(KubernetesError):
    """The server has no such resource, or several by that name: write one of those that the message lists.

    Attributes:
        name: As it was given.
        choices: What may have been meant, such as "apps/v1/deployments"; the likeliest first.
    """

    def __init__(self, name: str, reason: str, choices: Sequence[str] = ()) -> None:
        super().__init__(f"{name!r} {reason}" + (f": write {' or '.join(choices)}" if choices else ""))
        self.name = name
        self.choices: tuple[str, ...] = tuple(choices)


def error_of(failure: Failure, server: str, verb: str, resource: str, namespace: str | None = None) -> KubernetesError:
    """The error that tells a person of a failed request.

    Args:
        failure: What came of it.
        server: The address that it went to.
        verb: What was asked for, such as "list".
        resource: Of what, such as "v1/pods".
        namespace: Where; None for the whole cluster.
    """
    match failure.status:
        case None:
            return NoCluster(server, in_one_line(str(failure)))
        case 401:
            return NotAuthorized(server)
        case 403:
            return Forbidden(verb, resource, namespace)
        case 404:
            return UnknownResource(resource, f"is no resource of {server}")
    return KubernetesError(f"{server} refused to {verb} {resource}: {in_one_line(str(failure))}")


def in_one_line(text: object) -> str:
    """The text of something without its line breaks."""
    return " ".join(str(text).split())
