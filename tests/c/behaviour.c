/* What the magic tier and its flags do, and what fits. */
#include <malloc.h>

#include "check.h"

#define UPDATE UWSGI_CACHE_FLAG_UPDATE

static void set_get_del(void)
{
	uint64_t len = 0, expires = 9;
	char *value;

	CHECK(missing("a", S("k")));
	CHECK(uwsgi_cache_magic_set(S("k"), S("one"), 0, 0, "a") == 0);
	CHECK(uwsgi_cache_magic_set(S("k"), S("two"), 0, 0, "a") == -1);
	CHECK(get_is("a", S("k"), S("one")));
	CHECK(uwsgi_cache_magic_set(S("k"), S("three"), 0, UPDATE, "a") == 0);
	CHECK(get_is("a", S("k"), S("three")));
	value = uwsgi_cache_magic_get(S("k"), &len, &expires, "a");
	CHECK(value && len == 5 && expires == 0);
	/* It belongs to the caller, who may do with it what malloc memory allows. */
	value = (char *) realloc(value, 1000);
	CHECK(value && !memcmp(value, "three", 6));
	free(value);
	CHECK(uwsgi_cache_magic_exists(S("k"), "a") == 1 && uwsgi_cache_magic_exists(S("kk"), "a") == 0);
	CHECK(uwsgi_cache_magic_del(S("k"), "a") == 0 && uwsgi_cache_magic_del(S("k"), "a") == -1);
	CHECK(missing("a", S("k")) && uwsgi_cache_magic_exists(S("k"), "a") == 0);
	/* Any bytes are a key and a value. */
	CHECK(uwsgi_cache_magic_set(S("\0\xff\n"), S("a\0b"), 0, 0, "a") == 0);
	CHECK(get_is("a", S("\0\xff\n"), S("a\0b")));
	CHECK(missing("a", S("\0\xff")));
}

static void sizes(void)
{
	static char big[200000];
	uint64_t len = 0;
	char *value;

	memset(big, 'v', sizeof(big));
	CHECK(uwsgi_cache_magic_set(big, 2048, "v", 1, 0, 0, "a") == 0);
	CHECK(uwsgi_cache_magic_set(big, 2049, "v", 1, 0, 0, "a") == -1);
	CHECK(uwsgi_cache_magic_exists(big, 2048, "a") && !uwsgi_cache_magic_exists(big, 2049, "a"));
	CHECK(uwsgi_cache_magic_set(S("big"), big, 65536, 0, 0, "a") == 0);
	CHECK(uwsgi_cache_magic_set(S("bigger"), big, 65537, 0, 0, "a") == -1);
	value = uwsgi_cache_magic_get(S("big"), &len, NULL, "a");
	CHECK(value && len == 65536 && !memcmp(value, big, len) && value[len] == 0);
	free(value);
	CHECK(uwsgi_cache_magic_set(S("big"), big, 1, 0, UPDATE, "a") == 0 && get_is("a", S("big"), "v", 1));
}

/* Bytes that malloc has given out. */
static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Big values, and what the raw tier keeps of them. */
static void big_values(void)
{
	static char big[20000000];
	struct uwsgi_cache *uc = uwsgi_cache_by_name("big");
	uint64_t len = 0;
	size_t before;
	char *value;

	memset(big, 'b', sizeof(big));
	CHECK(uwsgi_cache_magic_set(S("k"), big, sizeof(big), 0, 0, "big") == 0);
	CHECK(get_is("big", S("k"), big, sizeof(big)));
	before = in_use();
	uwsgi_cache_rlock(uc);
	value = uwsgi_cache_get2(uc, S("k"), &len);
	CHECK(value && len == sizeof(big) && !memcmp(value, big, len));
#ifndef __SANITIZE_ADDRESS__ /* which has a malloc of its own */
	CHECK(in_use() >= before + sizeof(big));
#endif
	uwsgi_cache_rwunlock(uc);
	CHECK(in_use() < before + 100000);
}

