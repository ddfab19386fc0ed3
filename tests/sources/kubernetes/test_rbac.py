"""The role that a watch needs: what is printed is what a cluster takes, and allows no more than that."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.rbac import rbac
from workpool.sources.kubernetes.resources import Resource
from workpool.sources.kubernetes.steps import Page
from workpool.testing.kubernetes import ApiServer

PODS = Resource("", "v1", "pods")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets")

ONE = """\
apiVersion: v1
kind: ServiceAccount
metadata:
  name: workpool
  namespace: shop
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: workpool
  namespace: shop
rules:
- apiGroups:
  - ''
  resources:
  - pods
  verbs:
  - get
  - list
  - watch
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: workpool
  namespace: shop
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: workpool
subjects:
- kind: ServiceAccount
  name: workpool
  namespace: shop
"""


def documents(*args: Any, **options: Any) -> list[Any]:
    return [*yaml.safe_load_all(rbac(*args, **options))]


def test_one_resource_in_one_namespace() -> None:
    assert rbac([PODS], "shop") == ONE


def test_several_resources_are_one_role_with_a_rule_for_each_group() -> None:
    _, role, _ = documents([STATEFUL_SETS, PODS, DEPLOYMENTS, PODS], "shop")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets", "deployments"], "verbs": ["get", "list", "watch"]},
    ]


def test_the_whole_cluster() -> None:
    account, role, binding = documents([PODS, Resource("", "v1", "nodes", False)], None, "watcher")
    assert [each["kind"] for each in (account, role, binding)] == [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
    ]
    assert account["metadata"] == {"name": "watcher", "namespace": "default"}
    assert role["metadata"] == binding["metadata"] == {"name": "watcher"}
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "watcher"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "watcher", "namespace": "default"}]


@pytest.mark.parametrize(
    ("given", "namespace", "expected"),
    [("bot", "shop", ("shop", "bot")), ("ops/bot", "shop", ("ops", "bot")), ("bot", None, ("default", "bot"))],
)
def test_the_service_account(given: str, namespace: str | None, expected: tuple[str, str]) -> None:
    account, role, binding = documents([PODS], namespace, service_account=given)
    assert (account["metadata"]["namespace"], account["metadata"]["name"]) == expected
    assert (binding["subjects"][0]["namespace"], binding["subjects"][0]["name"]) == expected
    assert role["metadata"].get("namespace") == binding["metadata"].get("namespace") == namespace


def test_what_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="there is no resource"):
        rbac([], "shop")
    with pytest.raises(ValueError, match="v1/nodes are in no namespace"):
        rbac([PODS, Resource("", "v1", "nodes", False)], "shop")


@pytest.mark.parametrize("namespace", ["shop", None])
def test_a_server_takes_it(client: Client, kubernetes_api: ApiServer, namespace: str | None) -> None:
    for document in documents([PODS], namespace):
        plural = f"{document['kind'].lower()}s"
        kubernetes_api.create(f"{document['apiVersion']}/{plural}", document)
    kind = "roles" if namespace else "clusterroles"
    page = client.list(Resource("rbac.authorization.k8s.io", "v1", kind).path(namespace), {}, 10.0)
    assert isinstance(page, Page)
    assert len(json.loads(page.body)["items"]) == 1
