/* The short interface: every function, every status, NULL and lengths that cannot be, threads and children. */
#include <pthread.h>
#include <unistd.h>

#include "check.h"

#undef S
#define S(literal) literal, sizeof(literal) - 1

static ucache *cache;

static int holds(const void *key, size_t keylen, const void *value, size_t vallen)
{
	char found[200];
	size_t len = 0;

	memset(found, '#', sizeof(found));
	return ucache_get(cache, key, keylen, found, sizeof(found), &len) == UCACHE_OK && len == vallen &&
		!memcmp(found, value, vallen) && found[vallen] == '#';
}

static int reads_nothing(const void *key, size_t keylen)
{
	char found[8] = "before!";
	size_t len = 77;

	return ucache_get(cache, key, keylen, found, sizeof(found), &len) == UCACHE_NOT_FOUND && len == 77 &&
		!strcmp(found, "before!");
}

static void values(void)
{
	char buffer[10];
	size_t len = 0;
	uint64_t expires = 77;

	CHECK(reads_nothing(S("k")));
	CHECK(ucache_set(cache, S("k"), S("value"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_add(cache, S("k"), S("other"), UCACHE_NEVER) == UCACHE_EXISTS);
	CHECK(holds(S("k"), S("value")));
	/* NUL bytes are bytes. */
	CHECK(ucache_set(cache, S("k\0\0x"), S("v\0w\0"), 100) == UCACHE_OK);
	CHECK(holds(S("k\0\0x"), S("v\0w\0")) && reads_nothing(S("k\0\0y")) && reads_nothing(S("k\0")));
	/* The buffer: one byte too small, just large enough, none at all. */
	CHECK(ucache_get(cache, S("k"), buffer, 4, &len) == UCACHE_TOO_SMALL && len == 5);
	CHECK(ucache_get(cache, S("k"), buffer, 5, &len) == UCACHE_OK && len == 5 && !memcmp(buffer, "value", 5));
	len = 0;
	CHECK(ucache_get(cache, S("k"), NULL, 0, &len) == UCACHE_TOO_SMALL && len == 5);
	CHECK(ucache_get(cache, S("k"), buffer, 5, NULL) == UCACHE_OK);
	CHECK(ucache_get(cache, S("k"), NULL, 0, NULL) == UCACHE_TOO_SMALL);
	/* Expiry. */
	CHECK(ucache_exists(cache, S("k"), &expires) == UCACHE_OK && expires == 0);
	CHECK(ucache_touch(cache, S("k"), 1000) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("k"), &expires) == UCACHE_OK);
	CHECK(expires >= (uint64_t) time(NULL) + 990 && expires <= (uint64_t) time(NULL) + 1001);
	uint64_t kept = expires;
	/* Milliseconds: a fifth of a second, then it is gone. */
	CHECK(ucache_set(cache, S("ms"), S("v"), UCACHE_MILLIS(200)) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("ms"), &expires) == UCACHE_OK && expires <= (uint64_t) time(NULL) + 2);
	for (int i = 0; i < 6000 && ucache_exists(cache, S("ms"), NULL) == UCACHE_OK; i++) usleep(10000);
	CHECK(ucache_exists(cache, S("ms"), NULL) == UCACHE_NOT_FOUND);
	uint64_t left = 7;
	CHECK(ucache_ttl(cache, S("ms"), &left) == UCACHE_NOT_FOUND && left == 7);
	CHECK(ucache_set(cache, S("ms"), S("v"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_ttl(cache, S("ms"), &left) == UCACHE_OK && left == UCACHE_NEVER);
	CHECK(ucache_touch(cache, S("ms"), UCACHE_MILLIS(100500)) == UCACHE_OK);
	CHECK(ucache_ttl(cache, S("ms"), &left) == UCACHE_OK && left > 50000 && left <= 100500);
	CHECK(ucache_ttl(cache, S("ms"), NULL) == UCACHE_OK && ucache_ttl(NULL, S("ms"), &left) == UCACHE_E_ARGUMENT);
	CHECK(ucache_set(cache, S("ms"), S("v"), UCACHE_MILLIS(0)) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("ms"), NULL) == UCACHE_NOT_FOUND);
	CHECK(ucache_set(cache, S("k"), S("kept"), UCACHE_KEEP_TTL) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("k"), &expires) == UCACHE_OK && expires == kept);
	CHECK(ucache_set(cache, S("k"), S("anew"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("k"), &expires) == UCACHE_OK && expires == 0);
	CHECK(ucache_exists(cache, S("none"), &expires) == UCACHE_NOT_FOUND && expires == 0);
	CHECK(ucache_exists(cache, S("k"), NULL) == UCACHE_OK);
	CHECK(ucache_touch(cache, S("none"), 1000) == UCACHE_NOT_FOUND);
	CHECK(ucache_set(cache, S("soon"), S("v"), 1) == UCACHE_OK);
	do
		usleep(20000);
	while (ucache_exists(cache, S("soon"), NULL) == UCACHE_OK);
	CHECK(reads_nothing(S("soon")) && ucache_sweep(cache) == UCACHE_OK);
	CHECK(ucache_del(cache, S("k")) == UCACHE_OK && ucache_del(cache, S("k")) == UCACHE_NOT_FOUND);
}

/* What needs a key that is there, and what makes its value longer. */
static void replaced_and_joined(void)
{
	uint64_t expires = 0, kept;
	size_t len = 77;

	CHECK(ucache_replace(cache, S("j"), S("v"), 0) == UCACHE_NOT_FOUND && reads_nothing(S("j")));
	CHECK(ucache_append(cache, S("j"), S("v"), &len) == UCACHE_NOT_FOUND && len == 77);
	CHECK(ucache_prepend(cache, S("j"), S("v"), NULL) == UCACHE_NOT_FOUND && reads_nothing(S("j")));
	CHECK(ucache_add(cache, S("j"), S("b"), 500) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("j"), &kept) == UCACHE_OK);
	CHECK(ucache_replace(cache, S("j"), S("bb"), UCACHE_KEEP_TTL) == UCACHE_OK && holds(S("j"), S("bb")));
	CHECK(ucache_append(cache, S("j"), S("\0c"), &len) == UCACHE_OK && len == 4);
	CHECK(ucache_prepend(cache, S("j"), S("a"), NULL) == UCACHE_OK && holds(S("j"), S("abb\0c")));
	CHECK(ucache_append(cache, S("j"), NULL, 0, &len) == UCACHE_OK && len == 5);
	CHECK(ucache_exists(cache, S("j"), &expires) == UCACHE_OK && expires == kept);
	CHECK(ucache_replace(cache, S("j"), S("v"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("j"), &expires) == UCACHE_OK && expires == 0);
	CHECK(ucache_del(cache, S("j")) == UCACHE_OK);
}

static void in_one_step(void)
{
	char buffer[10];
	size_t len = 77;
	int64_t n = 0;
	uint64_t expires = 0;

	CHECK(ucache_cas(cache, S("c"), S("a"), S("b"), UCACHE_NEVER) == UCACHE_CHANGED);
	CHECK(ucache_set(cache, S("c"), S("a"), 500) == UCACHE_OK);
	CHECK(ucache_cas(cache, S("c"), S("x"), S("b"), UCACHE_NEVER) == UCACHE_CHANGED && holds(S("c"), S("a")));
	CHECK(ucache_cas(cache, S("c"), S("a"), S("longer"), UCACHE_KEEP_TTL) == UCACHE_OK && holds(S("c"), S("longer")));
	CHECK(ucache_exists(cache, S("c"), &expires) == UCACHE_OK && expires > (uint64_t) time(NULL) + 400);
	CHECK(ucache_cas(cache, S("c"), S("longer"), S("b"), UCACHE_NEVER) == UCACHE_OK);
	CHECK(ucache_exists(cache, S("c"), &expires) == UCACHE_OK && expires == 0);
	CHECK(ucache_del_if(cache, S("c"), S("x")) == UCACHE_CHANGED && holds(S("c"), S("b")));
	CHECK(ucache_del_if(cache, S("c"), S("b")) == UCACHE_OK && reads_nothing(S("c")));
	/* What does not fit is not lost. */
	CHECK(ucache_set(cache, S("t"), S("taken"), 0) == UCACHE_OK);
	CHECK(ucache_take(cache, S("t"), buffer, 4, &len) == UCACHE_TOO_SMALL && len == 5 && holds(S("t"), S("taken")));
	CHECK(ucache_take(cache, S("t"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 5);
	CHECK(!memcmp(buffer, "taken", 5));
	CHECK(ucache_take(cache, S("t"), buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND);
	/* Numbers. */
	CHECK(ucache_incr(cache, S("n"), 41, 500, &n) == UCACHE_OK && n == 41);
	CHECK(ucache_incr(cache, S("n"), 1, UCACHE_NEVER, &n) == UCACHE_OK && n == 42);
	CHECK(ucache_exists(cache, S("n"), &expires) == UCACHE_OK && expires > (uint64_t) time(NULL) + 400);
	CHECK(ucache_incr(cache, S("n"), INT64_MAX, 0, &n) == UCACHE_OK && n == INT64_MIN + 41);
	CHECK(ucache_incr(cache, S("n"), 0, 0, NULL) == UCACHE_OK && holds(S("n"), &n, sizeof(n)));
	CHECK(ucache_set(cache, S("text"), S("text"), 0) == UCACHE_OK);
	CHECK(ucache_incr(cache, S("text"), 1, 0, &n) == UCACHE_E_NUMBER && n == INT64_MIN + 41);
	CHECK(strstr(ucache_error(), "the value has 4 bytes"));
}

struct seen {
	int keys, last;
	size_t bytes;
};

static int count(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	struct seen *seen = (struct seen *) context;

	CHECK(keylen == 3 && !memcmp(key, "p:", 2) && expires > 0);
	/* The same cache may be used meanwhile. */
	CHECK(ucache_exists(cache, key, keylen, NULL) == UCACHE_OK);
	seen->bytes += vallen;
	return ++seen->keys == seen->last ? 42 : 0;
}

static void walk(void)
{
	struct seen all = { 0, 0, 0 }, two = { 0, 2, 0 }, none = { 0, 0, 0 };
	char key[16];
	int i;

	for (i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "p:%d", i);
		CHECK(ucache_set(cache, key, 3, "valuevalue", (size_t) i + 1, 100) == UCACHE_OK);
	}
	CHECK(ucache_keys(cache, S("p:"), count, &all) == UCACHE_OK && all.keys == 5 && all.bytes == 15);
	CHECK(ucache_keys(cache, S("p:"), count, &two) == UCACHE_STOPPED && two.keys == 2);
	CHECK(ucache_keys(cache, S("q:"), count, &none) == UCACHE_OK && none.keys == 0);
	CHECK(ucache_clear(cache) == UCACHE_OK);
	CHECK(ucache_keys(cache, NULL, 0, count, &none) == UCACHE_OK && none.keys == 0);
}

static int calls;

static int fill(void *context, void *buffer, size_t size, size_t *len)
{
	const char *value = (const char *) context;

	calls++;
	if (!value || strlen(value) > size)
		return 1;
	*len = strlen(value);
	memcpy(buffer, value, *len);
	return 0;
}

static int lies(void *context, void *buffer, size_t size, size_t *len)
{
	(void) context;
	(void) buffer;
	*len = size + 1;
	return 0;
}

/* Asks for its own key, and writes where its caller's key lies. */
static int asks(void *context, void *buffer, size_t size, size_t *len)
{
	char other[20];
	size_t length;

	CHECK(ucache_get_or_set(cache, S("own"), other, sizeof(other), &length, 0, asks, NULL) == UCACHE_E_DEADLOCK);
	memcpy(context, "OWN", 3);
	char made[] = "made";
	return fill(made, buffer, size, len);
}

static void own_key(void)
{
	char key[] = "own", buffer[20];
	size_t len;

	CHECK(ucache_get_or_set(cache, key, 3, buffer, sizeof(buffer), &len, 0, asks, key) == UCACHE_OK);
	CHECK(len == 4 && holds(S("own"), S("made")) && reads_nothing(S("OWN")));
}

static void get_or_set(void)
{
	char value[] = "computed", buffer[20];
	size_t len = 0;
	uint64_t expires = 0;

	CHECK(ucache_get_or_set(cache, S("g"), buffer, sizeof(buffer), &len, 100, fill, NULL) == UCACHE_STOPPED);
	CHECK(len == 0 && reads_nothing(S("g")) && calls == 1);
	CHECK(ucache_get_or_set(cache, S("g"), buffer, sizeof(buffer), &len, 100, lies, NULL) == UCACHE_STOPPED);
	CHECK(len == 0 && reads_nothing(S("g")));
	CHECK(ucache_get_or_set(cache, S("g"), buffer, sizeof(buffer), &len, 100, fill, value) == UCACHE_OK);
	CHECK(len == 8 && !memcmp(buffer, "computed", 8) && holds(S("g"), S("computed")) && calls == 2);
	CHECK(ucache_exists(cache, S("g"), &expires) == UCACHE_OK && expires > (uint64_t) time(NULL) + 50);
	memset(buffer, 0, sizeof(buffer));
	CHECK(ucache_get_or_set(cache, S("g"), buffer, sizeof(buffer), &len, 100, fill, value) == UCACHE_OK);
	CHECK(len == 8 && !memcmp(buffer, "computed", 8) && calls == 2);
	CHECK(ucache_get_or_set(cache, S("g"), buffer, 3, &len, 100, fill, value) == UCACHE_TOO_SMALL && len == 8);
	CHECK(ucache_get_or_set(cache, S("h"), buffer, 3, &len, 100, fill, value) == UCACHE_STOPPED);
	CHECK(ucache_get_or_set(cache, S("h"), NULL, 0, &len, 100, fill, value) == UCACHE_STOPPED && calls == 4);
	CHECK(ucache_get_or_set(cache, S("h"), buffer, 20, &len, 100, NULL, value) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get_or_set(cache, S("h"), buffer, 20, &len, UCACHE_KEEP_TTL, fill, value) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get_or_set(cache, NULL, 0, buffer, 20, &len, 0, fill, value) == UCACHE_E_KEY && calls == 4);
	own_key();
}

/* Several keys with one call. */
static void many(void)
{
	struct ucache_read items[40];
	char buffer[16], keys[40][8];
	size_t done = 77, i;

	CHECK(ucache_set(cache, S("m0"), S("0123456789"), 0) == UCACHE_OK && ucache_set(cache, S("m2"), S("abcdef"), 0) == UCACHE_OK);
	for (i = 0; i < 40; i++) {
		snprintf(keys[i], sizeof(keys[i]), "m%zu", i);
		items[i].key = keys[i];
		items[i].keylen = strlen(keys[i]);
		items[i].value = buffer;
	}
	CHECK(ucache_get_many(cache, items, 40, buffer, 16, &done) == UCACHE_OK && done == 40);
	CHECK(items[0].value == buffer && items[0].vallen == 10 && !memcmp(buffer, "0123456789abcdef", 16));
	CHECK(items[2].value == buffer + 10 && items[2].vallen == 6);
	for (i = 0; i < 40; i++)
		CHECK(i == 0 || i == 2 || (!items[i].value && !items[i].vallen));
	/* One byte too small: the first two are answered. */
	CHECK(ucache_get_many(cache, items, 40, buffer, 15, &done) == UCACHE_TOO_SMALL && done == 2);
	CHECK(items[0].vallen == 10 && !items[1].value && items[2].vallen == 6);
	CHECK(ucache_get_many(cache, items + 2, 38, buffer, 6, &done) == UCACHE_OK && done == 38 && !memcmp(buffer, "abcdef", 6));
	CHECK(ucache_get_many(cache, items, 1, NULL, 0, &done) == UCACHE_TOO_SMALL && done == 0 && items[0].vallen == 10);
	CHECK(ucache_get_many(cache, NULL, 0, NULL, 0, &done) == UCACHE_OK && done == 0);
	items[1].keylen = 0;
	CHECK(ucache_get_many(cache, items, 40, buffer, 16, NULL) == UCACHE_E_KEY);
	CHECK(ucache_get_many(cache, NULL, 1, buffer, 16, &done) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get_many(cache, items, SIZE_MAX, buffer, 16, &done) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get_many(NULL, items, 1, buffer, 16, &done) == UCACHE_E_ARGUMENT);
}

static void numbers(void)
{
	char buffer[8];
	size_t len = 77;
	int64_t n = 77;

	CHECK(ucache_number(cache, S("n"), &n) == UCACHE_NOT_FOUND && n == 77);
	CHECK(ucache_incr(cache, S("n"), -7, 0, &n) == UCACHE_OK && n == -7);
	CHECK(ucache_mul(cache, S("n"), 6, 0, &n) == UCACHE_OK && n == -42);
	CHECK(ucache_div(cache, S("n"), 5, 0, &n) == UCACHE_OK && n == -8);
	CHECK(ucache_number(cache, S("n"), &n) == UCACHE_OK && n == -8 && ucache_number(cache, S("n"), NULL) == UCACHE_OK);
	CHECK(ucache_div(cache, S("n"), 0, 0, &n) == UCACHE_OK && n == 0);
	n = -5;
	CHECK(ucache_number_value(cache, -5, buffer, 8, &len) == UCACHE_OK && len == 8 && !memcmp(buffer, &n, 8));
	CHECK(ucache_number_value(cache, -5, buffer, 7, &len) == UCACHE_TOO_SMALL && len == 8);
	CHECK(ucache_number_value(NULL, 1, buffer, 8, &len) == UCACHE_E_ARGUMENT);
	len = 77;
	CHECK(ucache_set(cache, S("n"), S("text"), 0) == UCACHE_OK && ucache_number(cache, S("n"), &n) == UCACHE_E_NUMBER);
	CHECK(ucache_mul(cache, S("n"), 2, 0, &n) == UCACHE_E_NUMBER && ucache_div(cache, S("n"), 2, 0, &n) == UCACHE_E_NUMBER);
	CHECK(ucache_server(cache, buffer, sizeof(buffer), &len) == UCACHE_NOT_FOUND && len == 77);
}

static void *end_lease(void *lease)
{
	return ucache_lease_end((ucache_lease *) lease, S("late"), 0) == UCACHE_OK ? NULL : lease;
}

static ucache_lease *left;

static void *leave(void *unused)
{
	(void) unused;
	return ucache_lease_begin(cache, S("l"), NULL, 0, NULL, 0, 30000, 0, &left) == UCACHE_LEASE ? NULL : &cache;
}

static void *is_busy(void *unused)
{
	ucache_lease *lease = NULL;

	return ucache_lease_begin(cache, S("l"), NULL, 0, NULL, 0, 30000, 50, &lease) == UCACHE_BUSY ? NULL : unused;
}

static int in_thread(void *(*body)(void *), void *context)
{
	pthread_t thread;
	void *wrong = NULL;

	CHECK(pthread_create(&thread, NULL, body, context) == 0 && pthread_join(thread, &wrong) == 0);
	return !wrong;
}

static void leases(void)
{
	ucache_lease *lease = NULL, *other = NULL;
	char buffer[10];
	size_t len = 0;
	uint64_t expires = 0;
	pid_t child;

	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_LEASE && lease);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &other) == UCACHE_E_DEADLOCK && !other);
	CHECK(in_thread(is_busy, &len) && reads_nothing(S("l")));
	/* A child's lease is not its own: it neither stores nor gives up. */
	CHECK((child = fork()) >= 0);
	if (!child)
		_exit(ucache_lease_end(lease, S("child"), 0) != UCACHE_CHANGED);
	CHECK(exit_of(child) == 0 && in_thread(is_busy, &len));
	CHECK(ucache_lease_end(lease, S("value"), 100) == UCACHE_OK && holds(S("l"), S("value")));
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_OK && len == 5);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 4, &len, 0, 30000, 0, &lease) == UCACHE_TOO_SMALL && len == 5);
	/* Given up; ended by another thread; lost to a write; a value that cannot be stored. */
	CHECK(ucache_del(cache, S("l")) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_LEASE);
	ucache_lease_drop(lease);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_LEASE);
	CHECK(in_thread(end_lease, lease) && holds(S("l"), S("late")) && ucache_del(cache, S("l")) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_LEASE);
	CHECK(ucache_set(cache, S("l"), S("newer"), 0) == UCACHE_OK);
	CHECK(ucache_lease_end(lease, S("older"), 0) == UCACHE_CHANGED && holds(S("l"), S("newer")));
	CHECK(ucache_del(cache, S("l")) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 0, &lease) == UCACHE_LEASE);
	CHECK(ucache_lease_end(lease, NULL, 0, 0) == UCACHE_E_VALUE);
	/* The thread that had it is gone. */
	CHECK(in_thread(leave, NULL));
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 30000, 5000, &lease) == UCACHE_LEASE);
	ucache_lease_drop(left);
	/* Stale: the value is past its ttl of 1 s, kept for 1000 s more. */
	CHECK(ucache_lease_end(lease, S("old"), 0) == UCACHE_OK && ucache_touch(cache, S("l"), 900) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 1000, 30000, 0, &lease) == UCACHE_LEASE);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 1000, 30000, 0, &other) == UCACHE_OK && len == 3);
	CHECK(ucache_lease_end(lease, S("new"), 60) == UCACHE_OK && holds(S("l"), S("new")));
	CHECK(ucache_exists(cache, S("l"), &expires) == UCACHE_OK && expires >= (uint64_t) time(NULL) + 1050);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 1000, 30000, 0, &lease) == UCACHE_OK);
	/* However long it is to be kept, a value is new during its ttl. */
	CHECK(ucache_del(cache, S("l")) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, UINT64_MAX, 30000, 0, &lease) == UCACHE_LEASE);
	CHECK(ucache_lease_end(lease, S("new"), 60) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, UINT64_MAX, 30000, 0, &lease) == UCACHE_OK);
	/* Refused. */
	CHECK(ucache_lease_begin(cache, S("l"), buffer, 10, &len, 0, 1, 0, NULL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_lease_end(NULL, S("v"), 0) == UCACHE_E_ARGUMENT);
	ucache_lease_drop(NULL);
	CHECK(ucache_del(cache, S("l")) == UCACHE_OK);
}

