"""A worker that evaluates Python expressions sent to it, and can inspect the uWSGI that runs it."""
import ctypes
import os
import sys
import time

import uwsgi


def application(environ, start_response):
    source = environ["wsgi.input"].read().decode()
    try:
        answer = repr(eval(source, globals())) if source else "page"
    except Exception as error:
        answer = "%s: %s" % (type(error).__name__, error)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]


def host():
    """The object with uWSGI's code: the program, or a module if Python is the program."""
    module = sys.modules.get("pyuwsgi")
    return ctypes.CDLL(module.__file__ if module else None)


def leads_to(name):
    """The file that the host's function `name` jumps to, or else its first bytes."""
    address = ctypes.cast(getattr(host(), name), ctypes.c_void_p).value
    # behind the kept instructions: movabs $to, %rax; jmp *%rax, or ldr x16, #8; br x16 and the address, or (in short
    # functions) a branch to such a veneer
    if os.uname().machine == "aarch64":
        for at in range(address, address + 20, 4):
            word = int.from_bytes(ctypes.string_at(at, 4), "little")
            if word >> 26 == 0b000101:
                at += ((word & 0x03ffffff ^ 0x02000000) - 0x02000000) * 4
            if ctypes.string_at(at, 8) == b"\x50\0\0\x58\0\x02\x1f\xd6":
                return file_at(int.from_bytes(ctypes.string_at(at + 8, 8), "little"))
    code = ctypes.string_at(address, 40)
    x86 = code.find(b"\xff\xe0")
    if x86 >= 10 and code[x86 - 10:x86 - 8] == b"\x48\xb8":
        return file_at(int.from_bytes(code[x86 - 8:x86], "little"))
    return "%s of %s" % (code.hex(), file_at(address))


def file_at(address):
    """The mapped file around an address."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if start <= address < end:
                return line.split()[-1].rsplit("/", 1)[-1]
    return "nowhere"


def load_plugin_now(path):
    """Loads a plugin into the running server."""
    load = host().uwsgi_load_plugin
    load.restype = ctypes.c_void_p
    return bool(load(-1, path.encode(), None))
