"""What kinds of objects a server has, the paths that name them, and the documents that tell a client so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from workpool.testing.kubernetes.status import ApiError, unknown_resource

__all__ = ["BUILT_IN", "SHOWN_DELETED", "Path", "Resource", "discovery"]

_VERBS: Final = ["create", "delete", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, by the names that it has on the wire."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    """Such as "po" for pods."""

    @classmethod
    def of(cls, name: str, kind: str, *, namespaced: bool = True, short_names: Iterable[str] = ()) -> Resource:
        """By its name as `group/version/plural`, or `version/plural` for the core group."""
        match name.split("/"):
            case [group, version, plural] if group and version and plural:
                return cls(group, version, plural, kind, namespaced, (*short_names,))
            case [version, plural] if version and plural:
                return cls("", version, plural, kind, namespaced, (*short_names,))
        raise ValueError(f"{name!r} is no resource: write group/version/plural, as apps/v1/deployments or v1/pods")

    @property
    def api_version(self) -> str:
        """What its objects have as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """As `group/version/plural`, or `version/plural`."""
        return f"{self.api_version}/{self.plural}"

    @property
    def custom(self) -> bool:
        """Whether it is served by a custom resource definition: only then the items of a list name their kind."""
        return "." in self.group and not self.group.endswith(".k8s.io")


def _built_in(api_version: str, kinds: str, *, namespaced: bool = True) -> list[Resource]:
    names = (each.split(":") for each in kinds.split())
    return [
        Resource.of(f"{api_version}/{plural}", kind, namespaced=namespaced, short_names=short_names)
        for plural, kind, *short_names in names
    ]


BUILT_IN: Final[tuple[Resource, ...]] = (
    *_built_in(
        "v1",
        "pods:Pod:po configmaps:ConfigMap:cm secrets:Secret services:Service:svc endpoints:Endpoints:ep "
        "events:Event:ev serviceaccounts:ServiceAccount:sa persistentvolumeclaims:PersistentVolumeClaim:pvc "
        "limitranges:LimitRange:limits replicationcontrollers:ReplicationController:rc "
        "resourcequotas:ResourceQuota:quota podtemplates:PodTemplate",
    ),
    *_built_in("v1", "namespaces:Namespace:ns nodes:Node:no persistentvolumes:PersistentVolume:pv", namespaced=False),
    *_built_in(
        "apps/v1",
        "deployments:Deployment:deploy replicasets:ReplicaSet:rs statefulsets:StatefulSet:sts daemonsets:DaemonSet:ds",
    ),
    *_built_in("batch/v1", "jobs:Job cronjobs:CronJob:cj"),
    *_built_in("networking.k8s.io/v1", "ingresses:Ingress:ing networkpolicies:NetworkPolicy:netpol"),
    *_built_in("coordination.k8s.io/v1", "leases:Lease"),
    *_built_in("discovery.k8s.io/v1", "endpointslices:EndpointSlice"),
    *_built_in("rbac.authorization.k8s.io/v1", "roles:Role rolebindings:RoleBinding"),
    *_built_in(
        "rbac.authorization.k8s.io/v1",
        "clusterroles:ClusterRole clusterrolebindings:ClusterRoleBinding",
        namespaced=False,
    ),
    *_built_in("storage.k8s.io/v1", "storageclasses:StorageClass:sc", namespaced=False),
    *_built_in(
        "apiextensions.k8s.io/v1", "customresourcedefinitions:CustomResourceDefinition:crd:crds", namespaced=False
    ),
)
"""What a server has from the start: the commonest of a real one's."""

SHOWN_DELETED: Final = frozenset(
    f"v1/{plural}"
    for plural in (
        "pods", "services", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "podtemplates",
        "resourcequotas", "namespaces",
    )
)  # fmt: skip
"""Those of which a delete answers what was deleted; of any other, a Status. Source: ReturnDeletedObject of each."""


@dataclass(frozen=True, slots=True)
class Path:
    """A request's path, taken apart: of a collection or of one object; or of a document, which names no plural."""

    api_version: str
    """Empty for a path that is not below `/api/VERSION` or `/apis/GROUP/VERSION`."""
    plural: str = ""
    namespace: str | None = None
    name: str = ""
    subresource: str = ""

    @classmethod
    def parse(cls, path: str) -> Path:
        """Take it apart, whether or not there is such a resource."""
        match [unquote(part) for part in path.strip("/").split("/")]:
            case ["api", version, *rest]:
                api_version = version
            case ["apis", group, version, *rest]:
                api_version = f"{group}/{version}"
            case _:
                return cls("")
        namespace = None
        # /namespaces/NAME is an object, and so is its status; /namespaces/NAME/PLURAL is a collection in it.
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            _, namespace, *rest = rest
        plural, name, subresource = [*rest, "", "", ""][:3]
        return cls(api_version, plural, namespace, name, subresource)


def discovery(path: str, resources: Iterable[Resource]) -> Mapping[str, Any]:
    """The document at a path: the versions, the groups, one group, or the resources of one group and version.

    Raises:
        ApiError: There is none.
    """
    groups: dict[str, dict[str, list[Resource]]] = {}
    for resource in resources:
        groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    core = groups.pop("", {})
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0+workpool", "platform": "linux/amd64"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": [*core], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            listed = [_group(name, versions) for name, versions in groups.items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", version] if version in core:
            return _resource_list(core[version])
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        case ["apis", group, version] if version in groups.get(group, {}):
            return _resource_list(groups[group][version])
    raise ApiError(unknown_resource())


def _group(name: str, versions: Iterable[str]) -> dict[str, Any]:
    ordered = sorted(versions, key=_order)
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in ordered]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _order(version: str) -> tuple[int, list[int], str]:
    """The preferred version comes first: v2, v1, v1beta1, v1alpha1, and what is no such version by its name.

    Source: CompareKubeAwareVersionStrings in k8s.io/apimachinery/pkg/version.
    """
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return 3, [], version
    major, stage, minor = match.groups("")
    return ("", "beta", "alpha").index(stage), [-int(major), -int(minor or 0)], version


def _resource_list(resources: list[Resource]) -> dict[str, Any]:
    api_version = resources[0].api_version
    listed = [
        {
            "name": resource.plural, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": _VERBS,
            **({"shortNames": [*resource.short_names]} if resource.short_names else {}),
        }
        for resource in sorted(resources, key=lambda resource: resource.plural)
    ]  # fmt: skip
    head = {"kind": "APIResourceList"} if api_version == "v1" else {"kind": "APIResourceList", "apiVersion": "v1"}
    return {**head, "groupVersion": api_version, "resources": listed}
