"""Label and field selectors, by the grammar of Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from workpool.testing.kubernetes import ApiError
from workpool.testing.kubernetes.selector import Selection, fields, labels

WEB: dict[str, Any] = {
    "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web", "example.com/tier": "1", "size": "5"}},
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Running"},
}
BARE: dict[str, Any] = {"metadata": {"name": "b"}}


@pytest.mark.parametrize(
    ("text", "web", "bare"),
    [
        ("", True, True),
        ("app=web", True, False),
        ("app==web", True, False),
        ("app=db", False, False),
        ("app!=db", True, True),
        ("app!=web", False, True),
        ("app", True, False),
        ("!app", False, True),
        ("app in (web, db)", True, False),
        ("app notin (web,db)", False, True),
        ("app notin (db)", True, True),
        ("size>4", True, False),
        ("size<5", False, False),
        ("app>4", False, False),
        ("app in (web,db),example.com/tier=1, !gone", True, False),
        ("app=web,size=6", False, False),
        ("app=", False, False),
    ],
)
def test_labels(text: str, web: bool, bare: bool) -> None:
    selects = labels(text)
    assert (selects(WEB), selects(BARE)) == (web, bare)


@pytest.mark.parametrize("text", ["app=web=db", "app in web", "=web", "app in (a", "a b", ","])
def test_labels_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement") as error:
        labels(text)
    assert error.value.code == 400


@pytest.mark.parametrize(
    ("text", "web", "bare"),
    [
        ("", True, True),
        ("metadata.name=a", True, False),
        ("metadata.name==a,metadata.namespace=x", True, False),
        ("metadata.name!=a", False, True),
        ("status.phase=Running", True, False),
        ("status.phase!=Running", False, True),
        ("spec.nodeName=n1", True, False),
        ("spec.nodeName=", False, True),
        ("spec.hostNetwork=true", True, False),
        ("spec.nodeName.deeper=", True, True),
    ],
)
def test_fields(text: str, web: bool, bare: bool) -> None:
    selects = fields(text)
    assert (selects(WEB), selects(BARE)) == (web, bare)


def test_fields_that_cannot_be_read() -> None:
    with pytest.raises(ApiError, match="invalid selector"):
        fields("metadata.name")


def test_a_selection_is_all_of_it() -> None:
    assert Selection.of("x", {"labelSelector": "app", "fieldSelector": "metadata.name=a"}).matches(WEB)
    assert not Selection.of("y", {"labelSelector": "app"}).matches(WEB)
    assert Selection.of(None, {}).matches(BARE)