/* Every function, with this cache, key and length. */
static void refused(ucache *c, const void *key, size_t keylen, int status)
{
	char buffer[10];
	size_t len;
	int64_t n;
	struct ucache_read one = { key, keylen, NULL, 0 };
	ucache_lease *lease;

	CHECK(ucache_get_many(c, &one, 1, buffer, sizeof(buffer), &len) == status);
	CHECK(ucache_number(c, key, keylen, &n) == status);
	CHECK(ucache_mul(c, key, keylen, 1, 0, &n) == status && ucache_div(c, key, keylen, 1, 0, &n) == status);
	CHECK(ucache_lease_begin(c, key, keylen, buffer, sizeof(buffer), &len, 0, 1, 0, &lease) == status);
	CHECK(ucache_get(c, key, keylen, buffer, sizeof(buffer), &len) == status);
	CHECK(ucache_take(c, key, keylen, buffer, sizeof(buffer), &len) == status);
	CHECK(ucache_exists(c, key, keylen, NULL) == status);
	CHECK(ucache_set(c, key, keylen, "v", 1, 0) == status);
	CHECK(ucache_add(c, key, keylen, "v", 1, 0) == status);
	CHECK(ucache_replace(c, key, keylen, "v", 1, 0) == status);
	CHECK(ucache_append(c, key, keylen, "v", 1, &len) == status);
	CHECK(ucache_prepend(c, key, keylen, "v", 1, &len) == status);
	CHECK(ucache_cas(c, key, keylen, "v", 1, "v", 1, 0) == status);
	CHECK(ucache_del(c, key, keylen) == status);
	CHECK(ucache_del_if(c, key, keylen, "v", 1) == status);
	CHECK(ucache_incr(c, key, keylen, 1, 0, &n) == status);
	CHECK(ucache_touch(c, key, keylen, 1) == status);
	CHECK(ucache_get_or_set(c, key, keylen, buffer, sizeof(buffer), &len, 0, fill, NULL) == status);
}

