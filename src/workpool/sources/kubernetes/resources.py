"""What is watched, by its name: as the server has it in its paths, or as people write it.

    "apps/v1/deployments"     group, version and plural; "v1/pods" in the core group. The server is not asked
    "deployments.apps"        plural, singular or short name, and the group
    "deployments"             a plural, a singular ("deployment", "Deployment") or a short name ("deploy")

The last two are looked up in what the server says of itself. As with kubectl, the core group comes before all others,
and of a group the version that it prefers before its others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from msgspec.json import decode

from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.errors import Forbidden, KubernetesError, NoCluster, UnknownResource, error_of
from workpool.sources.kubernetes.objects import BAD
from workpool.sources.kubernetes.steps import Failure, Page

__all__ = ["Resource", "check_names", "find"]

TIMEOUT: Final = 10.0
"""Seconds of silence after which a look-up is given up."""

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_GROUP: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_NAMESPACE: Final = re.compile(_LABEL)
_IN_CORE: Final = re.compile(rf"(v[0-9][a-z0-9]*)/({_LABEL})")
_IN_GROUP: Final = re.compile(rf"({_GROUP})/({_LABEL})/({_LABEL})")
_WORD: Final = re.compile(rf"((?i:{_LABEL}))(?:\.({_GROUP}))?")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, by the names that it has on the server."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    namespaced: bool | None = None
    """Whether its objects are in namespaces; None where the server was not asked."""
    kind: str = ""
    """Empty where the server was not asked."""

    @property
    def name(self) -> str:
        """As "apps/v1/deployments", or "v1/pods"."""
        return f"{self.group}/{self.version}/{self.plural}".lstrip("/")

    def path(self, namespace: str | None) -> str:
        """The path of a list of it.

        Args:
            namespace: Where; None for everywhere.

        Raises:
            ValueError: It is in no namespace, or that is no name of one.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace is None:
            return f"{root}/{self.plural}"
        if self.namespaced is False:
            raise ValueError(f"{self.name} are in no namespace: leave it out")
        _check_namespace(namespace)
        return f"{root}/namespaces/{namespace}/{self.plural}"


def check_names(name: str, namespace: str | None) -> None:
    """Refuse what can be no resource, or no namespace; the server is not asked.

    Raises:
        ValueError: Either is none.
    """
    if not any(form.fullmatch(name) for form in (_IN_GROUP, _IN_CORE, _WORD)):
        raise ValueError(f'{name!r} is no resource: write group/version/plural, as "apps/v1/deployments" or "v1/pods"')
    if namespace is not None:
        _check_namespace(namespace)


def find(client: Client, name: str) -> Resource:
    """The resource of a name. Its look-up may take as many requests as the server has versions of groups.

    Args:
        client: Asked, unless the name has group, version and plural.
        name: One of the forms above.

    Raises:
        ValueError: It has none of those forms.
        UnknownResource: The server has none by that name, or several; or it cannot be watched.
        NoCluster, NotAuthorized, Forbidden, KubernetesError: The server cannot be asked.
    """
    if match := _IN_GROUP.fullmatch(name):
        return Resource(match[1], match[2], match[3])
    if match := _IN_CORE.fullmatch(name):
        return Resource("", match[1], match[2])
    check_names(name, None)
    match = _WORD.fullmatch(name)
    assert match is not None
    word, group = match[1].lower(), match[2]
    try:
        served, silent = _look_up(client, word, group)
    except (TypeError, AttributeError, LookupError) as error:
        raise KubernetesError(f"what {client.server} says of its resources is not understood: {error}") from error
    found = [each for each in served if word in each.names] or [each for each in served if word in each.short_names]
    able = [each.resource for each in found if each.watchable]
    if len(able) == 1:
        return able[0]
    if able:
        raise UnknownResource(name, "is the name of several resources", [each.name for each in able])
    if found:
        raise UnknownResource(name, f"cannot be watched: {client.server} has no list and watch of it")
    unsure = f" ({' and '.join(silent)} did not answer)" if silent else ""
    raise UnknownResource(name, f"is no resource of {client.server}{unsure}", _near(word, served))


@dataclass(frozen=True, slots=True)
class _Served:
    """A resource as the server tells of it."""

    resource: Resource
    names: frozenset[str]
    """Its plural, its singular and its kind, in lower case."""
    short_names: frozenset[str]
    watchable: bool


def _check_namespace(namespace: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is no name of a namespace")


def _look_up(client: Client, word: str, group: str | None) -> tuple[list[_Served], list[str]]:
    """What the server has, in one group or in all, each in the best version that has it; and who did not answer.

    Where the core group has the word, it is all.
    """
    served: list[_Served] = []
    silent: list[str] = []
    for paths in _groups(client, group):
        best: dict[str, _Served] = {}
        for path in paths:
            try:
                listed = _ask(client, path)
            except NoCluster:
                raise
            except KubernetesError:  # What stands behind a group of its own may be down, and the server is not.
                silent.append(path.removeprefix("/apis/"))
                continue
            for each in listed["resources"]:
                best.setdefault(each["name"], _read(listed["groupVersion"], each))
        served += best.values()
        if paths[0].startswith("/api/") and any(word in each.names | each.short_names for each in best.values()):
            break
    return served, silent


def _groups(client: Client, group: str | None) -> Iterator[list[str]]:
    """The paths of the versions of each group: the core first, and of a group first the version that it prefers."""
    if group is None:
        yield [f"/api/{version}" for version in _ask(client, "/api")["versions"]]
    for each in _ask(client, "/apis")["groups"]:
        if group in (None, each["name"]):
            versions = [version["groupVersion"] for version in each["versions"]]
            preferred = each["preferredVersion"]["groupVersion"]
            yield [f"/apis/{version}" for version in sorted(versions, key=lambda version: version != preferred)]


def _ask(client: Client, path: str) -> Any:
    answer = client.list(path, {}, TIMEOUT)
    if isinstance(answer, Page):
        try:
            return decode(answer.body)
        except BAD as error:
            answer = Failure(error=f"the answer is no JSON: {error}")
    if answer.status == 403:
        raise Forbidden("get", path, None, 'write the resource with its version, such as "apps/v1/deployments"')
    if answer.status == 404:
        raise KubernetesError(f"{client.server} has no {path}: is that the address of a Kubernetes API server?")
    raise error_of(answer, client.server, "get", path)


def _read(api_version: str, said: dict[str, Any]) -> _Served:
    group, _, version = api_version.rpartition("/")
    resource = Resource(group, version, said["name"], said["namespaced"], said["kind"])
    names = frozenset(name.lower() for name in (said["name"], said.get("singularName"), said["kind"]) if name)
    return _Served(resource, names, frozenset(said.get("shortNames") or ()), {"list", "watch"} <= {*said["verbs"]})


def _near(word: str, served: Iterable[_Served]) -> list[str]:
    """Those whose names look like it, the likeliest first."""
    names = {name: each.resource.name for each in served if each.watchable for name in each.names}
    return [*dict.fromkeys(names[name] for name in get_close_matches(word, names, n=5))][:3]
