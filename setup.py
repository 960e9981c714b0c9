"""The extensions; all metadata is in pyproject.toml.

RELAY_BUILD chooses the variant: release (default), debug (readiness sweep), asan, ubsan.
RELAY_PROBE=1 adds what no user gets: relaycore._probe, through which the tests drive the engine's pure rooms, and the loops of
the benchmarks' load generator.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

VARIANTS = {
    "release": ["-O2", "-g1"],
    "debug": ["-O1", "-g", "-DRELAY_DEBUG=1"],
    "asan": ["-O1", "-g", "-DRELAY_DEBUG=1", "-fsanitize=address", "-fno-omit-frame-pointer"],
    "ubsan": ["-O1", "-g", "-DRELAY_DEBUG=1", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"],
}
# What Cython's own generated code needs.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]

build = os.environ.get("RELAY_BUILD", "release")
if build not in VARIANTS:
    raise SystemExit(f"RELAY_BUILD: expected one of {', '.join(VARIANTS)}, found {build!r}")


def extension(name: str, source: str) -> Extension:
    flags = VARIANTS[build]
    return Extension(
        name,
        [source],
        include_dirs=["relaycore/include"],
        depends=[*glob("relaycore/*.pxd"), *glob("relaycore/include/*.h")],
        extra_compile_args=[*flags, *WARNINGS, f'-DRELAY_BUILD="{build}"'],
        extra_link_args=[flag for flag in flags if flag.startswith("-fsanitize")],
    )


extensions = [
    extension(f"relaycore.{name}", f"relaycore/{name}.pyx") for name in ("_engine", "_chain", "_use", "_driver", "_process")
]
if os.environ.get("RELAY_PROBE"):
    extensions += [extension(f"relaycore.{name}", f"tests/unit/{name}.pyx") for name in ("_probe", "_probe_elements")]
    extensions += [extension(f"benchmarks.{name}", f"benchmarks/{name}.pyx") for name in ("_client", "_load", "_serve")]

setup(
    ext_modules=cythonize(
        extensions,
        emit_linenums=True,
        annotate=False,
        build_dir="build/cython",
        compiler_directives={"language_level": "3", "cdivision": True, "boundscheck": False, "wraparound": False},
    )
)
