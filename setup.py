"""What setup.cfg cannot declare: the media engine in C, built where there is a compiler and done without where not.

`CI=true` makes warnings of the compiler errors.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("media_relay/engine/csrc")
WARNINGS = ["-Wall", "-Wextra", *(["-Werror"] if os.environ.get("CI") else [])]

ENGINE = Extension(
    "media_relay.engine._native",
    sources=sorted(map(str, CSRC.glob("*.c"))),
    depends=sorted(map(str, CSRC.glob("*.h"))),
    define_macros=[("_GNU_SOURCE", None), ("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-std=c11", "-O2", *WARNINGS],
    py_limited_api=True,
    optional=True,
)


class BuildEngine(build_ext):
    """An engine that was built from other sources must not outlive a build that failed."""

    def build_extension(self, ext: Extension) -> None:
        """Build it; what was built before is gone in any case, here and where it is copied to."""
        built = Path(self.get_ext_fullpath(ext.name))
        for path in (built, CSRC.parent / built.name):
            path.unlink(missing_ok=True)
        super().build_extension(ext)


setup(
    ext_modules=[ENGINE],
    cmdclass={"build_ext": BuildEngine},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
