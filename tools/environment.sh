#!/bin/sh
# environment.sh DIRECTORY PYTHON REQUIREMENT...: a new virtual environment with these in it, by uv where there is one, else by pip.
set -eu
directory=$1 python=$2
shift 2
if command -v uv >/dev/null; then
	uv venv -q --clear --python "$python" "$directory"
	uv pip install -q --python "$directory/bin/python" "$@"
else
	"$python" -m venv --clear "$directory"
	"$directory/bin/pip" install -q --disable-pip-version-check "$@"
fi