static void expiry(void)
{
	uint64_t now = (uint64_t) time(NULL), expires = 0;

	CHECK(uwsgi_cache_magic_set(S("e"), S("v"), 100, 0, "a") == 0);
	free(uwsgi_cache_magic_get(S("e"), NULL, &expires, "a"));
	CHECK(expires >= now + 100 && expires <= now + 160);
	CHECK(uwsgi_cache_magic_set(S("e"), S("v"), now + 500, UPDATE | UWSGI_CACHE_FLAG_ABSEXPIRE, "a") == 0);
	free(uwsgi_cache_magic_get(S("e"), NULL, &expires, "a"));
	CHECK(expires == now + 500);
	/* FIXEXPIRE leaves it; a plain update does not. */
	CHECK(uwsgi_cache_magic_set(S("e"), S("w"), 0, UPDATE | UWSGI_CACHE_FLAG_FIXEXPIRE, "a") == 0);
	free(uwsgi_cache_magic_get(S("e"), NULL, &expires, "a"));
	CHECK(expires == now + 500 && get_is("a", S("e"), S("w")));
	CHECK(uwsgi_cache_magic_set(S("e"), S("w"), 0, UPDATE, "a") == 0);
	free(uwsgi_cache_magic_get(S("e"), NULL, &expires, "a"));
	CHECK(expires == 0);
	/* -1, and a time that has passed: stored, and gone at once. */
	CHECK(uwsgi_cache_magic_set(S("e"), S("v"), (uint64_t) -1, UPDATE, "a") == 0 && missing("a", S("e")));
	CHECK(uwsgi_cache_magic_set(S("e"), S("v"), 1000, UPDATE | UWSGI_CACHE_FLAG_ABSEXPIRE, "a") == 0);
	CHECK(missing("a", S("e")) && !uwsgi_cache_magic_exists(S("e"), "a"));
	/* The key is free again: a set without UPDATE succeeds. */
	CHECK(uwsgi_cache_magic_set(S("e"), S("new"), 1, 0, "a") == 0);
	while ((uint64_t) time(NULL) <= now + 2)
		usleep(50000);
	CHECK(missing("a", S("e")) && uwsgi_cache_magic_del(S("e"), "a") == -1);
	/* With no_expire a value stays. */
	CHECK(uwsgi_cache_magic_set(S("e"), S("v"), (uint64_t) -1, 0, "forever") == 0);
	CHECK(get_is("forever", S("e"), S("v")));
}

static void numbers(void)
{
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_INC, 5) == 0 && number("a", S("n")) == 5);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_INC, -7) == 0 && number("a", S("n")) == -2);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_DEC, 8) == 0 && number("a", S("n")) == -10);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_MUL, -3) == 0 && number("a", S("n")) == 30);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_DIV, 4) == 0 && number("a", S("n")) == 7);
	CHECK(math("a", S("n"), 0, 99) == 0 && number("a", S("n")) == 7);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_DIV, 0) == 0 && number("a", S("n")) == 0);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_INC, INT64_MAX) == 0);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_INC, 1) == 0 && number("a", S("n")) == INT64_MIN);
	CHECK(math("a", S("n"), UWSGI_CACHE_FLAG_DIV, -1) == 0 && number("a", S("n")) == INT64_MIN);
	/* Without UPDATE only a new key; the first call starts from math_initial. */
	{
		int64_t one = 1;
		uint64_t flags = UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_INC;
		CHECK(uwsgi_cache_magic_set(S("n"), (char *) &one, 8, 0, flags, "a") == -1);
		CHECK(uwsgi_cache_magic_set(S("n"), (char *) &one, 8, 0, flags, "hundred") == 0);
		CHECK(number("hundred", S("n")) == 101);
	}
	/* What is no number stays as it is. */
	CHECK(uwsgi_cache_magic_set(S("text"), S("hello world!"), 0, 0, "a") == 0);
	CHECK(math("a", S("text"), UWSGI_CACHE_FLAG_INC, 1) == -1 && get_is("a", S("text"), S("hello world!")));
	/* FIXEXPIRE sets the expiry when it makes the number. */
	{
		int64_t one = 1;
		uint64_t expires = 0, flags = UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_INC | UPDATE | UWSGI_CACHE_FLAG_FIXEXPIRE;
		CHECK(uwsgi_cache_magic_set(S("ttl"), (char *) &one, 8, 100, flags, "a") == 0);
		CHECK(uwsgi_cache_magic_set(S("ttl"), (char *) &one, 8, 900, flags, "a") == 0);
		free(uwsgi_cache_magic_get(S("ttl"), NULL, &expires, "a"));
		CHECK(expires > 0 && expires <= (uint64_t) time(NULL) + 100 && number("a", S("ttl")) == 2);
	}
}

