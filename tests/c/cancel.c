/*
 * Threads that are cancelled. No function is a cancellation point: each is called in a new thread with a cancellation pending,
 * which ends the thread at the first such point. It must come through, and end at the program's own.
 */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "check.h"

#undef S
#define S(literal) literal, sizeof(literal) - 1

static const char *path; /* of the store */
static char longer[600], remote[600];
static ucache *cache, *disk;
static struct uwsgi_cache *uc;
static char big[200000];
static int numbers[3];

static int state(void)
{
	int now;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &now);
	pthread_setcancelstate(now, NULL);
	return now;
}

static int fill(void *context, void *buffer, size_t size, size_t *len)
{
	CHECK(size >= 4 && (!context || state() == *(int *) context));
	memcpy(buffer, "made", *len = 4);
	return 0;
}

static int look(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	(void) key;
	(void) expires;
	CHECK(keylen && vallen && (!context || state() == *(int *) context));
	return 0;
}

static void short_reads(void)
{
	char buffer[20];
	size_t len;
	struct ucache_stats stats;
	struct ucache_memory memory;
	uint64_t left;
	int enabled = PTHREAD_CANCEL_ENABLE;

	CHECK(ucache_get(cache, S("k"), buffer, sizeof(buffer), &len) >= 0);
	CHECK(ucache_exists(cache, S("k"), NULL) >= 0 && ucache_stat(cache, &stats, sizeof(stats)) == UCACHE_OK);
	CHECK(ucache_ttl(cache, S("k"), &left) >= 0 && ucache_memory(cache, &memory, sizeof(memory)) == UCACHE_OK);
	CHECK(ucache_keys(cache, NULL, 0, look, &enabled) == UCACHE_OK);
	CHECK(ucache_get_or_set(cache, S("filled"), buffer, sizeof(buffer), &len, 0, fill, &enabled) == UCACHE_OK);
	CHECK(ucache_take(cache, S("filled"), buffer, sizeof(buffer), &len) == UCACHE_OK && len == 4);
	CHECK(ucache_get(NULL, S("k"), NULL, 0, NULL) < 0 && *ucache_error() && *ucache_strerror(0) && *ucache_version());
}

static void short_writes(void)
{
	CHECK(ucache_set(cache, S("k"), S("v"), 0) == UCACHE_OK && ucache_add(cache, S("k"), S("v"), 0) == UCACHE_EXISTS);
	CHECK(ucache_append(cache, S("k"), S("w"), NULL) == UCACHE_OK && ucache_prepend(cache, S("k"), S("u"), NULL) == UCACHE_OK);
	CHECK(ucache_replace(cache, S("k"), S("v"), 0) == UCACHE_OK);
	CHECK(ucache_cas(cache, S("k"), S("v"), S("w"), 0) == UCACHE_OK && ucache_touch(cache, S("k"), 9) == UCACHE_OK);
	CHECK(ucache_del_if(cache, S("k"), S("w")) == UCACHE_OK && ucache_del(cache, S("k")) == UCACHE_NOT_FOUND);
	CHECK(ucache_incr(cache, S("n"), 1, 0, NULL) == UCACHE_OK && ucache_sweep(cache) == UCACHE_OK);
	CHECK(ucache_clear(cache) == UCACHE_OK && ucache_sync(cache) == UCACHE_OK);
}

static void short_numbers_and_leases(void)
{
	struct ucache_read items[2] = { { "n", 1, NULL, 0 }, { "none", 4, NULL, 0 } };
	char room[64];
	size_t len, done;
	int64_t n;
	ucache_lease *lease;

	CHECK(ucache_mul(cache, S("n"), 3, 0, &n) == UCACHE_OK && ucache_div(cache, S("n"), 2, 0, &n) == UCACHE_OK);
	CHECK(ucache_number(cache, S("n"), &n) == UCACHE_OK && n == 0);
	CHECK(ucache_number_value(cache, 7, room, sizeof(room), &len) == UCACHE_OK);
	CHECK(ucache_get_many(cache, items, 2, room, sizeof(room), &done) == UCACHE_OK && done == 2);
	CHECK(ucache_server(cache, room, sizeof(room), &len) == UCACHE_NOT_FOUND);
	CHECK(ucache_lease_begin(cache, S("l"), room, sizeof(room), &len, 0, 1000, 0, &lease) == UCACHE_LEASE);
	CHECK(ucache_lease_end(lease, S("v"), 0) == UCACHE_OK && ucache_del(cache, S("l")) == UCACHE_OK);
	CHECK(ucache_lease_begin(cache, S("l"), room, sizeof(room), &len, 0, 1000, 0, &lease) == UCACHE_LEASE);
	ucache_lease_drop(lease);
	CHECK(ucache_del(cache, S("n")) == UCACHE_OK);
}

