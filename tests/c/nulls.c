/* Every function with every combination of NULL, zero and foreign arguments: refused, never a crash. */
#include "check.h"

static struct uwsgi_cache *uc;
static const char big[70000] = "x";

/* What no call may change: the one item and its value. */
static void intact(void)
{
	CHECK(get_is("one", S("key"), S("value")));
}

static void magic(void)
{
	const char *keys[] = { NULL, "", "key" };
	const char *names[] = { "two", "", "one@", "@", "one@nowhere", "\xff" };
	uint64_t len;
	size_t i, j;

	for (i = 0; i < 3; i++) {
		CHECK(!uwsgi_cache_magic_get(keys[i], 0, &len, &len, "one"));
		CHECK(uwsgi_cache_magic_set(keys[i], 0, "v", 1, 0, 0, "one") == -1);
		CHECK(uwsgi_cache_magic_set(keys[i], 0, "v", 1, 0, UWSGI_CACHE_FLAG_UPDATE, "one") == -1);
		CHECK(uwsgi_cache_magic_del(keys[i], 0, "one") == -1);
		CHECK(uwsgi_cache_magic_exists(keys[i], 0, "one") == 0);
	}
	CHECK(!uwsgi_cache_magic_get(NULL, 3, &len, &len, "one"));
	CHECK(uwsgi_cache_magic_set(NULL, 3, "v", 1, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, NULL, 5, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, "v", 0, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, NULL, 0, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, NULL, (uint64_t) -1, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, "v", (uint64_t) -1, 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, NULL, 8, 0, 2 | UWSGI_CACHE_FLAG_MATH, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, "v", 1, 0, 2 | UWSGI_CACHE_FLAG_MATH, "one") == -1);
	CHECK(uwsgi_cache_magic_set(big, 65535, "v", 1, 0, 0, "one") == -1);
	CHECK(uwsgi_cache_magic_set("key", 3, big, sizeof(big), 0, 2, "one") == -1);
	CHECK(uwsgi_cache_magic_del(NULL, 3, "one") == -1);
	CHECK(uwsgi_cache_magic_exists(NULL, 3, "one") == 0);
	for (j = 0; j < 6; j++) {
		if (!*names[j])
			continue;
		CHECK(!uwsgi_cache_magic_get("key", 3, &len, &len, names[j]));
		CHECK(uwsgi_cache_magic_set("key", 3, "v", 1, 0, 2, names[j]) == -1);
		CHECK(uwsgi_cache_magic_del("key", 3, names[j]) == -1);
		CHECK(uwsgi_cache_magic_exists("key", 3, names[j]) == 0);
		CHECK(uwsgi_cache_magic_clear(names[j]) == -1);
	}
	/* Results that nobody wants are left out. */
	free(uwsgi_cache_magic_get("key", 3, NULL, NULL, NULL));
	intact();
}

static void raw(struct uwsgi_cache *bad)
{
	uint64_t n = 0, position = 0;
	struct uwsgi_cache_item *item = NULL;

	CHECK(!uwsgi_cache_get2(bad, "key", 3, &n) && !uwsgi_cache_get2(bad, NULL, 0, NULL));
	CHECK(!uwsgi_cache_get3(bad, "key", 3, &n, &n) && !uwsgi_cache_get3(bad, NULL, 0, NULL, NULL));
	CHECK(!uwsgi_cache_get4(bad, "key", 3, &n, &n) && !uwsgi_cache_get4(bad, NULL, 0, NULL, NULL));
	CHECK(uwsgi_cache_num2(bad, "key", 3) == 0 && uwsgi_cache_num2(bad, NULL, 0) == 0);
	CHECK(uwsgi_cache_exists2(bad, "key", 3) == 0 && uwsgi_cache_exists2(bad, NULL, 0) == 0);
	CHECK(uwsgi_cache_set2(bad, "key", 3, "v", 1, 0, 2) == -1);
	CHECK(uwsgi_cache_set2(bad, NULL, 0, NULL, 0, 0, 0) == -1);
	CHECK(uwsgi_cache_del2(bad, "key", 3, 0, 0) == -1 && uwsgi_cache_del2(bad, NULL, 0, 1, 0) == -1);
	CHECK(!uwsgi_cache_keys(bad, &position, &item) && !uwsgi_cache_keys(bad, NULL, NULL));
	uwsgi_cache_rlock(bad);
	uwsgi_cache_rwunlock(bad);
	CHECK(ucache_wlock(bad) == -1);
	uwsgi_cache_rwunlock(bad);
	uwsgi_cache_init(bad);
	uwsgi_cache_fix(bad);
	uwsgi_cache_setup_nodes(bad);
	uwsgi_cache_sync_from_nodes(bad);
	CHECK(!cache_udp_server_loop(bad));
}

