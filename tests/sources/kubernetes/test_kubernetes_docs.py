"""The page on Kubernetes: its programs run as they stand there, and its tables say what the code does."""

from __future__ import annotations

import inspect
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from sources.kubernetes.follower import pod
from support import PATIENCE
from workpool import EventWorkerPool
from workpool import asyncio as on_loop
from workpool.sources.kubernetes import Event, KubernetesSource, errors, watch
from workpool.testing.kubernetes import ApiServer

ROOT = Path(__file__).parents[3]
CONTROLLER = ROOT / "examples" / "controller.py"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)]


def block(text: str) -> str:
    """The only one that has a text."""
    (found,) = (each for each in BLOCKS if text in each)
    return found


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, by row."""
    rows = PAGE.split(f"# {heading}\n")[1].split("\n|---")[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


@pytest.fixture
def same_signals() -> Iterator[None]:
    """Afterwards SIGTERM does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def until_synced(kubernetes_api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Has `run` read what is there, and stop then. What was handled is in the list."""
    monkeypatch.setenv("KUBECONFIG", str(kubernetes_api.write_kubeconfig(tmp_path / "kubeconfig")))
    for name in "ab":
        made = pod(name, app="web")
        kubernetes_api.create("v1/pods", {**made, "metadata": {**made["metadata"], "namespace": "shop"}})
    kubernetes_api.create("apps/v1/deployments", {"metadata": {"name": "web", "namespace": "shop"}})

    def stop(source: KubernetesSource) -> None:
        assert source.wait_synced(PATIENCE)
        source.stop()

    def stopping(run: Callable[..., Any]) -> Callable[..., Any]:
        def run_until_synced(pool: Any, *sources: KubernetesSource) -> Any:
            assert sources
            helpers = ThreadPoolExecutor(len(sources))
            for source in sources:
                helpers.submit(stop, source)
            helpers.shutdown(wait=False)
            return run(pool, *sources)

        return run_until_synced

    for kind in (EventWorkerPool, on_loop.EventWorkerPool):
        monkeypatch.setattr(kind, "run", stopping(kind.run))
    return []


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ('watch("v1/pods", namespace="shop", key=label("app")))', 2),
        ("deployments", 3),
        ("from contextlib import suppress", 2),
    ],
)
@pytest.mark.usefixtures("same_signals")
def test_the_programs_on_threads(until_synced: list[Any], text: str, objects: int) -> None:
    names: dict[str, Any] = {"handle": until_synced.append}
    exec("from workpool import EventWorkerPool\nfrom workpool.sources.kubernetes import label, watch", names)
    exec(block(text), names)
    assert len(until_synced) == objects


@pytest.mark.usefixtures("same_signals")
def test_the_program_on_a_loop(until_synced: list[Any]) -> None:
    text = block("async def main()")
    sleep = "await asyncio.sleep(0)"
    assert sleep in text
    exec(text.replace(sleep, f"{sleep}\n    handled.append(event)"), {"handled": until_synced})
    assert len(until_synced) == 2


def test_the_handler_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block("# handlers.py"), names)
    names["handle"](Event("ADDED", pod("a"), "a"))
    names["handle"]({"type": "DELETED", "object": pod("a")})
    assert capsys.readouterr().out == "ADDED a\nDELETED a\n"


def test_the_controller_is_the_example() -> None:
    source = CONTROLLER.read_text("utf-8")
    shown = block("class Controller:")
    assert shown in source
    rest = source.split(shown)[1].splitlines()
    assert len([line for line in rest if line.startswith("    ")]) == 3, "the page says how much is left out"


def test_the_test_of_the_controller_passes(tmp_path: Path) -> None:
    shutil.copy(CONTROLLER, tmp_path)
    (tmp_path / "test_controller.py").write_text(block("pytest_plugins"), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_controller.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout


def test_the_options_are_those_of_watch() -> None:
    parameters = [each for each in inspect.signature(watch).parameters.values() if each.kind is each.KEYWORD_ONLY]
    found = [(name.strip("`"), default.strip("`")) for name, default, _ in table("By the library")]
    assert found == [(each.name, repr(each.default).replace("'", '"')) for each in parameters]


def test_the_fields_are_those_of_an_event() -> None:
    found = {name.strip("`") for name, _ in table("The event")}
    assert found == {each.name.strip("_") for each in fields(Event)}


def test_the_errors_are_those_of_the_source() -> None:
    found = {re.split(r"[`(]", name)[1] for name, *_ in table("When something is wrong")}
    assert found == {name for name in errors.__all__ if name[0].isupper()}


def test_the_manifests_are_yaml_of_one_replica() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    documents = list(yaml.safe_load_all(text))
    assert [each["kind"] for each in documents] == ["Role", "RoleBinding", "Deployment"]
    assert (documents[-1]["spec"]["replicas"], documents[-1]["spec"]["strategy"]) == (1, {"type": "Recreate"})