static void short_handles(void)
{
	ucache *other;

	CHECK(ucache_open(&other, longer) == UCACHE_OK);
	CHECK(ucache_set(other, S("k"), S("v"), 0) == UCACHE_OK && ucache_sync(other) == UCACHE_OK);
	ucache_close(other);
	CHECK(ucache_attach(&other, path) == UCACHE_OK);
	ucache_close(other);
	CHECK(ucache_named(&other, "local") == UCACHE_OK);
	ucache_close(other);
}

/* Each value needs a span of its own. */
static void a_store_grows(void)
{
	char key[20];
	int i;

	for (i = 0; i < 100; i++) {
		int len = snprintf(key, sizeof(key), "grow%d", i);
		CHECK(ucache_set(disk, key, (size_t) len, big, 60000, 0) == UCACHE_OK);
	}
	CHECK(ucache_sync(disk) == UCACHE_OK && ucache_clear(disk) == UCACHE_OK);
}

static void makes(void)
{
	char definition[700];
	struct uwsgi_cache *made;

	snprintf(definition, sizeof(definition), "name=made,items=10,nodes=127.0.0.1:9,udp=127.0.0.1:0,store=%s.made", path);
	made = uwsgi_cache_create(definition);
	CHECK(made && uwsgi_cache_by_name("made") == made && uwsgi_cache_by_namelen("made", 4) == made);
	CHECK(!uwsgi_cache_create("name=wrong,items=x"));
	uwsgi_cache_create_all();
	uwsgi_cache_init(made);
	uwsgi_cache_fix(made);
	uwsgi_cache_setup_nodes(made);
	uwsgi_cache_sync_from_nodes(made);
	uwsgi_cache_start_sync_servers();
	uwsgi_cache_start_sweepers();
	uwsgi_cache_sync_all();
	/* The nodes are told. */
	CHECK(uwsgi_cache_magic_set("k", 1, "v", 1, 0, 2, "made") == 0 && uwsgi_cache_magic_del("k", 1, "made") == 0);
	CHECK(uwsgi_cache_magic_clear("made") == 0);
	/* Without an address to listen on it returns. */
	CHECK(!cache_udp_server_loop(uc));
}

static void magic_and_raw(void)
{
	uint64_t n, position = 0;
	struct uwsgi_cache_item *item = NULL;

	CHECK(uwsgi_cache_magic_set("k", 1, "v", 1, 0, 2, "local") == 0 && uwsgi_cache_magic_exists("k", 1, "local"));
	free(uwsgi_cache_magic_get("k", 1, &n, &n, "local"));
	CHECK(ucache_wlock(uc) == 0);
	CHECK(uwsgi_cache_set2(uc, "k", 1, "v", 1, 0, 2) == 0);
	uwsgi_cache_rwunlock(uc);
	uwsgi_cache_rlock(uc);
	CHECK(uwsgi_cache_get2(uc, "k", 1, &n) && uwsgi_cache_get3(uc, "k", 1, &n, &n) && uwsgi_cache_get4(uc, "k", 1, &n, &n));
	CHECK(!uwsgi_cache_num2(uc, "k", 1) && uwsgi_cache_exists2(uc, "k", 1));
	while ((item = uwsgi_cache_keys(uc, &position, &item)))
		CHECK(*uwsgi_cache_item_key(item) == 'k');
	uwsgi_cache_rwunlock(uc);
	CHECK(uwsgi_cache_del2(uc, "k", 1, 0, 0) == 0);
}

/* Each reason's first line is written. */
static void the_log(void)
{
	CHECK(uwsgi_cache_magic_set("k", 1, big, sizeof(big), 0, 2, "local") == -1);
	CHECK(uwsgi_cache_magic_set("k", 1, "", 0, 0, 2, "local") == -1);
	CHECK(uwsgi_cache_magic_set("k", 1, "text", 4, 0, UWSGI_CACHE_FLAG_MATH, "local") == -1);
}

static void packets(void)
{
	struct uwsgi_cache_magic_context context;
	struct uwsgi_buffer *made[5];
	char name[] = "c", key[] = "k";
	int i;

	made[0] = uwsgi_cache_prepare_magic_exists(name, 1, key, 1);
	made[1] = uwsgi_cache_prepare_magic_del(name, 1, key, 1);
	made[2] = uwsgi_cache_prepare_magic_clear(name, 1);
	made[3] = uwsgi_cache_prepare_magic_set(name, 1, key, 1, 5, 0);
	made[4] = uwsgi_cache_prepare_magic_update(name, 1, key, 1, 5, 0);
	for (i = 0; i < 5; i++) {
		CHECK(made[i]);
		free(made[i]->buf);
		free(made[i]);
	}
	uwsgi_cache_magic_context_hook(key, 1, name, 1, &context);
}