static void ungettable(void)
{
	CHECK(uwsgi_cache_magic_set(S("u"), S("v"), 0, UWSGI_CACHE_FLAG_UNGETTABLE, "a") == 0);
	CHECK(missing("a", S("u")) && uwsgi_cache_magic_exists(S("u"), "a") == 1);
	CHECK(uwsgi_cache_magic_set(S("u"), S("v"), 0, 0, "a") == -1 && uwsgi_cache_magic_del(S("u"), "a") == 0);
}

static void capacity(void)
{
	struct uwsgi_cache *uc = uwsgi_cache_by_name("three");
	int i;

	/* items=3 hold two, items=1 one. */
	CHECK(uwsgi_cache_magic_set(S("1"), S("v"), 0, 0, "three") == 0);
	CHECK(uwsgi_cache_magic_set(S("2"), S("v"), 0, 0, "three") == 0);
	CHECK(uwsgi_cache_magic_set(S("3"), S("v"), 0, 0, "three") == -1);
	CHECK(uwsgi_cache_magic_set(S("2"), S("w"), 0, UPDATE, "three") == 0);
	uwsgi_cache_fix(uc);
	CHECK(uc->max_items == 3 && uc->n_items == 2 && uc->full >= 1);
	CHECK(uwsgi_cache_magic_clear("three") == 0 && missing("three", S("2")));
	CHECK(uwsgi_cache_magic_set(S("3"), S("v"), 0, 0, "three") == 0);
	uwsgi_cache_fix(uc);
	CHECK(uc->n_items == 1 && uc->last_modified_at == 0);
	CHECK(uwsgi_cache_magic_set(S("1"), S("v"), 0, 0, "single") == 0);
	CHECK(uwsgi_cache_magic_set(S("2"), S("v"), 0, 0, "single") == -1);
	/* An expired item makes room. */
	CHECK(uwsgi_cache_magic_set(S("1"), S("v"), (uint64_t) -1, UPDATE, "single") == 0);
	CHECK(uwsgi_cache_magic_set(S("2"), S("v"), 0, 0, "single") == 0);
	/* The least recently used one goes: reading is using, exists is not. */
	for (i = 0; i < 3; i++)
		CHECK(uwsgi_cache_magic_set(&"abc"[i], 1, "v", 1, 0, 0, "lru") == 0);
	CHECK(get_is("lru", S("a"), S("v")) && uwsgi_cache_magic_exists(S("b"), "lru") == 1);
	CHECK(uwsgi_cache_magic_set(S("d"), S("v"), 0, 0, "lru") == 0);
	CHECK(!uwsgi_cache_magic_exists(S("b"), "lru") && uwsgi_cache_magic_exists(S("a"), "lru"));
	CHECK(uwsgi_cache_magic_exists(S("c"), "lru") && uwsgi_cache_magic_exists(S("d"), "lru"));
}

static void blocks(void)
{
	/* Four blocks of two bytes: an update that needs more blocks must find all of them beside the old ones. */
	CHECK(uwsgi_cache_magic_set(S("k"), S("HE"), 0, 0, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("k"), S("HELLO"), 0, UPDATE, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("k"), S("HELLOHEL"), 0, UPDATE, "blocks") == -1);
	CHECK(get_is("blocks", S("k"), S("HELLO")));
	CHECK(uwsgi_cache_magic_set(S("k"), S("WORLD"), 0, UPDATE, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("l"), S("LO"), 0, 0, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("m"), S("X"), 0, 0, "blocks") == -1);
	CHECK(uwsgi_cache_magic_set(S("k"), S("W"), 0, UPDATE, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("m"), S("X"), 0, 0, "blocks") == 0);
	CHECK(uwsgi_cache_magic_set(S("n"), S("too long for it"), 0, 0, "blocks") == -1);
}

int main(void)
{
	CHECK(uwsgi_cache_create("name=a,items=1000"));
	CHECK(uwsgi_cache_create("name=big,items=10,blocksize=20000000"));
	CHECK(uwsgi_cache_create("name=forever,items=10,no_expire=1"));
	CHECK(uwsgi_cache_create("name=hundred,items=10,math_initial=100"));
	CHECK(uwsgi_cache_create("name=three,items=3"));
	CHECK(uwsgi_cache_create("name=single,items=1"));
	CHECK(uwsgi_cache_create("name=lru,items=4,purge_lru=1"));
	CHECK(uwsgi_cache_create("name=blocks,items=4,blocks=4,blocksize=2,bitmap=1"));
	set_get_del();
	sizes();
	big_values();
	expiry();
	numbers();
	ungettable();
	capacity();
	blocks();
	return 0;
}
