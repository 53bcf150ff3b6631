/*
 * ucache from C: two processes, one cache.
 *
 *	make build
 *	cc -o c_basic examples/c_basic.c -Iinclude -Ltarget/release -lucache
 *	LD_LIBRARY_PATH=target/release ./c_basic
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucache.h>

static int set(const char *key, const char *value, uint64_t seconds)
{
	return uwsgi_cache_magic_set(key, (uint16_t) strlen(key), value, strlen(value), seconds,
		UWSGI_CACHE_FLAG_UPDATE, "pages");
}

static void show(const char *key)
{
	uint64_t len = 0;
	char *value = uwsgi_cache_magic_get(key, (uint16_t) strlen(key), &len, NULL, "pages");

	if (value)
		printf("%s = %.*s\n", key, (int) len, value);
	else
		printf("%s is not stored\n", key);
	free(value);	/* values from the magic calls belong to the caller */
}

/* Increments a number in one atomic step. */
static int count(const char *key)
{
	int64_t one = 1;

	return uwsgi_cache_magic_set(key, (uint16_t) strlen(key), (const char *) &one, sizeof(one), 0,
		UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_INC | UWSGI_CACHE_FLAG_UPDATE, "pages");
}

int main(void)
{
	/* Before fork: all children share it. Holds 1000 items; when full, the least recently used is evicted. */
	struct uwsgi_cache *pages = uwsgi_cache_create("name=pages,items=1001,purge_lru=1");
	struct uwsgi_cache_item *item = NULL;
	uint64_t position = 0;
	pid_t child;
	int i;

	if (!pages)
		return 1;	/* the reason was written to stderr */
	set("greeting", "hello", 60);

	child = fork();
	if (child == 0) {
		show("greeting");
		set("answer", "42", 0);
		for (i = 0; i < 1000; i++)
			count("visits");
		fflush(stdout);
		_exit(0);
	}
	for (i = 0; i < 1000; i++)
		count("visits");
	if (child < 0 || waitpid(child, NULL, 0) != child)
		return 1;

	show("answer");
	show("nothing");
	printf("visits = %lld\n", (long long) uwsgi_cache_num2(pages, "visits", 6));
	while ((item = uwsgi_cache_keys(pages, &position, &item)))
		printf("key %.*s, %llu bytes\n", (int) item->keysize, uwsgi_cache_item_key(item),
			(unsigned long long) item->valsize);
	uwsgi_cache_fix(pages);
	printf("%llu items, %llu hits, %llu misses\n", (unsigned long long) pages->n_items,
		(unsigned long long) pages->hits, (unsigned long long) pages->miss);
	return 0;
}
