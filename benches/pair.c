/* Times builds of libucache.so against each other in one process, taking turns every few milliseconds, so that what else
 * the machine does falls on all of them alike: what a change gave.
 *
 *     make pair OLD=path/of/an/earlier/libucache.so [PROCESSES=2] [KEYS=1000000] [ROUNDS=60] [ONLY='keys, get 64 KB']
 *
 * Keys of 16 bytes, values of 100, zipf 0.99; and large values. Prints, for each operation and build, the median of the rounds in ns (of
 * all processes together: time divided by operations) and the median of the first build's time over this one's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DRAWS (1 << 18)
#define VALUE 100
#define SLICE 3000000
#define MOST_BUILDS 8
#define MOST_ROUNDS 1000
#define MOST_PROCESSES 64
/* uWSGI's flags */
#define UPDATE 2
#define INCREMENT (UPDATE | 16 | 32 | 512)

struct build {
	char *(*get)(const char *, uint16_t, uint64_t *, uint64_t *, const char *);
	int (*set)(const char *, uint16_t, const char *, uint64_t, uint64_t, uint64_t, const char *);
	int (*del)(const char *, uint16_t, const char *);
	int (*exists)(const char *, uint16_t, const char *);
	void *(*by_name)(const char *);
	void *(*keys)(void *, uint64_t *, void **);
	char *(*item_key)(void *);
	uint64_t made, position;
	void *cache, *item;
};

static struct shared {
	int arrived[MOST_ROUNDS * 64];
	double rate[MOST_PROCESSES];
} *shared;

static char (*draws)[16], value[VALUE], bytes[1 << 20], key[24];
static uint64_t cursor, seed = 0x9E3779B97F4A7C15ull;
static long keys, processes, me, barriers;

static long setting(const char *name, long otherwise) {
	char *text = getenv(name);
	return text && *text ? atol(text) : otherwise;
}

