"""The role that a watch needs, as YAML to apply: to get, list and watch, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

from workpool.sources.kubernetes.resources import Resource

__all__ = ["rbac"]

API: Final = "rbac.authorization.k8s.io"
VERBS: Final = ("get", "list", "watch")


def rbac(
    resources: Iterable[Resource], namespace: str | None, name: str = "workpool", service_account: str = ""
) -> str:
    """A service account, a role that allows it to watch, and the binding of the two.

    Args:
        resources: What it may watch.
        namespace: Where. None for the whole cluster: then the role and its binding are those of the cluster.
        name: Of the role and of the binding.
        service_account: As "namespace/name", or a name in `namespace` ("default" where that is None); empty for `name`.

    Raises:
        ValueError: There is no resource, or one that is in no namespace and would be allowed in one.
    """
    groups: dict[str, list[str]] = {}
    for resource in resources:
        resource.path(namespace)  # Refuses what is in no namespace.
        plurals = groups.setdefault(resource.group, [])
        if resource.plural not in plurals:
            plurals.append(resource.plural)
    if not groups:
        raise ValueError("there is no resource to allow")
    home, _, account = (service_account or name).rpartition("/")
    subject = {"kind": "ServiceAccount", "name": account, "namespace": home or namespace or "default"}
    role = "ClusterRole" if namespace is None else "Role"
    place = {} if namespace is None else {"namespace": namespace}
    rules = [
        {"apiGroups": [group], "resources": plurals, "verbs": [*VERBS]} for group, plurals in sorted(groups.items())
    ]
    documents: list[dict[str, Any]] = [
        _document("v1", "ServiceAccount", name=account, namespace=subject["namespace"]),
        {**_document(f"{API}/v1", role, name=name, **place), "rules": rules},
        {
            **_document(f"{API}/v1", f"{role}Binding", name=name, **place),
            "roleRef": {"apiGroup": API, "kind": role, "name": name},
            "subjects": [subject],
        },
    ]
    made: str = yaml.safe_dump_all(documents, sort_keys=False)
    return made


def _document(api_version: str, kind: str, **metadata: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
