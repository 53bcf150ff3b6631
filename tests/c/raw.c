/* The raw tier: per-thread copies, item numbers, the key walk, hits. */
#include <pthread.h>

#include "check.h"

static struct uwsgi_cache *uc, *other;

static void values(void)
{
	uint64_t len = 0, expires = 1, hits = 1;
	int64_t n = -42;
	char *value;

	CHECK(uwsgi_cache_set2(uc, S("k"), S("value"), 0, 0) == 0);
	CHECK(uwsgi_cache_set2(uc, S("k"), S("other"), 0, 0) == -1);
	value = uwsgi_cache_get2(uc, S("k"), &len);
	CHECK(value && len == 5 && !memcmp(value, "value", 6) && (uintptr_t) value % 8 == 0);
	/* The copy is the thread's: the cache may change. */
	CHECK(uwsgi_cache_set2(uc, S("k"), S("VALUE"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	CHECK(!memcmp(value, "value", 6));
	value[0] = 'X';
	CHECK(get_is("raw", S("k"), S("VALUE")));
	CHECK(uwsgi_cache_get3(uc, S("k"), &len, &expires) && expires == 0);
	/* get4 counts its own reads; an update keeps the count, a new item starts anew. */
	CHECK(uwsgi_cache_set2(uc, S("h"), S("node"), 0, 0) == 0);
	CHECK(uwsgi_cache_get4(uc, S("h"), &len, &hits) && hits == 0);
	CHECK(uwsgi_cache_get4(uc, S("h"), &len, &hits) && hits == 1);
	CHECK(uwsgi_cache_get4(uc, S("h"), &len, &hits) && hits == 2);
	CHECK(!uwsgi_cache_get4(uc, S("H"), &len, &hits) && hits == 2);
	CHECK(uwsgi_cache_set2(uc, S("h"), S("other"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	CHECK(uwsgi_cache_get4(uc, S("h"), &len, &hits) && hits == 3);
	CHECK(uwsgi_cache_del2(uc, S("h"), 0, 0) == 0 && uwsgi_cache_set2(uc, S("h"), S("new"), 0, 0) == 0);
	CHECK(uwsgi_cache_get4(uc, S("h"), &len, &hits) && hits == 0);
	CHECK(uwsgi_cache_set2(uc, S("n"), (char *) &n, sizeof(n), 0, 0) == 0);
	CHECK(uwsgi_cache_num2(uc, S("n")) == -42 && uwsgi_cache_num2(uc, S("k")) == 0);
	CHECK(uwsgi_cache_num2(uc, S("none")) == 0);
}

static void item_numbers(void)
{
	uint32_t one, two;

	CHECK(uwsgi_cache_magic_clear("raw") == 0);
	CHECK(uwsgi_cache_set2(uc, S("one"), S("1"), 0, 0) == 0 && uwsgi_cache_set2(uc, S("two"), S("2"), 0, 0) == 0);
	one = uwsgi_cache_exists2(uc, S("one"));
	two = uwsgi_cache_exists2(uc, S("two"));
	CHECK(one && two && one != two);
	CHECK(uwsgi_cache_set2(uc, S("one"), S("uno"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	CHECK(uwsgi_cache_exists2(uc, S("one")) == one);
	CHECK(uwsgi_cache_del2(uc, NULL, 0, one, 0) == 0);
	CHECK(!uwsgi_cache_exists2(uc, S("one")) && uwsgi_cache_exists2(uc, S("two")) == two);
	/* In native a number in range is always removed. */
	CHECK(uwsgi_cache_del2(uc, NULL, 0, one, 0) == 0);
	CHECK(uwsgi_cache_del2(uc, S("two"), 0, UWSGI_CACHE_FLAG_LOCAL) == 0);
	CHECK(uwsgi_cache_del2(uc, S("two"), 0, UWSGI_CACHE_FLAG_LOCAL) == -1);
}

static void fill(struct uwsgi_cache *cache, int items)
{
	char key[32];
	int i;

	for (i = 0; i < items; i++) {
		int len = snprintf(key, sizeof(key), "key %d", i);
		CHECK(uwsgi_cache_set2(cache, key, (uint16_t) len, key, (uint64_t) len, 0, 0) == 0);
	}
}

/* Walks a cache and counts each key; another walk goes on in the middle of it. */
static void walk(int items)
{
	static char seen[2000];
	uint64_t position = 0, position2 = 0, len = 0;
	struct uwsgi_cache_item *item = NULL, *item2 = NULL;
	int n = 0, n2 = 0;

	memset(seen, 0, sizeof(seen));
	while ((item = uwsgi_cache_keys(uc, &position, &item))) {
		char key[32] = "";
		char *value;
		int i;
		CHECK(item->keysize < sizeof(key) && item->valsize == item->keysize && item->flags == 0);
		memcpy(key, uwsgi_cache_item_key(item), item->keysize);
		CHECK(sscanf(key, "key %d", &i) == 1 && i >= 0 && i < items && !seen[i]);
		seen[i] = 1;
		n++;
		/* Its number is the key's, and reading values leaves the item alone. */
		CHECK(item->first_block == uwsgi_cache_exists2(uc, key, (uint16_t) item->keysize));
		value = uwsgi_cache_get2(uc, key, (uint16_t) item->keysize, &len);
		CHECK(value && len == item->valsize && !memcmp(uwsgi_cache_item_key(item), value, len));
		if ((item2 = uwsgi_cache_keys(other, &position2, &item2)))
			n2++;
	}
	CHECK(n == items && n2 == 5);
	CHECK(!uwsgi_cache_keys(uc, &position, &item));
}

static void walks(void)
{
	uint64_t position = 0;
	struct uwsgi_cache_item *item = NULL;
	int n = 0;

	CHECK(uwsgi_cache_magic_clear("raw") == 0 && !uwsgi_cache_keys(uc, &position, &item) && !item);
	fill(uc, 1500);
	fill(other, 5);
	walk(1500);
	/* Unlocking ends the thread's walks; what was a place to go on still is one. */
	position = 0;
	item = NULL;
	while (n < 10 && (item = uwsgi_cache_keys(uc, &position, &item)))
		n++;
	uwsgi_cache_rlock(uc);
	uwsgi_cache_rwunlock(uc);
	while ((item = uwsgi_cache_keys(uc, &position, &item)))
		n++;
	CHECK(n == 1500);
	/* Removing what the walk gives. */
	position = 0;
	n = 0;
	uwsgi_cache_rlock(uc);
	while ((item = uwsgi_cache_keys(uc, &position, &item))) {
		CHECK(uwsgi_cache_del2(uc, uwsgi_cache_item_key(item), (uint16_t) item->keysize, 0, 0) == 0);
		n++;
	}
	uwsgi_cache_rwunlock(uc);
	uwsgi_cache_fix(uc);
	CHECK(n == 1500 && uc->n_items == 0);
	CHECK(uwsgi_cache_set2(uc, S("u"), S("v"), 7000, UWSGI_CACHE_FLAG_UNGETTABLE) == 0);
	position = 0;
	item = NULL;
	item = uwsgi_cache_keys(uc, &position, &item);
	CHECK(item && item->flags == UWSGI_CACHE_FLAG_UNGETTABLE && item->expires > (uint64_t) time(NULL));
}

static void *reader(void *arg)
{
	char key[16], expected[16];
	uint64_t len = 0;
	int i, me = *(int *) arg, keylen = snprintf(key, sizeof(key), "thread %d", me);

	for (i = 0; i < 2000; i++) {
		int n = snprintf(expected, sizeof(expected), "%d.%d", me, i);
		char *value;
		CHECK(uwsgi_cache_set2(uc, key, (uint16_t) keylen, expected, (uint64_t) n, 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
		value = uwsgi_cache_get2(uc, key, (uint16_t) keylen, &len);
		CHECK(value && len == (uint64_t) n && !memcmp(value, expected, len));
	}
	return NULL;
}

static void threads(void)
{
	pthread_t thread[4];
	int i, number[4] = { 0, 1, 2, 3 };

	for (i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, reader, &number[i]) == 0);
	for (i = 0; i < 4; i++)
		CHECK(pthread_join(thread[i], NULL) == 0);
}

static void figures(void)
{
	uint64_t hits, miss, len;

	uwsgi_cache_fix(uc);
	hits = uc->hits;
	miss = uc->miss;
	CHECK(uwsgi_cache_set2(uc, S("f"), S("12345678"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	CHECK(uwsgi_cache_get2(uc, S("f"), &len) && uwsgi_cache_get4(uc, S("f"), &len, NULL));
	CHECK(uwsgi_cache_num2(uc, S("f")) != 0 && uwsgi_cache_exists2(uc, S("f")));
	CHECK(!uwsgi_cache_get3(uc, S("g"), &len, NULL) && !uwsgi_cache_exists2(uc, S("g")));
	uwsgi_cache_init(uc);
	CHECK(uc->hits == hits + 3 && uc->miss == miss + 1);
	CHECK(uc->last_modified_at >= time(NULL) - 60 && uc->last_modified_at <= time(NULL));
}

int main(void)
{
	uc = uwsgi_cache_create("name=raw,items=2000,lastmod=1");
	other = uwsgi_cache_create("name=other,items=10");
	CHECK(uc && other && uc->next == other && !other->next);
	values();
	item_numbers();
	walks();
	threads();
	figures();
	return 0;
}
