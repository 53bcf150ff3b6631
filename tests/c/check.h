/* What the C test programs share: they print the line of the first check that fails and end with 1. */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ucache.h"

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #what); \
			exit(1); \
		} \
	} while (0)

/* A string literal as pointer and length. */
#define S(literal) literal, (uint16_t) (sizeof(literal) - 1)

static inline int get_is(const char *cache, const char *key, uint16_t keylen, const void *value, uint64_t vallen)
{
	uint64_t len = 0;
	char *found = uwsgi_cache_magic_get(key, keylen, &len, NULL, cache);
	int same = found && len == vallen && !memcmp(found, value, vallen) && found[len] == 0;
	free(found);
	return same;
}

static inline int missing(const char *cache, const char *key, uint16_t keylen)
{
	uint64_t len = 77, expires = 78;
	char *found = uwsgi_cache_magic_get(key, keylen, &len, &expires, cache);
	int miss = !found && len == 77 && expires == 78;
	free(found);
	return miss;
}

/* A number's value through the magic tier; the key must be stored. */
static inline int64_t number(const char *cache, const char *key, uint16_t keylen)
{
	int64_t n = 0;
	uint64_t len = 0;
	char *found = uwsgi_cache_magic_get(key, keylen, &len, NULL, cache);
	CHECK(found && len == sizeof(n));
	memcpy(&n, found, sizeof(n));
	free(found);
	return n;
}

static inline int math(const char *cache, const char *key, uint16_t keylen, uint64_t op, int64_t operand)
{
	return uwsgi_cache_magic_set(key, keylen, (const char *) &operand, sizeof(operand), 0,
		UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_UPDATE | UWSGI_CACHE_FLAG_FIXEXPIRE | op, cache);
}

/* How a child of fork ended. */
static inline int exit_of(pid_t child)
{
	int status = 0;
	while (waitpid(child, &status, 0) < 0)
		CHECK(errno == EINTR);
	return status;
}

#endif
