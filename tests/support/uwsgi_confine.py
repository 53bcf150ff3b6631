"""Runs a command in a restricted environment: uwsgi_confine.py [mdwe] [noproc] -- command...

mdwe    memory cannot be made executable (as with systemd's MemoryDenyWriteExecute=)
noproc  /proc is empty, as in a chroot
"""
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)
split = sys.argv.index("--")
wishes, command = sys.argv[1:split], sys.argv[split + 1:]


def check(what, result):
    if result != 0:
        sys.exit("cannot confine: %s: %s" % (what, os.strerror(ctypes.get_errno())))


# The command must not outlive the test.
check("PR_SET_PDEATHSIG", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
if "noproc" in wishes:
    spaces = CLONE_NEWNS if os.geteuid() == 0 else CLONE_NEWNS | CLONE_NEWUSER
    check("unshare (needs root or user namespaces)", libc.unshare(spaces))
    check("private mounts", libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    check("empty /proc", libc.mount(b"none", b"/proc", b"tmpfs", 0, None))
if "mdwe" in wishes:
    check("PR_SET_MDWE (needs Linux 6.3)", libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
os.execvp(command[0], command)
