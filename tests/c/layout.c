/* Prints sizes, offsets and flags of the shared structs, from ucache.h or (with REAL) from uWSGI's own uwsgi.h. */
#ifdef REAL
#include "uwsgi.h"
#ifdef BOTH
#include "ucache.h"
#endif
#else
#include "ucache.h"
#endif
#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))
#define AT(type, field) printf(#type "." #field " %zu %zu\n", offsetof(struct type, field), \
	sizeof(((struct type *) 0)->field))
#define FLAG(name) printf(#name " %d\n", (int) (UWSGI_CACHE_FLAG_##name))

static void cache(void)
{
	SIZE(uwsgi_cache);
	AT(uwsgi_cache, name);
	AT(uwsgi_cache, name_len);
	AT(uwsgi_cache, keysize);
	AT(uwsgi_cache, blocks);
	AT(uwsgi_cache, blocksize);
	AT(uwsgi_cache, hash);
	AT(uwsgi_cache, hashtable);
	AT(uwsgi_cache, hashsize);
	AT(uwsgi_cache, first_available_block);
	AT(uwsgi_cache, unused_blocks_stack);
	AT(uwsgi_cache, unused_blocks_stack_ptr);
	AT(uwsgi_cache, use_blocks_bitmap);
	AT(uwsgi_cache, blocks_bitmap);
	AT(uwsgi_cache, blocks_bitmap_pos);
	AT(uwsgi_cache, blocks_bitmap_size);
	AT(uwsgi_cache, max_items);
	AT(uwsgi_cache, max_item_size);
	AT(uwsgi_cache, n_items);
	AT(uwsgi_cache, items);
	AT(uwsgi_cache, use_last_modified);
	AT(uwsgi_cache, last_modified_at);
	AT(uwsgi_cache, data);
	AT(uwsgi_cache, no_expire);
	AT(uwsgi_cache, full);
	AT(uwsgi_cache, hits);
	AT(uwsgi_cache, miss);
	AT(uwsgi_cache, store);
	AT(uwsgi_cache, filesize);
	AT(uwsgi_cache, store_sync);
	AT(uwsgi_cache, math_initial);
	AT(uwsgi_cache, nodes);
	AT(uwsgi_cache, udp_node_socket);
	AT(uwsgi_cache, sync_nodes);
	AT(uwsgi_cache, udp_servers);
	AT(uwsgi_cache, lock);
	AT(uwsgi_cache, next);
	AT(uwsgi_cache, ignore_full);
	AT(uwsgi_cache, next_scan);
	AT(uwsgi_cache, purge_lru);
	AT(uwsgi_cache, lru_head);
	AT(uwsgi_cache, lru_tail);
	AT(uwsgi_cache, store_delete);
	AT(uwsgi_cache, lazy_expire);
	AT(uwsgi_cache, sweep_on_full);
	AT(uwsgi_cache, clear_on_full);
}

static void others(void)
{
	SIZE(uwsgi_cache_item);
	AT(uwsgi_cache_item, flags);
	AT(uwsgi_cache_item, keysize);
	AT(uwsgi_cache_item, hash);
	AT(uwsgi_cache_item, valsize);
	AT(uwsgi_cache_item, first_block);
	AT(uwsgi_cache_item, expires);
	AT(uwsgi_cache_item, hits);
	AT(uwsgi_cache_item, prev);
	AT(uwsgi_cache_item, next);
	AT(uwsgi_cache_item, lru_prev);
	AT(uwsgi_cache_item, lru_next);
	printf("uwsgi_cache_item.key %zu\n", offsetof(struct uwsgi_cache_item, key));
	SIZE(uwsgi_cache_magic_context);
	AT(uwsgi_cache_magic_context, cmd);
	AT(uwsgi_cache_magic_context, cmd_len);
	AT(uwsgi_cache_magic_context, key);
	AT(uwsgi_cache_magic_context, key_len);
	AT(uwsgi_cache_magic_context, size);
	AT(uwsgi_cache_magic_context, expires);
	AT(uwsgi_cache_magic_context, status);
	AT(uwsgi_cache_magic_context, status_len);
	AT(uwsgi_cache_magic_context, cache);
	AT(uwsgi_cache_magic_context, cache_len);
	SIZE(uwsgi_lock_item);
	AT(uwsgi_lock_item, id);
	AT(uwsgi_lock_item, lock_ptr);
	AT(uwsgi_lock_item, rw);
	AT(uwsgi_lock_item, pid);
	AT(uwsgi_lock_item, can_deadlock);
	AT(uwsgi_lock_item, next);
	SIZE(uwsgi_buffer);
	AT(uwsgi_buffer, buf);
	AT(uwsgi_buffer, pos);
	AT(uwsgi_buffer, len);
	AT(uwsgi_buffer, limit);
}

int main(void)
{
	cache();
	others();
	FLAG(UNGETTABLE);
	FLAG(UPDATE);
	FLAG(LOCAL);
	FLAG(ABSEXPIRE);
	FLAG(MATH);
	FLAG(INC);
	FLAG(DEC);
	FLAG(MUL);
	FLAG(DIV);
	FLAG(FIXEXPIRE);
	return 0;
}
