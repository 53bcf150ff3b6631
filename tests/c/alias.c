/* Arguments that share memory, with writers beside, and lengths that no object has. */
#include <pthread.h>
#include <stdint.h>

#include "check.h"

#undef S
#define S(literal) literal, sizeof(literal) - 1

static ucache *cache;
static volatile int stop;

static int fill(void *context, void *buffer, size_t size, size_t *len)
{
	CHECK(size >= 5);
	if (context)
		memset(context, '#', 3);
	memcpy(buffer, "value", *len = 5);
	return 0;
}

static void *writer(void *none)
{
	char value[100];

	memset(value, 'v', sizeof(value));
	while (!stop)
		CHECK(ucache_set(cache, S("key"), value, sizeof(value), 0) == UCACHE_OK);
	return none;
}

/* The key is there all the time: no read misses it. */
static void reads_beside_writers(void)
{
	pthread_t threads[2];
	char buffer[100];
	size_t len, i;

	CHECK(ucache_set(cache, S("key"), S("v"), 0) == UCACHE_OK);
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, writer, NULL) == 0);
	for (i = 0; i < 100000; i++) {
		/* Anywhere in the buffer: the key ends before it, in it, or behind it. */
		char *key = buffer + i % 98;
		memcpy(key, "key", 3);
		CHECK(ucache_get(cache, key, 3, buffer, sizeof(buffer), &len) == UCACHE_OK && *buffer == 'v');
		memcpy(key, "key", 3);
		CHECK(ucache_get_or_set(cache, key, 3, buffer, sizeof(buffer), &len, 0, fill, NULL) == UCACHE_OK);
	}
	stop = 1;
	for (i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static int removes(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	(void) vallen;
	(void) expires;
	/* Where the prefix came from. */
	memset(context, 0, 2);
	return ucache_del(cache, key, keylen) != UCACHE_OK;
}

static void the_short_interface(void)
{
	union {
		char bytes[64];
		size_t len;
		uint64_t expires;
		int64_t number;
		ucache *out;
	} u;
	char *buffer = u.bytes, key[10];
	size_t len, at;

	/* The whole key, its end and its beginning. */
	for (at = 0; at < 5; at++) {
		char room[20] = "..key...";
		CHECK(ucache_set(cache, S("key"), S("taken"), 0) == UCACHE_OK);
		CHECK(ucache_take(cache, room + 2, 3, room + at, 10, &len) == UCACHE_OK && len == 5);
		CHECK(!memcmp(room + at, "taken", 5) && ucache_exists(cache, S("key"), NULL) == UCACHE_NOT_FOUND);
	}
	/* What does not fit stays. */
	CHECK(ucache_set(cache, S("key"), S("longer than that"), 0) == UCACHE_OK);
	strcpy(buffer, "key");
	CHECK(ucache_take(cache, buffer, 3, buffer, 10, &len) == UCACHE_TOO_SMALL && len == 16);
	CHECK(ucache_exists(cache, S("key"), NULL) == UCACHE_OK);
	/* Results in the key's place. */
	strcpy(buffer, "key");
	CHECK(ucache_get(cache, buffer, 3, NULL, 0, &u.len) == UCACHE_TOO_SMALL && u.len == 16);
	strcpy(buffer, "key");
	CHECK(ucache_exists(cache, buffer, 3, &u.expires) == UCACHE_OK && u.expires == 0);
	strcpy(buffer, "number");
	CHECK(ucache_incr(cache, buffer, 6, 7, 0, &u.number) == UCACHE_OK && u.number == 7);
	CHECK(ucache_incr(cache, S("number"), 1, 0, NULL) == UCACHE_OK);
	/* One and the same. */
	CHECK(ucache_set(cache, "same", 4, "sa", 2, 0) == UCACHE_OK);
	strcpy(buffer, "same");
	CHECK(ucache_append(cache, buffer, 4, buffer + 2, 2, &u.len) == UCACHE_OK && u.len == 4);
	strcpy(buffer, "same");
	CHECK(ucache_cas(cache, buffer, 4, buffer, 4, buffer, 4, 0) == UCACHE_OK);
	CHECK(ucache_del_if(cache, buffer, 4, buffer, 4) == UCACHE_OK);
	/* The value is computed where the key was, which is overwritten besides. */
	strcpy(buffer, "filled");
	CHECK(ucache_get_or_set(cache, buffer, 6, buffer, 10, &len, 0, fill, NULL) == UCACHE_OK && len == 5);
	CHECK(ucache_exists(cache, S("filled"), NULL) == UCACHE_OK && ucache_exists(cache, S("value"), NULL) != UCACHE_OK);
	strcpy(key, "other");
	CHECK(ucache_get_or_set(cache, key, 5, buffer, 10, &len, 0, fill, key) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("other"), NULL) == UCACHE_OK);
	/* A prefix that goes while it is looked for. */
	CHECK(ucache_clear(cache) == UCACHE_OK);
	for (at = 0; at < 20; at++) {
		snprintf(key, sizeof(key), "%s%d", at % 2 ? "p:" : "q:", (int) at);
		CHECK(ucache_set(cache, key, strlen(key), S("v"), 0) == UCACHE_OK);
	}
	strcpy(buffer, "p:");
	CHECK(ucache_keys(cache, buffer, 2, removes, buffer) == UCACHE_OK);
	for (at = 0; at < 20; at++) {
		snprintf(key, sizeof(key), "%s%d", at % 2 ? "p:" : "q:", (int) at);
		CHECK(ucache_exists(cache, key, strlen(key), NULL) == (at % 2 ? UCACHE_NOT_FOUND : UCACHE_OK));
	}
	/* The handle in the place of its definition. */
	strcpy(buffer, "name=other,items=10");
	CHECK(ucache_open(&u.out, buffer) == UCACHE_OK && u.out);
	ucache_close(u.out);
}

