"""What there is to see of the caches: the statistics of the server, and the items with sizes and times to live."""

import ctypes
import json
import socket
import time

import uwsgi

HOST = ctypes.CDLL(None)


class Item(ctypes.Structure):
    """`struct uwsgi_cache_item` of ucache.h."""

    _pack_ = 1
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "keysize",
            "hash",
            "valsize",
            "first_block",
            "expires",
            "hits",
            "prev",
            "next",
            "lru_prev",
            "lru_next",
        )
    ]


by_name = HOST.uwsgi_cache_by_name
by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.c_void_p
walk = HOST.uwsgi_cache_keys
walk.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.POINTER(Item))]
walk.restype = ctypes.POINTER(Item)


def on_ucache():
    """Whether this server has the plugin."""
    plugins = uwsgi.opt.get("plugin", b"")
    return b"ucache" in (plugins if isinstance(plugins, list) else [plugins])


def items(name):
    """Key, size in bytes (or None) and seconds left (None = for ever, or not known) of each item.

    uWSGI's Python functions tell keys only. The C function tells all, and counts no hit; ucache hands out copies, while
    uWSGI's own cache hands out places in memory that another worker may change meanwhile: not for us.
    """
    if not on_ucache():
        for key in uwsgi.cache_keys(name) or ():
            yield key, None, None
        return
    position, item = ctypes.c_uint64(0), ctypes.POINTER(Item)()
    cache, now = by_name(name.encode()), time.time()
    while walk(cache, ctypes.byref(position), ctypes.byref(item)):
        one = item.contents
        key = ctypes.string_at(ctypes.addressof(one) + ctypes.sizeof(Item), one.keysize)
        yield key, one.valsize, max(one.expires - now, 0) if one.expires else None


def statistics():
    """The `caches` part of the JSON that the master serves on its stats address."""
    address = uwsgi.opt["stats"].decode()
    if address[0] in "/@":
        family, target = socket.AF_UNIX, address.replace("@", "\0", 1)
    else:
        host, _, port = address.rpartition(":")
        family, target = socket.AF_INET, (host, int(port))
    with socket.socket(family) as peer:
        peer.settimeout(2)
        peer.connect(target)
        text = b"".join(iter(lambda: peer.recv(65536), b""))
    return json.loads(text)["caches"]
