/* Times uWSGI's cache functions inside its workers, whoever answers them: uWSGI itself or ucache. Built against the
 * uWSGI that runs it. From the environment: BENCH_OUT (file for the figures: name, worker, operations, nanoseconds by
 * the clock, nanoseconds of processor time), BENCH_MODE (speed, stall, start, memory, replay), BENCH_MS (of each
 * phase), BENCH_T0 (when the server was started), BENCH_ITEMS, BENCH_KEY and BENCH_VALUE (of mode memory), BENCH_STEPS
 * and BENCH_REPLY (of mode replay: files as benches/support/histories.rs has them). */
#include <uwsgi.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

extern struct uwsgi_server uwsgi;

#define KEYS 100000
#define DRAWS (1 << 18)
#define VALUE 100
#define UPDATE UWSGI_CACHE_FLAG_UPDATE

#include "floor.h"

struct shared {
	atomic_int arrived[64];
	atomic_long bad;
};

struct work {
	uint64_t w, n, made;
	char key[24];
	char *value;
	char (*draws)[16];
};

static struct shared *sh;
static FILE *out;
static int barriers;

static long setting(const char *name, long otherwise) {
	char *value = getenv(name);
	return value ? atol(value) : otherwise;
}

static uint64_t nanos(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t next_random(uint64_t *s) {
	*s ^= *s << 13;
	*s ^= *s >> 7;
	return *s ^= *s << 17;
}

/* Workers that wait give their processor away: there may be more of them than processors. */
static void barrier(void) {
	int mine = barriers++;
	atomic_fetch_add(&sh->arrived[mine], 1);
	while (atomic_load(&sh->arrived[mine]) < uwsgi.numproc) sched_yield();
}

static char *make_key(char *key, char kind, uint64_t n) {
	static const char digits[] = "0123456789abcdef";
	memset(key, kind, 16);
	for (int at = 15; n && at > 3; n >>= 4) key[at--] = digits[n & 15];
	return key;
}

/* Keys as those of sessions: nothing about one tells of the next. A permutation of 48 bits keeps them apart. */
static char *make_random_key(char *key, char kind, uint64_t n) {
	for (int i = 0; i < 3; i++) {
		n = n * 0x9E3779B97F4A7C15ull & 0xFFFFFFFFFFFFull;
		n ^= n >> 24;
	}
	return make_key(key, kind, n);
}

/* Keys in the order of their use: zipf 0.99, the popular ones spread over all. */
static void draw(struct work *w) {
	double *sums = malloc(KEYS * sizeof(double)), sum = 0;
	uint64_t seed = 0x9E3779B97F4A7C15ull * (w->w + 1);
	for (long i = 0; i < KEYS; i++) sums[i] = sum += pow(i + 1, -0.99);
	w->draws = malloc(DRAWS * 16);
	for (long i = 0; i < DRAWS; i++) {
		double u = (next_random(&seed) >> 11) * (1.0 / 9007199254740992.0) * sum;
		long low = 0, high = KEYS - 1;
		while (low < high) {
			long middle = (low + high) / 2;
			if (sums[middle] < u) low = middle + 1;
			else high = middle;
		}
		make_key(w->draws[i], 'k', (uint64_t) low * 2654435761u % KEYS);
	}
	free(sums);
}

static char *drawn(struct work *w) { return w->draws[w->n & (DRAWS - 1)]; }

/* What a caller does with a value. */
static int took(char *value, uint64_t got, char *key, uint64_t length) {
	int bad = !value || got != length || memcmp(value, key, 16);
	free(value);
	return bad;
}

static int get(char *cache, char *key, uint64_t length) {
	uint64_t got = 0;
	char *value = uwsgi_cache_magic_get(key, 16, &got, NULL, cache);
	return took(value, got, key, length);
}

static int put_value(char *value, char *cache, char *key, uint64_t length, uint64_t ttl, uint64_t flags) {
	memcpy(value, key, 16);
	return uwsgi_cache_magic_set(key, 16, value, length, ttl, flags, cache) != 0;
}

static int put(struct work *w, char *cache, char *key, uint64_t length, uint64_t flags) {
	return put_value(w->value, cache, key, length, 0, flags);
}

static int increment(char *cache, char *key, uint16_t length, uint64_t ttl) {
	int64_t one = 1;
	uint64_t flags = UPDATE | UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_FIXEXPIRE | UWSGI_CACHE_FLAG_INC;
	return uwsgi_cache_magic_set(key, length, (char *) &one, 8, ttl, flags, cache) != 0;
}

static int nothing(struct work *w) { asm volatile("" :: "r"(drawn(w)) : "memory"); return 0; }
static int get_hit(struct work *w) { return get("bench", drawn(w), VALUE); }
static int exists(struct work *w) { return !uwsgi_cache_magic_exists(drawn(w), 16, "bench"); }
static int update(struct work *w) { return put(w, "bench", drawn(w), VALUE, UPDATE); }
static int mixed_95(struct work *w) { return w->n % 20 ? get_hit(w) : update(w); }
static int mixed_50(struct work *w) { return w->n % 2 ? get_hit(w) : update(w); }
static int hot_key(struct work *w) { return get("bench", "kkkkkkkkkkkkkkk1", VALUE); }

/* The drawn key with another first byte. */
static char *drawn_as(struct work *w, char kind) {
	memcpy(w->key, drawn(w), 16);
	w->key[0] = kind;
	return w->key;
}

static char *absent(struct work *w) { return drawn_as(w, 'z'); }

static int get_miss(struct work *w) {
	uint64_t got = 0;
	return uwsgi_cache_magic_get(absent(w), 16, &got, NULL, "bench") != NULL;
}

static int bare_hit(struct work *w) {
	uint64_t got = 0;
	char *value = floor_get(drawn(w), &got);
	return took(value, got, drawn(w), VALUE);
}

static int bare_miss(struct work *w) {
	uint64_t got = 0;
	return floor_get(absent(w), &got) != NULL;
}

static int bare_exists(struct work *w) { return !floor_exists(drawn(w)); }

/* Two workers may have the same key between del and set: then one of them is refused, which is no error. */
static int del_set(struct work *w) {
	uwsgi_cache_magic_del(drawn(w), 16, "bench");
	put(w, "bench", drawn(w), VALUE, 0);
	return 0;
}

static int hot_counter(struct work *w) { return increment("bench", "hot", 3, 0); }

typedef char *(*maker)(char *, char, uint64_t);

/* A key that no worker has stored before. */
static int put_new(struct work *w, maker make, char *cache, char kind) {
	return put(w, cache, make(w->key, kind, w->made++ << 3 | w->w), VALUE, 0);
}

static int set_new(struct work *w) { return put_new(w, make_key, "fresh", 'n'); }
static int set_new_random(struct work *w) { return put_new(w, make_random_key, "sessions", 'r'); }
static int set_lru(struct work *w) { return put_new(w, make_key, "lru", 'l'); }
static int set_lru_random(struct work *w) { return put_new(w, make_random_key, "lru", 'l'); }

/* A cache that is full and evicts nothing refuses new keys. */
static int set_full(struct work *w) { return !put_new(w, make_random_key, "full", 'x'); }

/* A reader of a full LRU cache: each hit is a use. */
static int get_lru(struct work *w) {
	return get("hits", make_key(w->key, 'g', w->n * 2654435761u % 15000), VALUE);
}

/* Sessions: each store sets the time to live anew. */
static int get_expiring(struct work *w) { return get("expiring", drawn(w), VALUE); }

static int put_expiring(struct work *w, char *key) {
	return put_value(w->value, "expiring", key, VALUE, 3600, UPDATE);
}

static int update_expiring(struct work *w) { return put_expiring(w, drawn(w)); }

/* A rate limiter: a counter for each client, which keeps its expiry. */
static int count_client(struct work *w) { return increment("expiring", drawn_as(w, 'c'), 16, 3600); }

/* Values lie at every multiple of 64 within a page: how fast a copy is depends on both addresses modulo 4096. */
static int large(struct work *w, char *cache, uint64_t count, uint64_t length, int write) {
	make_key(w->key, 'v', (w->n * 7 + w->w) % count);
	if (!write) return get(cache, w->key, length);
	return put_value(w->value + w->n % 64 * 64, cache, w->key, length, 0, UPDATE);
}

/* Each value gets another length: pages, serialized objects. */
static int update_any(struct work *w) {
	uint64_t length = 20 + w->n * 2654435761u % 1981;
	return put(w, "mixed", drawn(w), length, UPDATE);
}

static int get_any(struct work *w) {
	uint64_t got = 0;
	char *value = uwsgi_cache_magic_get(drawn(w), 16, &got, NULL, "mixed");
	return took(value, got, drawn(w), got);
}

static int get_4k(struct work *w) { return large(w, "v4k", 1000, 4096, 0); }
static int put_4k(struct work *w) { return large(w, "v4k", 1000, 4096, 1); }
static int get_64k(struct work *w) { return large(w, "v64k", 150, 65536, 0); }
static int put_64k(struct work *w) { return large(w, "v64k", 150, 65536, 1); }
static int get_1m(struct work *w) { return large(w, "v1m", 10, 1 << 20, 0); }
static int put_1m(struct work *w) { return large(w, "v1m", 10, 1 << 20, 1); }

static int walk(char *cache, int read_keys) {
	struct uwsgi_cache *uc = uwsgi_cache_by_name(cache);
	struct uwsgi_cache_item *item = NULL;
	uint64_t at = 0, count = 0;
	uwsgi_rlock(uc->lock);
	while ((item = uwsgi_cache_keys(uc, &at, &item))) count += !read_keys || uwsgi_cache_item_key(item)[15];
	uwsgi_rwunlock(uc->lock);
	return count < KEYS - 64;
}

/* A caller looks at the keys: that is what they are asked for. */
static int walk_keys(struct work *w) { return walk("bench", 1); }
static int count_keys(struct work *w) { return walk("bench", 0); }
static int walk_random(struct work *w) { return walk("random", 1); }

static int clear_fresh(struct work *w) { return uwsgi_cache_magic_clear("fresh") != 0; }

/* `most` bounds the operations of a worker; `step` of them go between two looks at the clock; `cleared` is a cache that
 * is cleared before. */
static const struct phase {
	const char *name;
	int (*op)(struct work *);
	uint64_t step, most;
	char *cleared;
} phases[] = {
	{ "loop alone", nothing, 256, 0 },
	{ "get hit", get_hit, 64, 0 },
	{ "floor: get hit", bare_hit, 64, 0 },
	{ "get miss", get_miss, 64, 0 },
	{ "floor: get miss", bare_miss, 64, 0 },
	{ "exists", exists, 64, 0 },
	{ "floor: exists", bare_exists, 64, 0 },
	{ "update", update, 64, 0 },
	{ "mixed 95/5", mixed_95, 60, 0 },
	{ "mixed 50/50", mixed_50, 64, 0 },
	{ "hot key", hot_key, 64, 0 },
	{ "hot counter", hot_counter, 64, 0 },
	{ "del + set", del_set, 64, 0 },
	{ "LRU, set at capacity", set_lru, 64, 0 },
	{ "LRU, set at capacity, random keys", set_lru_random, 64, 0 },
	{ "full, set refused", set_full, 64, 0 },
	{ "update, 20 to 2,000 bytes", update_any, 64, 0 },
	{ "get, 20 to 2,000 bytes", get_any, 64, 0 },
	{ "LRU, get hit", get_lru, 64, 0 },
	{ "get, expiring", get_expiring, 64, 0 },
	{ "update, expiring", update_expiring, 64, 0 },
	{ "counters, expiring", count_client, 64, 0 },
	{ "get 4 KB", get_4k, 16, 0 },
	{ "update 4 KB", put_4k, 16, 0 },
	{ "get 64 KB", get_64k, 4, 0 },
	{ "update 64 KB", put_64k, 4, 0 },
	{ "get 1 MB", get_1m, 1, 0 },
	{ "update 1 MB", put_1m, 1, 0 },
	{ "clear empty 1M cache", clear_fresh, 1, 0 },
	{ "set new", set_new, 64, 400000 },
	{ "set new, random keys", set_new_random, 64, 400000, "sessions" },
	{ "keys of 100k", walk_keys, 1, 0 },
	{ "keys of 100k, unread", count_keys, 1, 0 },
	{ "keys of 100k, random keys", walk_random, 1, 0 },
	{ NULL, NULL, 0, 0 },
};

static void say(const char *name, uint64_t worker, uint64_t operations, uint64_t wall, uint64_t cpu) {
	fprintf(out, "%s\t%lu\t%lu\t%lu\t%lu\n", name, worker, operations, wall, cpu);
	fflush(out);
}

static void fill_expiring(struct work *w) {
	for (uint64_t n = 0; n < KEYS; n++)
		if (put_expiring(w, make_key(w->key, 'k', n))) atomic_fetch_add(&sh->bad, 1);
}

static void fill_with(struct work *w, maker make, char *cache, char kind, uint64_t count, uint64_t length) {
	for (uint64_t n = 0; n < count; n++) {
		if (put(w, cache, make(w->key, kind, n), length, UPDATE)) atomic_fetch_add(&sh->bad, 1);
	}
}

static void fill(struct work *w, char *cache, char kind, uint64_t count, uint64_t length) {
	fill_with(w, make_key, cache, kind, count, length);
}

static void fill_floor(struct work *w) {
	for (uint64_t n = 0; n < KEYS; n++) {
		make_key(w->key, 'k', n);
		memcpy(w->value, w->key, 16);
		floor_add(n, w->key, w->value);
	}
}

static void speed(struct work *w) {
	uint64_t limit = setting("BENCH_MS", 200) * 1000000ull;
	draw(w);
	if (w->w == 0) {
		fill(w, "bench", 'k', KEYS, VALUE);
		fill_with(w, make_random_key, "random", 'r', KEYS, VALUE);
		fill_floor(w);
		fill(w, "lru", 'g', 20000, VALUE);
		fill(w, "full", 'g', KEYS, VALUE);
		fill(w, "mixed", 'k', KEYS, 1000);
		fill(w, "hits", 'g', 20000, VALUE);
		fill_expiring(w);
		fill(w, "v4k", 'v', 1000, 4096);
		fill(w, "v64k", 'v', 150, 65536);
		fill(w, "v1m", 'v', 10, 1 << 20);
	}
	for (const struct phase *p = phases; p->name; p++) {
		uint64_t bad = 0;
		w->n = 0;
		if (p->cleared && w->w == 0 && uwsgi_cache_magic_clear(p->cleared)) atomic_fetch_add(&sh->bad, 1);
		barrier();
		uint64_t start = nanos(CLOCK_MONOTONIC), cpu = nanos(CLOCK_THREAD_CPUTIME_ID), now;
		do {
			for (uint64_t i = 0; i < p->step; i++, w->n++) bad += p->op(w);
			now = nanos(CLOCK_MONOTONIC);
		} while (now - start < limit && (!p->most || w->n < p->most));
		say(p->name, w->w, w->n, now - start, nanos(CLOCK_THREAD_CPUTIME_ID) - cpu);
		if (bad) {
			uwsgi_log("bench: %lu of %lu operations of \"%s\" failed\n", bad, w->n, p->name);
			if (bad * 1000 > w->n) atomic_fetch_add(&sh->bad, bad);
		}
	}
	barrier();
}

static int ascending(const void *a, const void *b) {
	uint64_t x = *(uint64_t *) a, y = *(uint64_t *) b;
	return x < y ? -1 : x > y;
}

/* One worker writes small values, with pauses as between requests; the others read values of 1 MB all the time. They
 * stop in the end by themselves: where readers keep a writer out, it would never get its turn. */
static void stall(struct work *w) {
	uint64_t limit = setting("BENCH_MS", 200) * 10000000ull, count = 0;
	uint64_t *took = malloc(sizeof(uint64_t) * 1000000);
	draw(w);
	if (w->w == 0) {
		fill(w, "bench", 'k', 1000, VALUE);
		fill(w, "bench", 'v', 10, 1 << 20);
	}
	barrier();
	uint64_t begin = nanos(CLOCK_MONOTONIC);
	if (w->w > 0) {
		for (; nanos(CLOCK_MONOTONIC) - begin < limit; w->n++)
			if (large(w, "bench", 10, 1 << 20, 0)) atomic_fetch_add(&sh->bad, 1);
		barrier();
		return;
	}
	while (nanos(CLOCK_MONOTONIC) - begin < limit && count < 1000000) {
		make_key(w->key, 'k', count % 1000);
		uint64_t start = nanos(CLOCK_MONOTONIC);
		if (put(w, "bench", w->key, VALUE, UPDATE)) atomic_fetch_add(&sh->bad, 1);
		took[count++] = nanos(CLOCK_MONOTONIC) - start;
		usleep(200);
	}
	barrier();
	qsort(took, count, sizeof(uint64_t), ascending);
	say("stall p50", 0, 1, took[count / 2], 0);
	say("stall p99", 0, 1, took[count * 99 / 100], 0);
	say("stall p99.9", 0, 1, took[count * 999 / 1000], 0);
	say("stall worst", 0, 1, took[count - 1], 0);
}

/* Resident shared memory of the master and this worker together, kB: each page once. */
static uint64_t resident(void) {
	pid_t pids[2] = { uwsgi.workers[0].pid, getpid() };
	uint64_t total = 0, kib;
	for (int i = 0; i < 2; i++) {
		char line[256];
		snprintf(line, sizeof(line), "/proc/%d/smaps_rollup", (int) pids[i]);
		FILE *f = fopen(line, "r");
		while (f && fgets(line, sizeof(line), f))
			if (sscanf(line, "Pss_Shmem: %lu", &kib) == 1) total += kib;
		if (f) fclose(f);
	}
	return total;
}

static void memory(struct work *w) {
	uint64_t items = setting("BENCH_ITEMS", 100000), length = setting("BENCH_VALUE", 100);
	uint16_t key_length = setting("BENCH_KEY", 16);
	char key[64];
	say("empty", 0, 1, resident(), 0);
	for (int gone = 0; gone < 2; gone++) {
		for (uint64_t n = 0; n < items; n++) {
			memset(key, 'm', sizeof(key));
			make_key(key, 'k', n);
			int bad = gone ? uwsgi_cache_magic_del(key, key_length, "bench") :
				uwsgi_cache_magic_set(key, key_length, w->value, length, 0, 0, "bench");
			if (bad) atomic_fetch_add(&sh->bad, 1);
		}
		/* the sweeper, which gives memory back, comes once a second */
		if (gone) sleep(4);
		say(gone ? "deleted" : "full", 0, 1, resident(), 0);
	}
}

#define NO_LENGTH UINT32_MAX

/* The steps of a history, one after the other; then what the server takes, and what is there. */
static void replay(void) {
	struct step { char key[16]; uint32_t length; } step;
	FILE *in = fopen(getenv("BENCH_STEPS"), "r"), *reply = fopen(getenv("BENCH_REPLY"), "w");
	uint64_t counts[2] = { 0, 0 }, sizes[2] = { 0, 0 };
	char *value = malloc(1 << 20), key[16];
	memset(value, 'v', 1 << 20);
	if (fread(counts, sizeof(counts), 1, in) != 1) atomic_fetch_add(&sh->bad, 1);
	for (uint64_t n = 0; n < counts[0]; n++) {
		if (fread(&step, sizeof(step), 1, in) != 1) atomic_fetch_add(&sh->bad, 1);
		int bad = 0;
		if (step.length == NO_LENGTH) uwsgi_cache_magic_del(step.key, 16, "bench");
		else bad = uwsgi_cache_magic_set(step.key, 16, value, step.length, 0, UPDATE, "bench") != 0;
		fputc(bad, reply);
	}
	/* the sweeper comes once a second */
	sleep(2);
	sizes[0] = resident() * 1024;
	for (uint64_t n = 0; n < counts[1]; n++) {
		uint64_t got = 0;
		if (fread(key, sizeof(key), 1, in) != 1) atomic_fetch_add(&sh->bad, 1);
		char *copy = uwsgi_cache_magic_get(key, 16, &got, NULL, "bench");
		uint32_t length = copy ? got : NO_LENGTH;
		free(copy);
		fwrite(&length, sizeof(length), 1, reply);
	}
	fwrite(sizes, sizeof(sizes), 1, reply);
	fclose(reply);
}

static int bench_init(void) {
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	floor_shared = mmap(NULL, sizeof(*floor_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	return sh == MAP_FAILED || (void *) floor_shared == MAP_FAILED ? -1 : 0;
}

static void bench_worker(void) {
	uint64_t here = nanos(CLOCK_MONOTONIC);
	char *mode = getenv("BENCH_MODE");
	struct work w = { .w = uwsgi.mywid - 1 };
	out = fopen(getenv("BENCH_OUT"), "a");
	w.value = malloc((1 << 20) + 4096);
	memset(w.value, 'x', (1 << 20) + 4096);
	if (!strcmp(mode, "speed")) speed(&w);
	else if (!strcmp(mode, "stall")) stall(&w);
	else if (!strcmp(mode, "memory")) memory(&w);
	else if (!strcmp(mode, "replay")) replay();
	else say("start", 0, 1, here - strtoull(getenv("BENCH_T0"), NULL, 10), 0);
	if (w.w == 0) {
		say("bad", 0, atomic_load(&sh->bad), 1, 0);
		kill(uwsgi.workers[0].pid, SIGINT);
	}
	for (;;) pause();
}

struct uwsgi_plugin bench_plugin = { .name = "bench", .init = bench_init, .hijack_worker = bench_worker };
