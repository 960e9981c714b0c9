"""Two compiled elements: one in Cython, one in C. Both need nothing but the installed relay and its header."""

from Cython.Build import cythonize
from setuptools import Extension, setup

from relaycore.compiled import get_include

setup(
    name="relay-compiled-examples",
    version="1",
    py_modules=["passing"],
    ext_modules=cythonize(
        [
            Extension("line_limits", ["line_limits.pyx"], include_dirs=[get_include()]),
            Extension("passthrough", ["passthrough.c"], include_dirs=[get_include()]),
        ],
        language_level=3,
    ),
)
