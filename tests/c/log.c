/* Refused in many ways and many times, by two processes: tests/capi.rs reads what is said about it. */
#include "check.h"

int main(void)
{
	static char big[70000];
	pid_t child;
	int i;

	CHECK(uwsgi_cache_create("name=full,items=3,purge_lru=0,max-items=4"));
	CHECK(uwsgi_cache_create("name=lru,items=3,purge_lru=1"));
	CHECK(uwsgi_cache_create("name=quiet,items=3,ignore_full=1"));
	child = fork();
	CHECK(child >= 0);
	for (i = 0; i < 100; i++) {
		char key[16];
		uint16_t len = (uint16_t) snprintf(key, sizeof(key), "%d", i);
		uwsgi_cache_magic_set(key, len, "v", 1, 0, 0, "full");
		uwsgi_cache_magic_set(key, len, "v", 1, 0, 0, "lru");
		uwsgi_cache_magic_set(key, len, "v", 1, 0, 0, "quiet");
		CHECK(uwsgi_cache_magic_set("a\nkey", 5, big, sizeof(big), 0, 0, "full") == -1);
		CHECK(uwsgi_cache_magic_set("k", 1, "", 0, 0, 0, "full") == -1);
	}
	if (child == 0)
		_exit(0);
	CHECK(exit_of(child) == 0);
	return 0;
}