static void raw_arguments(void)
{
	uint64_t n = 0, position = 0;
	struct uwsgi_cache_item *item = NULL;
	uint32_t i;

	for (i = 0; i < 2; i++) {
		const char *key = i ? "key" : NULL;
		uint16_t len = i ? 0 : 3;
		CHECK(!uwsgi_cache_get2(uc, key, len, &n) && !uwsgi_cache_get3(uc, key, len, &n, &n));
		CHECK(!uwsgi_cache_get4(uc, key, len, &n, &n) && !uwsgi_cache_num2(uc, key, len));
		CHECK(!uwsgi_cache_exists2(uc, key, len));
		CHECK(uwsgi_cache_set2(uc, key, len, "v", 1, 0, 2) == -1);
		CHECK(uwsgi_cache_del2(uc, key, len, 0, 0) == -1);
	}
	CHECK(uwsgi_cache_set2(uc, "key", 3, NULL, 1, 0, 2) == -1);
	CHECK(uwsgi_cache_set2(uc, "key", 3, "v", 0, 0, 2) == -1);
	CHECK(uwsgi_cache_del2(uc, NULL, 0, (uint32_t) -1, 0) == -1);
	CHECK(uwsgi_cache_del2(uc, NULL, 0, (uint64_t) -1, 0xffff) == -1);
	CHECK(!uwsgi_cache_keys(uc, NULL, &item) && !uwsgi_cache_keys(uc, &position, NULL));
	CHECK(!uwsgi_cache_item_key(NULL));
	CHECK(uwsgi_cache_get2(uc, "key", 3, NULL) && uwsgi_cache_get3(uc, "key", 3, NULL, NULL));
	CHECK(uwsgi_cache_get4(uc, "key", 3, NULL, NULL));
	intact();
}

int main(void)
{
	struct uwsgi_cache foreign, copy;

	/* Before there is any cache. */
	CHECK(!uwsgi_cache_by_name(NULL) && !uwsgi_cache_by_namelen(NULL, 0));
	CHECK(!uwsgi_cache_magic_get("key", 3, NULL, NULL, NULL));
	CHECK(uwsgi_cache_magic_set("key", 3, "v", 1, 0, 0, NULL) == -1);
	CHECK(uwsgi_cache_magic_del("key", 3, NULL) == -1 && !uwsgi_cache_magic_exists("key", 3, ""));
	CHECK(uwsgi_cache_magic_clear(NULL) == -1);
	uwsgi_cache_sync_all();
	uwsgi_cache_start_sweepers();
	uwsgi_cache_start_sync_servers();

	uc = uwsgi_cache_create("name=one,items=10");
	CHECK(uc && uwsgi_cache_magic_set("key", 3, "value", 5, 0, 0, NULL) == 0);
	CHECK(!uwsgi_cache_by_namelen("one", 2) && uwsgi_cache_by_namelen("one...", 3) == uc);
	CHECK(uwsgi_cache_by_namelen("one", 0) == uc && uwsgi_cache_by_namelen(NULL, 3) == uc);
	magic();
	raw_arguments();
	raw(NULL);
	memset(&foreign, 0, sizeof(foreign));
	raw(&foreign);
	memset(&foreign, 0xff, sizeof(foreign));
	raw(&foreign);
	/* A copy of one of ours is not one of ours. */
	memcpy(&copy, uc, sizeof(copy));
	raw(&copy);
	uwsgi_cache_magic_context_hook(NULL, 0, NULL, 0, NULL);
	intact();
	return 0;
}
