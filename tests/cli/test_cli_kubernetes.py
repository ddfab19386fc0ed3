"""`k8s:` sources on the command line, against the fake API server."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.command import counts, started, wait_for, workpool
from workpool.testing.kubernetes import Answer, ApiServer, Hang

HANDLERS = """
def show(event, delivery):
    print(event["type"], event["object"]["metadata"]["name"], delivery.key, flush=True)

def die(event):
    raise ValueError("no")
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Has three pods, and $KUBECONFIG names it."""
    with ApiServer() as server:
        for name in "abc":
            labels = {"app": name.upper(), "tier": "web" if name < "c" else "db"}
            server.create("v1/pods", {"metadata": {"name": name, "namespace": "shop", "labels": labels}})
        monkeypatch.setenv("KUBECONFIG", str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "h.py").write_text(HANDLERS, "utf-8")
        yield server


def test_the_bad_lines_of_an_earlier_run_are_replaced(server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("from an earlier run\n")
    options = ["--on-bad-line", "skip", "--bad-lines", "kept"]
    done = workpool("run", "h.py:die", "--source", "k8s:v1/pods", *options)
    assert done.returncode == 1
    assert (tmp_path / "kept").read_text() == ""


def test_run_follows_a_resource_until_ctrl_c(server: ApiServer) -> None:
    where = ["--source", "k8s:v1/pods", "-n", "shop", "-l", "tier=web"]
    with started("run", "h.py:show", *where, "--key", "label:app") as process:
        first = wait_for(process.stdout, "B").splitlines()
        first = sorted(first if len(first) == 2 else [*first, *wait_for(process.stdout, "A").splitlines()])
        assert first == ["ADDED a A", "ADDED b B"]
        server.wait_for_watches(1)
        server.patch("v1/pods", "a", {"metadata": {"labels": {"n": "1"}}}, namespace="shop")
        assert wait_for(process.stdout, "MODIFIED") == "MODIFIED a A\n"
        server.patch("v1/pods", "b", {"metadata": {"labels": {"tier": "db"}}}, namespace="shop")
        assert wait_for(process.stdout, "DELETED") == "DELETED b B\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        stderr = process.stderr.read()  # type: ignore[union-attr]
    assert counts(stderr)["events"] == "4"
    assert "Traceback" not in stderr
    server.wait_for_watches(0)


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        (None, ["shop/a", "shop/b", "shop/c"]),
        ("namespace/name", ["shop/a", "shop/b", "shop/c"]),
        ("object.metadata.labels.tier", ["db", "web", "web"]),
        ("object.metadata.labels.none", ["shop/a", "shop/b", "shop/c"]),
    ],
)
def test_keys(server: ApiServer, key: str | None, keys: list[str]) -> None:
    options = [] if key is None else ["--key", key]
    with started("run", "h.py:show", "--source", "k8s:v1/pods", *options) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert sorted(line[2] for line in lines) == keys


def test_an_object_without_its_key_is_left_out(server: ApiServer) -> None:
    server.create("v1/pods", {"metadata": {"name": "d", "namespace": "shop", "labels": {"zone": "x"}}})
    with started("run", "h.py:show", "--source", "k8s:v1/pods", "--key", "label:zone", "--missing", "skip") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[1:] == ["d", "x"]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""


def test_an_object_without_its_key_ends_the_run(server: ApiServer) -> None:
    done = workpool("run", "h.py:show", "--source", "k8s:v1/pods", "--key", "label:zone", "--missing", "fail")
    assert done.returncode == 1
    assert "has no key" in done.stderr


def test_ctrl_c_while_the_server_is_silent(server: ApiServer) -> None:
    with started("run", "h.py:show", "--source", "k8s:v1/pods") as process:
        wait_for(process.stdout, "ADDED")
        server.inject("list", Hang(after=None), times=None)
        server.wait_for_watches(1)
        server.compact()
        server.restart()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_a_handler_that_fails_ends_the_run(server: ApiServer) -> None:
    done = workpool("run", "h.py:die", "--source", "k8s:v1/pods")
    assert done.returncode == 1
    assert "ValueError: no" in done.stderr
    server.wait_for_watches(0)


def test_what_was_recorded_is_replayed(server: ApiServer, tmp_path: Path) -> None:
    with started("kubernetes", "record", "k8s:v1/pods", "-n", "shop") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        server.wait_for_watches(1)
        server.delete("v1/pods", "b", "shop")
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    events = [json.loads(line) for line in lines]
    assert [event["type"] for event in events] == ["ADDED", "ADDED", "ADDED", "DELETED"]
    assert events[0]["object"]["kind"] == "Pod"
    with gzip.open(tmp_path / "pods.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    replayed = workpool("run", "h.py:show", "--source", "pods.gz", "--key", "object.metadata.labels.app")
    assert replayed.returncode == 0, replayed.stderr
    assert sorted(replayed.stdout.splitlines()) == ["ADDED a A", "ADDED b B", "ADDED c C", "DELETED b B"]


def test_a_reader_of_the_record_that_goes_away_ends_it(server: ApiServer) -> None:
    with started("kubernetes", "record", "k8s:v1/pods") as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        server.wait_for_watches(1)
        process.stdout.close()
        server.create("v1/pods", {"metadata": {"name": "late"}})
        assert process.wait() in (141, -signal.SIGPIPE)  # By itself, or by the signal as it leaves.
    server.wait_for_watches(0)


def test_rbac_prints_what_is_needed(server: ApiServer) -> None:
    yaml = pytest.importorskip("yaml")
    done = workpool("kubernetes", "rbac", "k8s:v1/pods", "k8s:apps/v1/deployments", "-n", "shop")
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert made["Role"]["metadata"]["namespace"] == "shop"
    assert {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]} in made["Role"]["rules"]
    assert made["RoleBinding"]["roleRef"]["name"] == made["Role"]["metadata"]["name"]
    wide = workpool("kubernetes", "rbac", "k8s:v1/pods")
    assert {"ClusterRole", "ClusterRoleBinding"} <= {each["kind"] for each in yaml.safe_load_all(wide.stdout)}
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--source", "k8s:"], "v1/pods"),
        (["--source", "k8s:gadgets"], "gadgets"),
        (["--source", "k8s:v1/gadgets"], "gadgets"),
        (["--source", "k8s:v1/pods", "--key", "label:"], "lacks the name"),
        (["--source", "k8s:v1/pods", "--key", "a[["], "not JMESPath"),
        (["--source", "k8s:v1/pods", "--kubeconfig", "gone"], "gone"),
        (["--source", "k8s:v1/pods", "--context", "other"], "other"),
        (["--source", "x.ndjson", "-n", "shop", "--key", "n"], "--namespace is for a source of Kubernetes"),
        (["--source", "x.ndjson", "--missing", "skip", "--key", "n"], "--missing is for a source of Kubernetes"),
        (["--source", "x.ndjson"], "--key is needed"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(server: ApiServer, arguments: list[str], told: str) -> None:
    done = workpool("run", "h.py:show", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(("code", "told"), [(401, "log in again"), (403, "workpool kubernetes rbac k8s:v1/pods")])
def test_no_permission_is_one_line_and_exit_2(server: ApiServer, code: int, told: str) -> None:
    server.inject("list", Answer(code), times=None)
    done = workpool("run", "h.py:show", "--source", "k8s:v1/pods")
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("package", ["kubernetes", "msgspec", "yaml"])
def test_without_the_extra_there_is_one_line(server: ApiServer, package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; import workpool.cli; workpool.cli.main()"
    arguments = ["run", "h.py:show", "--source", "k8s:v1/pods"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert package in done.stderr
    assert "pip install 'workpool[cli,kubernetes]'" in done.stderr


def test_no_cluster_is_one_line_and_exit_2(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.down():
        done = workpool("run", "h.py:show", "--source", "k8s:v1/pods")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "does not answer: connection refused" in done.stderr
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = workpool("run", "h.py:show", "--source", "k8s:v1/pods")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no cluster" in done.stderr
