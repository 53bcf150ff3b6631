/*
 * Get-or-set: when many processes miss the same key at the same time, one computes the value and the others wait.
 *
 *	cc -o c_get_or_set c_get_or_set.c $(pkg-config --cflags --libs ucache)
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucache.h>

static ucache *cache;

/* Renders a page in half a second. */
static int render(void *context, void *buffer, size_t size, size_t *len)
{
	const char *path = (const char *) context;
	int needed;

	ucache_incr(cache, "rendered", 8, 1, UCACHE_NEVER, NULL);
	usleep(500000);
	needed = snprintf((char *) buffer, size, "<h1>%s</h1>", path);
	if (needed < 0 || (size_t) needed >= size)
		return 1;
	*len = (size_t) needed;
	return 0;
}

int main(void)
{
	char path[] = "/index", page[1000];
	size_t len;
	int64_t rendered = 0;
	int i, ended, failed = 0;

	/* Before fork: all children share it. */
	if (ucache_open(&cache, "name=pages,items=1000") < 0) {
		fprintf(stderr, "%s\n", ucache_error());
		return 1;
	}
	fflush(stdout);
	for (i = 0; i < 4; i++) {
		if (fork() == 0) {
			int status = ucache_get_or_set(cache, path, strlen(path), page, sizeof(page), &len, 60, render, path);

			if (status == UCACHE_OK)
				printf("%.*s\n", (int) len, page);
			fflush(stdout);
			_exit(status != UCACHE_OK);
		}
	}
	for (i = 0; i < 4; i++)
		failed |= wait(&ended) < 0 || ended != 0;
	ucache_incr(cache, "rendered", 8, 0, UCACHE_NEVER, &rendered);
	printf("4 asked, %" PRId64 " rendered\n", rendered);
	ucache_close(cache);
	return failed;
}
