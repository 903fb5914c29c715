#!/bin/sh
# Prints the path of a Python that carelake can be set up with, or says what to install and exits with 1.
# A candidate that can also make virtual environments wins over one that cannot. PYTHON=... names the one to take.
set -u

minimum=11
candidates="python3.13 python3.12 python3.11 python3 python"
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    # shellcheck disable=SC2086
    set -- $candidates
fi

second=""
for candidate in "$@"; do
    found=$(command -v "$candidate" 2>/dev/null) || continue
    # A pyenv shim is found and still may not run: only running it tells.
    "$found" -c "import sys; sys.exit(sys.version_info < (3, $minimum))" >/dev/null 2>&1 || continue
    if "$found" -c "import ensurepip, venv" >/dev/null 2>&1; then
        echo "$found"
        exit 0
    fi
    [ -n "$second" ] || second="$found"
done
if [ -n "$second" ]; then
    echo "$second"
    exit 0
fi

{
    if [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON is not a Python 3.$minimum or newer that runs; carelake needs one."
    else
        echo "No Python 3.$minimum or newer was found (tried: $candidates); carelake needs one."
    fi
    case "$(uname -s)" in
        Darwin) echo "Install it:   brew install python@3.13" ;;
        *) echo "Install it:   sudo apt-get install python3 python3-venv" ;;
    esac
    echo "Or name one:  make PYTHON=/path/to/python3.12"
} >&2
exit 1
