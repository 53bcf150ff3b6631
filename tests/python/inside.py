"""What the tests run inside a uWSGI with the plugin."""

import threading
import time

import uwsgi
from uwsgiconf.runtime.caching import Cache as Theirs

import ucache


def same_as_uwsgiconf():
    """Runs the same calls on uwsgiconf's class and on ucache's; returns those that differ."""
    calls = [
        "c.timeout, type(c)('mycache').timeout, type(c)('mycache', timeout=5).timeout",
        "bool(c.set('text', 'value')), bool(c.set('text', 'other')), c.get('text'), c['text']",
        "c.get('text', preserve_bytes=True), 'text' in c, 'nothing' in c",
        "bool(c.set('item', 15)), c['item'], c.get('item', default=1), bool(c.set('item', 16)), c['item']",
        "c.get('nothing'), c.get('nothing', default='d'), c['nothing']",
        "c.get('filled', setter=lambda key: 'made from ' + key), c.get('filled', setter=None)",
        "c.get('unfilled', setter=lambda key: None, default='d'), 'unfilled' in c",
        "bool(c.incr('n')), bool(c.incr('n', delta=4)), c.get('n', as_int=True), bool(c.decr('n')), c.get('n', as_int=True)",
        "bool(c.mul('n')), c.get('n', as_int=True), bool(c.mul('n', value=5)), c.get('n', as_int=True)",
        "bool(c.div('n')), c.get('n', as_int=True), bool(c.div('n', value=3)), c.get('n', as_int=True)",
        "bool(c.set('bytes', b'\\x00\\xff')), c.get('bytes', preserve_bytes=True), c.get('bytes', as_int=True)",
        "bool(c.set('float', 1.5)), c.get('float'), bool(c.set('yes', True)), c.get('yes')",
        "bool(c.set('ever', 'v', timeout=0)), 'ever' in c, c.get('absent', as_int=True), c.get('absent', as_int=True, default=7)",
        "sorted(c.keys)",
        "c.__delitem__('item'), 'item' in c, c.clear(), list(c.keys)",
    ]
    wrong = []
    for call in calls:
        # Each on a cache of its own, both of which begin empty.
        theirs = eval(call.replace("mycache", "twin"), {"c": Theirs("twin")})
        ours = eval(call, {"c": ucache.Cache("mycache")})
        if theirs != ours:
            wrong.append(f"{call}: {theirs} and {ours}")
    return wrong


def computed_once(key):
    """get_or_set by this request; how often anyone computed."""

    def compute():
        uwsgi.cache_inc(f"computed {key}", 1, 0, "mycache")
        time.sleep(0.4)
        return "value"

    cache = ucache.Cache("mycache")
    value = cache.get_or_set(key, compute, ttl=60)
    return (
        value,
        cache.number(f"computed {key}"),
        threading.current_thread() is threading.main_thread(),
    )