/* A server that takes each connection, and closes it a little later: connect, send, poll, receive, close and a line in the log. */
static void *serve(void *at)
{
	int one;

	while ((one = accept(*(int *) at, NULL, NULL)) >= 0) {
		usleep(20000);
		close(one);
	}
	return NULL;
}

static void remote_calls(void)
{
	CHECK(!uwsgi_cache_magic_get("k", 1, NULL, NULL, remote) && !uwsgi_cache_magic_exists("k", 1, remote));
	CHECK(uwsgi_cache_magic_set("k", 1, "v", 1, 0, 2, remote) == -1 && uwsgi_cache_magic_del("k", 1, remote) == -1);
	CHECK(uwsgi_cache_magic_clear(remote) == -1);
	CHECK(!uwsgi_cache_magic_get("k", 1, NULL, NULL, "c@localhost:1"));
}

static volatile int is_filling;

static int slowly(void *context, void *buffer, size_t size, size_t *len)
{
	(void) context;
	is_filling = 1;
	usleep(200000);
	return fill(NULL, buffer, size, len);
}

static void *fills(void *none)
{
	char buffer[20];
	size_t len;

	CHECK(ucache_get_or_set(cache, S("slow"), buffer, sizeof(buffer), &len, 0, slowly, NULL) == UCACHE_OK);
	return none;
}

static void waits_for_a_value(void)
{
	char buffer[20];
	size_t len;

	CHECK(ucache_get_or_set(cache, S("slow"), buffer, sizeof(buffer), &len, 0, fill, NULL) == UCACHE_OK && len == 4);
}

/* The main thread has the lock. */
static void waits_for_a_lock(void)
{
	CHECK(uwsgi_cache_magic_set("k", 1, "v", 1, 0, 2, "local") == -1 && ucache_wlock(uc) == -1);
	uwsgi_cache_rwunlock(uc);
}

struct step {
	void (*run)(void);
	int came_through;
};

static void *pending(void *arg)
{
	struct step *step = (struct step *) arg;

	CHECK(pthread_cancel(pthread_self()) == 0);
	step->run();
	CHECK(state() == PTHREAD_CANCEL_ENABLE);
	step->came_through = 1;
	pthread_testcancel();
	CHECK(!"not cancelled any more");
	return NULL;
}

static void cancelled(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	void *result;

	CHECK(pthread_create(&thread, NULL, run, arg) == 0 && pthread_join(thread, &result) == 0);
	CHECK(result == PTHREAD_CANCELED);
}

static void through(void (*run)(void))
{
	struct step step = { run, 0 };

	cancelled(pending, &step);
	CHECK(step.came_through);
}

/* ---- In a callback -------------------------------------------------------------------------------------------------- */

static int cleaned;

static void clean(void *arg)
{
	(void) arg;
	cleaned++;
}

static int ends_in_fill(void *context, void *buffer, size_t size, size_t *len)
{
	char inner[20];
	size_t n;

	pthread_cleanup_push(clean, NULL);
	/* Another one inside, which is through. */
	CHECK(ucache_get_or_set(cache, S("inner"), inner, sizeof(inner), &n, 0, fill, NULL) == UCACHE_OK);
	if (context)
		pthread_exit(PTHREAD_CANCELED);
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return fill(NULL, buffer, size, len);
}

static int ends_in_walk(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires)
{
	char inner[20];
	size_t n;

	(void) key, (void) keylen, (void) vallen, (void) expires;
	CHECK(ucache_get_or_set(cache, S("left"), inner, sizeof(inner), &n, 0, ends_in_fill, context) == UCACHE_OK);
	return 0;
}

static void *fills_and_ends(void *context)
{
	char buffer[20];
	size_t len;

	if (!context)
		pthread_cancel(pthread_self());
	ucache_get_or_set(cache, S("left"), buffer, sizeof(buffer), &len, 0, ends_in_fill, context);
	CHECK(!"came back");
	return NULL;
}

static void *walks_and_ends(void *context)
{
	if (!context)
		pthread_cancel(pthread_self());
	ucache_keys(cache, S("in"), ends_in_walk, context);
	CHECK(!"came back");
	return NULL;
}

