"""Inspects the caches: the server's statistics, and the items with their sizes and times to live."""

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
    """Whether this server has the plugin: uWSGI loads plugins with their symbols."""
    return hasattr(HOST, "ucache_plugin")


def items(name):
    """Key, size in bytes (or None) and seconds left (None = forever, or unknown) of each item.

    uWSGI's Python functions return keys only. The C function returns whole items and counts no hit. It is safe with
    ucache, which returns copies; uWSGI's own cache returns pointers to memory that another worker may be changing.
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
    """The JSON from the master's stats server."""
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
    return json.loads(text)


def responses(told):
    """What the route action `ucache:` counted, by figure, from these statistics; {} without the plugin."""
    begin = "cache.responses.page_"
    found = told.get("metrics", {}).items()
    return {name[len(begin) :]: metric["value"] for name, metric in found if name.startswith(begin)}
