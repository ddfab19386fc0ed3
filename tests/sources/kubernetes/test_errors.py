"""What a person is told: one line, that says what to do, and the facts beside it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from workpool import WorkpoolError
from workpool.sources.kubernetes import errors
from workpool.sources.kubernetes.errors import (
    BadKubeconfig,
    Forbidden,
    KubernetesError,
    NoCluster,
    NotAuthorized,
    UnknownResource,
    error_of,
)
from workpool.sources.kubernetes.steps import Failure
from workpool.testing.kubernetes.status import forbidden, internal_error, unauthorized, unknown_resource

SERVER = "https://10.0.0.1:6443"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [line.split()[1] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]
    assert sorted(drawn) == sorted(each.__name__ for each in classes)
    assert all(issubclass(each, KubernetesError) for each in classes)
    assert issubclass(KubernetesError, WorkpoolError)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            Failure(error="connection refused"), NoCluster,
            f"{SERVER} does not answer: connection refused; is that the cluster, and is it up?",
        ),
        (
            Failure(401, unauthorized()), NotAuthorized,
            f"{SERVER} does not accept the credentials: log in again, or choose another context",
        ),
        (
            Failure(403, forbidden()), Forbidden,
            'no role allows to list v1/pods in the namespace shop: "workpool kubernetes rbac k8s:v1/pods" prints the '
            "one that is needed",
        ),
        (Failure(404, unknown_resource()), UnknownResource, f"'v1/pods' is no resource of {SERVER}"),
        (
            Failure(500, internal_error("no\nluck")), KubernetesError,
            f"{SERVER} refused to list v1/pods: 500: Internal error occurred: no luck",
        ),
        (Failure(302, None, error="Found"), KubernetesError, f"{SERVER} refused to list v1/pods: 302: Found"),
    ],
)  # fmt: skip
def test_a_failure_as_an_error(failure: Failure, kind: type[KubernetesError], message: str) -> None:
    error = error_of(failure, SERVER, "list", "v1/pods", "shop")
    assert (type(error), str(error)) == (kind, message)


def test_facts_are_attributes() -> None:
    whole = error_of(Failure(403), SERVER, "watch", "v1/pods")
    assert isinstance(whole, Forbidden)
    assert (whole.verb, whole.resource, whole.namespace) == ("watch", "v1/pods", None)
    assert "in the whole cluster" in str(whole)
    silent, unknown = NoCluster(SERVER, "time-out"), NotAuthorized(SERVER)
    assert (silent.server, silent.reason, unknown.server) == (SERVER, "time-out", SERVER)
    resource = UnknownResource("pdos", "is no resource", ["v1/pods", "v1/nodes"])
    assert (resource.name, resource.choices) == ("pdos", ("v1/pods", "v1/nodes"))
    assert str(resource) == "'pdos' is no resource: write v1/pods or v1/nodes"
    assert str(BadKubeconfig("a:b", "it is old")) == "the kubeconfig a:b cannot be used: it is old"


def test_without_the_extra_everything_else_is_there_and_this_says_what_is_missing() -> None:
    script = """
import sys
for name in ("kubernetes", "urllib3", "msgspec", "yaml"):
    sys.modules[name] = None
import workpool, workpool.sources.ndjson, workpool.testing.kubernetes
import workpool.sources.kubernetes
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "pip install 'workpool[kubernetes]'"
