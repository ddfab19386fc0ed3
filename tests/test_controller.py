"""The controller of the examples, against the fake API server: in this process, and as it is started in a pod."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration, CoreV1Api

from cli.command import ROOT, environment, started
from support import eventually, in_thread
from workpool import EventWorkerPool, Skip
from workpool.sources.kubernetes import backoff
from workpool.testing.kubernetes import Answer, ApiServer
from workpool.testing.kubernetes.fixture import kubernetes_api

__all__ = ["kubernetes_api"]

CONTROLLER = ROOT / "examples" / "controller.py"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
NOT_READY = {"conditions": [{"type": "Ready", "status": "False"}]}


@pytest.fixture
def server(kubernetes_api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """Has three pods of two apps, and $KUBECONFIG names it; a watch that fails is soon opened again."""
    monkeypatch.setattr(backoff, "LEAST", 0.001)
    monkeypatch.setattr(backoff, "MOST", 0.01)
    monkeypatch.setenv("KUBECONFIG", str(kubernetes_api.write_kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv("NO_PROXY", "*")
    for name, app, status in (("a", "web", READY), ("b", "web", NOT_READY), ("c", "db", READY)):
        kubernetes_api.create("v1/pods", pod(name, app, status))
    return kubernetes_api


def pod(name: str, app: str | None, status: dict[str, Any] = READY) -> dict[str, Any]:
    """A pod in the namespace "shop"."""
    labels = {} if app is None else {"app": app}
    return {"metadata": {"name": name, "namespace": "shop", "labels": labels}, "status": status}


def relabel(server: ApiServer, name: str, app: str | None) -> None:
    server.patch("v1/pods", name, {"metadata": {"labels": {"app": app}}}, "shop")


def written(server: ApiServer) -> dict[str, str]:
    """What the ConfigMaps say."""
    return {each["metadata"]["name"]: each["data"]["pods"] for each in server.objects("v1/configmaps")}


def wait_until_written(server: ApiServer, **ready: str) -> None:
    """Wait until the ConfigMaps are these, by app."""
    expected = {f"{app}-ready": pods for app, pods in ready.items()}
    server.wait_for(lambda: written(server) == expected)


def wait_until_started(server: ApiServer) -> None:
    """Wait until what was there is written: for each pod, a write was tried, and a fault strikes none of those."""
    server.wait_for_requests(3, "update")
    wait_until_written(server, web="a", db="c")


@contextmanager
def running(server: ApiServer, given_up: int = 0) -> Iterator[Any]:
    """A controller that runs in this process. Afterwards, all events but so many are handled.

    It is as patient as it is, unless events are to be given up on.
    """
    controller_of = runpy.run_path(str(CONTROLLER))["Controller"]
    with ApiClient(Configuration(host=server.url)) as api:
        controller = controller_of(CoreV1Api(api), "shop")
        if given_up:
            controller.pool = EventWorkerPool(controller.follow, on_failure=Skip())
        run = in_thread(controller.run)
        try:
            server.wait_for_watches(1)
            yield controller
        finally:
            controller.source.stop()
            run()
    stats = controller.pool.stats()
    assert (stats.dead, stats.handled + stats.dead, stats.keys) == (given_up, stats.added, 0)


def expire(server: ApiServer) -> None:
    """Make the version that a watch would go on from one that is forgotten."""
    server.create("v1/events", {"metadata": {"name": "elsewhere"}})
    server.compact()


def test_it_writes_the_pods_that_are_ready(server: ApiServer) -> None:
    with running(server):
        wait_until_written(server, web="a", db="c")
        server.patch("v1/pods", "b", {"status": READY}, "shop")
        wait_until_written(server, web="a b", db="c")
        server.patch("v1/pods", "a", {"status": NOT_READY}, "shop")
        wait_until_written(server, web="b", db="c")


def test_a_pod_that_changes_its_app_leaves_the_old_one(server: ApiServer) -> None:
    with running(server):
        relabel(server, "a", "db")
        wait_until_written(server, web="", db="a c")
        for app in ("web", "db", "cache", "web"):
            relabel(server, "a", app)
        wait_until_written(server, web="a", db="c")


def test_a_pod_that_loses_its_app_leaves_it(server: ApiServer) -> None:
    with running(server):
        relabel(server, "c", None)
        wait_until_written(server, web="a")


def test_of_an_app_without_pods_nothing_is_left(server: ApiServer) -> None:
    with running(server) as controller:
        wait_until_written(server, web="a", db="c")
        for name in "abc":
            server.delete("v1/pods", name, "shop")
        wait_until_written(server)
    assert controller.apps == {}


@pytest.mark.parametrize("leaves", [True, False], ids=["deleted", "deleted, and another of its name made"])
def test_what_happened_while_the_watch_was_down_and_is_forgotten(server: ApiServer, leaves: bool) -> None:
    with running(server):
        wait_until_written(server, web="a", db="c")
        with server.down():
            server.delete("v1/pods", "a", "shop")
            if not leaves:
                server.create("v1/pods", pod("a", "db"))
            expire(server)
        wait_until_written(server, web="", db="c" if leaves else "a c")


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
def test_a_write_that_fails_is_tried_again(server: ApiServer, verb: str) -> None:
    if verb == "create":
        server.inject(verb, Answer(500))
    with running(server):
        wait_until_started(server)
        if verb != "create":
            server.inject(verb, Answer(500))
        server.patch("v1/pods", "b", {"status": READY}, "shop")
        wait_until_written(server, web="a b", db="c")
        server.delete("v1/pods", "c", "shop")
        wait_until_written(server, web="a b")
        assert server.faults == 0


def test_a_write_that_is_given_up_on_is_made_good_by_the_next(server: ApiServer) -> None:
    with running(server, given_up=1) as controller:
        wait_until_started(server)
        server.inject("update", Answer(500))
        server.patch("v1/pods", "b", {"status": READY}, "shop")
        eventually(lambda: len(controller.pool.dead()) == 1)
        assert written(server)["web-ready"] == "a"
        server.patch("v1/pods", "a", {"metadata": {"annotations": {"n": "1"}}}, "shop")
        wait_until_written(server, web="a b", db="c")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: signal.Signals(number).name)
def test_it_ends_by_a_signal_and_handles_what_was_added(server: ApiServer, number: int) -> None:
    config = os.environ["KUBECONFIG"]
    command = [sys.executable, str(CONTROLLER)]
    with started("shop", command=command, env=environment(KUBECONFIG=config)) as process:
        wait_until_started(server)
        server.wait_for_watches(1)
        server.inject("update", Answer(500))
        server.patch("v1/pods", "b", {"status": READY}, "shop")
        server.wait_for(lambda: server.faults == 0)
        process.send_signal(number)
        assert process.wait() == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        stderr = process.stderr.read()
        assert "once more in" in stderr
        assert "Traceback" not in stderr
    assert written(server) == {"web-ready": "a b", "db-ready": "c"}
