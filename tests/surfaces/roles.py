"""What every process of a server imports: it leaves marks in the cache from wherever uWSGI runs its code."""
import os
import threading

import uwsgi


def mark(name):
    """Whether the update succeeded, and how often the mark was made."""
    return uwsgi.cache_update(name, str(os.getpid())), uwsgi.cache_inc(name + " count")


uwsgi.cache_set("imported first", "1")
mark("import")
for number, name in ((1, "timer"), (2, "rb timer"), (3, "cron"), (4, "signal")):
    uwsgi.register_signal(number, "mule2" if name == "signal" else "worker1", lambda n, name=name: mark(name))
uwsgi.add_timer(1, 1)
uwsgi.add_rb_timer(2, 1, 3)
uwsgi.add_cron(3, -1, -1, -1, -1, -1)


def spooled(task):
    uwsgi.cache_update("spooled", task[b"value"])
    mark("spooler")
    return uwsgi.SPOOL_OK


uwsgi.spooler = spooled
uwsgi.atexit = lambda: mark("atexit")
uwsgi.post_fork_hook = lambda: mark("fork")


def on_threads():
    """Counts 600 times on three threads, each with a key of its own; gives what was read and was nobody's."""
    wrong = []

    def run(key):
        for _ in range(200):
            uwsgi.cache_inc("n")
            uwsgi.cache_update(key, key * 50)
            got = uwsgi.cache_get(key)
            if got != key.encode() * 50:
                wrong.append(got)

    threads = [threading.Thread(target=run, args=(key,)) for key in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return wrong
