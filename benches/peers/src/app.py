"""What `make bench` asks a real uWSGI: one cache_get for a request, or many in a loop."""

import time

import uwsgi

KEYS = [f'key:{n:012d}' for n in range(20000)]


def fill():
    for key in KEYS:
        uwsgi.cache_update(key, key.encode().ljust(100, b'x'), 0, 'bench')


def loop():
    get, keys = uwsgi.cache_get, KEYS
    start = time.thread_time_ns()
    for key in keys * 5:
        if get(key, 'bench') is None:
            raise SystemExit('a key is not there')
    took = time.thread_time_ns() - start
    start = time.thread_time_ns()
    for key in keys * 5:
        pass
    took -= time.thread_time_ns() - start
    return str(took / (len(keys) * 5)).encode()


turn = 0


def application(environ, start_response):
    global turn
    path = environ['PATH_INFO']
    if path == '/fill':
        body = b'done'
        fill()
    elif path == '/loop':
        body = loop()
    else:
        turn = (turn + 7919) % len(KEYS)
        body = uwsgi.cache_get(KEYS[turn], 'bench') or b'missing'
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
