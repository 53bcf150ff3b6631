/* What runs when the process or a thread ends may use a cache: handlers of atexit, destructors of the program and of a thread. */
#include <pthread.h>

#include "check.h"

static struct uwsgi_cache *uc;
static ucache *handle;
static pthread_key_t key;
static int done;

static int count(void *counter, const void *name, size_t length, size_t value, uint64_t expires)
{
	(void) name, (void) length, (void) value, (void) expires;
	++*(int *) counter;
	return 0;
}

static void use(void)
{
	uint64_t length = 0, position = 0;
	struct uwsgi_cache_item *item = NULL;
	int keys = 0, walked = 0;
	char *value = uwsgi_cache_get2(uc, S("k"), &length);

	CHECK(value && length == 1 && *value == 'v');
	while ((item = uwsgi_cache_keys(uc, &position, &item)))
		walked++;
	CHECK(ucache_keys(handle, NULL, 0, count, &keys) == UCACHE_OK && keys == 2 && walked == 2);
	CHECK(ucache_wlock(uc) == 0 && uwsgi_cache_set2(uc, S("n"), S("w"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	uwsgi_cache_rwunlock(uc);
	CHECK(ucache_get(NULL, S("k"), NULL, 0, NULL) == UCACHE_E_ARGUMENT && !strcmp(ucache_error(), "the cache is NULL"));
	done++;
}

static void at_the_thread_s_end(void *value)
{
	(void) value;
	use();
}

static void *thread(void *argument)
{
	CHECK(pthread_setspecific(key, argument) == 0);
	use();
	return NULL;
}

__attribute__((destructor)) static void at_the_very_end(void)
{
	if (uc) {
		use();
		_exit(done == 5 ? 0 : 9);
	}
}

int main(void)
{
	pthread_t other;

	uc = uwsgi_cache_create("name=exit,items=10");
	CHECK(uc && ucache_named(&handle, "exit") == UCACHE_OK);
	CHECK(uwsgi_cache_set2(uc, S("k"), S("v"), 0, 0) == 0 && uwsgi_cache_set2(uc, S("n"), S("v"), 0, 0) == 0);
	CHECK(pthread_key_create(&key, at_the_thread_s_end) == 0);
	CHECK(pthread_create(&other, NULL, thread, &key) == 0 && pthread_join(other, NULL) == 0);
	CHECK(done == 2);
	use();
	CHECK(atexit(use) == 0);
	/* What fails in use() ends with 1 and comes here no more. */
	return 8;
}
