"""Names of resources: those that say all, and those that the server is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from sources.kubernetes.world import document
from workpool.sources.kubernetes import watch
from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.errors import (
    Forbidden,
    KubernetesError,
    NoCluster,
    NotAuthorized,
    UnknownResource,
)
from workpool.sources.kubernetes.resources import Resource, find
from workpool.sources.kubernetes.steps import Failure, Page
from workpool.testing.kubernetes import Answer, ApiServer, Request, Reset

PODS = Resource("", "v1", "pods", True, "Pod")
NODES = Resource("", "v1", "nodes", False, "Node")
DEPLOYMENTS = Resource("apps", "v1", "deployments", True, "Deployment")
ALL = ["get", "list", "watch"]


class Told:
    """A client of a server that says these documents, and 404 of all else."""

    server = "https://10.0.0.1"

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self.documents = documents

    def list(self, path: str, query: Mapping[str, str], timeout: float) -> Page | Failure:
        found = self.documents.get(path, Failure(404, "not found"))
        return found if isinstance(found, Failure) else document(found)


def told(core: list[dict[str, Any]], **groups: Any) -> Client:
    """A client of a server with such resources in its core, and with groups of one version."""
    documents: dict[str, Any] = {
        "/api": {"versions": ["v1"]},
        "/api/v1": {"groupVersion": "v1", "resources": core},
        "/apis": {
            "groups": [
                {"name": name, "versions": [version], "preferredVersion": version}
                for name, version in ((name, {"groupVersion": f"{name}/v1"}) for name in groups)
            ]
        },
    }
    for name, resources in groups.items():
        listed = resources if isinstance(resources, Failure) else {"groupVersion": f"{name}/v1", "resources": resources}
        documents[f"/apis/{name}/v1"] = listed
    return cast(Client, Told(documents))


def entry(plural: str, kind: str, verbs: list[str] = ALL, *short_names: str) -> dict[str, Any]:
    """A resource as a server tells of it: older ones have no singular name for most."""
    more = {"shortNames": [*short_names]} if short_names else {}
    return {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs, **more}


# Names that say all.


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("v1/pods", Resource("", "v1", "pods")),
        ("apps/v1/deployments", Resource("apps", "v1", "deployments")),
        ("example.com/v1alpha1/widgets", Resource("example.com", "v1alpha1", "widgets")),
        ("a-b.example/old/widgets", Resource("a-b.example", "old", "widgets")),
    ],
)
def test_a_whole_name_is_not_looked_up(
    client: Client, kubernetes_api: ApiServer, name: str, resource: Resource
) -> None:
    assert find(client, name) == resource
    assert resource.name == name
    assert kubernetes_api.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "v1/", "/pods", "apps/deployments", "v1/pods/status/x", "apps/v1/deployments/", "a b", "v1/Pods",
        "pods.", ".apps", "-a", "a-", "pods\n", "v1/pods?x", "../v1/pods", "pödß", "*",
    ],
)  # fmt: skip
def test_what_is_no_name(client: Client, kubernetes_api: ApiServer, name: str) -> None:
    with pytest.raises(ValueError, match='is no resource: write group/version/plural, as "apps/v1/deployments"'):
        find(client, name)
    assert kubernetes_api.requests == []


# Names that are looked up.


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("pods", PODS), ("Pod", PODS), ("pod", PODS), ("po", PODS), ("PODS", PODS), ("no", NODES), ("nodes", NODES),
        ("deployments", DEPLOYMENTS), ("Deployment", DEPLOYMENTS), ("deploy", DEPLOYMENTS),
        ("deployments.apps", DEPLOYMENTS), ("Deployment.apps", DEPLOYMENTS), ("deploy.apps", DEPLOYMENTS),
        ("endpointslice", Resource("discovery.k8s.io", "v1", "endpointslices", True, "EndpointSlice")),
    ],
)  # fmt: skip
def test_a_name_as_people_write_it(client: Client, name: str, resource: Resource) -> None:
    assert find(client, name) == resource


def test_a_custom_resource(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget", namespaced=False, short_names=["wd"])
    for name in ("widgets", "widget", "Widget", "wd", "widgets.example.com", "wd.example.com"):
        assert find(client, name) == Resource("example.com", "v1", "widgets", False, "Widget")


def test_the_core_is_asked_first_and_a_group_that_is_named_alone(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("metrics.example/v1/pods", "PodMetrics")
    assert find(client, "pods") == PODS
    assert [request.path for request in kubernetes_api.requests] == ["/api", "/api/v1"]
    assert find(client, "pods.metrics.example").kind == "PodMetrics"
    assert [request.path for request in kubernetes_api.requests[2:]] == ["/apis", "/apis/metrics.example/v1"]


def test_the_version_that_a_group_prefers_comes_first(client: Client, kubernetes_api: ApiServer) -> None:
    for version in ("v1alpha1", "v1", "v1beta1"):
        kubernetes_api.add_resource(f"example.com/{version}/widgets", "Widget")
    kubernetes_api.add_resource("example.com/v1beta1/gadgets", "Gadget")
    assert find(client, "widgets").name == "example.com/v1/widgets"
    assert find(client, "gadget").name == "example.com/v1beta1/gadgets", "the preferred version does not have it"


def test_the_version_that_a_group_prefers_need_not_be_its_first() -> None:
    client = told([], a=[entry("widgets", "Widget")])
    documents = cast(Told, client).documents
    documents["/apis"]["groups"][0]["versions"].insert(0, {"groupVersion": "a/v2"})
    both = {**documents, "/apis/a/v2": {**documents["/apis/a/v1"], "groupVersion": "a/v2"}}
    assert find(cast(Client, Told(both)), "widgets").name == "a/v1/widgets"


def test_a_name_of_several_resources_is_an_error_that_lists_them(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("a.example/v1/clusters", "Cluster")
    kubernetes_api.add_resource("b.example/v1/clusters", "Cluster")
    kubernetes_api.add_resource("c.example/v1/clouds", "Cloud", short_names=["clusters"])
    with pytest.raises(
        UnknownResource,
        match=r"^'Cluster' is the name of several resources: write a\.example/v1/clusters or b\.example/v1/clusters$",
    ) as caught:
        find(client, "Cluster")
    assert caught.value.choices == ("a.example/v1/clusters", "b.example/v1/clusters")
    with pytest.raises(UnknownResource, match="several"):
        find(client, "clusters")
    assert find(client, "clusters.c.example").name == "c.example/v1/clouds"
    assert find(client, "cluster.b.example").name == "b.example/v1/clusters"


def test_an_unknown_name_is_an_error_that_lists_what_looks_like_it(client: Client) -> None:
    with pytest.raises(UnknownResource, match=r"^'deploymet' is no resource of http://\S+: write ") as caught:
        find(client, "deploymet")
    assert (caught.value.name, caught.value.choices[0]) == ("deploymet", "apps/v1/deployments")
    with pytest.raises(UnknownResource, match=r"^'xyzzy' is no resource of http://127\.0\.0\.1:[0-9]+$"):
        find(client, "xyzzy")
    with pytest.raises(UnknownResource, match=r"^'pods\.none\.example' is no resource of "):
        find(client, "pods.none.example")


def test_what_cannot_be_listed_and_watched_is_passed_over() -> None:
    client = told(
        [entry("pods", "Pod"), entry("pods/status", "Pod", ["get"]), entry("bindings", "Binding", ["create"])],
        metrics=[entry("nodes", "NodeMetrics", ["get", "list"])],
        karma=[entry("nodes", "Node")],
    )
    assert find(client, "nodes").name == "karma/v1/nodes"
    assert find(client, "pod") == PODS
    with pytest.raises(
        UnknownResource, match=r"^'binding' cannot be watched: https://10\.0\.0\.1 has no list and watch"
    ):
        find(client, "binding")
    with pytest.raises(UnknownResource, match="is no resource") as caught:
        find(client, "bindin")
    assert caught.value.choices == ()


def test_the_name_itself_comes_before_a_short_name() -> None:
    client = told([], a=[entry("po", "Po")], b=[entry("points", "Point", ALL, "po")])
    assert find(client, "po").name == "a/v1/po"
    assert find(client, "point").name == "b/v1/points"


# When the server does not answer.


def test_a_group_that_is_down_is_passed_over_and_named() -> None:
    client = told([], metrics=Failure(503, "down"), a=[entry("gadgets", "Gadget")])
    assert find(client, "gadgets").name == "a/v1/gadgets"
    with pytest.raises(UnknownResource, match=r"'nodes' is no resource of \S+ \(metrics/v1 did not answer\)$"):
        find(client, "nodes")


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Reset(after=None), NoCluster, "does not answer: connection reset; is that the cluster, and is it up?"),
        (Answer(401), NotAuthorized, "does not accept the credentials"),
        (
            Answer(403),
            Forbidden,
            'no role allows to get /api in .*: write the resource with its version, such as "apps/v1',
        ),
        (Answer(404), KubernetesError, "has no /api: is that the address of a Kubernetes API server"),
        (Answer(500), KubernetesError, "refused to get /api: 500: "),
    ],
)
def test_a_server_that_does_not_say(
    client: Client, kubernetes_api: ApiServer, fault: Any, kind: type[KubernetesError], message: str
) -> None:
    kubernetes_api.inject("discover", fault)
    with pytest.raises(KubernetesError, match=message) as caught:
        find(client, "pods")
    assert type(caught.value) is kind


def test_a_server_that_is_gone_amid_the_look_up_is_no_group_that_is_down(
    client: Client, kubernetes_api: ApiServer
) -> None:
    def of_apps(request: Request) -> bool:
        return request.path == "/apis/apps/v1"

    kubernetes_api.inject(of_apps, Reset(after=None))
    with pytest.raises(NoCluster):
        find(client, "deployments")


@pytest.mark.parametrize("answer", [5, [], {}, {"versions": None}, {"versions": [1]}, None])
def test_an_answer_that_is_not_understood(answer: Any) -> None:
    for client in (Told({"/api": answer}), Told({"/api": {"versions": ["v1"]}, "/api/v1": answer})):
        with pytest.raises(KubernetesError):
            find(cast(Client, client), "pods")


# Paths.


@pytest.mark.parametrize(
    ("resource", "namespace", "path"),
    [
        (PODS, None, "/api/v1/pods"),
        (PODS, "shop", "/api/v1/namespaces/shop/pods"),
        (NODES, None, "/api/v1/nodes"),
        (DEPLOYMENTS, None, "/apis/apps/v1/deployments"),
        (DEPLOYMENTS, "shop", "/apis/apps/v1/namespaces/shop/deployments"),
        (Resource("", "v1", "nodes"), "shop", "/api/v1/namespaces/shop/nodes"),
    ],
)
def test_the_path_of_a_resource(resource: Resource, namespace: str | None, path: str) -> None:
    assert resource.path(namespace) == path


def test_a_path_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^v1/nodes are in no namespace: leave it out$"):
        NODES.path("shop")
    for namespace in ("", "a/b", "Shop", "..", "shop\n", "a.b"):
        with pytest.raises(ValueError, match="is no name of a namespace"):
            PODS.path(namespace)


@pytest.mark.parametrize(("resource", "namespace"), [("a/b/c/d", None), ("v1/pods", ""), ("pods", "Shop")])
def test_a_watch_of_what_cannot_be_is_refused_before_anything_is_asked(resource: str, namespace: str | None) -> None:
    with pytest.raises(ValueError, match=r"is no resource: |is no name of a namespace"):
        watch(resource, namespace=namespace, kubeconfig="/nowhere")