static void the_functions_of_uwsgi(void)
{
	struct uwsgi_cache *uc = uwsgi_cache_create("name=raw,items=100");
	union {
		char bytes[8];
		uint64_t number;
	} u;
	char *value;
	uint64_t n;
	int i;

	CHECK(uc && uwsgi_cache_set2(uc, "a", 1, "b", 1, 0, 0) == 0 && uwsgi_cache_set2(uc, "b", 1, "a", 1, 0, 0) == 0);
	/* A copy of the thread's is the key of the next call, and of the next. */
	value = uwsgi_cache_get2(uc, "a", 1, &n);
	for (i = 0; i < 10; i++) {
		CHECK(value && n == 1 && *value == (i % 2 ? 'a' : 'b'));
		value = uwsgi_cache_get3(uc, value, (uint16_t) n, &n, NULL);
	}
	CHECK(uwsgi_cache_set2(uc, value, 1, value, 1, 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	/* Results in the key's place; of two in one place the one named last. */
	strcpy(u.bytes, "a");
	CHECK(uwsgi_cache_get2(uc, u.bytes, 1, &u.number) && u.number == 1);
	strcpy(u.bytes, "a");
	value = uwsgi_cache_magic_get(u.bytes, 1, &u.number, &u.number, "raw");
	CHECK(value && u.number == 0);
	free(value);
}

static int none(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	(void) context, (void) key, (void) keylen, (void) vallen, (void) expires;
	CHECK(!"a key for an impossible prefix");
	return 0;
}

/* Such as -1 of a read that failed, and its neighbours. */
static void impossible_lengths(void)
{
	size_t lengths[] = { SIZE_MAX, SIZE_MAX - 7, (size_t) PTRDIFF_MAX + 1 }, len, i;
	struct ucache_stats stats;
	char buffer[20];
	int64_t n;

	CHECK(ucache_clear(cache) == UCACHE_OK && ucache_set(cache, S("key"), S("value"), 0) == UCACHE_OK);
	for (i = 0; i < 3; i++) {
		size_t l = lengths[i];
		CHECK(ucache_get(cache, "key", l, buffer, sizeof(buffer), &len) == UCACHE_E_KEY);
		CHECK(ucache_take(cache, "key", l, buffer, sizeof(buffer), &len) == UCACHE_E_KEY);
		CHECK(ucache_exists(cache, "key", l, NULL) == UCACHE_E_KEY && ucache_del(cache, "key", l) == UCACHE_E_KEY);
		CHECK(ucache_set(cache, "key", l, S("v"), 0) == UCACHE_E_KEY && ucache_add(cache, "key", l, S("v"), 0) == UCACHE_E_KEY);
		CHECK(ucache_cas(cache, "key", l, S("value"), S("v"), 0) == UCACHE_E_KEY);
		CHECK(ucache_del_if(cache, "key", l, S("value")) == UCACHE_E_KEY && ucache_touch(cache, "key", l, 9) == UCACHE_E_KEY);
		CHECK(ucache_incr(cache, "key", l, 1, 0, &n) == UCACHE_E_KEY);
		CHECK(ucache_get_or_set(cache, "key", l, buffer, sizeof(buffer), &len, 0, fill, NULL) == UCACHE_E_KEY);
		CHECK(ucache_get(cache, S("key"), buffer, l, &len) == UCACHE_E_ARGUMENT && *ucache_error());
		CHECK(ucache_take(cache, S("key"), buffer, l, &len) == UCACHE_E_ARGUMENT);
		CHECK(ucache_get_or_set(cache, S("new"), buffer, l, &len, 0, fill, NULL) == UCACHE_E_ARGUMENT);
		CHECK(ucache_set(cache, S("new"), "v", l, 0) == UCACHE_E_ARGUMENT && strstr(ucache_error(), "SSIZE_MAX"));
		CHECK(ucache_append(cache, S("key"), "v", l, &len) == UCACHE_E_ARGUMENT);
		CHECK(ucache_cas(cache, S("key"), "value", l, S("v"), 0) == UCACHE_E_ARGUMENT);
		CHECK(ucache_cas(cache, S("key"), S("value"), "v", l, 0) == UCACHE_E_ARGUMENT);
		CHECK(ucache_del_if(cache, S("key"), "value", l) == UCACHE_E_ARGUMENT);
		CHECK(ucache_keys(cache, "key", l, none, NULL) == UCACHE_E_ARGUMENT);
		CHECK(ucache_stat(cache, &stats, l) == UCACHE_E_ARGUMENT);
		CHECK(uwsgi_cache_magic_set("key", 3, "v", l, 0, 2, "raw") == -1);
		CHECK(uwsgi_cache_set2(uwsgi_cache_by_name("raw"), "key", 3, "v", l, 0, 2) == -1);
		/* NULL and a length. */
		CHECK(ucache_set(cache, S("key"), NULL, l, 0) == UCACHE_E_ARGUMENT);
		CHECK(ucache_keys(cache, NULL, l, none, NULL) == UCACHE_E_ARGUMENT);
		CHECK(ucache_get(cache, S("key"), NULL, l, &len) == UCACHE_E_ARGUMENT);
	}
	CHECK(ucache_keys(cache, NULL, 3, none, NULL) == UCACHE_E_ARGUMENT);
	/* No key is that long. */
	char *prefix = (char *) calloc(1, 70000);
	CHECK(ucache_keys(cache, prefix, 70000, none, NULL) == UCACHE_OK);
	free(prefix);
	CHECK(ucache_exists(cache, S("new"), NULL) == UCACHE_NOT_FOUND);
	CHECK(ucache_get(cache, S("key"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 5);
	/* A buffer that is larger than it says may be. */
	CHECK(ucache_get(cache, S("key"), buffer, PTRDIFF_MAX, &len) == UCACHE_OK && len == 5);
}

int main(void)
{
	CHECK(ucache_open(&cache, "name=short,items=100") == UCACHE_OK);
	reads_beside_writers();
	the_short_interface();
	the_functions_of_uwsgi();
	impossible_lengths();
	ucache_close(cache);
	return 0;
}
