"""Build csrc/: the cffi extension pyrtc._core (API mode, abi3) and the static programs beside it."""

import os
import re
import subprocess
from pathlib import Path

from cffi import FFI
from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CSRC = ROOT / "csrc"
# What Python sees of the C core: pyrtc.h declares what the others need.
INTERFACE = ["plan.h", "pyrtc.h", *sorted(path.name for path in CSRC.glob("pyrtc_*.h"))]
WARNINGS = ["-std=gnu17", "-Wall", "-Wextra", "-Wpedantic", "-Wno-missing-field-initializers",
            "-Wno-format-zero-length"]  # fmt: skip
# Freestanding: no C library is linked, so the program is small, starts without a loader and cannot be steered by the
# environment. The stack protector needs a C library's guard; position independence is of no use in a sealed memfd.
STATIC_FLAGS = [
    "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-s",
]  # fmt: skip
if os.uname().machine != "x86_64":
    STATIC_FLAGS.remove("-fcf-protection=none")


def declarations(header: Path) -> str:
    """Return what cffi needs of a C header: its text without preprocessor lines."""
    return re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", "", header.read_text(), flags=re.MULTILINE)


def extension() -> object:
    """Describe pyrtc._core; the sanitizer build sets PYRTC_SANITIZE=1."""
    sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if os.environ.get("PYRTC_SANITIZE") else []
    strict = ["-Werror"] if os.environ.get("CI") else []
    ffi = FFI()
    ffi.cdef("".join(declarations(CSRC / name) for name in INTERFACE))
    ffi.set_source(
        "pyrtc._core",
        "".join(f'#include "{name}"\n' for name in INTERFACE),
        sources=sorted(str(path.relative_to(ROOT)) for path in CSRC.glob("*.c")),
        depends=sorted(str(path.relative_to(ROOT)) for path in CSRC.glob("*.h")),
        include_dirs=["csrc"],
        # What cffi generates is not pedantic; the lint target compiles our own files with all of WARNINGS.
        extra_compile_args=["-O2", "-D_GNU_SOURCE", *WARNINGS, "-Wno-pedantic", *strict, *sanitize],
        extra_link_args=sanitize,
        py_limited_api=True,
    )
    return ffi.distutils_extension(tmpdir="build/cffi")  # setuptools refuses an absolute path


class BuildAll(build_ext):
    """Builds the static programs next to the extension."""

    def run(self) -> None:
        """Build the extension, then the programs."""
        super().run()
        for name, directory, shared in (
            ("pyrtc-init", "init", "overlay.c"),
            ("pyrtc-attendant", "attendant", "init/text.c"),
        ):
            target = (ROOT if self.inplace else Path(self.build_lib)) / "pyrtc" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            strict = ["-Werror"] if os.environ.get("CI") else []
            sources = [*sorted((CSRC / directory).glob("*.c")), CSRC / shared]
            compiler = [os.environ.get("CC", "cc"), "-I", CSRC, "-D_GNU_SOURCE", *WARNINGS, *strict, *STATIC_FLAGS]
            subprocess.run([*compiler, "-o", target, *sources], check=True)


class BinaryDistribution(Distribution):
    """A distribution with a compiled part: its wheel is for one platform."""

    def has_ext_modules(self) -> bool:
        """Say that this wheel is not pure Python."""
        return True


setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildAll},
    distclass=BinaryDistribution,
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
