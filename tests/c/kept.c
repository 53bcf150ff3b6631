/* The copy that a thread was given stays as it is while other calls of the thread give nothing. */
#include <pthread.h>

#include "check.h"

enum { BIG = 60000, MISSES = 3000000 };

static struct uwsgi_cache *uc;
static int stop;

/* A key that comes and goes: readers begin to copy it and find that it went. */
static void *changes(void *value)
{
	memset(value, 'X', BIG);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uwsgi_cache_set2(uc, S("other"), value, BIG, 0, UWSGI_CACHE_FLAG_UPDATE);
		uwsgi_cache_del2(uc, S("other"), 0, 0);
	}
	return NULL;
}

int main(void)
{
	static char big[BIG], value[4000];
	pthread_t writer;
	uint64_t length;
	long misses = 0;

	memset(value, 'a', sizeof(value));
	uc = uwsgi_cache_create("name=kept,items=100");
	CHECK(uc && uwsgi_cache_set2(uc, S("key"), value, sizeof(value), 0, 0) == 0);
	CHECK(pthread_create(&writer, NULL, changes, big) == 0);
	while (misses < MISSES) {
		char *given = uwsgi_cache_get2(uc, S("key"), &length);
		CHECK(given && length == sizeof(value));
		if (uwsgi_cache_get2(uc, S("other"), &length))
			continue;
		misses++;
		CHECK(!memcmp(given, value, sizeof(value)));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	CHECK(pthread_join(writer, NULL) == 0);
	return 0;
}