/* What a thread leaves that ends in a callback: nothing. */
static void ended_in_callbacks(void)
{
	void *(*ways[])(void *) = { fills_and_ends, walks_and_ends };
	struct ucache_stats stats;
	char buffer[20];
	size_t len, i;

	for (i = 0; i < 4; i++) {
		CHECK(ucache_clear(cache) == UCACHE_OK && ucache_set(cache, S("inner"), S("made"), 0) == UCACHE_OK);
		cleaned = 0;
		cancelled(ways[i / 2], i % 2 ? &cleaned : NULL);
		CHECK(cleaned == 1);
		/* The placeholder went with the thread. */
		CHECK(ucache_stat(cache, &stats, sizeof(stats)) == UCACHE_OK && stats.items == 1);
		CHECK(ucache_get_or_set(cache, S("left"), buffer, sizeof(buffer), &len, 0, fill, NULL) == UCACHE_OK && len == 4);
	}
}

/* ---- By another thread, anywhere ------------------------------------------------------------------------------------- */

static void *writes(void *number)
{
	char key[40];
	int i;

	for (i = 0;; i++) {
		int len = snprintf(key, sizeof(key), "%p.%d", number, i % 50);
		CHECK(ucache_set(disk, key, (size_t) len, big, 50000 + (size_t) i % 10000, 0) == UCACHE_OK);
		if (i % 20 == 19)
			CHECK(ucache_sync(disk) == UCACHE_OK && ucache_clear(disk) == UCACHE_OK);
		pthread_testcancel();
	}
	return number;
}

static void at_any_moment(void)
{
	struct ucache_stats stats;
	pthread_t threads[3];
	void *result;
	int round, i;

	for (round = 0; round < 40; round++) {
		for (i = 0; i < 3; i++)
			CHECK(pthread_create(&threads[i], NULL, writes, &numbers[i]) == 0);
		usleep((useconds_t) (rand() % 15000));
		for (i = 0; i < 3; i++)
			CHECK(pthread_cancel(threads[i]) == 0);
		for (i = 0; i < 3; i++)
			CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED);
	}
	CHECK(ucache_stat(disk, &stats, sizeof(stats)) == UCACHE_OK);
	CHECK(stats.owner_dead == 0 && stats.repaired == 0 && stats.timeouts == 0);
}

int main(int argc, char **argv)
{
	struct sockaddr_un at;
	pthread_t thread;
	int disabled = PTHREAD_CANCEL_DISABLE, listener = socket(AF_UNIX, SOCK_STREAM, 0);
	char buffer[20], definition[600];
	size_t len;

	path = argc > 1 ? argv[1] : "cancel.ucache";
	snprintf(longer, sizeof(longer), "name=longer,items=10,store=%s", path);
	snprintf(definition, sizeof(definition), "name=disk,items=300,lock_timeout=20000,store=%s.disk", path);
	CHECK(ucache_open(&cache, "name=short,items=100") == UCACHE_OK && ucache_open(&disk, definition) == UCACHE_OK);
	uc = uwsgi_cache_create("name=local,items=100,lock_timeout=100");
	memset(&at, 0, sizeof(at));
	at.sun_family = AF_UNIX;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s.socket", path);
	CHECK(bind(listener, (struct sockaddr *) &at, sizeof(at)) == 0 && listen(listener, 10) == 0);
	snprintf(remote, sizeof(remote), "c@%s", at.sun_path);
	CHECK(pthread_create(&thread, NULL, serve, &listener) == 0);

	through(short_reads);
	through(short_writes);
	through(short_numbers_and_leases);
	through(short_handles);
	through(a_store_grows);
	through(makes);
	through(magic_and_raw);
	through(the_log);
	through(packets);
	through(remote_calls);
	CHECK(pthread_create(&thread, NULL, fills, NULL) == 0);
	while (!is_filling)
		usleep(1000);
	through(waits_for_a_value);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(ucache_wlock(uc) == 0);
	through(waits_for_a_lock);
	uwsgi_cache_rwunlock(uc);

	/* Who has it disabled finds it so, in callbacks and afterwards. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	CHECK(ucache_get_or_set(cache, S("filled"), buffer, sizeof(buffer), &len, 0, fill, &disabled) == UCACHE_OK);
	CHECK(ucache_keys(cache, NULL, 0, look, &disabled) == UCACHE_OK && ucache_sync(disk) == UCACHE_OK);
	CHECK(state() == PTHREAD_CANCEL_DISABLE);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);

	ended_in_callbacks();
	if (argc < 3)
		at_any_moment();
	ucache_close(cache);
	ucache_close(disk);
	return 0;
}
