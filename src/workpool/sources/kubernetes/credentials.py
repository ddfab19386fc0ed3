"""Where the cluster is, and who asks: a kubeconfig, or what a pod is given. The official client reads both.

Source: `load_kube_config` in kubernetes.config, taken apart: by itself it does not say which namespace a context has,
nor which contexts there are, nor that a plug-in has failed. What is told of an error shows no secret.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import yaml
from kubernetes.client import Configuration
from kubernetes.config import incluster_config, kube_config

from workpool.sources.kubernetes.errors import BadKubeconfig, NoCluster, in_one_line

__all__ = ["headers", "load"]

USUAL: Final = "~/.kube/config"


def load(kubeconfig: str | os.PathLike[str] | None, context: str | None) -> tuple[Configuration, str]:
    """The configuration, and the namespace that goes with it.

    Args:
        kubeconfig: A file; None for those that `KUBECONFIG` names, else `~/.kube/config`, else what a pod is given.
        context: One of the kubeconfig's; None for its current one.

    Raises:
        BadKubeconfig: It cannot be used.
        NoCluster: There is none, and this is no pod.
    """
    files = os.fspath(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG", "")
    if files or context is not None or Path(USUAL).expanduser().exists():
        return _of_kubeconfig(files or USUAL, context)
    return _of_pod()


def headers(configuration: Configuration) -> dict[str, str]:
    """What a request has to say of who asks: looked up for each, for a token may have been rotated (R35).

    What a pod is given is read anew by the official client when it is a minute old; a plug-in is asked again when its
    token is about to expire.

    Raises:
        Exception: Anything that this reading may come upon.
    """
    settings: Any = configuration.auth_settings().values()
    found = {each["key"]: each["value"].strip() for each in settings if each["in"] == "header" and each["value"]}
    if not all(value.isascii() and value.isprintable() for value in found.values()):
        raise ValueError("the token has a character that no header can carry")  # Else an error would show all of it.
    return found


def _of_kubeconfig(files: str, context: str | None) -> tuple[Configuration, str]:
    if not any(Path(each).expanduser().exists() for each in files.split(os.pathsep)):
        raise BadKubeconfig(files, "there is no such file")
    configuration, untyped = Configuration(), cast(Any, kube_config)
    try:
        merged = untyped.KubeConfigMerger(files)
        names = [each["name"] for each in merged.config.value["contexts"]]
        chosen = context if context is not None else merged.config.safe_get("current-context")
        if chosen not in names:
            what = f"it has no context {chosen!r}" if chosen else "it has no current context"
            raise BadKubeconfig(files, f"{what}; there are: {', '.join(names) or 'none'}")
        loader = untyped.KubeConfigLoader(
            merged.config, active_context=chosen, config_base_path=None, config_persister=merged.save_changes
        )
        with _complaints() as complaints:
            loader.load_and_set(configuration)
    except BadKubeconfig:
        raise
    except yaml.YAMLError as error:
        raise BadKubeconfig(files, f"it is no YAML: {in_one_line(error)}") from error
    except (TypeError, AttributeError, LookupError) as error:
        raise BadKubeconfig(files, f"it is no kubeconfig ({_without_secrets(error)})") from error
    except Exception as error:  # It raises whatever it stumbles over.
        raise BadKubeconfig(files, _without_secrets(error) or type(error).__name__) from error
    if complaints:
        raise BadKubeconfig(files, f"its user has no credentials: {_without_secrets(complaints[0])}")
    return configuration, loader.current_context["context"].get("namespace") or "default"


def _of_pod() -> tuple[Configuration, str]:
    configuration = Configuration()
    try:
        incluster_config.load_incluster_config(client_configuration=configuration)
    except Exception as error:  # An unreadable file is no ConfigException.
        raise NoCluster("", f"there is no {USUAL}, and this is no pod ({in_one_line(error)})") from error
    try:
        namespace = Path(incluster_config.SERVICE_TOKEN_FILENAME).with_name("namespace").read_text("utf-8").strip()
    except OSError:
        namespace = ""
    return configuration, namespace or "default"


def _without_secrets(text: object) -> str:
    """In one line. The official client names a part of a kubeconfig by all that is in it."""
    return re.sub(r"\{.*\}", "...", in_one_line(text))


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the official client tells the root logger on this thread: it does so where a plug-in fails, and goes on."""
    heard: list[str] = []
    thread = threading.get_ident()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.module == kube_config.__name__.rpartition(".")[2]:
                heard.append(record.getMessage())

    root, ear = logging.getLogger(), Ear(logging.ERROR)
    root.addHandler(ear)
    try:
        yield heard
    finally:
        root.removeHandler(ear)
