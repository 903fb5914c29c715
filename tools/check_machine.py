"""Says what this machine still needs before carelake can be set up, with the command that installs it.

Run by ``make`` with the Python that will make the environment. Prints nothing and exits with 0 where all is there.
The syntax is kept old on purpose: an old Python must be able to run it, so as to say that it is too old.
"""

# ruff: noqa: UP032
import ctypes
import importlib.util
import os
import sys

MINIMUM = (3, 11)
# Where Homebrew and MacPorts put the OpenMP runtime that LightGBM's macOS wheels look for.
MAC_OPENMP = (
    "/opt/homebrew/opt/libomp/lib/libomp.dylib",
    "/usr/local/opt/libomp/lib/libomp.dylib",
    "/opt/local/lib/libomp/libomp.dylib",
)


def missing(version, platform, has_module, has_library):
    """The needs that are not met, each as a pair: what is missing, and the command that installs it.

    Args:
        version: (major, minor) of the Python that runs.
        platform: ``sys.platform``.
        has_module: tells whether a module of the standard library can be found.
        has_library: tells whether a shared library can be loaded.
    """
    mac = platform == "darwin"
    dotted = "{}.{}".format(*version[:2])
    needs = []
    if version[:2] < MINIMUM:
        needs.append(
            (
                "Python {}.{} or newer (this one is {})".format(*MINIMUM, dotted),
                "brew install python@3.13" if mac else "sudo apt-get install python3 python3-venv",
            )
        )
    elif not (has_module("venv") and has_module("ensurepip")):
        # Debian ships the standard library without ensurepip and keeps it in a package of its own.
        needs.append(
            (
                "the venv module of Python " + dotted,
                "brew reinstall python@" + dotted
                if mac
                else "sudo apt-get install python3-venv    (or python{}-venv)".format(dotted),
            )
        )
    if mac and not any(has_library(path) for path in MAC_OPENMP):
        needs.append(("the OpenMP runtime that LightGBM uses", "brew install libomp"))
    elif platform.startswith("linux") and not has_library("libgomp.so.1"):
        needs.append(("libgomp.so.1, the OpenMP runtime that LightGBM uses", "sudo apt-get install libgomp1"))
    return needs


def _has_module(name):
    return importlib.util.find_spec(name) is not None


def _has_library(name):
    if os.path.isabs(name):
        return os.path.exists(name)
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def main():
    """Exit code 0 when nothing is missing, 1 otherwise."""
    needs = missing(sys.version_info, sys.platform, _has_module, _has_library)
    for what, command in needs:
        sys.stderr.write("carelake needs {}.\n    {}\n".format(what, command))
    return 1 if needs else 0


if __name__ == "__main__":
    sys.exit(main())
