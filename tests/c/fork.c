/* Processes: what one stores the others read, nothing is lost when one is killed, the write lock. */
#include <signal.h>

#include "check.h"

#define CHILDREN 4
#define ROUNDS 3000

/* In the second a writer gives up soon. */
static struct uwsgi_cache *uc, *hasty;

static void shared_counter(void)
{
	pid_t child[CHILDREN];
	int i, n;

	for (i = 0; i < CHILDREN; i++) {
		child[i] = fork();
		CHECK(child[i] >= 0);
		if (child[i] == 0) {
			char key[16];
			int keylen = snprintf(key, sizeof(key), "child %d", i);
			for (n = 0; n < ROUNDS; n++)
				CHECK(math("f", S("counter"), UWSGI_CACHE_FLAG_INC, 1) == 0);
			CHECK(uwsgi_cache_magic_set(key, (uint16_t) keylen, "done", 4, 0, 0, "f") == 0);
			/* A child that forks again, and a cache of its own. */
			CHECK(uwsgi_cache_create("name=mine,items=5"));
			CHECK(uwsgi_cache_magic_set(S("k"), S("v"), 0, 0, "mine") == 0 && get_is("mine", S("k"), S("v")));
			_exit(0);
		}
	}
	for (i = 0; i < CHILDREN; i++)
		CHECK(exit_of(child[i]) == 0);
	CHECK(number("f", S("counter")) == CHILDREN * ROUNDS);
	for (i = 0; i < CHILDREN; i++) {
		char key[16];
		int keylen = snprintf(key, sizeof(key), "child %d", i);
		CHECK(get_is("f", key, (uint16_t) keylen, S("done")));
	}
	/* The children's own caches are not in this process's list. */
	CHECK(!uwsgi_cache_by_name("mine") && uc->next == hasty && !hasty->next);
	uwsgi_cache_fix(uc);
	CHECK(uc->n_items == CHILDREN + 1);
}

/* Reads a number, waits a moment, stores one more: only a lock makes that exact. */
static void read_modify_write(void)
{
	pid_t child[CHILDREN];
	int64_t n = 0;
	int i, round;

	CHECK(uwsgi_cache_set2(uc, S("rmw"), (char *) &n, 8, 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	for (i = 0; i < CHILDREN; i++) {
		child[i] = fork();
		CHECK(child[i] >= 0);
		if (child[i] == 0) {
			for (round = 0; round < 50; round++) {
				CHECK(ucache_wlock(uc) == 0);
				n = uwsgi_cache_num2(uc, S("rmw")) + 1;
				usleep(100);
				CHECK(uwsgi_cache_set2(uc, S("rmw"), (char *) &n, 8, 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
				uwsgi_cache_rwunlock(uc);
			}
			_exit(0);
		}
	}
	for (i = 0; i < CHILDREN; i++)
		CHECK(exit_of(child[i]) == 0);
	CHECK(uwsgi_cache_num2(uc, S("rmw")) == CHILDREN * 50);
}

static void nesting(void)
{
	pid_t child;

	CHECK(ucache_wlock(hasty) == 0 && ucache_wlock(hasty) == 0);
	uwsgi_cache_rlock(hasty);
	CHECK(uwsgi_cache_set2(hasty, S("nested"), S("1"), 0, UWSGI_CACHE_FLAG_UPDATE) == 0);
	uwsgi_cache_rwunlock(hasty);
	uwsgi_cache_rwunlock(hasty);
	/* Still held: another process reads, but its write fails in time. A fork holds nothing of its parent's. */
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		CHECK(get_is("hasty", S("nested"), S("1")));
		CHECK(uwsgi_cache_magic_set(S("nested"), S("2"), 0, UWSGI_CACHE_FLAG_UPDATE, "hasty") == -1);
		uwsgi_cache_rwunlock(hasty);
		CHECK(uwsgi_cache_magic_set(S("nested"), S("2"), 0, UWSGI_CACHE_FLAG_UPDATE, "hasty") == -1);
		CHECK(ucache_wlock(hasty) == -1);
		uwsgi_cache_rwunlock(hasty);
		_exit(0);
	}
	CHECK(exit_of(child) == 0);
	uwsgi_cache_rwunlock(hasty);
	uwsgi_cache_rwunlock(hasty);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		CHECK(uwsgi_cache_magic_set(S("nested"), S("2"), 0, UWSGI_CACHE_FLAG_UPDATE, "hasty") == 0);
		_exit(0);
	}
	CHECK(exit_of(child) == 0 && get_is("hasty", S("nested"), S("2")));
}

/* A child is killed again and again in the middle of writing, with and without the lock. */
static void killed(void)
{
	static char big[60000];
	int round;

	memset(big, 'a', sizeof(big));
	CHECK(uwsgi_cache_set2(uc, S("big"), big, sizeof(big), 0, 0) == 0);
	for (round = 0; round < 40; round++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			char fill = 'a';
			if (round % 2)
				CHECK(ucache_wlock(uc) == 0);
			for (;;) {
				fill = fill == 'z' ? 'a' : (char) (fill + 1);
				memset(big, fill, sizeof(big));
				uwsgi_cache_set2(uc, S("big"), big, sizeof(big), 0, UWSGI_CACHE_FLAG_UPDATE);
			}
		}
		usleep(3000);
		CHECK(kill(child, SIGKILL) == 0 && WIFSIGNALED(exit_of(child)));
		{
			uint64_t i, len = 0;
			char *value = uwsgi_cache_magic_get(S("big"), &len, NULL, "f");
			CHECK(value && len == sizeof(big));
			for (i = 0; i < len; i++)
				CHECK(value[i] == value[0]);
			free(value);
		}
		CHECK(math("f", S("after"), UWSGI_CACHE_FLAG_INC, 1) == 0 && number("f", S("after")) == round + 1);
	}
	CHECK(number("f", S("counter")) == CHILDREN * ROUNDS);
}

int main(void)
{
	uc = uwsgi_cache_create("name=f,items=100,lock_timeout=30000");
	hasty = uwsgi_cache_create("name=hasty,items=100,lock_timeout=200");
	CHECK(uc && hasty);
	uwsgi_cache_start_sweepers();
	uwsgi_cache_start_sweepers();
	shared_counter();
	read_modify_write();
	nesting();
	killed();
	return 0;
}
