/* The driver of the differential oracle: a plugin of uWSGI that runs what the test sends, by uWSGI's own functions, and
 * answers with numbers and digests. It is preloaded too, and then is the clock of the whole process: uWSGI's cache and
 * ucache read the seconds that the script sets.
 *
 * The test compiles it against the header of the uWSGI that it runs in. Operations come in chunks over a unix socket
 * (UCACHE_ORACLE): a count, then so many struct op; as many struct answer go back. At the end of the stream the process ends. */
#define _GNU_SOURCE
#include "uwsgi.h"

#include <dlfcn.h>
#include <sys/time.h>
#include <sys/un.h>

extern struct uwsgi_server uwsgi;

/* Exported, but in no header. */
struct uwsgi_buffer *uwsgi_cache_prepare_magic_exists(char *, uint16_t, char *, uint16_t);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_del(char *, uint16_t, char *, uint16_t);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_clear(char *, uint16_t);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_set(char *, uint16_t, char *, uint16_t, uint64_t, uint64_t);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_update(char *, uint16_t, char *, uint16_t, uint64_t, uint64_t);

enum {
	CLOCK, MAGIC_GET, MAGIC_SET, MAGIC_EXISTS, MAGIC_DEL, MAGIC_CLEAR, GET2, GET3, GET4, NUM2, EXISTS2, SET2, DEL2,
	DEL_INDEX, DEL_FREE_INDEX, KEYS, STAT, LAST_MODIFIED, NAMES, FIELDS, PREPARE, CONTEXT
};

struct op {
	uint8_t kind, cache;
	uint16_t keylen;
	uint32_t kid, vallen;
	uint16_t flags;
	uint8_t name, how;
	uint64_t expires, seed;
};

struct answer {
	int64_t ret;
	uint64_t len, hash, x;
};

/* What an out parameter holds before the call. */
#define UNTOUCHED 0x7a7a7a7a7a7a7a7aULL
/* how: no place for expiry or hits; a read lock; the lock by function. */
#define NO_OUT 1
#define READ_LOCK 2
#define BY_FUNCTION 4
#define MAX_CACHES 64
#define MAX_VALUE (4 << 20)

static uint64_t fake_now, monotonic_shift;
static struct uwsgi_cache *caches[MAX_CACHES];
static int n_caches;
static char key[65536 + 8], *value;

/* The clock. */

int clock_gettime(clockid_t id, struct timespec *ts) {
	static int (*real)(clockid_t, struct timespec *);
	if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	if (fake_now && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		ts->tv_sec = fake_now;
		ts->tv_nsec = 0;
		return 0;
	}
	int ret = real(id, ts);
	if (id == CLOCK_MONOTONIC) ts->tv_sec += monotonic_shift;
	return ret;
}

