"""What an API server says when it refuses: a Status object for each refusal, worded as a real one words it.

Source: the constructors in k8s.io/apimachinery/pkg/api/errors, and the answers of real servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "ApiError", "already_exists", "bad_request", "conflict", "deleted", "expired", "expired_continue", "forbidden",
    "internal_error", "invalid_list_options", "method_not_allowed", "no_name", "no_version", "not_found", "of_code",
    "status", "stream_error", "too_large", "unauthorized", "unknown_resource", "unsupported_media_type", "version_set",
]  # fmt: skip


class ApiError(Exception):
    """The server refuses. A method of the fake raises it where a client would get the Status as its answer.

    Attributes:
        status: The Status object.
        code: Its HTTP status.
        reason: Its reason, such as "NotFound", "AlreadyExists", "Conflict" or "Expired"; empty where it has none.
    """

    def __init__(self, status: dict[str, Any]) -> None:
        super().__init__(status["message"])
        self.status: dict[str, Any] = status
        self.code: int = status["code"]
        self.reason: str = status.get("reason", "")


def status(code: int, reason: str, message: str, **more: Any) -> dict[str, Any]:
    """A Status of a failure, whose reason may be empty; `details` and `metadata` are what may come with it."""
    made: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": more.get("metadata", {})}
    made |= {"status": "Failure", "message": message}
    if reason:
        made["reason"] = reason
    if "details" in more:
        made["details"] = more["details"]
    return made | {"code": code}


def of_code(code: int) -> dict[str, Any]:
    """The Status that usually comes with an HTTP status.

    Raises:
        ValueError: None does.
    """
    usual: dict[int, Callable[[], dict[str, Any]]] = {
        401: unauthorized,
        403: forbidden,
        404: unknown_resource,
        410: lambda: expired("The resourceVersion for the provided list is too old."),
        500: lambda: internal_error("an error on the server has prevented the request from succeeding"),
        503: lambda: status(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
        504: lambda: status(
            504, "Timeout", "Timeout: request did not complete within the allotted timeout", details={}
        ),
    }
    if code not in usual:
        raise ValueError(f"no Status is known for {code}: give the body")
    return usual[code]()


def bad_request(message: str) -> dict[str, Any]:
    """400: a parameter cannot be read."""
    return status(400, "BadRequest", message)


def unauthorized() -> dict[str, Any]:
    """401: no token, or one that is not accepted any more."""
    return status(401, "Unauthorized", "Unauthorized")


def forbidden(
    verb: str = "list", plural: str = "pods", group: str = "", user: str = "system:serviceaccount:default:default"
) -> dict[str, Any]:
    """403: no role allows it."""
    message = (
        f'{_qualified(plural, group)} is forbidden: User "{user}" cannot {verb} resource "{plural}" in API group '
        f'"{group}" at the cluster scope'
    )
    return status(403, "Forbidden", message, details=_details("", plural, group))


def unknown_resource() -> dict[str, Any]:
    """404: no such resource in that group."""
    return status(404, "NotFound", "the server could not find the requested resource", details={})


def not_found(plural: str, name: str, group: str = "") -> dict[str, Any]:
    """404: no such object."""
    message = f'{_qualified(plural, group)} "{name}" not found'
    return status(404, "NotFound", message, details=_details(name, plural, group))


def method_not_allowed() -> dict[str, Any]:
    """405: not with this HTTP method."""
    message = "the server does not allow this method on the requested resource"
    return status(405, "MethodNotAllowed", message, details={})


def already_exists(plural: str, name: str, group: str = "") -> dict[str, Any]:
    """409: created before."""
    message = f'{_qualified(plural, group)} "{name}" already exists'
    return status(409, "AlreadyExists", message, details=_details(name, plural, group))


def conflict(plural: str, name: str, group: str = "", reason: str = "") -> dict[str, Any]:
    """409: an update of a version that is not the present one, unless another reason is given."""
    modified = "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {reason or modified}'
    return status(409, "Conflict", message, details=_details(name, plural, group))


def expired(message: str) -> dict[str, Any]:
    """410: a version that was compacted."""
    return status(410, "Expired", message)


def expired_continue(inconsistent: str) -> dict[str, Any]:
    """410 for a page: with the token of the rest as it is now."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )
    return status(410, "Expired", message, metadata={"continue": inconsistent})


def unsupported_media_type(accepted: list[str]) -> dict[str, Any]:
    """415: a body in another format."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return status(415, "UnsupportedMediaType", message)


def no_name(kind: str, group: str) -> dict[str, Any]:
    """422: an object that is to be created has no name."""
    said = "Required value: name or generateName is required"
    return _invalid(kind, "", group, [{"reason": "FieldValueRequired", "message": said, "field": "metadata.name"}])


def no_version(plural: str, name: str, group: str) -> dict[str, Any]:
    """422: an update of a custom resource that does not say of which version it is."""
    said = "Invalid value: 0x0: must be specified for an update"
    cause = {"reason": "FieldValueInvalid", "message": said, "field": "metadata.resourceVersion"}
    return _invalid(plural, name, group, [cause])


def invalid_list_options(causes: list[dict[str, Any]]) -> dict[str, Any]:
    """422: parameters that do not go together; each cause has a reason, a message and a field."""
    return _invalid("ListOptions", "", "meta.k8s.io", causes)


def internal_error(message: str) -> dict[str, Any]:
    """500 as the answer to a request."""
    details = {"causes": [{"message": message}]}
    return status(500, "InternalError", f"Internal error occurred: {message}", details=details)


def version_set() -> dict[str, Any]:
    """500, and no reason: an object that is to be created has a version already."""
    return status(500, "", "resourceVersion should not be set on objects to be created")


def stream_error(message: str) -> dict[str, Any]:
    """500 inside a watch: what etcd's client says, as it is. Source: parseError in apiserver/pkg/storage/etcd3."""
    return status(500, "InternalError", message)


def too_large(version: int, current: int) -> dict[str, Any]:
    """504: a list of a version that is not there yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return status(504, "Timeout", message, details={"causes": [cause], "retryAfterSeconds": 1})


def deleted(plural: str, name: str, group: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """200: what a delete answers, of most resources."""
    details = {**_details(name, plural, group), "uid": metadata["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _invalid(kind: str, name: str, group: str, causes: list[dict[str, Any]]) -> dict[str, Any]:
    said = ", ".join(f"{each['field']}: {each['message']}" for each in causes)
    text = f'{_qualified(kind, group)} "{name}" is invalid: {said if len(causes) == 1 else f"[{said}]"}'
    return status(422, "Invalid", text, details={**_details(name, kind, group), "causes": causes})


def _qualified(plural: str, group: str) -> str:
    """As messages name a resource: `deployments.apps`, and `pods` of the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, kind: str, group: str) -> dict[str, Any]:
    return {what: value for what, value in (("name", name), ("group", group), ("kind", kind)) if value}
