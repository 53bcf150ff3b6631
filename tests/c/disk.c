/* A store that cannot grow, for want of disk or by a limit as here; and refusals for several reasons. tests/capi.rs reads the log. */
#include <sys/resource.h>

#include "check.h"

int main(int argc, char **argv)
{
	static char big[70000];
	struct rlimit limit = { 8 << 20, 8 << 20 };
	char definition[300], key[20];
	struct uwsgi_cache *uc;
	int n, refused = 0;

	CHECK(argc == 2 && setrlimit(RLIMIT_FSIZE, &limit) == 0);
	snprintf(definition, sizeof(definition), "name=disk,items=1000,keysize=50,store=%s", argv[1]);
	uc = uwsgi_cache_create(definition);
	CHECK(uc);
	for (n = 0; n < 500; n++) {
		int length = snprintf(key, sizeof(key), "%d", n);
		refused += uwsgi_cache_set2(uc, key, (uint16_t) length, big, 60000, 0, 0) != 0;
	}
	CHECK(refused > 300);
	for (n = 0; n < 3; n++) {
		CHECK(uwsgi_cache_set2(uc, S("k"), "", 0, 0, 0) == -1);
		CHECK(uwsgi_cache_set2(uc, "", 0, S("v"), 0, 0) == -1);
		CHECK(uwsgi_cache_set2(uc, big, 51, S("v"), 0, 0) == -1);
		CHECK(uwsgi_cache_set2(uc, S("k"), big, 70000, 0, 0) == -1);
	}
	return 0;
}
