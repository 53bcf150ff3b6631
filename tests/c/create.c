/* Definitions, names, and what the struct says. */
#include "check.h"

static void refused(const char *definition)
{
	if (uwsgi_cache_create(definition)) {
		fprintf(stderr, "accepted: %s\n", definition);
		exit(1);
	}
}

int main(void)
{
	static const char *bad[] = {
		"", ",", "=", "name=x", "items=5", "name=,items=5", "name=x,items=0", "name=x,items=-1", "name=x,items=5x",
		"name=x,items=99999999999999999999", "name=x,items=5,blocks=4", "name=x,items=5,blocksize=0",
		"name=x,items=5,keysize=65536", "name=x,items=5,hash=md5", "name=x,items=5,hashsize=0",
		"name=x,items=5,hashsize=4294967296", "name=x,items=5,math_initial=ten", "name=x,items=5,lock_timeout=0",
		"name=x,items=5,store=/nowhere/at/all/store", "name=x@y,items=5", "name=x,max-items=5",
	};
	struct uwsgi_cache *first, *second, *third;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		refused(bad[i]);
	CHECK(!uwsgi_cache_by_name("x") && !uwsgi_cache_by_name(NULL));

	uwsgi_cache_create_all();
	first = uwsgi_cache_by_name("default");
	CHECK(first && first == uwsgi_cache_by_name(NULL) && first == uwsgi_cache_by_name(""));
	CHECK(first->max_items == 1001 && first->keysize == 2048 && first->blocksize == 65536);
	uwsgi_cache_create_all();
	CHECK(!first->next);

	second = uwsgi_cache_create("name=sec\\,ond,maxitems=17,key_size=30,blocksize=40,blocks=50,hash=murmur2,"
		"hash_size=60,lazy=1,sweep_on_full=7,clear_on_full=yes,no_expire=off,ignore_full=0,math_initial=-3,"
		"storesync=8,lastmod=1,wibble=1");
	CHECK(second && first->next == second && !second->next && uwsgi_cache_by_name("sec,ond") == second);
	CHECK(!strcmp(second->name, "sec,ond") && second->name_len == 7);
	CHECK(second->max_items == 17 && second->keysize == 30 && second->blocksize == 40 && second->blocks == 50);
	CHECK(second->hashsize == 60 && second->max_item_size == 40 && second->sweep_on_full == 7);
	CHECK(second->clear_on_full && !second->no_expire && !second->ignore_full && second->math_initial == -3);
	CHECK(second->use_last_modified && second->lazy_expire && second->store_sync == 8 && !second->store);
	CHECK(second->lock && second->lock->rw && !second->lock->can_deadlock && second->lock->lock_ptr);
	CHECK(!strcmp(second->lock->id, "cache_sec,ond"));
	/* By itself the struct is an empty and full cache. */
	for (i = 0; i < second->hashsize; i++)
		CHECK(second->hashtable[i] == 0);
	CHECK(second->unused_blocks_stack_ptr == 0 && !second->blocks_bitmap && !second->purge_lru && !second->next_scan);
	CHECK(second->filesize == sizeof(struct uwsgi_cache_item) + 30);
	CHECK((char *) second->data == (char *) second->items + second->filesize);
	for (i = 0; i < second->filesize; i++)
		CHECK(((char *) second->items)[i] == 0);

	third = uwsgi_cache_create("name=third,items=5,bitmap=1,blocks=8,blocksize=100,nodes=127.0.0.1:1;127.0.0.1:2");
	CHECK(third && second->next == third && third->max_item_size == 800 && third->nodes);
	CHECK(uwsgi_cache_by_namelen("third", 5) == third && !uwsgi_cache_by_namelen("third", 4));
	/* Each cache has its own keys. */
	CHECK(uwsgi_cache_magic_set(S("k"), S("first"), 0, 0, "") == 0);
	CHECK(uwsgi_cache_magic_set(S("k"), S("second"), 0, 0, "sec,ond") == 0);
	CHECK(get_is(NULL, S("k"), S("first")) && get_is("sec,ond", S("k"), S("second")) && missing("third", S("k")));
	CHECK(uwsgi_cache_magic_clear("sec,ond") == 0 && get_is("default", S("k"), S("first")));
	/* A name that is taken makes a cache all the same; the first one is found. */
	CHECK(uwsgi_cache_create("name=third,items=5") && uwsgi_cache_by_name("third") == third);
	CHECK(!strncmp(ucache_version(), "0.", 2));
	return 0;
}
