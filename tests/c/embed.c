/* A library that has ucache inside, linked with --exclude-libs: only its own function is seen. */
#include "ucache.h"

int embed_answer(void);

int embed_answer(void)
{
	ucache *cache;
	int64_t answer = 0;

	if (ucache_open(&cache, "name=inside,items=10") || ucache_incr(cache, "n", 1, 42, UCACHE_NEVER, &answer))
		return -1;
	ucache_close(cache);
	return (int) answer;
}
