"""One client library of the server, driven by lines of JSON: python3 other_clients.py CLIENT SOCKET.

The first line printed names the client and its version. Values are pairs of a kind (text, bytes,
int) and the value, bytes as Latin-1 text.
"""

import importlib.metadata
import json
import subprocess
import sys


class Bytes:
    """A serializer for Django and django-redis that keeps bytes and text as they are."""

    def __init__(self, **_):
        pass

    def dumps(self, value):
        return value.encode() if isinstance(value, str) else value

    def loads(self, value):
        return value


class RedisCli:
    def __init__(self, socket):
        self.program = ["redis-cli", "-s", socket]
        self.name = "redis-cli"

    def ask(self, *words, stdin=None):
        command = self.program + (["-x"] if stdin is not None else []) + list(words)
        done = subprocess.run(command, input=stdin, capture_output=True, check=True)
        return done.stdout.removesuffix(b"\n")

    def set(self, key, value, ttl):
        value = value if isinstance(value, bytes) else str(value).encode()
        self.ask("SET", "c:" + key, stdin=value)
        if ttl is not None:
            self.ask("EXPIRE", "c:" + key, str(ttl))

    def get(self, key):
        return self.ask("GET", "c:" + key) if self.ask("EXISTS", "c:" + key) == b"1" else None

    def incr(self, key):
        return int(self.ask("INCR", "c:" + key))

    def delete(self, key):
        self.ask("DEL", "c:" + key)


class Plain:
    """redis-py and valkey-py, which have the same methods."""

    def __init__(self, name, client):
        self.name, self.client = name, client

    def key(self, key):
        return b"c:" + key.encode("latin-1")

    def set(self, key, value, ttl):
        self.client.set(self.key(key), value, ex=ttl)

    def get(self, key):
        return self.client.get(self.key(key))

    def incr(self, key):
        return self.client.incr(self.key(key))

    def delete(self, key):
        self.client.delete(self.key(key))


class Django:
    def __init__(self, name, backend, socket, options):
        from django.conf import settings

        cache = {"BACKEND": backend, "LOCATION": f"unix://{socket}", "KEY_PREFIX": "c", "TIMEOUT": None, "OPTIONS": options}
        settings.configure(CACHES={"default": cache})
        from django.core.cache import cache as django

        self.name, self.cache = name, django

    def set(self, key, value, ttl):
        self.cache.set(key, value, ttl)

    def get(self, key):
        return self.cache.get(key)

    def incr(self, key):
        return self.cache.incr(key)

    def delete(self, key):
        self.cache.delete(key)


class Cachelib:
    """cachelib, and Flask-Caching, which is made of it."""

    def __init__(self, name, cache):
        self.name, self.cache = name, cache

    def set(self, key, value, ttl):
        self.cache.set(key, value, ttl or 0)

    def get(self, key):
        return self.cache.get(key)

    def incr(self, key):
        return self.cache.inc(key)

    def delete(self, key):
        self.cache.delete(key)


def version(package):
    return importlib.metadata.version(package)


def flask(socket):
    from flask import Flask
    from flask_caching import Cache

    app = Flask("app")
    url = f"unix://{socket}"
    cache = Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url, "CACHE_KEY_PREFIX": "c:"})
    return Cachelib("Flask-Caching " + version("Flask-Caching"), app.extensions["cache"][cache])


def cachelib(socket):
    import cachelib
    import redis

    name = "cachelib " + version("cachelib")
    return Cachelib(name, cachelib.RedisCache(redis.Redis(unix_socket_path=socket), key_prefix="c:"))


def plain(package, class_name):
    def connect(socket):
        client = getattr(__import__(package), class_name)(unix_socket_path=socket)
        return Plain(f"{package}-py {version(package)}", client)

    return connect


def django(serializer):
    name = f"Django {version('Django')}" + (", bytes" if serializer else "")
    backend = "django.core.cache.backends.redis.RedisCache"
    return lambda socket: Django(name, backend, socket, {"serializer": Bytes} if serializer else {})


def django_redis(serializer):
    name = f"django-redis {version('django-redis')}" + (", bytes" if serializer else "")
    options = {"SERIALIZER": "__main__.Bytes"} if serializer else {}
    return lambda socket: Django(name, "django_redis.cache.RedisCache", socket, options)


CLIENTS = {
    "redis-cli": RedisCli,
    "redis-py": plain("redis", "Redis"),
    "valkey-py": plain("valkey", "Valkey"),
    "django": django(False),
    "django-bytes": django(True),
    "django-redis": django_redis(False),
    "django-redis-bytes": django_redis(True),
    "flask-caching": flask,
    "cachelib": cachelib,
}


def packed(value):
    if value is None:
        return ["none", ""]
    if isinstance(value, bytes):
        return ["bytes", value.decode("latin-1")]
    return ["int" if isinstance(value, int) else "text", str(value)]


def unpacked(kind, value):
    return {"bytes": value.encode("latin-1"), "int": int(value) if kind == "int" else 0, "text": value}[kind]


def do(client, words):
    match words:
        case ["set", key, kind, value, ttl]:
            client.set(key, unpacked(kind, value), ttl)
            return ["none", ""]
        case ["get", key]:
            return packed(client.get(key))
        case ["incr", key]:
            return packed(client.incr(key))
        case ["delete", key]:
            client.delete(key)
            return ["none", ""]


def main():
    client = CLIENTS[sys.argv[1]](sys.argv[2])
    print(client.name, flush=True)
    for line in sys.stdin:
        try:
            answer = do(client, json.loads(line))
        except Exception as error:
            answer = ["error", type(error).__name__]
        print(json.dumps(answer), flush=True)


main()
