"""The compiled twin: optional, so that an installation without a C compiler succeeds, on the reference."""

from pathlib import Path

from setuptools import Extension, setup

TWIN = Path("src/twin")

setup(
    ext_modules=[
        Extension(
            "workpool._twin",
            sorted(map(str, TWIN.glob("*.c"))),
            depends=sorted(map(str, TWIN.glob("*.h"))),
            optional=True,
        )
    ]
)
