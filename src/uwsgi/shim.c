/*
 * Sizes and offsets in the host's structs as the C compiler sees them, to be compared with those of bindgen for the
 * same header. Only facts are taken from uWSGI's header, which lies in the build folder.
 */
#include "uwsgi.h"
#include <stddef.h>

_Static_assert(sizeof(struct uwsgi_cache) == 352, "struct uwsgi_cache is not the one that ucache mirrors");
_Static_assert(sizeof(struct uwsgi_cache_item) == 88, "struct uwsgi_cache_item is not the one that ucache mirrors");
_Static_assert(sizeof(struct uwsgi_lock_item) == 40, "struct uwsgi_lock_item is not the one that ucache mirrors");
_Static_assert(sizeof(struct uwsgi_cache_magic_context) == 80,
               "struct uwsgi_cache_magic_context is not the one that ucache mirrors");

const size_t ucache_shim_layout[] = {
    sizeof(struct uwsgi_server),
    offsetof(struct uwsgi_server, caches),
    offsetof(struct uwsgi_server, cache2),
    offsetof(struct uwsgi_server, cache_setup),
    offsetof(struct uwsgi_server, lock_ops),
    offsetof(struct uwsgi_server, gp),
    offsetof(struct uwsgi_server, p),
    offsetof(struct uwsgi_server, socket_timeout),
    sizeof(struct uwsgi_plugin),
    offsetof(struct uwsgi_plugin, master_cycle),
    sizeof(struct wsgi_request),
    offsetof(struct wsgi_request, buffer),
};