static uint64_t nanos(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t next_random(void) {
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static char *make_key(char *to, char kind, uint64_t n) {
	memset(to, kind, 16);
	for (int at = 15; n && at > 3; n >>= 4) to[at--] = "0123456789abcdef"[n & 15];
	return to;
}

static void draw(void) {
	double *sums = malloc(keys * sizeof(double)), sum = 0;
	for (long i = 0; i < keys; i++) sums[i] = sum += pow(i + 1, -0.99);
	draws = malloc(DRAWS * 16);
	for (long i = 0; i < DRAWS; i++) {
		double u = (next_random() >> 11) * 0x1p-53 * sum;
		long low = 0, high = keys - 1;
		while (low < high) {
			long middle = (low + high) / 2;
			if (sums[middle] < u) low = middle + 1;
			else high = middle;
		}
		make_key(draws[i], 'k', (uint64_t) low * 2654435761u % keys);
	}
	free(sums);
}

static char *drawn(void) { return draws[cursor++ & (DRAWS - 1)]; }

static int put(struct build *b, const char *at, uint64_t flags, const char *cache) {
	memcpy(value, at, 16);
	return b->set(at, 16, value, VALUE, 0, flags, cache) != 0;
}

static int get_hit(struct build *b) {
	uint64_t got = 0;
	char *at = drawn(), *copy = b->get(at, 16, &got, NULL, "pair");
	int bad = !copy || got != VALUE || memcmp(copy, at, 16);
	free(copy);
	return bad;
}

static char *absent(void) {
	memcpy(key, drawn(), 16);
	key[0] = 'z';
	return key;
}

static int get_miss(struct build *b) {
	uint64_t got = 0;
	return b->get(absent(), 16, &got, NULL, "pair") != NULL;
}

static int exists(struct build *b) { return !b->exists(drawn(), 16, "pair"); }
static int update(struct build *b) { return put(b, drawn(), UPDATE, "pair"); }

/* With several processes another one may have the key in hand: no error. */
static int del_set(struct build *b) {
	char *at = drawn();
	b->del(at, 16, "pair");
	put(b, at, 0, "pair");
	return 0;
}

static int counter(struct build *b) {
	int64_t one = 1;
	return b->set("hot", 3, (char *) &one, 8, 0, INCREMENT, "pair") != 0;
}

/* One step of a walk over all keys, which begins anew at its end. */
static int walk(struct build *b) {
	void *item = b->keys(b->cache, &b->position, &b->item);
	if (!item) b->position = 0, b->item = NULL;
	return item && b->item_key(item)[0] == 0;
}

static int large(struct build *b, uint64_t count, uint64_t length, int write) {
	uint64_t got = 0;
	make_key(key, 'v', cursor++ * 7 % count);
	key[1] = length >> 12;
	if (write) return b->set(key, 16, bytes, length, 0, UPDATE, "large") != 0;
	char *copy = b->get(key, 16, &got, NULL, "large");
	free(copy);
	return !copy || got != length;
}

/* Each value gets another length. */
static int put_any(struct build *b) {
	uint64_t length = 20 + cursor * 2654435761u % 1981;
	return b->set(drawn(), 16, bytes, length, 0, UPDATE, "mixed") != 0;
}

static int get_4k(struct build *b) { return large(b, 1000, 4096, 0); }
static int put_4k(struct build *b) { return large(b, 1000, 4096, 1); }
static int get_64k(struct build *b) { return large(b, 150, 65536, 0); }
static int put_64k(struct build *b) { return large(b, 150, 65536, 1); }
static int get_1m(struct build *b) { return large(b, 10, 1 << 20, 0); }
static int put_1m(struct build *b) { return large(b, 10, 1 << 20, 1); }

static int set_new(struct build *b) { return put(b, make_key(key, 'n', b->made++), 0, "fresh"); }
static int set_full(struct build *b) { return !put(b, make_key(key, 'x', b->made++), 0, "full"); }
static int set_lru(struct build *b) { return put(b, make_key(key, 'l', b->made++), 0, "lru"); }

static const struct operation {
	const char *name;
	int (*run)(struct build *);
} operations[] = {
	{ "get hit", get_hit }, { "get miss", get_miss }, { "exists", exists }, { "update", update },
	{ "del + set", del_set }, { "counter", counter }, { "set new", set_new }, { "LRU, full", set_lru },
	{ "refused", set_full }, { "keys", walk }, { "put 20-2000", put_any }, { "put 4 KB", put_4k }, { "get 4 KB", get_4k },
	{ "put 64 KB", put_64k }, { "get 64 KB", get_64k }, { "put 1 MB", put_1m }, { "get 1 MB", get_1m },
};

static void barrier(void) {
	int *mine = &shared->arrived[barriers++ % (MOST_ROUNDS * 64)];
	long all = processes * (1 + (barriers - 1) / (MOST_ROUNDS * 64));
	__atomic_fetch_add(mine, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(mine, __ATOMIC_SEQ_CST) < all) continue;
}

static void *symbol(void *library, const char *name) {
	void *found = dlsym(library, name);
	if (!found) exit((fprintf(stderr, "%s\n", dlerror()), 1));
	return found;
}

static void open_build(struct build *b, const char *path) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) exit((fprintf(stderr, "%s\n", dlerror()), 1));
	b->get = symbol(library, "uwsgi_cache_magic_get");
	b->set = symbol(library, "uwsgi_cache_magic_set");
	b->del = symbol(library, "uwsgi_cache_magic_del");
	b->exists = symbol(library, "uwsgi_cache_magic_exists");
	b->by_name = symbol(library, "uwsgi_cache_by_name");
	b->keys = symbol(library, "uwsgi_cache_keys");
	b->item_key = symbol(library, "uwsgi_cache_item_key");
	void *(*create)(char *) = symbol(library, "uwsgi_cache_create");
	char pair[128], mixed[128], full[] = "name=full,items=100001,blocksize=128,keysize=16,ignore_full=1",
		fresh[] = "name=fresh,items=8000001,blocksize=128,keysize=16,ignore_full=1",
		lru[] = "name=lru,items=20001,blocksize=128,keysize=16,purge_lru=1,ignore_full=1",
		large[] = "name=large,items=2001,blocksize=1048576,keysize=64";
	snprintf(pair, sizeof(pair), "name=pair,items=%ld,blocksize=256,keysize=64", keys * 3 / 2);
	snprintf(mixed, sizeof(mixed), "name=mixed,items=%ld,blocksize=2048,keysize=64", keys * 3 / 2);
	if (!create(pair) || !create(mixed) || !create(full) || !create(fresh) || !create(lru) || !create(large))
		exit((fprintf(stderr, "no cache: %s\n", path), 1));
	for (long n = 0; n < keys; n++)
		if (put(b, make_key(key, 'k', n), UPDATE, "pair") || b->set(key, 16, bytes, 1000, 0, UPDATE, "mixed"))
			exit((fprintf(stderr, "not stored: %s\n", path), 1));
	for (long n = 0; n < 20000; n++) put(b, make_key(key, 'g', n), 0, "lru");
	for (long n = 0; n < 100000; n++) put(b, make_key(key, 'g', n), 0, "full");
	b->cache = b->by_name("pair");
	int (*puts[])(struct build *) = { put_4k, put_64k, put_1m };
	for (int i = 0; i < 3; i++)
		for (cursor = 0; cursor < 1000;)
			if (puts[i](b)) exit((fprintf(stderr, "no large value: %s\n", path), 1));
}

