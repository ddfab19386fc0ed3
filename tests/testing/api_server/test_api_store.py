"""The log of versions: what a write does to an object, and to the version of everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testing.api_server.client import pod
from workpool.testing import FakeClock
from workpool.testing.kubernetes import ApiError, ApiServer
from workpool.testing.kubernetes.resource import Resource
from workpool.testing.kubernetes.store import FIRST_VERSION, Change, Store

PODS = Resource.of("v1/pods", "Pod")
NODES = Resource.of("v1/nodes", "Node", namespaced=False)
NOW = "2026-01-01T00:00:00Z"


def refused(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.code, error.value.reason


def test_a_write_takes_the_next_version_of_all_resources() -> None:
    store = Store()
    first = store.create(PODS, pod("a"), NOW)
    second = store.create(NODES, pod("a"), NOW)
    third = store.patch(PODS, "a", {"spec": {"x": 1}}, "default")
    assert [each["metadata"]["resourceVersion"] for each in (first, second, third)] == ["91", "92", "93"]
    assert store.version == FIRST_VERSION + 3


def test_a_new_object_gets_what_the_server_fills_in() -> None:
    store = Store()
    made = store.create(PODS, {"metadata": {"name": "a"}, "spec": {}, "kind": "Wrong"}, NOW)
    assert list(made)[:3] == ["kind", "apiVersion", "metadata"]
    assert (made["kind"], made["apiVersion"]) == ("Pod", "v1")
    metadata = made["metadata"]
    assert (metadata["namespace"], metadata["creationTimestamp"], metadata["generation"]) == ("default", NOW, 1)
    assert len(metadata["uid"]) == 36
    assert "namespace" not in store.create(NODES, pod("a"), NOW)["metadata"]


def test_a_name_that_is_used_again_gets_another_uid() -> None:
    store = Store()
    first = store.create(PODS, pod("a"), NOW)
    store.delete(PODS, "a", NOW, "default")
    assert store.create(PODS, pod("a"), NOW)["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_generated_name_differs_each_time() -> None:
    store = Store()
    made = [store.create(PODS, {"metadata": {"generateName": "job-"}}, NOW)["metadata"]["name"] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(name.startswith("job-") for name in made)


def test_an_update_without_a_difference_takes_no_version() -> None:
    store = Store()
    made = store.create(PODS, pod("a"), NOW)
    assert store.update(PODS, made) == made
    assert store.version == FIRST_VERSION + 1


def test_only_a_change_of_the_spec_is_a_new_generation() -> None:
    store = Store()
    store.create(PODS, pod("a", spec={"x": 1}), NOW)
    assert store.patch(PODS, "a", {"status": {"phase": "Running"}}, "default")["metadata"]["generation"] == 1
    assert store.patch(PODS, "a", {"spec": {"x": 2}}, "default")["metadata"]["generation"] == 2


def test_an_update_keeps_what_the_server_owns_and_refuses_a_version_that_is_not_the_present_one() -> None:
    store = Store()
    made = store.create(PODS, pod("a"), NOW)
    updated = store.update(PODS, {"metadata": {"name": "a", "uid": "forged"}, "spec": {}})
    assert updated["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(ApiError) as error:
        store.update(PODS, made)
    assert refused(error) == (409, "Conflict")


def test_a_patch_merges_and_none_takes_away() -> None:
    store = Store()
    store.create(PODS, pod("a", app="web", tier="x"), NOW)
    patched = store.patch(PODS, "a", {"metadata": {"labels": {"app": None, "new": "y"}}}, "default")
    assert patched["metadata"]["labels"] == {"tier": "x", "new": "y"}


def test_what_is_not_there_and_what_is_there_already_is_refused() -> None:
    store = Store()
    store.create(PODS, pod("a"), NOW)
    with pytest.raises(ApiError, match=r'pods "a" already exists') as error:
        store.create(PODS, pod("a"), NOW)
    assert refused(error) == (409, "AlreadyExists")
    with pytest.raises(ApiError, match=r'pods "b" not found') as error:
        store.delete(PODS, "b", NOW, "default")
    assert refused(error) == (404, "NotFound")


def test_a_refusal_names_the_group_of_the_resource() -> None:
    store, deployments = Store(), Resource.of("apps/v1/deployments", "Deployment")
    made = store.create(deployments, {"metadata": {"name": "a"}, "spec": {}}, NOW)
    store.patch(deployments, "a", {"spec": {"x": 1}}, "default")
    refusals: dict[str, Callable[[], object]] = {
        'deployments.apps "b" not found': lambda: store.get(deployments, "b", "default"),
        'deployments.apps "a" already exists': lambda: store.create(deployments, made, NOW),
        'Operation cannot be fulfilled on deployments.apps "a": the object': lambda: store.update(deployments, made),
    }
    for message, refuse in refusals.items():
        with pytest.raises(ApiError, match=message) as error:
            refuse()
        details = error.value.status["details"]
        assert list(details.items())[1:] == [("group", "apps"), ("kind", "deployments")]


def test_a_deleted_object_has_the_version_of_its_deletion() -> None:
    store = Store()
    store.create(PODS, pod("a"), NOW)
    assert store.delete(PODS, "a", NOW, "default")["metadata"]["resourceVersion"] == "92"


def test_an_object_with_finalizers_is_marked_and_goes_with_the_last_of_them() -> None:
    store = Store()
    store.create(PODS, {"metadata": {"name": "a", "finalizers": ["x"]}}, NOW)
    assert store.delete(PODS, "a", NOW, "default")["metadata"]["deletionTimestamp"] == NOW
    assert store.get(PODS, "a", "default")["metadata"]["resourceVersion"] == "92"
    assert store.delete(PODS, "a", NOW, "default")["metadata"]["resourceVersion"] == "92", "it is marked already"
    store.patch(PODS, "a", {"metadata": {"finalizers": None}}, "default")
    assert store.snapshot(PODS, store.version) == {}


def test_an_object_with_grace_is_marked_first() -> None:
    store = Store()
    store.create(PODS, pod("a", spec={}), NOW)
    metadata = store.delete(PODS, "a", NOW, "default", grace=30)["metadata"]
    assert (metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"]) == (NOW, 30)
    assert (metadata["generation"], metadata["resourceVersion"]) == (2, "92")
    store.patch(PODS, "a", {"status": {"phase": "Succeeded"}}, "default")
    assert store.delete(PODS, "a", NOW, "default")["metadata"]["deletionTimestamp"] == NOW
    assert store.snapshot(PODS, store.version) == {}


def test_an_object_with_finalizers_and_grace_waits_for_both() -> None:
    store = Store()
    store.create(PODS, {"metadata": {"name": "a", "finalizers": ["x"]}}, NOW)
    store.delete(PODS, "a", NOW, "default", grace=30)
    assert "finalizers" not in store.patch(PODS, "a", {"metadata": {"finalizers": None}}, "default")["metadata"]
    assert len(store.snapshot(PODS, store.version)) == 1
    store.delete(PODS, "a", NOW, "default")
    assert store.snapshot(PODS, store.version) == {}


def test_grace_is_over_at_the_time_of_the_deletion() -> None:
    with ApiServer(clock=FakeClock(0)) as server:
        server.create("v1/pods", pod("a"))
        marked = server.delete("v1/pods", "a", grace=30)["metadata"]
        assert (marked["creationTimestamp"], marked["deletionTimestamp"]) == (
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:00:30Z",
        )


def test_the_past_is_what_it_was_until_it_is_compacted() -> None:
    store = Store()
    past = [store.snapshot(PODS, store.version)]
    steps: tuple[Callable[[], object], ...] = (
        lambda: store.create(PODS, pod("b"), NOW),
        lambda: store.create(PODS, pod("a"), NOW),
        lambda: store.create(NODES, pod("n"), NOW),
        lambda: store.patch(PODS, "b", {"spec": {}}, "default"),
        lambda: store.delete(PODS, "b", NOW, "default"),
        lambda: store.create(PODS, pod("b", app="new"), NOW),
    )
    for step in steps:
        step()
        past.append(store.snapshot(PODS, store.version))
    assert [store.snapshot(PODS, FIRST_VERSION + number) for number in range(len(past))] == past
    assert [change.version for change in store.changes(FIRST_VERSION + 4)] == [95, 96]
    store.compact(94)
    assert store.compacted == 94
    assert store.snapshot(PODS, 94) == past[4]
    store.compact(92)
    assert store.compacted == 94, "it never goes back"


def test_a_history_that_is_too_long_is_compacted() -> None:
    store = Store(max_history=3)
    for number in range(10):
        store.create(PODS, pod(str(number)), NOW)
    assert (store.version, store.compacted) == (100, 97)
    assert len(store.changes(97)) == 3


def test_followers_are_told_each_change_once_and_in_order() -> None:
    store, told = Store(), list[Change]()
    store.followers.append(told.append)
    store.create(PODS, pod("a"), NOW)
    store.delete(PODS, "a", NOW, "default")
    assert [(change.version, change.old is None, change.new is None) for change in told] == [
        (91, True, False),
        (92, False, True),
    ]


def test_objects_are_copies_whichever_way_they_go(kubernetes_api: ApiServer) -> None:
    given = pod("a", app="web")
    got = kubernetes_api.create("v1/pods", given)
    given["metadata"]["labels"]["app"] = got["metadata"]["labels"]["app"] = "changed"
    kubernetes_api.objects("v1/pods")[0]["metadata"]["labels"]["app"] = "changed"
    assert kubernetes_api.get("v1/pods", "a")["metadata"]["labels"] == {"app": "web"}


def test_the_methods_of_the_server_are_those_of_the_store() -> None:
    with ApiServer(clock=FakeClock(0)) as server:
        server.create("v1/nodes", {"metadata": {"name": "n"}})
        assert server.get("v1/nodes", "n")["metadata"]["creationTimestamp"] == "1970-01-01T00:00:00Z"
        server.create("v1/pods", pod("a", "x"))
        server.update("v1/pods", pod("a", "x", app="web"))
        assert server.patch("v1/pods", "a", {"spec": {}}, "x")["metadata"]["labels"] == {"app": "web"}
        assert server.delete("v1/pods", "a", "x")["metadata"]["resourceVersion"] == server.version == "95"
        with pytest.raises(ValueError, match="'v1/widgets' is not served"):
            server.create("v1/widgets", {})
        with pytest.raises(ValueError, match="write group/version/plural"):
            server.add_resource("widgets", "Widget")
