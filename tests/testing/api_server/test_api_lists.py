"""Lists: versions, pages, selectors, kinds, and how a client finds them."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from testing.api_server.client import PODS, ask, names, pod
from workpool.testing.kubernetes import ApiServer


def fill(server: ApiServer, text: str) -> None:
    for name in text:
        server.create("v1/pods", pod(name))


def test_a_list_has_the_version_of_now_and_its_items_in_order(kubernetes_api: ApiServer) -> None:
    assert ask(kubernetes_api).json == {
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "90"}, "items": [],
    }  # fmt: skip
    fill(kubernetes_api, "cab")
    kubernetes_api.create("v1/pods", pod("z", "a-space"))
    found = ask(kubernetes_api).json
    assert found["metadata"]["resourceVersion"] == "94"
    assert [item["metadata"]["name"] for item in found["items"]] == ["z", "a", "b", "c"]
    assert names(kubernetes_api, path="/api/v1/namespaces/a-space/pods") == ["z"]
    assert names(kubernetes_api, labelSelector="app", fieldSelector="metadata.name=a") == []
    assert names(kubernetes_api, fieldSelector="metadata.name=a") == ["a"]


def test_only_items_of_a_custom_resource_name_their_kind(kubernetes_api: ApiServer) -> None:
    fill(kubernetes_api, "a")
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget", namespaced=False)
    kubernetes_api.create("example.com/v1/widgets", {"metadata": {"name": "w"}})
    found = ask(kubernetes_api, "/apis/example.com/v1/widgets").json
    assert (found["kind"], found["items"][0]["kind"]) == ("WidgetList", "Widget")
    assert "kind" not in ask(kubernetes_api).json["items"][0]
    assert ask(kubernetes_api, "/api/v1/namespaces/default/pods/a").json["kind"] == "Pod"


@pytest.mark.parametrize(
    ("query", "found", "version"),
    [
        ({}, "abc", "93"),
        ({"resourceVersion": "0"}, "abc", "93"),
        ({"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"}, "abc", "93"),
        ({"resourceVersion": "92"}, "abc", "93"),
        ({"resourceVersion": "92", "resourceVersionMatch": "NotOlderThan"}, "abc", "93"),
        ({"resourceVersion": "92", "resourceVersionMatch": "Exact"}, "ab", "92"),
        ({"resourceVersion": "92", "limit": "10"}, "ab", "92"),
        ({"resourceVersion": "90", "resourceVersionMatch": "Exact"}, "", "90"),
        ({"resourceVersion": "0", "limit": "1"}, "abc", "93"),
    ],
)
def test_the_version_that_is_asked_for(
    kubernetes_api: ApiServer, query: dict[str, str], found: str, version: str
) -> None:
    fill(kubernetes_api, "abc")
    answered = ask(kubernetes_api, **query)
    assert "".join(item["metadata"]["name"] for item in answered.json["items"]) == found
    assert answered.json["metadata"] == {"resourceVersion": version}


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ({"resourceVersion": "91", "resourceVersionMatch": "Exact"}, 410, "Expired"),
        ({"resourceVersion": "91", "limit": "1"}, 410, "Expired"),
        ({"resourceVersion": "99"}, 504, "Timeout"),
        ({"resourceVersion": "99", "resourceVersionMatch": "NotOlderThan"}, 504, "Timeout"),
        ({"resourceVersion": "x"}, 400, "BadRequest"),
        ({"limit": "-1"}, 400, "BadRequest"),
        ({"continue": "nonsense"}, 400, "BadRequest"),
        ({"continue": "nonsense", "resourceVersion": "92"}, 400, "BadRequest"),
        ({"labelSelector": "a=b=c"}, 400, "BadRequest"),
        ({"resourceVersionMatch": "Exact"}, 422, "Invalid"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, "Invalid"),
        ({"resourceVersionMatch": "Some", "resourceVersion": "92"}, 422, "Invalid"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "92", "continue": "x"}, 422, "Invalid"),
        ({"sendInitialEvents": "true"}, 422, "Invalid"),
    ],
)
def test_what_is_refused(kubernetes_api: ApiServer, query: dict[str, str], code: int, reason: str) -> None:
    fill(kubernetes_api, "abc")
    kubernetes_api.compact("92")
    answered = ask(kubernetes_api, **query)
    assert (answered.code, answered.json["code"], answered.json["reason"]) == (code, code, reason)


def test_all_that_is_wrong_is_told_at_once(kubernetes_api: ApiServer) -> None:
    found = ask(kubernetes_api, resourceVersionMatch="Some").json
    assert found["message"] == (
        'ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden '
        'unless resourceVersion is provided, resourceVersionMatch: Unsupported value: "Some": supported values: '
        '"Exact", "NotOlderThan", ""]'
    )
    assert [each["reason"] for each in found["details"]["causes"]] == ["FieldValueForbidden", "FieldValueNotSupported"]
    streaming = ask(kubernetes_api, watch=1, sendInitialEvents="true", resourceVersionMatch="Exact").json
    assert [each["reason"] for each in streaming["details"]["causes"]] == [
        "FieldValueForbidden", "FieldValueNotSupported",
    ]  # fmt: skip


def test_a_version_of_the_future_is_told_by_its_cause(kubernetes_api: ApiServer) -> None:
    answered = ask(kubernetes_api, resourceVersion=1000)
    assert answered.headers["Retry-After"] == "1"
    found = answered.json
    assert found["message"] == "Timeout: Too large resource version: 1000, current: 90"
    assert found["details"]["causes"] == [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]


def test_not_older_than_a_compacted_version_is_the_version_of_now(kubernetes_api: ApiServer) -> None:
    fill(kubernetes_api, "abc")
    kubernetes_api.compact()
    assert names(kubernetes_api, resourceVersion=91, resourceVersionMatch="NotOlderThan") == ["a", "b", "c"]


def test_pages_are_of_the_version_of_the_first(kubernetes_api: ApiServer) -> None:
    fill(kubernetes_api, "abcde")
    page = ask(kubernetes_api, limit=2).json
    assert page["metadata"]["remainingItemCount"] == 3
    kubernetes_api.delete("v1/pods", "c")
    kubernetes_api.create("v1/pods", pod("d2"))
    kubernetes_api.patch("v1/pods", "e", {"spec": {"x": 1}})
    found = [page]
    while token := found[-1]["metadata"].get("continue"):
        found.append(ask(kubernetes_api, **{"limit": 2, "continue": token}).json)
    assert [[item["metadata"]["name"] for item in page["items"]] for page in found] == [["a", "b"], ["c", "d"], ["e"]]
    assert {page["metadata"]["resourceVersion"] for page in found} == {"95"}
    assert "spec" not in found[-1]["items"][0]
    assert [request.verb for request in kubernetes_api.requests] == ["list", "page", "page"]
    token = json.loads(base64.urlsafe_b64decode(page["metadata"]["continue"] + "=="))
    assert token == {"v": "meta.k8s.io/v1", "rv": 95, "start": "default/b"}


def test_remaining_items_are_not_counted_with_a_selector(kubernetes_api: ApiServer) -> None:
    fill(kubernetes_api, "abc")
    assert "remainingItemCount" not in ask(kubernetes_api, limit=1, labelSelector="!x").json["metadata"]


def test_a_page_of_a_compacted_version_is_expired_and_can_be_gone_on_with_inconsistently(
    kubernetes_api: ApiServer,
) -> None:
    fill(kubernetes_api, "abc")
    token = ask(kubernetes_api, limit=1).json["metadata"]["continue"]
    kubernetes_api.delete("v1/pods", "b")
    kubernetes_api.compact()
    expired = ask(kubernetes_api, **{"continue": token})
    assert (expired.code, expired.json["reason"]) == (410, "Expired")
    rest = expired.json["metadata"]["continue"]
    found = ask(kubernetes_api, **{"continue": rest}).json
    assert [item["metadata"]["name"] for item in found["items"]] == ["c"]
    assert found["metadata"]["resourceVersion"] == kubernetes_api.version


def test_kinds_are_found_by_discovery(kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget", namespaced=False)
    assert ask(kubernetes_api, "/api").json["versions"] == ["v1"]
    found = {each["name"]: each for each in ask(kubernetes_api, "/api/v1").json["resources"]}
    assert (found["pods"]["kind"], found["pods"]["namespaced"]) == ("Pod", True)
    assert found["nodes"]["namespaced"] is False
    assert {"list", "watch"} <= set(found["pods"]["verbs"])
    groups = {each["name"]: each for each in ask(kubernetes_api, "/apis").json["groups"]}
    assert groups["example.com"]["preferredVersion"] == {"groupVersion": "example.com/v1", "version": "v1"}
    assert ask(kubernetes_api, "/apis/apps").json["name"] == "apps"
    custom = ask(kubernetes_api, "/apis/example.com/v1").json
    assert (custom["kind"], custom["groupVersion"]) == ("APIResourceList", "example.com/v1")
    assert [each["kind"] for each in custom["resources"]] == ["Widget"]
    assert ask(kubernetes_api, "/version").json["major"] == "1"
    assert {request.verb for request in kubernetes_api.requests} == {"discover"}


def test_short_names_are_found_by_discovery(kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget", short_names=["wd", "wds"])
    found = {each["name"]: each for each in ask(kubernetes_api, "/api/v1").json["resources"]}
    assert (found["pods"]["shortNames"], found["pods"]["singularName"]) == (["po"], "pod")
    assert "shortNames" not in found["secrets"]
    assert ask(kubernetes_api, "/apis/example.com/v1").json["resources"][0]["shortNames"] == ["wd", "wds"]


def test_the_version_of_a_group_that_is_preferred_is_the_most_stable_and_then_the_newest(
    kubernetes_api: ApiServer,
) -> None:
    ordered = ["v11", "v2", "v1", "v10beta3", "v3beta2", "v3beta1", "v12alpha1", "v1alpha2", "foo1", "foo10"]
    for version in sorted(ordered, key=lambda version: version[::-1]):
        kubernetes_api.add_resource(f"example.com/{version}/widgets", "Widget")
    group = ask(kubernetes_api, "/apis/example.com").json
    assert [each["version"] for each in group["versions"]] == ordered
    assert group["preferredVersion"] == {"groupVersion": "example.com/v11", "version": "v11"}


def test_a_long_list_is_compressed_for_who_says_that_it_may_be(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("short"))
    assert "Content-Encoding" not in ask(kubernetes_api, encoding="gzip").headers
    kubernetes_api.create("v1/pods", pod("long", spec={"note": "x" * 200_000}))
    plain, packed = ask(kubernetes_api), ask(kubernetes_api, encoding="deflate, gzip")
    assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert int(packed.headers["Content-Length"]) < 10_000
    assert "Content-Encoding" not in plain.headers
    assert json.loads(gzip.decompress(packed.body)) == plain.json


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/v2", "/apis/none.example.com", "/apis/apps/v9", "/api/v1/widgets", "/apis/apps/v1/pods",
        "/api/v1/namespaces/default/nodes", "/api/v1/namespaces/default/pods/none",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(kubernetes_api: ApiServer, path: str) -> None:
    answered = ask(kubernetes_api, path)
    assert (answered.code, answered.json["reason"]) == (404, "NotFound")


def test_an_operator_can_write(kubernetes_api: ApiServer) -> None:
    here = "/api/v1/namespaces/x/pods"
    made = ask(kubernetes_api, here, "POST", {"metadata": {"name": "a"}, "spec": {"x": 1}})
    assert (made.code, made.json["metadata"]["namespace"]) == (201, "x")
    assert ask(kubernetes_api, here, "POST", {"metadata": {"name": "a"}}).json["reason"] == "AlreadyExists"
    patched = ask(kubernetes_api, f"{here}/a", "PATCH", {"spec": {"y": 2}})
    assert patched.json["spec"] == {"x": 1, "y": 2}
    assert ask(kubernetes_api, f"{here}/a", "PUT", made.json).json["reason"] == "Conflict"
    body = {"metadata": {"name": "a"}, "spec": {"z": 3}}
    assert ask(kubernetes_api, f"{here}/a", "PUT", body).json["spec"] == {"z": 3}
    assert ask(kubernetes_api, f"{here}/a", "DELETE").code == 200
    assert kubernetes_api.objects("v1/pods") == []
    assert ask(kubernetes_api, here, "DELETE").code == 405
    bodies: list[object] = [[1], {"metadata": "a"}]
    assert [ask(kubernetes_api, here, "POST", each).code for each in bodies] == [400] * 2
    verbs = ["create", "create", "patch", "update", "update", "delete", "delete", *["create"] * 2]
    assert [request.verb for request in kubernetes_api.requests] == verbs


def test_an_object_that_is_to_be_created_has_a_name_and_nothing_that_the_server_sets(
    kubernetes_api: ApiServer,
) -> None:
    there = "/apis/apps/v1/namespaces/x/deployments"
    nameless = ask(kubernetes_api, there, "POST", {"metadata": {}})
    said = "Required value: name or generateName is required"
    assert (nameless.code, nameless.json["reason"]) == (422, "Invalid")
    assert nameless.json["message"] == f'Deployment.apps "" is invalid: metadata.name: {said}'
    cause = {"reason": "FieldValueRequired", "message": said, "field": "metadata.name"}
    assert nameless.json["details"] == {"group": "apps", "kind": "Deployment", "causes": [cause]}

    again = ask(kubernetes_api, there, "POST", {"metadata": {"name": "a", "resourceVersion": "7"}})
    assert (again.code, "reason" in again.json) == (500, False)
    assert again.json["message"] == "resourceVersion should not be set on objects to be created"

    given = {"name": "a", "uid": "forged", "deletionTimestamp": "2026-01-01T00:00:00Z", "generation": 7}
    made = ask(kubernetes_api, there, "POST", {"metadata": given}).json["metadata"]
    assert made["uid"] != "forged"
    assert "deletionTimestamp" not in made


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_write_to_the_status_changes_nothing_else(kubernetes_api: ApiServer, method: str) -> None:
    made = kubernetes_api.create("v1/pods", pod("a", spec={"x": 1}, status={"old": 1} if method == "PUT" else {}))
    changed = {"metadata": {"name": "a"}, "spec": {"x": 2}, "status": {"phase": "Running"}}
    found = ask(kubernetes_api, "/api/v1/namespaces/default/pods/a/status", method, changed).json
    assert (found["spec"], found["status"]) == ({"x": 1}, {"phase": "Running"})
    late = {**changed, "metadata": made["metadata"], "status": {}}
    assert ask(kubernetes_api, "/api/v1/namespaces/default/pods/a/status", method, late).code == 409


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_write_to_the_status_without_one(kubernetes_api: ApiServer, method: str) -> None:
    kubernetes_api.create("v1/pods", pod("a", status={"phase": "Running"}))
    changed = {"metadata": {"name": "a", "labels": {"x": "y"}}}
    found = ask(kubernetes_api, "/api/v1/namespaces/default/pods/a/status", method, changed).json
    assert found.get("status") == ({"phase": "Running"} if method == "PATCH" else None)
    assert ("status" in found) == (method == "PATCH")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_object_that_says_it_is_another_is_refused(kubernetes_api: ApiServer, method: str) -> None:
    for name in "ab":
        kubernetes_api.create("v1/pods", pod(name, "x"))
    here = "/api/v1/namespaces/x/pods"
    version = kubernetes_api.version
    other = ask(kubernetes_api, f"{here}/a", method, {"metadata": {"name": "b"}, "spec": {}})
    assert (other.code, other.json["reason"]) == (400, "BadRequest")
    assert other.json["message"] == "the name of the object (b) does not match the name on the URL (a)"
    elsewhere = {"metadata": {"name": "a", "namespace": "y"}}
    assert ask(kubernetes_api, f"{here}/a", method, elsewhere).code == 400
    assert ask(kubernetes_api, here, "POST", {"metadata": {"name": "c", "namespace": "y"}}).code == 400
    assert ask(kubernetes_api, here, "POST", {"metadata": {"name": 5}}).code == 400
    assert kubernetes_api.version == version


def test_a_delete_answers_with_a_status_but_for_a_few_resources(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    assert ask(kubernetes_api, "/api/v1/namespaces/default/pods/a", "DELETE").json["kind"] == "Pod"
    made = kubernetes_api.create("apps/v1/deployments", {"metadata": {"name": "a"}})
    path = "/apis/apps/v1/namespaces/default/deployments/a"
    assert ask(kubernetes_api, path, "DELETE").json == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "a", "group": "apps", "kind": "deployments", "uid": made["metadata"]["uid"]},
    }  # fmt: skip
    kubernetes_api.create("apps/v1/deployments", {"metadata": {"name": "a", "finalizers": ["x"]}})
    for _ in range(2):
        assert "deletionTimestamp" in ask(kubernetes_api, path, "DELETE").json["metadata"]


@pytest.mark.parametrize(("field", "what"), [("uid", "UID"), ("resourceVersion", "ResourceVersion")])
def test_a_delete_may_have_preconditions(kubernetes_api: ApiServer, field: str, what: str) -> None:
    made = kubernetes_api.create("v1/pods", pod("a"))["metadata"]
    path = "/api/v1/namespaces/default/pods/a"
    refused = ask(kubernetes_api, path, "DELETE", {"preconditions": {field: "other"}})
    assert (refused.code, refused.json["reason"]) == (409, "Conflict")
    assert f"the {what} in the precondition (other) does not match" in refused.json["message"]
    assert ask(kubernetes_api, path, "DELETE", {"preconditions": {field: made[field]}}).code == 200
    assert kubernetes_api.objects("v1/pods") == []


@pytest.mark.parametrize(
    ("kind", "code", "custom"),
    [("merge-patch+json; charset=utf-8", 200, 200), ("strategic-merge-patch+json", 200, 415),
     ("json-patch+json", 415, 415), ("apply-patch+yaml", 415, 415), ("json", 415, 415)],
)  # fmt: skip
def test_a_patch_says_of_what_kind_it_is(kubernetes_api: ApiServer, kind: str, code: int, custom: int) -> None:
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget")
    for group, plural, expected in (("", "pods", code), ("example.com", "widgets", custom)):
        kubernetes_api.create(f"{group}/v1/{plural}".lstrip("/"), {"metadata": {"name": "a"}})
        root = f"/apis/{group}" if group else "/api"
        path = f"{root}/v1/namespaces/default/{plural}/a"
        answered = ask(kubernetes_api, path, "PATCH", {"spec": {}}, content_type=f"application/{kind}")
        assert answered.code == expected
        assert answered.json.get("reason") == ("UnsupportedMediaType" if expected == 415 else None)


def test_an_update_of_a_custom_resource_says_of_which_version_it_is(kubernetes_api: ApiServer) -> None:
    kubernetes_api.add_resource("example.com/v1/widgets", "Widget")
    made = kubernetes_api.create("example.com/v1/widgets", {"metadata": {"name": "a"}})
    path = "/apis/example.com/v1/namespaces/default/widgets/a"
    refused = ask(kubernetes_api, path, "PUT", {"metadata": {"name": "a"}, "spec": {}})
    assert (refused.code, refused.json["reason"]) == (422, "Invalid")
    assert refused.json["message"].endswith("Invalid value: 0x0: must be specified for an update")
    assert ask(kubernetes_api, path, "PUT", made | {"spec": {}}).code == 200


def test_a_write_names_the_namespace(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    version = kubernetes_api.version
    assert ask(kubernetes_api, PODS, "POST", {"metadata": {"name": "b"}}).code == 405
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert ask(kubernetes_api, f"{PODS}/a", method, {"metadata": {"name": "a"}}).code == 404
    assert kubernetes_api.version == version


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_other_subresources_are_not_there(kubernetes_api: ApiServer, method: str) -> None:
    made = kubernetes_api.create("apps/v1/deployments", {"metadata": {"name": "a"}, "spec": {"replicas": 1}})
    path = "/apis/apps/v1/namespaces/default/deployments/a/scale"
    answered = ask(kubernetes_api, path, method, {"kind": "Scale", "spec": {"replicas": 3}})
    assert (answered.code, answered.json["reason"]) == (404, "NotFound")
    assert kubernetes_api.get("apps/v1/deployments", "a") == made


def test_a_status_is_not_deleted(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    assert ask(kubernetes_api, "/api/v1/namespaces/default/pods/a/status", "DELETE").code == 405
    assert names(kubernetes_api) == ["a"]


def test_a_name_may_be_quoted_in_a_path(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "system:node"}})
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"
    assert ask(kubernetes_api, path).json["metadata"]["name"] == "system:node"
    assert kubernetes_api.requests[0].path == path


def test_a_namespace_is_an_object_too(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/namespaces", {"metadata": {"name": "x"}})
    assert ask(kubernetes_api, "/api/v1/namespaces/x").json["kind"] == "Namespace"
    assert ask(kubernetes_api, "/api/v1/namespaces").json["kind"] == "NamespaceList"
    path = "/api/v1/namespaces/x/status"
    assert ask(kubernetes_api, path, "PATCH", {"status": {"phase": "Active"}}).json["status"] == {"phase": "Active"}


def test_a_connection_serves_one_request_after_another(kubernetes_api: ApiServer) -> None:
    assert ask(kubernetes_api, PODS).headers["Content-Type"] == "application/json"
    request = kubernetes_api.requests[0]
    assert (request.method, request.path, request.query) == ("GET", PODS, {})
    assert request.headers["host"] == kubernetes_api.url.removeprefix("http://")
