/* backend URL: caches whose values are at a server, through both C interfaces. */
#include "check.h"

static int fill_page(void *context, void *buffer, size_t size, size_t *len)
{
	int *calls = context;

	CHECK(size >= 4);
	memcpy(buffer, "page", 4);
	*len = 4;
	(*calls)++;
	return 0;
}

static int count_key(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	int *count = context;

	(void) expires;
	CHECK(keylen > 0 && key && vallen > 0);
	(*count)++;
	return 0;
}

/* uwsgi.h's names. */
static void compat(const char *url)
{
	struct uwsgi_cache_item *uci = NULL;
	struct uwsgi_cache *uc;
	uint64_t len = 0, expires = 0, pos = 0;
	char text[600], *value;
	int keys = 0;

	snprintf(text, sizeof(text), "name=c,items=100,backend=%s", url);
	uc = uwsgi_cache_create(text);
	CHECK(uc);
	CHECK(missing("c", S("k")));
	CHECK(uwsgi_cache_magic_set(S("k"), S("v\0w"), 0, 0, "c") == 0);
	CHECK(get_is("c", S("k"), S("v\0w")));
	/* set keeps, update replaces */
	CHECK(uwsgi_cache_magic_set(S("k"), S("x"), 0, 0, "c") == -1);
	CHECK(uwsgi_cache_magic_set(S("k"), S("x"), 100, UWSGI_CACHE_FLAG_UPDATE, "c") == 0);
	value = uwsgi_cache_magic_get(S("k"), &len, &expires, "c");
	CHECK(value && len == 1 && expires > 1000000000);
	free(value);
	CHECK(uwsgi_cache_magic_exists(S("k"), "c") && !uwsgi_cache_magic_exists(S("l"), "c"));
	CHECK(math("c", S("n"), UWSGI_CACHE_FLAG_INC, 40) == 0 && math("c", S("n"), UWSGI_CACHE_FLAG_INC, 2) == 0);
	CHECK(number("c", S("n")) == 42);
	CHECK(math("c", S("n"), UWSGI_CACHE_FLAG_DIV, 5) == 0 && uwsgi_cache_num2(uc, S("n")) == 8);
	/* the raw tier */
	uwsgi_cache_rlock(uc);
	value = uwsgi_cache_get2(uc, S("k"), &len);
	CHECK(value && len == 1 && value[0] == 'x' && value[1] == 0);
	CHECK(!uwsgi_cache_get2(uc, S("none"), &len) && value[0] == 'x');
	CHECK(uwsgi_cache_get3(uc, S("k"), &len, &expires) && expires > 1000000000);
	CHECK(uwsgi_cache_exists2(uc, S("k")) && !uwsgi_cache_exists2(uc, S("none")));
	while ((uci = uwsgi_cache_keys(uc, &pos, &uci))) {
		CHECK(uci->keysize == 1 && (uci->key[0] == 'k' || uci->key[0] == 'n'));
		keys++;
	}
	CHECK(keys == 2);
	uwsgi_cache_rwunlock(uc);
	CHECK(uwsgi_cache_set2(uc, S("raw"), S("r"), 0, 0) == 0 && uwsgi_cache_del2(uc, S("raw"), 0, 0) == 0);
	CHECK(uwsgi_cache_del2(uc, S("raw"), 0, 0) == -1);
	/* what cannot be at a server */
	CHECK(uwsgi_cache_set2(uc, S("u"), S("v"), 0, UWSGI_CACHE_FLAG_UNGETTABLE) == -1);
	CHECK(uwsgi_cache_magic_set(S("k"), S(""), 0, UWSGI_CACHE_FLAG_UPDATE, "c") == -1);
	CHECK(uwsgi_cache_magic_clear("c") == 0 && missing("c", S("k")));
}

/* What the statistics say of copies, as soon as they are in use. */
static void shown(ucache *c)
{
	struct ucache_stats now;
	char buffer[8];
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		CHECK(ucache_set(c, S("s"), S("v"), 0) == UCACHE_OK);
		CHECK(ucache_get(c, S("s"), buffer, sizeof(buffer), NULL) == UCACHE_OK);
		CHECK(ucache_get(c, S("s"), buffer, sizeof(buffer), NULL) == UCACHE_OK);
		CHECK(ucache_stat(c, &now, sizeof(now)) == UCACHE_OK);
		if (now.near_hits && now.near_invalidated + now.near_invalidated_absent)
			break;
		usleep(10000);
	}
	CHECK(now.near_hits && now.near_up == 1 && now.near_beat_age_ms < 60000 && now.near_owner_pid == (uint64_t) getpid());
	CHECK(now.near_fills && now.near_terms >= 1 && now.near_stale_served == 0 && now.near_bypassed);
	CHECK(now.backend_up == 1 && now.backend_requests && now.backend_connects && now.backend_elsewhere == 0);
}

