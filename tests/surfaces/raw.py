"""uWSGI's C functions for a cache, called as its own code calls them: with its structs, under its lock table."""
import ctypes
import struct

import uwsgi

C = ctypes.CDLL(None)
C.uwsgi_cache_by_name.restype = ctypes.c_void_p
for name in ("get2", "get3", "get4", "keys"):
    getattr(C, "uwsgi_cache_" + name).restype = ctypes.c_void_p
C.uwsgi_cache_num2.restype = ctypes.c_int64
C.uwsgi_cache_exists2.restype = ctypes.c_uint32
C.uwsgi_cache_item_key.restype = ctypes.c_void_p

# places in struct uwsgi_cache and struct uwsgi_cache_item, bytes
KEYSIZE, BLOCKS, BLOCKSIZE, HASHSIZE, MAX_ITEMS, MAX_ITEM_SIZE, ITEMS, FILESIZE, LOCK = (
    16, 24, 32, 56, 120, 128, 144, 216, 272)
ITEM_KEYSIZE = 8


def cache(name):
    return ctypes.c_void_p(C.uwsgi_cache_by_name(name.encode()))


def word(name, place):
    return struct.unpack("Q", ctypes.string_at(cache(name).value + place, 8))[0]


def get(name, key, which=2):
    """(value, what get3 tells: expiry, or get4: hits), under the read lock."""
    uc, size, more = cache(name), ctypes.c_uint64(), ctypes.c_uint64()
    rest = [ctypes.byref(more)] if which > 2 else []
    C.uwsgi_cache_rlock(uc)
    at = getattr(C, "uwsgi_cache_get%d" % which)(uc, key, len(key), ctypes.byref(size), *rest)
    value = ctypes.string_at(at, size.value) if at else None
    C.uwsgi_cache_rwunlock(uc)
    return value if which == 2 else (value, more.value)


def set(name, key, value, expires=0, flags=0):
    return C.uwsgi_cache_set2(cache(name), key, len(key), value, ctypes.c_uint64(len(value)),
                              ctypes.c_uint64(expires), ctypes.c_uint64(flags))


def delete(name, key=b"", index=0):
    return C.uwsgi_cache_del2(cache(name), key, len(key), ctypes.c_uint64(index), 0)


def number(name, key):
    return C.uwsgi_cache_num2(cache(name), key, len(key))


def exists(name, key):
    return C.uwsgi_cache_exists2(cache(name), key, len(key))


def keys(name):
    """The walk of language plugins."""
    uc, pos, item, found = cache(name), ctypes.c_uint64(), ctypes.c_void_p(), []
    C.uwsgi_cache_rlock(uc)
    while C.uwsgi_cache_keys(uc, ctypes.byref(pos), ctypes.byref(item)):
        size = struct.unpack("Q", ctypes.string_at(item.value + ITEM_KEYSIZE, 8))[0]
        found.append(ctypes.string_at(C.uwsgi_cache_item_key(item), size))
    C.uwsgi_cache_rwunlock(uc)
    return sorted(found)
