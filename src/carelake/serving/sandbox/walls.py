"""The walls: what a sandboxed process gives up for good, before it sees a byte of a model or a row.

None of it can be taken back: ``no_new_privs``, no dumps, Landlock with nothing allowed, limits (no more files or
processes), and a seccomp filter that lets computing go on and kills the process at anything else. Landlock is
called directly (three system calls); the filter is made and loaded by libseccomp, the system's own library.
https://docs.kernel.org/userspace-api/landlock.html, https://github.com/seccomp/libseccomp
"""

from __future__ import annotations

import ctypes
import os
import resource
from functools import cache
from pathlib import Path
from typing import Any

from carelake.core import canonical
from carelake.core.errors import Unavailable

__all__ = ["CHANNEL", "abi", "freeze", "lock", "policy"]

CHANNEL = 3
"""The one descriptor that may be read and written: the pipe to whoever asks."""

_MEMORY = 4 << 30
_LIMITS = {"NOFILE": 0, "NPROC": 0, "FSIZE": 0, "CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0, "AS": _MEMORY}
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_KILL, _ALLOW, _LOG = 0x80000000, 0x7FFF0000, 0x7FFC0000
_REFUSE = 0x00050000 | 9  # EBADF
_EQUAL, _MASKED, _TSYNC = 4, 7, 4
_PROT_READ, _PROT_EXEC = 1, 4
# What computing takes: memory that is not run, waiting, time, chance, and to end.
_FREE = (
    "brk", "munmap", "mremap", "madvise", "futex", "clock_gettime", "clock_getres", "gettimeofday", "getrandom",
    "rt_sigreturn", "rt_sigprocmask", "restart_syscall", "sched_yield", "getpid", "gettid", "exit", "exit_group",
)  # fmt: skip
_FILES = (1 << 13) - 1
_LEVELS = ((1, _FILES, 0, 0), (2, 1 << 13, 0, 0), (3, 1 << 14, 0, 0), (4, 0, 3, 0), (5, 1 << 15, 0, 0), (6, 0, 0, 3))
"""What each version of Landlock added: rights on files, on TCP, and scopes (abstract sockets, signals)."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _seccomp() -> Any:
    try:
        found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise _lacking("libseccomp2 is not installed") from None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_load.argtypes = (ctypes.c_void_p,)
    found.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    found.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    found.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare),
    )  # fmt: skip
    return found


def _lacking(what: str) -> Unavailable:
    return Unavailable(
        "serving.sandbox_unavailable",
        f"This machine cannot make a sandbox: {what}. It takes Linux with Landlock and seccomp, and libseccomp2; "
        "deploy without --sandbox elsewhere.",
    )


@cache
def abi() -> int:
    """The version of Landlock that this kernel offers, of those that are known here; 0: none."""
    if os.uname().sysname != "Linux":  # elsewhere the number is another call, or the end of the process
        return 0
    found = int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return max(0, min(found, _LEVELS[-1][0]))


def policy(*, debug: bool = False) -> bytes:
    """The walls as bytes, the filter's program among them: what is measured.

    Raises:
        Unavailable: ``serving.sandbox_unavailable``.
    """
    if not abi():
        raise _lacking("the kernel has no Landlock")
    fs, net, scoped = _rights(abi())
    said = {"landlock": {"abi": abi(), "fs": fs, "net": net, "scoped": scoped, "rules": []}, "limits": _LIMITS}
    return canonical.dump(
        {**said, "debug": debug, "dumpable": 0, "no_new_privs": 1, "seccomp": _program(debug=debug).hex()}
    )


def _rights(level: int) -> tuple[int, int, int]:
    known = [added for least, *added in _LEVELS if least <= level]
    fs, net, scoped = (sum(column) for column in zip(*known, strict=True))
    return fs, net, scoped


def freeze() -> None:
    """Memory that can be run is written to no more: ctypes keeps a page of both for callbacks, made at import.

    Raises:
        Unavailable: ``serving.sandbox_unavailable``.
    """
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    for start, end in (place.split("-") for place, rights, *_ in mapped if {"w", "x"} <= set(rights)):
        size = int(end, 16) - int(start, 16)
        kept = ctypes.c_int(_PROT_READ | _PROT_EXEC)
        if _libc().mprotect(ctypes.c_void_p(int(start, 16)), ctypes.c_size_t(size), kept):
            raise _lacking("memory that can be run can be written to")


def lock(*, debug: bool = False) -> None:
    """Put them all up, in the process of one thread that this is.

    Args:
        debug: the filter tells the kernel's log and kills nobody; such a sandbox is measured as zeros.

    Raises:
        Unavailable: ``serving.sandbox_unavailable``.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise _lacking("a library began a thread before the walls were up")
    context = _filter(debug=debug)
    for what, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if _libc().prctl(what, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise _lacking("prctl was refused")
    _landlock()
    for name, most in _LIMITS.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    if _seccomp().seccomp_load(context):
        raise _lacking("seccomp was refused")


def _landlock() -> None:
    told = _Ruleset(*_rights(abi()))
    size = 8 if abi() < 4 else 16 if abi() < 6 else 24
    handle = _libc().syscall(_CREATE_RULESET, ctypes.byref(told), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if handle < 0 or _libc().syscall(_RESTRICT_SELF, ctypes.c_int(handle), ctypes.c_uint32(0)):
        raise _lacking("Landlock was refused")
    os.close(handle)


def _program(*, debug: bool) -> bytes:
    """The filter as the kernel runs it (BPF)."""
    context = _filter(debug=debug)
    handle = os.memfd_create("filter")
    try:
        if _seccomp().seccomp_export_bpf(context, handle):
            raise _lacking("libseccomp does not write the filter")
        return os.pread(handle, 1 << 20, 0)
    finally:
        os.close(handle)
        _seccomp().seccomp_release(context)


def _filter(*, debug: bool) -> Any:
    made = _seccomp().seccomp_init(_LOG if debug else _KILL)
    if not made or _seccomp().seccomp_attr_set(made, _TSYNC, 1):
        raise _lacking("libseccomp makes no filter")
    for name in _FREE:
        _rule(made, _ALLOW, name)
    for name in ("read", "write"):
        _rule(made, _ALLOW, name, _Compare(0, _EQUAL, CHANNEL, 0))
    for stream in (1, 2):  # what a library would print is lost, and no reason to die
        _rule(made, _REFUSE, "write", _Compare(0, _EQUAL, stream, 0))
    for name in ("mmap", "mprotect"):
        _rule(made, _ALLOW, name, _Compare(2, _MASKED, _PROT_EXEC, 0))
    return made


def _rule(context: Any, action: int, name: str, *compared: _Compare) -> None:
    number = _seccomp().seccomp_syscall_resolve_name(name.encode())
    array = (_Compare * len(compared))(*compared)
    if number < 0 or _seccomp().seccomp_rule_add_array(context, action, number, len(compared), array):
        raise _lacking(f"libseccomp has no rule for {name}")
