/* Code outside the cache that takes a cache's lock for writing, through the host's lock table, and keeps it. */
#include "uwsgi.h"

extern struct uwsgi_server uwsgi;

static void put(struct uwsgi_cache *uc, char *key, char *value) {
    uwsgi_cache_set2(uc, key, strlen(key), value, strlen(value), 0, UWSGI_CACHE_FLAG_UPDATE);
}

/* Until the cache `flags` has the key "go", or for `limit` tenths of a second. */
void hold(char *name, int limit) {
    struct uwsgi_cache *uc = uwsgi_cache_by_name(name), *flags = uwsgi_cache_by_name("flags");
    uwsgi_wlock(uc->lock);
    put(uc, "state", "held");
    put(flags, "held", "1");
    while (limit-- > 0 && !uwsgi_cache_exists2(flags, "go", 2))
        usleep(100000);
    put(uc, "state", "done");
    uwsgi_rwunlock(uc->lock);
}

/* 1: the words about the lock that the deadlock detector reads are in their place. */
int listed(char *name) {
    struct uwsgi_cache *uc = uwsgi_cache_by_name(name);
    struct uwsgi_lock_item *item = uwsgi.registered_locks;
    for (; item; item = item->next)
        if (item == uc->lock)
            return item->rw == 1 && !strncmp(item->id, "cache_", 6) && !strcmp(item->id + 6, name);
    return 0;
}
