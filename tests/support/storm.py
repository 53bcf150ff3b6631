"""A worker's load while processes are killed: bursts of reads and writes of self-checking values."""
import random
import struct
import zlib


def block(key, seq, length):
    head = struct.pack("<III", key, seq, length)
    return head + struct.pack("<I", zlib.crc32(head))


def value(key, seq, length):
    return block(key, seq, length) * (length // 16)


def burst(uwsgi, me, workers, keys, rounds):
    """Returns the counts of operations, torn, foreign and lost values. Keys of `me` are written only here, never deleted."""
    torn = foreign = lost = 0
    rng = random.Random()
    own = range(me * keys, (me + 1) * keys)
    for key in own:
        if not uwsgi.cache_exists("k%d" % key):
            uwsgi.cache_update("k%d" % key, value(key, 0, 64))
    for _ in range(rounds):
        key = rng.choice(own)
        if rng.random() < 0.5:
            uwsgi.cache_update("k%d" % key, value(key, rng.randrange(1 << 30), 16 * rng.randrange(1, 1500)))
        elif rng.random() < 0.3:
            uwsgi.cache_update("shared%d" % rng.randrange(8), value(key, 1, 16 * rng.randrange(1, 1500)))
            uwsgi.cache_del("shared%d" % rng.randrange(8))
        else:
            key = rng.randrange(workers * keys)
            found = uwsgi.cache_get("k%d" % key)
            if found is None:
                lost += key in own
                continue
            whose, seq, length = struct.unpack("<III", found[:12])
            if found != value(whose, seq, length):
                torn += 1
            elif whose != key:
                foreign += 1
    return "%d %d %d %d" % (rounds, torn, foreign, lost)
