"""The command `workpool`, in the extra `[cli]`: what it is made of is imported only when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and leave the process."""
    try:
        from workpool.cli.app import app  # noqa: PLC0415

        app(prog_name="workpool")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"typer", "rich", "jmespath"}:
            extra = "cli"
        elif package in {"kubernetes", "urllib3", "msgspec", "yaml"}:
            extra = "cli,kubernetes"
        else:
            raise
        print(f"workpool: the command needs {package}: pip install 'workpool[{extra}]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