/* ucache.h's names. */
static void handles(const char *url)
{
	static const char *const wrong[] = {
		"name=w,items=10,backend=redis+unix://s", "name=w,items=10,backend=redis://a,near=2",
		"name=w,items=10,prefix=p", "name=w,items=10,backend=redis://a,nodes=127.0.0.1:1",
		"name=w,items=10,backend=redis://a,backend_secret=hush",
	};
	char text[600], buffer[100];
	struct ucache_stats now;
	ucache *c = NULL, *down = NULL;
	size_t i, len = 0;
	int64_t n = 0;
	uint64_t expires = 0;
	int calls = 0, keys = 0;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		CHECK(ucache_open(&c, wrong[i]) == UCACHE_E_OPTION && !c);
		CHECK(!strstr(ucache_error(), "hush"));
	}
	snprintf(text, sizeof(text), "name=h,items=100,backend=%s", url);
	CHECK(ucache_open(&c, text) == UCACHE_OK);
	CHECK(ucache_get(c, S("k"), buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND);
	CHECK(ucache_set(c, S("k"), S("v\0w"), 100) == UCACHE_OK);
	CHECK(ucache_get(c, S("k"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 3 && !memcmp(buffer, "v\0w", 3));
	CHECK(ucache_get(c, S("k"), buffer, 2, &len) == UCACHE_TOO_SMALL && len == 3);
	CHECK(ucache_exists(c, S("k"), &expires) == UCACHE_OK && expires > 1000000000);
	CHECK(ucache_cas(c, S("k"), S("no"), S("x"), UCACHE_KEEP_TTL) == UCACHE_CHANGED);
	CHECK(ucache_cas(c, S("k"), S("v\0w"), S("x"), UCACHE_KEEP_TTL) == UCACHE_OK);
	CHECK(ucache_touch(c, S("k"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_exists(c, S("k"), &expires) == UCACHE_OK && expires == 0);
	CHECK(ucache_incr(c, S("n"), 42, UCACHE_NEVER, &n) == UCACHE_OK && n == 42);
	CHECK(ucache_incr(c, S("k"), 1, UCACHE_NEVER, &n) == UCACHE_E_NUMBER);
	CHECK(ucache_keys(c, NULL, 0, count_key, &keys) == UCACHE_OK && keys == 2);
	CHECK(ucache_take(c, S("k"), buffer, 0, &len) == UCACHE_TOO_SMALL && len == 1);
	CHECK(ucache_take(c, S("k"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 1 && buffer[0] == 'x');
	CHECK(ucache_take(c, S("k"), buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND);
	for (i = 0; i < 2; i++) {
		CHECK(ucache_get_or_set(c, S("p"), buffer, sizeof(buffer), &len, 100, fill_page, &calls) == UCACHE_OK);
		CHECK(len == 4 && !memcmp(buffer, "page", 4));
	}
	CHECK(calls == 1);
	CHECK(ucache_del_if(c, S("p"), S("other")) == UCACHE_CHANGED && ucache_del_if(c, S("p"), S("page")) == UCACHE_OK);
	CHECK(ucache_del(c, S("p")) == UCACHE_NOT_FOUND);
	CHECK(ucache_clear(c) == UCACHE_OK);
	CHECK(ucache_get(c, S("n"), buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND);
	shown(c);
	ucache_close(c);

	/* a server that is not there: reads miss, writes say so */
	CHECK(ucache_open(&down, "name=d,items=100,backend=redis+unix:///nowhere/at/all") == UCACHE_OK);
	CHECK(ucache_get(down, S("k"), buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND);
	CHECK(ucache_set(down, S("k"), S("v"), 0) == UCACHE_E_BACKEND);
	CHECK(strstr(ucache_error(), "redis+unix:///nowhere/at/all"));
	CHECK(ucache_stat(down, &now, sizeof(now)) == UCACHE_OK && !now.near_up && !now.backend_up);
	CHECK(now.backend_errors > 0 && now.near_hits == 0 && now.near_fills == 0);
	ucache_close(down);
	CHECK(ucache_open(&down, "name=e,items=100,on_down=error,backend=redis+unix:///nowhere/at/all") == UCACHE_OK);
	CHECK(ucache_get(down, S("k"), buffer, sizeof(buffer), &len) == UCACHE_E_BACKEND);
	ucache_close(down);
}

/* Children have connections of their own. */
static void forks(const char *url)
{
	char text[600];
	ucache *c = NULL;
	pid_t children[4];
	int64_t n = 0;
	int i, j;

	snprintf(text, sizeof(text), "name=f,items=100,backend_timeout=20s,backend=%s", url);
	CHECK(ucache_open(&c, text) == UCACHE_OK);
	CHECK(ucache_incr(c, S("n"), 0, UCACHE_NEVER, &n) == UCACHE_OK);
	for (i = 0; i < 4; i++) {
		children[i] = fork();
		CHECK(children[i] >= 0);
		if (children[i] == 0) {
			for (j = 0; j < 100; j++)
				CHECK(ucache_incr(c, S("n"), 1, UCACHE_NEVER, &n) == UCACHE_OK);
			_exit(0);
		}
	}
	for (i = 0; i < 4; i++)
		CHECK(exit_of(children[i]) == 0);
	CHECK(ucache_incr(c, S("n"), 0, UCACHE_NEVER, &n) == UCACHE_OK && n == 400);
	ucache_close(c);
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	compat(argv[1]);
	handles(argv[1]);
	forks(argv[1]);
	return 0;
}