time_t time(time_t *t) {
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	if (t) *t = ts.tv_sec;
	return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	struct timespec ts;
	(void) zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

/* Bytes from a seed, and digests: tests/oracle/op.rs has the same. */

static uint64_t word(uint64_t seed, uint64_t i) {
	if (i == 0) return seed;
	uint64_t w = (seed + i * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
	return w ^ (w >> 31);
}

static void fill(char *to, uint64_t len, uint64_t seed) {
	uint64_t i;
	for (i = 0; i * 8 < len; i++) {
		uint64_t w = word(seed, i), left = len - i * 8;
		memcpy(to + i * 8, &w, left < 8 ? left : 8);
	}
}

static uint64_t mix(uint64_t h, uint64_t w) {
	h = (h ^ w) * 0xff51afd7ed558ccdULL;
	return h ^ (h >> 29);
}

static uint64_t digest(const char *from, uint64_t len) {
	uint64_t i, h = mix(0, len);
	for (i = 0; i * 8 < len; i++) {
		uint64_t w = 0, left = len - i * 8;
		memcpy(&w, from + i * 8, left < 8 ? left : 8);
		h = mix(h, w);
	}
	return h;
}

/* Operations. */

static char *name_of(struct op *op) {
	static char other[512];
	switch (op->name) {
	case 1: return NULL;
	case 2: return "";
	case 3: return "nobody";
	case 4: snprintf(other, sizeof(other), "%sx", caches[op->cache]->name); return other;
	case 5: snprintf(other, sizeof(other), "%.*s", (int) strlen(caches[op->cache]->name) - 1, caches[op->cache]->name); return other;
	default: return caches[op->cache]->name;
	}
}

static void lock(struct uwsgi_cache *uc, struct op *op) {
	if (!(op->how & READ_LOCK)) uwsgi_wlock(uc->lock);
	else if (op->how & BY_FUNCTION) uwsgi_cache_rlock(uc);
	else uwsgi_rlock(uc->lock);
}

static void unlock(struct uwsgi_cache *uc, struct op *op) {
	if (op->how & BY_FUNCTION) uwsgi_cache_rwunlock(uc);
	else uwsgi_rwunlock(uc->lock);
}

static void magic(struct op *op, struct answer *a) {
	char *name = name_of(op), *got;
	switch (op->kind) {
	case MAGIC_GET:
		a->len = a->x = UNTOUCHED;
		got = uwsgi_cache_magic_get(key, op->keylen, &a->len, op->how & NO_OUT ? NULL : &a->x, name);
		a->ret = got != NULL;
		if (got) a->hash = digest(got, a->len);
		free(got);
		break;
	case MAGIC_SET:
		fill(value, op->vallen, op->seed);
		a->ret = uwsgi_cache_magic_set(key, op->keylen, value, op->vallen, op->expires, op->flags, name);
		break;
	case MAGIC_EXISTS: a->ret = uwsgi_cache_magic_exists(key, op->keylen, name); break;
	case MAGIC_DEL: a->ret = uwsgi_cache_magic_del(key, op->keylen, name); break;
	default: a->ret = uwsgi_cache_magic_clear(name);
	}
}

static int64_t index_of(struct uwsgi_cache *uc, struct op *op) {
	uint32_t index = uwsgi_cache_exists2(uc, key, op->keylen);
	/* D-63: ucache's numbers are places in its index, which has more of them than items. */
	uint64_t end = uc->max_items * 10 + 1024;
	return index < end ? (int64_t) index : -99;
}

static void raw(struct uwsgi_cache *uc, struct op *op, struct answer *a) {
	char *got = NULL;
	int64_t index;
	a->len = a->x = UNTOUCHED;
	lock(uc, op);
	switch (op->kind) {
	case GET2: got = uwsgi_cache_get2(uc, key, op->keylen, &a->len); break;
	case GET3: got = uwsgi_cache_get3(uc, key, op->keylen, &a->len, op->how & NO_OUT ? NULL : &a->x); break;
	case GET4: got = uwsgi_cache_get4(uc, key, op->keylen, &a->len, op->how & NO_OUT ? NULL : &a->x); break;
	case NUM2: a->ret = uwsgi_cache_num2(uc, key, op->keylen); break;
	case EXISTS2: index = index_of(uc, op); a->ret = index > 0 ? 1 : index; break;
	case SET2:
		fill(value, op->vallen, op->seed);
		a->ret = uwsgi_cache_set2(uc, key, op->keylen, value, op->vallen, op->expires, op->flags);
		break;
	case DEL2: a->ret = uwsgi_cache_del2(uc, key, op->keylen, 0, op->flags); break;
	case DEL_FREE_INDEX: a->ret = uwsgi_cache_del2(uc, NULL, 0, 1 + op->seed % (uc->max_items - 1), op->flags); break;
	default:
		index = index_of(uc, op);
		a->ret = index > 0 ? uwsgi_cache_del2(uc, NULL, 0, index, op->flags) : -2;
	}
	if (op->kind >= GET2 && op->kind <= GET4) {
		a->ret = got != NULL;
		if (got) a->hash = digest(got, a->len);
	}
	unlock(uc, op);
}

/* hash: keys, lengths, and whether they can be read; x: with the expiry; len: with uWSGI's hash of the key. */
static void keys(struct uwsgi_cache *uc, struct op *op, struct answer *a) {
	uint64_t pos = 0;
	struct uwsgi_cache_item *item = NULL;
	lock(uc, op);
	while ((item = uwsgi_cache_keys(uc, &pos, &item))) {
		uint64_t k = digest(uwsgi_cache_item_key(item), item->keysize);
		a->ret++;
		a->hash += mix(mix(k, item->valsize), item->flags & UWSGI_CACHE_FLAG_UNGETTABLE);
		a->x += mix(k, item->expires);
		a->len += mix(k, item->hash);
	}
	unlock(uc, op);
}

/* What a master does once a second; ucache's figures are refreshed there. */
static void turn_the_master(void) {
	int i;
	monotonic_shift += 10;
	for (i = 0; i < uwsgi.gp_cnt; i++)
		if (uwsgi.gp[i]->master_cycle) uwsgi.gp[i]->master_cycle();
	for (i = 0; i < 256; i++)
		if (uwsgi.p[i]->master_cycle) uwsgi.p[i]->master_cycle();
}

static int64_t number_of(struct uwsgi_cache *uc) {
	int i;
	for (i = 0; i < n_caches; i++)
		if (caches[i] == uc) return i;
	return -1;
}

static void names(struct op *op, struct answer *a) {
	char *name = name_of(op);
	a->ret = number_of(uwsgi_cache_by_name(name));
	a->len = number_of(uwsgi_cache_by_namelen(name, name ? strlen(name) : 0));
	a->hash = number_of(uwsgi_cache_by_namelen(caches[op->cache]->name, op->seed % 4));
}

static void fields(struct uwsgi_cache *uc, struct answer *a) {
	uint64_t f[] = { uc->max_items, uc->keysize, uc->blocksize, uc->blocks, uc->max_item_size, uc->hashsize, uc->name_len };
	a->ret = uc->max_items;
	a->len = uc->max_item_size;
	a->hash = digest((char *) f, sizeof(f)) ^ digest(uc->name, uc->name_len) ^ digest(uc->hash->name, strlen(uc->hash->name));
}

static void prepare(struct op *op, struct answer *a) {
	struct uwsgi_buffer *ub = NULL;
	char *name = name_of(op);
	uint16_t len = name ? strlen(name) : 0;
	switch (op->seed % 5) {
	case 0: ub = uwsgi_cache_prepare_magic_exists(name, len, key, op->keylen); break;
	case 1: ub = uwsgi_cache_prepare_magic_del(name, len, key, op->keylen); break;
	case 2: ub = uwsgi_cache_prepare_magic_clear(name, len); break;
	case 3: ub = uwsgi_cache_prepare_magic_set(name, len, key, op->keylen, op->vallen, op->expires); break;
	default: ub = uwsgi_cache_prepare_magic_update(name, len, key, op->keylen, op->vallen, op->expires);
	}
	a->ret = ub != NULL;
	if (!ub) return;
	a->len = ub->pos;
	a->hash = digest(ub->buf + 4, ub->pos - 4);
	uwsgi_buffer_destroy(ub);
}

static void context(struct op *op, struct answer *a) {
	static char *const known[] = { "cmd", "key", "expires", "size", "cache", "status", "siz", "cmdx", "" };
	char *k = known[op->kid % 9], number[32];
	struct uwsgi_cache_magic_context c;
	memset(&c, 0, sizeof(c));
	int len = snprintf(number, sizeof(number), "%llu", (unsigned long long) (op->seed % 10000000000000000000ULL));
	uwsgi_cache_magic_context_hook(k, strlen(k), number, len, &c);
	uint64_t f[] = { c.cmd_len, c.key_len, c.size, c.expires, c.status_len, c.cache_len, c.cmd == number, c.key == number,
		c.cache == number, c.status == number };
	a->hash = digest((char *) f, sizeof(f));
}

static void run_one(struct op *op, struct answer *a) {
	struct uwsgi_cache *uc = caches[op->cache];
	uint64_t kseed = ((uint64_t) op->keylen << 32) | op->kid;
	memset(a, 0, sizeof(*a));
	fill(key, op->keylen, kseed);
	switch (op->kind) {
	case CLOCK: fake_now = op->expires; break;
	case MAGIC_GET: case MAGIC_SET: case MAGIC_EXISTS: case MAGIC_DEL: case MAGIC_CLEAR: magic(op, a); break;
	case KEYS: keys(uc, op, a); break;
	case STAT:
		turn_the_master();
		a->ret = uc->n_items;
		a->len = uc->hits;
		a->hash = uc->miss;
		a->x = uc->full;
		break;
	case LAST_MODIFIED: turn_the_master(); a->ret = uc->last_modified_at; break;
	case NAMES: names(op, a); break;
	case FIELDS: fields(uc, a); break;
	case PREPARE: prepare(op, a); break;
	case CONTEXT: context(op, a); break;
	default: raw(uc, op, a);
	}
}

static int all(int fd, void *buf, size_t len, int writing) {
	char *at = buf;
	while (len) {
		ssize_t n = writing ? write(fd, at, len) : read(fd, at, len);
		if (n <= 0) return -1;
		at += n;
		len -= n;
	}
	return 0;
}

static void run(void) {
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct uwsgi_cache *uc;
	struct op *ops = malloc(sizeof(struct op) << 20);
	struct answer *answers = malloc(sizeof(struct answer) << 20);
	uint32_t i, count;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	for (uc = uwsgi.caches; uc && n_caches < MAX_CACHES; uc = uc->next) caches[n_caches++] = uc;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", getenv("UCACHE_ORACLE"));
	value = malloc(MAX_VALUE);
	if (!value || !ops || !answers || connect(fd, (struct sockaddr *) &addr, sizeof(addr))) {
		perror("oracle driver");
		_exit(2);
	}
	/* Native says FULL millions of times. */
	if (getenv("UCACHE_ORACLE_QUIET")) dup2(open("/dev/null", O_WRONLY), 2);
	while (!all(fd, &count, sizeof(count), 0) && count <= 1 << 20 && !all(fd, ops, count * sizeof(*ops), 0)) {
		for (i = 0; i < count; i++) run_one(&ops[i], &answers[i]);
		if (all(fd, answers, count * sizeof(*answers), 1)) break;
	}
	_exit(0);
}

struct uwsgi_plugin oracle_plugin = { .name = "oracle", .modifier1 = 250, .post_init = run };