static void arguments(void)
{
	static char big[70000];
	struct ucache_stats stats;
	char buffer[10];
	size_t len;

	CHECK(ucache_set(cache, S("key"), S("value"), 0) == UCACHE_OK);
	refused(NULL, S("key"), UCACHE_E_ARGUMENT);
	CHECK(!strcmp(ucache_error(), "the cache is NULL"));
	refused(cache, NULL, 3, UCACHE_E_ARGUMENT);
	refused(cache, NULL, 0, UCACHE_E_KEY);
	refused(cache, "key", 0, UCACHE_E_KEY);
	refused(cache, big, 65, UCACHE_E_KEY);
	refused(cache, big, SIZE_MAX, UCACHE_E_KEY);
	refused(cache, NULL, SIZE_MAX, UCACHE_E_KEY);
	CHECK(strstr(ucache_error(), "the limit is 64"));
	CHECK(ucache_set(cache, S("key"), NULL, 5, 0) == UCACHE_E_ARGUMENT);
	CHECK(ucache_set(cache, S("key"), NULL, 0, 0) == UCACHE_E_VALUE);
	CHECK(ucache_set(cache, S("key"), "", 0, 0) == UCACHE_E_VALUE);
	CHECK(ucache_set(cache, S("key"), big, sizeof(big), 0) == UCACHE_E_VALUE);
	CHECK(ucache_set(cache, S("key"), big, SIZE_MAX, 0) == UCACHE_E_ARGUMENT);
	CHECK(ucache_cas(cache, S("key"), S("value"), big, sizeof(big), 0) == UCACHE_E_VALUE);
	CHECK(ucache_cas(cache, S("key"), big, sizeof(big), S("v"), 0) == UCACHE_CHANGED);
	CHECK(ucache_cas(cache, S("key"), NULL, 5, S("v"), 0) == UCACHE_E_ARGUMENT);
	CHECK(ucache_add(cache, S("new"), S("v"), UCACHE_KEEP_TTL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_append(cache, S("key"), NULL, 5, &len) == UCACHE_E_ARGUMENT);
	CHECK(ucache_append(cache, S("key"), big, SIZE_MAX, &len) == UCACHE_E_ARGUMENT);
	CHECK(ucache_append(cache, S("key"), big, sizeof(big), &len) == UCACHE_E_VALUE);
	CHECK(ucache_prepend(cache, S("key"), big, 65533, &len) == UCACHE_E_VALUE && strstr(ucache_error(), "65538"));
	CHECK(ucache_touch(cache, S("key"), UCACHE_KEEP_TTL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get(cache, S("key"), NULL, 5, &len) == UCACHE_E_ARGUMENT);
	CHECK(ucache_get(cache, S("key"), buffer, SIZE_MAX, &len) == UCACHE_E_ARGUMENT);
	CHECK(ucache_keys(cache, NULL, 0, NULL, NULL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_keys(cache, NULL, 1, count, NULL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_keys(NULL, NULL, 0, count, NULL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_clear(NULL) == UCACHE_E_ARGUMENT && ucache_sweep(NULL) == UCACHE_E_ARGUMENT);
	CHECK(ucache_sync(NULL) == UCACHE_E_ARGUMENT && ucache_sync(cache) == UCACHE_OK);
	CHECK(ucache_stat(NULL, &stats, sizeof(stats)) == UCACHE_E_ARGUMENT);
	CHECK(ucache_stat(cache, NULL, sizeof(stats)) == UCACHE_E_ARGUMENT);
	CHECK(ucache_stat(cache, &stats, 0) == UCACHE_E_ARGUMENT && ucache_stat(cache, &stats, 9) == UCACHE_E_ARGUMENT);
	ucache_close(NULL);
	CHECK(holds(S("key"), S("value")));
}

static void opening(const char *store)
{
	const char *definitions[] = { NULL, "", "name=x", "name=x,items=0", "name=x,items=10,purgelru=1", "name=x,items=10,lru",
		"name=x,items=10,nodes=127.0.0.1:1", "name=x,items=10,store=/nowhere/at/all" };
	ucache *other = cache, *same;
	struct uwsgi_cache *uc;
	size_t i;

	for (i = 0; i < sizeof(definitions) / sizeof(*definitions); i++) {
		other = cache;
		CHECK(ucache_open(&other, definitions[i]) < 0 && !other && *ucache_error());
	}
	CHECK(ucache_open(&other, "name=x,items=10,purgelru=1") == UCACHE_E_OPTION);
	CHECK(strstr(ucache_error(), "meant purge_lru?"));
	CHECK(ucache_open(NULL, "name=x,items=10") == UCACHE_E_ARGUMENT);
	CHECK(ucache_attach(&other, store) == UCACHE_E_STORE && !other && strstr(ucache_error(), store));
	CHECK(ucache_attach(&other, NULL) == UCACHE_E_ARGUMENT && ucache_attach(NULL, store) == UCACHE_E_ARGUMENT);
	CHECK(ucache_named(&other, "nobody") == UCACHE_E_NAME && !other);
	CHECK(ucache_named(&other, NULL) == UCACHE_E_ARGUMENT);
	/* A cache of the other interface is the same cache. */
	uc = uwsgi_cache_create("name=shared,items=10");
	CHECK(uc && ucache_named(&other, "shared") == UCACHE_OK && ucache_named(&same, "") == UCACHE_OK);
	CHECK(ucache_set(other, S("k"), S("v"), 0) == UCACHE_OK && get_is("shared", "k", 1, "v", 1));
	CHECK(ucache_del(same, S("k")) == UCACHE_OK && missing("shared", "k", 1));
	ucache_close(other);
	ucache_close(same);
	CHECK(uwsgi_cache_magic_set("k", 1, "v", 1, 0, 0, "shared") == 0);
	/* The short interface's own caches are in nobody's list. */
	CHECK(!uwsgi_cache_by_name("short") && !uc->next);
}

static void stores(const char *store)
{
	char definition[600], buffer[10];
	ucache *first, *second;
	size_t len;

	snprintf(definition, sizeof(definition), "name=disk,items=100,store=%s", store);
	CHECK(ucache_open(&first, definition) == UCACHE_OK && ucache_attach(&second, store) == UCACHE_OK);
	CHECK(ucache_set(first, S("k"), S("value"), 0) == UCACHE_OK);
	CHECK(ucache_get(second, S("k"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 5);
	CHECK(ucache_sync(second) == UCACHE_OK);
	ucache_close(first);
	ucache_close(second);
	CHECK(ucache_attach(&second, store) == UCACHE_OK);
	CHECK(ucache_take(second, S("k"), buffer, sizeof(buffer), &len) == UCACHE_OK && !memcmp(buffer, "value", 5));
	ucache_close(second);
}

/* Two items of 1 + 1 bytes. */
static void memory_of(ucache *cache)
{
	struct ucache_memory memory;

	CHECK(ucache_memory(NULL, &memory, sizeof(memory)) == UCACHE_E_ARGUMENT);
	CHECK(ucache_memory(cache, NULL, sizeof(memory)) == UCACHE_E_ARGUMENT);
	CHECK(ucache_memory(cache, &memory, 7) == UCACHE_E_ARGUMENT);
	CHECK(ucache_memory(cache, &memory, sizeof(memory)) == UCACHE_OK);
	CHECK(memory.payload == 4 && memory.entries >= 64 && memory.sampled == 0 && memory.disk == 0);
	CHECK(memory.extents + memory.large_blocks + memory.leaving == memory.entries + memory.fragmentation);
	CHECK(memory.resident > memory.payload && memory.overhead == memory.resident - memory.payload);
	CHECK(memory.reserved >= memory.resident);
	/* An older program. */
	memset(&memory, 0xff, sizeof(memory));
	CHECK(ucache_memory(cache, &memory, 8) == UCACHE_OK && memory.payload == 4 && memory.resident == UINT64_MAX);
}

static void figures(void)
{
	struct ucache_stats now;
	union {
		struct ucache_stats known;
		uint64_t words[sizeof(struct ucache_stats) / 8 + 2];
	} later;
	ucache *small;
	char key;

	CHECK(ucache_open(&small, "name=small,items=4,keysize=8,blocksize=16") == UCACHE_OK);
	for (key = 'a'; key < 'f'; key++)
		CHECK(ucache_set(small, &key, 1, "v", 1, 0) == (key < 'd' ? UCACHE_OK : UCACHE_E_FULL));
	CHECK(!strcmp(ucache_error(), "the cache is full: 3 items"));
	CHECK(ucache_set(small, S("long"), S("12345678901234567"), 0) == UCACHE_E_VALUE);
	CHECK(ucache_get(small, S("none"), NULL, 0, NULL) == UCACHE_NOT_FOUND);
	CHECK(ucache_del(small, S("a")) == UCACHE_OK);
	CHECK(ucache_stat(small, &now, sizeof(now)) == UCACHE_OK);
	CHECK(now.items == 2 && now.capacity == 3 && now.stored == 3 && now.deleted == 1 && now.misses == 1);
	CHECK(now.rejected_full == 2 && now.rejected_limit == 1 && now.max_key == 8 && now.max_value == 16);
	CHECK(now.bytes > 0 && now.reserved_bytes > 0 && now.shards >= 1 && now.dropped_corrupt == 0);
	/* A program of another age: only its first two fields, or two more than there are. */
	memset(&now, 0xff, sizeof(now));
	CHECK(ucache_stat(small, &now, 16) == UCACHE_OK && now.items == 2 && now.capacity == 3);
	CHECK(now.bytes == UINT64_MAX);
	memset(&later, 0xff, sizeof(later));
	CHECK(ucache_stat(small, &later.known, sizeof(later)) == UCACHE_OK && later.known.stored == 3);
	CHECK(later.words[sizeof(now) / 8] == 0 && later.words[sizeof(now) / 8 + 1] == 0);
	memory_of(small);
	ucache_close(small);
}

#define CHILDREN 3
#define ROUNDS 2000

static void *add(void *round)
{
	int i;

	for (i = 0; i < ROUNDS; i++)
		CHECK(ucache_incr(cache, S("shared"), 1, 0, NULL) == UCACHE_OK);
	/* A thread's error is its own. */
	CHECK(ucache_get(NULL, S("k"), NULL, 0, NULL) == UCACHE_E_ARGUMENT && *ucache_error());
	return round;
}

static int slowly(void *context, void *buffer, size_t size, size_t *len)
{
	int64_t n;

	(void) size;
	CHECK(ucache_incr(cache, S("computations"), 1, 0, &n) == UCACHE_OK);
	usleep(200000);
	memcpy(buffer, "page", *len = 4);
	return context != NULL;
}

static void together(void)
{
	pthread_t threads[2];
	pid_t child[CHILDREN];
	char buffer[10];
	size_t len;
	int64_t n = 0;
	int i;

	for (i = 0; i < CHILDREN; i++) {
		child[i] = fork();
		CHECK(child[i] >= 0);
		if (child[i] == 0) {
			add(NULL);
			CHECK(ucache_get_or_set(cache, S("page"), buffer, 10, &len, 0, slowly, NULL) == UCACHE_OK);
			CHECK(len == 4 && !memcmp(buffer, "page", 4));
			ucache_close(cache);
			exit(0);
		}
	}
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, add, NULL) == 0);
	for (i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (i = 0; i < CHILDREN; i++)
		CHECK(exit_of(child[i]) == 0);
	CHECK(ucache_incr(cache, S("shared"), 0, 0, &n) == UCACHE_OK && n == (CHILDREN + 2) * ROUNDS);
	CHECK(ucache_incr(cache, S("computations"), 0, 0, &n) == UCACHE_OK && n == 1);
}

int main(int argc, char **argv)
{
	errno = 0;
	CHECK(!*ucache_error() && !strcmp(ucache_strerror(UCACHE_OK), "done"));
	CHECK(ucache_open(&cache, "name=short,items=100,keysize=64") == UCACHE_OK && cache);
	values();
	replaced_and_joined();
	in_one_step();
	walk();
	get_or_set();
	many();
	numbers();
	leases();
	arguments();
	figures();
	if (argc > 1) {
		opening(argv[1]);
		stores(argv[1]);
	}
	together();
	CHECK(!strcmp(ucache_strerror(UCACHE_E_FULL), "the cache is full") && !strcmp(ucache_strerror(99), "unknown status"));
	ucache_close(cache);
	return 0;
}
