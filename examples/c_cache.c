/*
 * The handle API (ucache_*) in one process.
 *
 *	cc -o c_cache c_cache.c $(pkg-config --cflags --libs ucache)
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ucache.h>

static int fail(const char *what, int status)
{
	fprintf(stderr, "%s: %s (%s)\n", what, ucache_strerror(status), ucache_error());
	return 1;
}

static int show(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	(void) context;
	printf("key %.*s, %zu bytes, %s\n", (int) keylen, (const char *) key, vallen, expires ? "expires" : "stays");
	return 0;
}

int main(void)
{
	ucache *cache;
	struct ucache_stats stats;
	char value[100];
	size_t len;
	int64_t visits;
	int status = ucache_open(&cache, "name=pages,items=1001,purge_lru=1");

	if (status)
		return fail("open", status);

	/* add keeps an existing value, set replaces it. */
	status = ucache_set(cache, "greeting", 8, "hello", 5, 60);
	if (status)
		return fail("set", status);
	if (ucache_add(cache, "greeting", 8, "good day", 8, 60) == UCACHE_EXISTS)
		puts("greeting is there already");

	status = ucache_get(cache, "greeting", 8, value, sizeof(value), &len);
	if (status == UCACHE_OK)
		printf("greeting = %.*s\n", (int) len, value);
	if (ucache_get(cache, "greeting", 8, value, 3, &len) == UCACHE_TOO_SMALL)
		printf("greeting needs %zu bytes\n", len);
	if (ucache_get(cache, "nothing", 7, value, sizeof(value), &len) == UCACHE_NOT_FOUND)
		puts("nothing is not stored");

	/* One atomic step each. */
	ucache_incr(cache, "visits", 6, 41, UCACHE_NEVER, NULL);
	if (ucache_incr(cache, "visits", 6, 1, UCACHE_NEVER, &visits) == UCACHE_OK)
		printf("visits = %" PRId64 "\n", visits);
	if (ucache_cas(cache, "greeting", 8, "hello", 5, "bonjour", 7, UCACHE_KEEP_TTL) == UCACHE_OK)
		puts("greeting was hello, and is not any more");
	ucache_keys(cache, NULL, 0, show, NULL);
	if (ucache_take(cache, "greeting", 8, value, sizeof(value), &len) == UCACHE_OK)
		printf("taken: %.*s\n", (int) len, value);

	if (ucache_stat(cache, &stats, sizeof(stats)) == UCACHE_OK)
		printf("%" PRIu64 " of %" PRIu64 " items\n", stats.items, stats.capacity);
	ucache_close(cache);
	return 0;
}
