"""The optional compiled build: FOLDEX_COMPILE=1 compiles the aggregate's own sources with mypyc.

Everything else about the distribution is in pyproject.toml. Without the variable nothing is compiled, and a
compiled build decides the same bytes (scripts/compiled.sh runs the tests against it and compares).
"""

import os
from pathlib import Path

from setuptools import setup

extensions = []
if os.environ.get("FOLDEX_COMPILE") == "1":
    from mypyc.build import mypycify

    sources = sorted(str(path) for path in Path("exchange/aggregate").glob("*.py"))
    extensions = mypycify([path for path in sources if not path.endswith("__init__.py")], opt_level="3")

setup(ext_modules=extensions)
