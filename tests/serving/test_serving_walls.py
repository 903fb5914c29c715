"""The walls: what a sandbox gives up is tried behind them, each by a process of its own, and in front of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from carelake.serving.sandbox import walls
from carelake.serving.sandbox.launcher import allow_time

_TRIES = """
import ctypes, json, mmap, os, resource, signal, socket, sys
from carelake.serving.sandbox import walls

libc = ctypes.CDLL(None, use_errno=True)
parent = os.getpid()

def must(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")

TRIES = {
    "reads a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "writes a file": lambda: os.open("written", os.O_WRONLY | os.O_CREAT),
    "looks into a folder": lambda: os.listdir("/"),
    "makes a socket": lambda: socket.socket(),
    "makes a pair": lambda: socket.socketpair(),
    "connects": lambda: socket.create_connection(("127.0.0.1", 9), 0.1),
    "forks": lambda: os.fork() or os._exit(0),
    "runs a program": lambda: os.execv("/bin/true", ["/bin/true"]),
    "makes a thread": lambda: __import__("_thread").start_new_thread(lambda: None, ()),
    "traces its parent": lambda: must(libc.ptrace(0x4206, parent, 0, 0)),
    "signals its parent": lambda: os.kill(parent, 0),
    "signals itself": lambda: os.kill(os.getpid(), 0),
    "maps code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "makes memory a file": lambda: os.memfd_create("x"),
    "can be dumped again": lambda: must(libc.prctl(4, 1, 0, 0, 0)),
    "lifts its limits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "becomes another user": lambda: os.setuid(os.getuid()),
    "reads another descriptor": lambda: os.read(0, 1),
    "copies a descriptor": lambda: os.dup(walls.CHANNEL),
    "reads another's memory": lambda: must(libc.process_vm_readv(parent, 0, 0, 0, 0, 0)),
    "opens a ring": lambda: must(libc.syscall(425, 1, ctypes.create_string_buffer(120))),
    "names the machine": lambda: os.uname(),
    "leaves its namespace": lambda: must(libc.unshare(0)),
}
GOOD = {
    "computes": lambda: sum(float(number) for number in range(1000)),
    "takes memory": lambda: len(bytearray(64 << 20)),
    "draws": lambda: os.urandom(8),
    "knows the time": lambda: __import__("time").monotonic(),
}

def tried(what, lock):
    pid = os.fork()
    if not pid:
        try:
            lock()
            what()
        except OSError:
            os._exit(1)
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

def files_only():
    must(libc.prctl(38, 1, 0, 0, 0))
    walls._landlock()

os.dup2(os.open("/dev/null", os.O_RDWR), walls.CHANNEL)
before = {name: tried(what, lambda: None) for name, what in TRIES.items()}
behind = {name: tried(what, walls.lock) for name, what in (TRIES | GOOD).items()}
debug = {name: tried(what, lambda: walls.lock(debug=True)) for name, what in list(TRIES.items())[:6]}
landlock = {name: tried(what, files_only) for name, what in TRIES.items()}
json.dump([before, behind, debug, landlock], sys.stdout)
"""
_KILLED = -31  # SIGSYS
_ANYWAY = {"connects", "traces its parent", "opens a ring", "runs a program"}
"""What may fail in front of the walls, too: nobody listens there, tracing is bound, rings are off."""


@pytest.fixture(scope="module")
def tries(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, int]]:
    if not walls.abi():
        pytest.skip("this kernel has no Landlock")
    command, folder = [sys.executable, "-I", "-c", _TRIES], tmp_path_factory.mktemp("walls")
    null = subprocess.DEVNULL
    done = subprocess.run(command, stdin=null, stdout=subprocess.PIPE, cwd=folder, check=True, timeout=60)
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


def test_behind_them_each_try_ends_the_process(tries: list[dict[str, int]]) -> None:
    before, behind, debug, _ = tries
    assert {name for name, code in before.items() if code} <= _ANYWAY
    good = {name: behind.pop(name) for name in ("computes", "takes memory", "draws", "knows the time")}
    assert set(good.values()) == {0}
    assert {name: code for name, code in behind.items() if code != _KILLED} == {}
    assert _KILLED not in debug.values()  # so it is the filter that ends them


def test_landlock_alone_keeps_files_network_and_others_out(tries: list[dict[str, int]]) -> None:
    alone = tries[3]
    refused = {"reads a file", "writes a file", "looks into a folder", "connects", "runs a program"}
    assert {name for name in refused if alone[name] != 1} == set()
    assert alone["makes a pair"] == 0  # which the filter refuses, and Landlock knows nothing of
    if walls.abi() >= 6:
        assert alone["signals its parent"] == 1


def test_the_policy_tells_of_all_of_them_and_is_the_same_each_time() -> None:
    said = json.loads(walls.policy())
    assert walls.policy() == walls.policy() != walls.policy(debug=True)
    assert said["landlock"]["rules"] == []
    assert (said["no_new_privs"], said["dumpable"], said["debug"]) == (1, 0, False)
    assert (said["limits"]["NOFILE"], said["limits"]["NPROC"], said["limits"]["CORE"]) == (0, 0, 0)
    assert len(bytes.fromhex(said["seccomp"])) % 8 == 0


def test_who_computes_on_is_ended_by_the_kernel() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:  # as one whose launcher was killed
        allow_time(process.pid, 0.0)
        assert process.wait(60) == -signal.SIGXCPU
