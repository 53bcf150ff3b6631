"""A worker that evaluates the Python expressions it is sent, and looks at the uWSGI around it."""
import ctypes
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
    """The object that has uWSGI's code: the program, or the module when Python is the program."""
    module = sys.modules.get("pyuwsgi")
    return ctypes.CDLL(module.__file__ if module else None)


def leads_to(name):
    """The file that the host's function `name` jumps to, or what it starts with."""
    address = ctypes.cast(getattr(host(), name), ctypes.c_void_p).value
    code = ctypes.string_at(address, 40)
    # behind the instructions that stay: movabs $to, %rax; jmp *%rax, or ldr x16, #8; br x16 and the address
    x86, arm = code.find(b"\xff\xe0"), code.find(b"\x50\0\0\x58\0\x02\x1f\xd6")
    if x86 >= 10 and code[x86 - 10:x86 - 8] == b"\x48\xb8":
        return file_at(int.from_bytes(code[x86 - 8:x86], "little"))
    if arm >= 0:
        return file_at(int.from_bytes(code[arm + 8:arm + 16], "little"))
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
    """Loads a plugin when the server has long started."""
    load = host().uwsgi_load_plugin
    load.restype = ctypes.c_void_p
    return bool(load(-1, path.encode(), None))