/* ns an operation, of all processes together */
static double slice(const struct operation *o, struct build *b, uint64_t from, long *bad) {
	cursor = from + me * (DRAWS / MOST_PROCESSES);
	for (int i = 0; i < 64; i++) o->run(b);
	barrier();
	uint64_t begin = nanos(), now, count = 0;
	do {
		for (int i = 0; i < 64; i++) *bad += o->run(b);
		count += 64;
	} while ((now = nanos()) - begin < SLICE);
	shared->rate[me] = (double) count / (now - begin);
	barrier();
	double rate = 0;
	for (long i = 0; i < processes; i++) rate += shared->rate[i];
	barrier();
	return 1 / rate;
}

static int ascending(const void *a, const void *b) {
	double x = *(double *) a, y = *(double *) b;
	return x < y ? -1 : x > y;
}

static double median(double *of, long count) {
	qsort(of, count, sizeof(double), ascending);
	return of[count / 2];
}

int main(int argc, char **argv) {
	static double times[MOST_BUILDS][MOST_ROUNDS];
	static struct build builds[MOST_BUILDS];
	long count = argc - 1, rounds = setting("ROUNDS", 60);
	keys = setting("KEYS", 100000), processes = setting("PROCESSES", 1);
	if (count < 1 || count > MOST_BUILDS || rounds < 1 || rounds > MOST_ROUNDS || keys < 1000
		|| processes < 1 || processes > MOST_PROCESSES)
		return fprintf(stderr, "%s libucache.so ... (1 to %d of them)\n", argv[0], MOST_BUILDS), 1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	memset(value, 'x', VALUE);
	/* else all pages would be the same one, of zeros */
	memset(bytes, 'x', sizeof(bytes));
	draw();
	for (long i = 0; i < count; i++) open_build(&builds[i], argv[i + 1]);
	for (long i = 1; i < processes && !me; i++) me = fork() ? 0 : i;
	for (long i = 0; i < count; i++) builds[i].made = (uint64_t) me << 40;
	for (size_t at = 0; at < sizeof(operations) / sizeof(*operations); at++) {
		const struct operation *o = &operations[at];
		if (getenv("ONLY") && !strstr(getenv("ONLY"), o->name)) continue;
		long bad = 0;
		for (long r = 0; r < rounds; r++)
			for (long i = 0; i < count; i++) {
				long b = (i + r) % count;
				times[b][r] = slice(o, &builds[b], r * 7919 * 64, &bad);
			}
		if (me) continue;
		printf("%-11s", o->name);
		for (long b = 0; b < count; b++) {
			double ratios[MOST_ROUNDS];
			for (long r = 0; r < rounds; r++) ratios[r] = times[0][r] / times[b][r];
			double ratio = median(ratios, rounds), own[MOST_ROUNDS];
			memcpy(own, times[b], rounds * sizeof(double));
			printf("  %s %7.1f ns %5.2fx", b ? "build" : "first", median(own, rounds), ratio);
		}
		puts(bad ? "  FAILED" : "");
		fflush(stdout);
	}
	if (me) _exit(0);
	while (wait(NULL) > 0) continue;
	return 0;
}
