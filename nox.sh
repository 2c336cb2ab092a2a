#!/usr/bin/env bash
# Runs nox with a Python of 3.11 or newer, from an environment of its own that it makes first where it is missing.
set -euo pipefail
cd "$(dirname "$0")"

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "nox.sh: no Python 3.11 or newer was found in PATH." >&2
    return 1
}

if ! .nox/launcher/bin/nox --version >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        # Debian keeps this part of Python in a package of its own.
        echo "nox.sh: installing python3-venv, which $python lacks." >&2
        apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null
    fi
    rm -rf .nox/launcher
    "$python" -m venv .nox/launcher
    .nox/launcher/bin/pip install --quiet --disable-pip-version-check 'nox[uv]>=2025.2'
fi
exec .nox/launcher/bin/nox "$@"
