/*
 * ucache.h - the C interface of libucache: a crash-safe cache in shared memory.
 *
 * Link with -lucache. Nothing of uWSGI is needed: the functions have the names and the binary interface of uWSGI's
 * uwsgi.h, so that code written for it works with either. Or link statically, with
 *
 *	libucache.a -lgcc_s -lutil -lrt -lpthread -lm -ldl
 *
 * or, in a program without any shared library (-static), with
 *
 *	libucache.a -lgcc_eh -lutil -lrt -lpthread -lm -ldl
 *
 * A shared library of your own that has libucache.a inside is linked with -Wl,--exclude-libs,libucache.a besides: else
 * everybody sees all symbols of libucache.a in it.
 *
 * With uwsgi.h in the same file: include uwsgi.h first. This header then only adds what that one lacks.
 *
 *
 * WORDS USED BELOW
 *
 * key, value   So many bytes of any kind. NULL or no bytes make the call fail. A key has 1 to keysize bytes
 *              (65535 at most), a value 1 to blocksize bytes (blocksize * blocks with bitmap=1).
 * cache name   A C string. NULL and "" name the first cache that was made. The magic calls also take
 *              "name@host:port" and "name@/path/of/a.socket": a cache of another server. An unknown name makes
 *              the call fail.
 * cache        A struct uwsgi_cache from this library. NULL, or a struct from elsewhere, makes the call fail.
 * out          Where a result goes, or NULL if it is not wanted. Written only if the call succeeds.
 * expires      0 = never. In seconds from now, of which (uint64_t) -1 is at once; with UWSGI_CACHE_FLAG_ABSEXPIRE a Unix
 *              time. What has passed is gone at once. An expired item is a miss from its very second on.
 *
 * THREADS AND PROCESSES
 *
 * Every function may be called by any thread, and by any process forked after the cache was made: all of them
 * share it. A cache with store=FILE is also shared by unrelated processes that open the same file. A process may
 * be killed at any moment: the others go on, and find every item whole. A child that a bare clone() or system call
 * made, or in another PID or time namespace, can only read: its locks would not end with it.
 *
 * Reading takes no lock. Writing waits for another live writer, up to lock_timeout (1000 ms unless the cache's
 * definition says otherwise), and then fails. Not for signal handlers: these functions may call malloc.
 *
 * Threads may be cancelled (pthread_cancel, of the deferred type, which is the default). No function here is a cancellation
 * point, however long it waits: a cancelled thread goes on to the next one of the program's own. cache_udp_server_loop, which
 * does not return, cannot be cancelled. Functions of the program that are called from here find cancellation as enabled as
 * the caller had it; see ucache_fill_fn.
 *
 * TWO TIERS
 *
 * The magic functions (uwsgi_cache_magic_*) find the cache by its name, and give values away as malloc memory.
 * The raw functions (those that take a struct uwsgi_cache) give pointers into a copy that belongs to the calling
 * thread; it stays valid until that thread's next raw call that gives a value, or until it unlocks. They are safe
 * without a lock; the lock only makes several calls one step (see ucache_wlock).
 *
 * ERRORS
 *
 * No function ends the process, as long as the system has memory for a few hundred bytes. None reports through errno, which
 * may be another afterwards. Why something was refused is on stderr (in a uWSGI server: in its log), one line of a kind per
 * cache and minute.
 */
#ifndef UCACHE_H
#define UCACHE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* uwsgi.h has no guard of its own; this macro tells that it was here. */
#ifndef UWSGI_CACHE_FLAG_UNGETTABLE

/* Flags of uwsgi_cache_set2, uwsgi_cache_magic_set (all) and uwsgi_cache_del2 (LOCAL). */
#define UWSGI_CACHE_FLAG_UNGETTABLE	(1 << 0)	/* stored, counted and listed, but reads miss it */
#define UWSGI_CACHE_FLAG_UPDATE		(1 << 1)	/* replaces an existing key; without it that fails */
#define UWSGI_CACHE_FLAG_LOCAL		(1 << 2)	/* does not tell the UDP nodes */
#define UWSGI_CACHE_FLAG_ABSEXPIRE	(1 << 3)	/* expires is a Unix time */
#define UWSGI_CACHE_FLAG_MATH		(1 << 4)	/* the value is an operand, an int64_t; see below */
#define UWSGI_CACHE_FLAG_INC		(1 << 5)	/* adds it */
#define UWSGI_CACHE_FLAG_DEC		(1 << 6)	/* subtracts it */
#define UWSGI_CACHE_FLAG_MUL		(1 << 7)	/* multiplies by it */
#define UWSGI_CACHE_FLAG_DIV		(1 << 8)	/* divides by it; division by 0 gives 0 */
#define UWSGI_CACHE_FLAG_FIXEXPIRE	(1 << 9)	/* an existing key keeps its expiry and its LRU place */

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L
#define UCACHE_BYTES key[]
#else
#define UCACHE_BYTES key[0]
#endif

struct uwsgi_hash_algo;
struct uwsgi_string_list;

/* A growing buffer. It and buf come from malloc: free both. */
struct uwsgi_buffer {
	char *buf;
	size_t pos;		/* bytes in use */
	size_t len;		/* bytes allocated */
	size_t limit;		/* bytes allowed, 0 = any */
};

/* A lock. Only its owner looks inside. */
struct uwsgi_lock_item {
	char *id;
	void *lock_ptr;
	int rw;
	pid_t pid;
	int can_deadlock;
	struct uwsgi_lock_item *next;
};

/* An item, as uwsgi_cache_keys gives it: a copy. */
struct uwsgi_cache_item {
	uint64_t flags;		/* UWSGI_CACHE_FLAG_UNGETTABLE or 0 */
	uint64_t keysize;	/* bytes of the key */
	uint64_t hash;
	uint64_t valsize;	/* bytes of the value */
	uint64_t first_block;	/* the item's number, for uwsgi_cache_del2 */
	uint64_t expires;	/* Unix time, 0 = never */
	uint64_t hits;		/* 0 */
	uint64_t prev;		/* 0 */
	uint64_t next;		/* 0 */
	uint64_t lru_prev;	/* 0 */
	uint64_t lru_next;	/* 0 */
	__extension__ char UCACHE_BYTES;	/* keysize bytes, no NUL */
} __attribute__ ((__packed__));

/*
 * A cache. The library owns it; it lives as long as the process. Read it, never write it. What changes
 * (marked *) is brought up to date by uwsgi_cache_fix and by the sweeper.
 */
struct uwsgi_cache {
	char *name;
	uint16_t name_len;

	uint64_t keysize;	/* longest key, bytes */
	uint64_t blocks;
	uint64_t blocksize;

	struct uwsgi_hash_algo *hash;
	uint64_t *hashtable;
	uint32_t hashsize;

	uint64_t first_available_block;
	uint64_t *unused_blocks_stack;
	uint64_t unused_blocks_stack_ptr;

	uint8_t use_blocks_bitmap;
	uint8_t *blocks_bitmap;
	uint64_t blocks_bitmap_pos;
	uint64_t blocks_bitmap_size;

	uint64_t max_items;	/* as defined: one more than fit (but 1 if it is 1) */
	uint64_t max_item_size;	/* longest value, bytes */
	uint64_t n_items;	/* * items stored */
	struct uwsgi_cache_item *items;

	uint8_t use_last_modified;
	time_t last_modified_at;	/* * with lastmod=1: Unix time of the last change */

	void *data;

	uint8_t no_expire;
	uint64_t full;		/* * how often the cache was found full */
	uint64_t hits;		/* * reads that found their key */
	uint64_t miss;		/* * reads that did not */

	char *store;		/* path, or NULL */
	uint64_t filesize;
	uint64_t store_sync;	/* seconds */

	int64_t math_initial;

	struct uwsgi_string_list *nodes;
	int udp_node_socket;
	struct uwsgi_string_list *sync_nodes;
	struct uwsgi_string_list *udp_servers;

	struct uwsgi_lock_item *lock;

	struct uwsgi_cache *next;	/* the cache made after this one, or NULL */

	int ignore_full;

	uint64_t next_scan;
	int purge_lru;
	uint64_t lru_head;
	uint64_t lru_tail;

	int store_delete;
	int lazy_expire;
	uint64_t sweep_on_full;
	int clear_on_full;
};

/* The parts of a request or answer of the cache protocol (modifier 111, 17). They point into the packet. */
struct uwsgi_cache_magic_context {
	char *cmd;
	uint16_t cmd_len;
	char *key;
	uint16_t key_len;
	uint64_t size;
	uint64_t expires;
	char *status;
	uint16_t status_len;
	char *cache;
	uint16_t cache_len;
};

/* ---- Making and finding caches ---------------------------------------------------------------------------- */

/*
 * Makes a cache.
 *
 * definition: "name=NAME,items=N", and after more commas any of
 *   keysize=BYTES (2048)   blocksize=BYTES (65536)   blocks=N (items)   bitmap=1     purge_lru=1
 *   store=FILE             store_sync=SECONDS        store_delete=1     lastmod=1    math_initial=N
 *   sweep_on_full=SECONDS  clear_on_full=1           no_expire=1        ignore_full=1
 *   lock_timeout=MS (1000) nodes=HOST:PORT;...       udp=HOST:PORT;...  sync=HOST:PORT;...
 *   evict=lru|s3fifo|none  store_guard=1             hugepages=1        store_fs=trust         udp_clear=1
 * A number may have a unit, in either case: BYTES k, m or g (also kb or kib, ...; k is 1024), N k, m or g (k is 1000), SECONDS
 * s, m, h or d, MS ms or s.
 * N items hold N-1, as in uWSGI (1 holds 1). A comma inside a value is written \, and a backslash \\.
 * NULL makes a cache "default" of 1000 items. In a uWSGI server NULL is the cache of its option "cache". If the name is taken,
 * the log says so, and the new cache is known by its pointer only.
 *
 * Gives the cache, which is never freed; NULL if it cannot be made, with the reason in the log.
 * Make caches before forking; one made later is its process's own (but for store=FILE).
 */
struct uwsgi_cache *uwsgi_cache_create(const char *definition);

/* Makes all caches that are configured: in a plain program the default cache. Only the first call does. */
void uwsgi_cache_create_all(void);

/* The cache with that name; NULL if there is none. */
struct uwsgi_cache *uwsgi_cache_by_name(const char *name);

/* The same for a name of len bytes without a NUL; len 0 = the first cache. */
struct uwsgi_cache *uwsgi_cache_by_namelen(const char *name, uint16_t len);

/* Brings the figures in the struct up to date. */
void uwsgi_cache_fix(struct uwsgi_cache *cache);

/* ---- The magic tier: by name, nothing to lock ---------------------------------------------------------------- */

/*
 * Reads a value. Gives malloc memory: free() it. A NUL follows the value, which vallen does not count.
 * NULL = not stored, or expired; vallen and expires (a Unix time, 0 = never) are then left alone.
 */
char *uwsgi_cache_magic_get(const char *key, uint16_t keylen, uint64_t *vallen, uint64_t *expires,
	const char *cache_name);

/*
 * Stores a copy of the value: 0. -1 = the key exists (and no UPDATE flag), key or value have a length that is not
 * allowed, the cache is full, a lock was not released in time.
 *
 * With MATH and one of INC, DEC, MUL, DIV the value is an int64_t: the stored number changes by it in one step.
 * A key that is not stored starts from math_initial; one that is needs the UPDATE flag. Numbers wrap. A stored
 * value that is not 8 bytes long is left alone: -1.
 */
int uwsgi_cache_magic_set(const char *key, uint16_t keylen, const char *value, uint64_t vallen, uint64_t expires,
	uint64_t flags, const char *cache_name);

/* Removes a key: 0; -1 = it was not stored. */
int uwsgi_cache_magic_del(const char *key, uint16_t keylen, const char *cache_name);

/* Whether a key is stored: 1 or 0. Counts neither as a hit nor as a miss nor as a use. */
int uwsgi_cache_magic_exists(const char *key, uint16_t keylen, const char *cache_name);

/* Removes everything, in one step for all readers: 0; -1 = no such cache. */
int uwsgi_cache_magic_clear(const char *cache_name);

/* ---- The raw tier: by pointer ---------------------------------------------------------------------------------- */

/*
 * Read a value: a pointer to the thread's copy (8-aligned, a NUL follows), or NULL = not stored. All count a hit
 * or a miss.
 *   get2   the value
 *   get3   and its expiry, a Unix time, 0 = never
 *   get4   and how often get4 had read this item before, exact over all processes; no use for LRU. It takes a lock for a
 *          moment; where a live writer keeps that for lock_timeout, it reads without counting
 *   num2   the number itself, 0 if it is not stored or not 8 bytes long; no use for LRU
 */
char *uwsgi_cache_get2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen);
char *uwsgi_cache_get3(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen,
	uint64_t *expires);
char *uwsgi_cache_get4(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen,
	uint64_t *hits);
int64_t uwsgi_cache_num2(struct uwsgi_cache *cache, const char *key, uint16_t keylen);

/* The number of the key's item, 0 = not stored. It stays the key's until the key is removed. */
uint32_t uwsgi_cache_exists2(struct uwsgi_cache *cache, const char *key, uint16_t keylen);

/* As uwsgi_cache_magic_set. */
int uwsgi_cache_set2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, const char *value,
	uint64_t vallen, uint64_t expires, uint64_t flags);

/*
 * Removes the item with number index, or with index 0 the key: 0; -1 = the key is not stored, or the number
 * cannot be one. (A possible number without an item gives 0, as in uWSGI.)
 */
int uwsgi_cache_del2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t index,
	uint16_t flags);

/*
 * Walks all items: start with position = 0 and item = NULL, go on until NULL.
 *
 *	uint64_t position = 0;
 *	struct uwsgi_cache_item *item = NULL;
 *	while ((item = uwsgi_cache_keys(cache, &position, &item)))
 *		fwrite(uwsgi_cache_item_key(item), 1, item->keysize, stdout);
 *
 * The item is a copy that belongs to the thread: valid until its next step of this walk, or until it unlocks.
 * Items stored throughout are met exactly once; the cache may change meanwhile. A thread has up to 4 walks at a
 * time; unlocking ends them.
 */
struct uwsgi_cache_item *uwsgi_cache_keys(struct uwsgi_cache *cache, uint64_t *position,
	struct uwsgi_cache_item **item);

/* The item's key, keysize bytes; valid as long as the item. */
char *uwsgi_cache_item_key(struct uwsgi_cache_item *item);

/*
 * Brackets for reading. They nest, exclude nobody and never wait; rwunlock ends what the thread began last on this
 * cache (here or with ucache_wlock), and the life of its copies.
 */
void uwsgi_cache_rlock(struct uwsgi_cache *cache);
void uwsgi_cache_rwunlock(struct uwsgi_cache *cache);

/* ---- Upkeep ---------------------------------------------------------------------------------------------------- */

/*
 * Starts a thread (all signals blocked) that every 3 seconds gives the memory of expired items back, in all caches of
 * uwsgi_cache_create, and writes the stores that are due by their store_sync. Expiry does not depend on it. Once per process
 * is enough, also before the first cache; again does nothing. A child of fork has no such thread until it starts one.
 */
void uwsgi_cache_start_sweepers(void);

/*
 * Writes the stores of all caches to disk, before it returns. (In a uWSGI server: starts writing those that are
 * due.)
 */
void uwsgi_cache_sync_all(void);

/* Starts a thread for each cache with udp= that applies what other nodes send. */
void uwsgi_cache_start_sync_servers(void);

/* The body of such a thread; arg is the cache. Does not return while its socket works, and cannot be cancelled. */
void *cache_udp_server_loop(void *arg);

/* Copies the content of the first server in the cache's sync= list that answers. uwsgi_cache_create does it. */
void uwsgi_cache_sync_from_nodes(struct uwsgi_cache *cache);

/* The callback of a parser of the cache protocol: puts one pair into context (struct uwsgi_cache_magic_context). */
void uwsgi_cache_magic_context_hook(char *key, uint16_t keylen, char *value, uint16_t vallen, void *context);

/* Resolves the addresses of the cache's nodes= list. uwsgi_cache_create does it. */
void uwsgi_cache_setup_nodes(struct uwsgi_cache *cache);

#endif /* not after uwsgi.h */

/* ---- Not in uwsgi.h -------------------------------------------------------------------------------------------- */

/* uwsgi_cache_create does all that is needed: this only brings the figures in the struct up to date. */
void uwsgi_cache_init(struct uwsgi_cache *cache);

/*
 * Requests of the cache protocol, with their header of 4 bytes and without the value.
 * The caller frees buf and the struct with free(). NULL = a name or key is too long, or no memory. A cache name of
 * NULL is left out.
 */
struct uwsgi_buffer *uwsgi_cache_prepare_magic_exists(char *cache_name, uint16_t cache_name_len, char *key,
	uint16_t keylen);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_del(char *cache_name, uint16_t cache_name_len, char *key,
	uint16_t keylen);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_clear(char *cache_name, uint16_t cache_name_len);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_set(char *cache_name, uint16_t cache_name_len, char *key,
	uint16_t keylen, uint64_t vallen, uint64_t expires);
struct uwsgi_buffer *uwsgi_cache_prepare_magic_update(char *cache_name, uint16_t cache_name_len, char *key,
	uint16_t keylen, uint64_t vallen, uint64_t expires);

/*
 * Takes the cache for writing: until uwsgi_cache_rwunlock no other thread or process changes it, so that reading
 * and storing are one step. Readers are not held up. Nests.
 *
 * 0; -1 = a live process did not let go within lock_timeout. Unlock even then.
 */
int ucache_wlock(struct uwsgi_cache *cache);

/* The library's version, "major.minor.patch"; never freed. */
const char *ucache_version(void);

/* ---- The short interface ---------------------------------------------------------------------------------------
 *
 * For programs that have nothing to do with uWSGI: a handle, lengths of type size_t, values in the caller's own
 * buffers, and a status from every call. A cache is in memory, for the process that opened it and its children, or in
 * a file (store=), for any process that opens or attaches to the same file.
 *
 *	ucache *cache;
 *	char value[100];
 *	size_t len;
 *	int status = ucache_open(&cache, "name=pages,items=1000,store=/run/app/pages");
 *	if (status) errx(1, "%s", ucache_error());
 *	status = ucache_get(cache, "index", 5, value, sizeof value, &len);
 *
 * STATUSES     0 = done. Above 0 = an answer that is no error (the key is not there, ...). Below 0 = an error. The
 *              numbers stay what they are; new ones may be added. errno means nothing afterwards.
 * key, value   So many bytes of any kind, NUL among them. Not empty, not longer than the cache's limits: else
 *              UCACHE_E_KEY, UCACHE_E_VALUE. The library keeps copies only. They may share memory with each other and
 *              with results: what is asked for is what was there when the function was called.
 * lengths      Of values, expected values, prefixes and buffers: over SSIZE_MAX, such as -1 of a read() that failed,
 *              UCACHE_E_ARGUMENT. A prefix longer than any key is that of no key.
 * ttl          Seconds from now, UCACHE_NEVER, or where it says so UCACHE_KEEP_TTL.
 * out, len, result, expires
 *              Where a result goes. NULL if it is not wanted, but for the cache of open, attach and named. Written
 *              only with UCACHE_OK, but for the length with UCACHE_TOO_SMALL. Not in the buffer.
 * NULL         Where not allowed: UCACHE_E_ARGUMENT. (ucache_close(NULL) does nothing.)
 *
 * A handle may be used by all threads at the same time, and by processes forked afterwards, each of which closes its
 * own. Closing a handle that is in use or was closed is the caller's error, as with free(). Not for signal handlers.
 */
typedef struct ucache ucache;

typedef enum ucache_status {
	UCACHE_OK = 0,
	UCACHE_NOT_FOUND = 1,		/* no such key, or it has expired */
	UCACHE_EXISTS = 2,		/* the key is there, nothing was stored (ucache_set; ucache_get_or_set: UNGETTABLE) */
	UCACHE_CHANGED = 3,		/* ucache_cas, ucache_del_if: another value, or none */
	UCACHE_TOO_SMALL = 4,		/* the value is longer than the buffer; *len is its length */
	UCACHE_STOPPED = 5,		/* a callback ended the call */
	UCACHE_E_ARGUMENT = -1,		/* NULL, or out of range */
	UCACHE_E_OPTION = -2,		/* a definition that cannot be */
	UCACHE_E_NAME = -3,		/* no cache of that name in this process */
	UCACHE_E_KEY = -4,		/* empty, or too long */
	UCACHE_E_VALUE = -5,		/* empty, or too long */
	UCACHE_E_NUMBER = -6,		/* the value is not a number of 8 bytes */
	UCACHE_E_FULL = -7,		/* no items or blocks left */
	UCACHE_E_SPACE = -8,		/* no memory or disk left for the entry */
	UCACHE_E_TIMEOUT = -9,		/* a live process did not let go within lock_timeout */
	UCACHE_E_DEADLOCK = -10,	/* this thread is inside the cache already, or computes the key */
	UCACHE_E_STORE = -11,		/* the file cannot be used; it is as it was */
	UCACHE_E_DAMAGED = -12,		/* beyond repair: close it, open it anew */
	UCACHE_E_MEMORY = -13,
	UCACHE_E_SYSTEM = -14,		/* a system call failed */
	UCACHE_E_INTERNAL = -15,	/* a defect of the library */
	UCACHE_E_PROCESS = -16		/* may not write: made by a bare clone(), or in another PID or time namespace */
} ucache_status;

#define UCACHE_NEVER	((uint64_t) 0)		/* ttl: does not expire */
#define UCACHE_KEEP_TTL	UINT64_MAX		/* ttl: an item that is there expires when it would have */

/* A status in one line of English; static, never NULL. */
const char *ucache_strerror(int status);

/*
 * What was wrong with this thread's last call that gave an error (below 0), in a sentence with the values at fault; ""
 * if there was none. Belongs to the thread, until its next call that gives an error.
 */
const char *ucache_error(void);

/*
 * Makes a cache, or opens its store if there is one. The definition is that of uwsgi_cache_create (items=N holds N-1);
 * here an option that is unknown or has no value is an error, and so are nodes, sync, udp and store_sync (see ucache_sync).
 * While others have the store open, their limits stay in force. In *out: the cache, or NULL; give it back with ucache_close,
 * which also tells the next opener that the store was left in order: exit() alone does not.
 */
int ucache_open(ucache **out, const char *definition);

/* Opens a store that exists, with the limits it was made with. (store_fs=trust needs a definition: ucache_open.) */
int ucache_attach(ucache **out, const char *path);

/*
 * A cache that this process, or one that it was forked from, made with uwsgi_cache_create; in a uWSGI server one of
 * the server's. "" = the first. The nodes= of the cache are told of changes, as by the functions above.
 */
int ucache_named(ucache **out, const char *name);

/* Ends the use of a cache. One in memory goes with its last user, a store stays. */
void ucache_close(ucache *cache);

/*
 * Copies a value to the front of the buffer; no NUL is added. Behind the value, and with any status but UCACHE_OK, the content
 * of the buffer is not specified. A NULL buffer of size 0 asks for the length.
 */
int ucache_get(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len);

/* The same, and removes it, in one step: of several callers one gets the value. What does not fit stays. */
int ucache_take(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len);

/* Whether a key is there, and until when (a Unix time, 0 = never). Counts neither as a hit or miss nor as a use. */
int ucache_exists(ucache *cache, const void *key, size_t keylen, uint64_t *expires);

/* Stores a value unless the key exists: then UCACHE_EXISTS. Of several callers one stores. */
int ucache_set(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, uint64_t ttl);

/* Stores a value in any case. With UCACHE_KEEP_TTL a new key never expires. */
int ucache_update(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, uint64_t ttl);

/* Replaces the value if it equals the expected one, else UCACHE_CHANGED. UCACHE_KEEP_TTL is allowed. */
int ucache_cas(ucache *cache, const void *key, size_t keylen, const void *expected, size_t expectedlen,
	const void *value, size_t vallen, uint64_t ttl);

/* Removes a key. */
int ucache_del(ucache *cache, const void *key, size_t keylen);

/* Removes a key if its value equals the expected one, else UCACHE_CHANGED. */
int ucache_del_if(ucache *cache, const void *key, size_t keylen, const void *expected, size_t expectedlen);

/*
 * Adds to a number, in one step for all processes. A value is a number if it has 8 bytes: an int64_t. A key that is
 * not there starts from math_initial and gets the ttl; one that is keeps its own. Numbers wrap.
 */
int ucache_incr(ucache *cache, const void *key, size_t keylen, int64_t delta, uint64_t ttl, int64_t *result);

/* Gives a key another ttl, counted from now; the value stays. */
int ucache_touch(ucache *cache, const void *key, size_t keylen, uint64_t ttl);

/*
 * Called for a key, with the length of its value and when it expires (a Unix time, 0 = never). The key is readable
 * until it returns. 0 = go on, anything else ends the walk. It may call what it likes, also on the same cache, but has
 * to return, or end its thread (pthread_exit, a cancellation): no exception, no longjmp.
 */
typedef int (*ucache_key_fn)(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires);

/*
 * Calls each for every key that begins with the prefix (NULL, 0 = all). A key that is there all the time comes exactly
 * once; others may write meanwhile, no lock is held.
 */
int ucache_keys(ucache *cache, const void *prefix, size_t prefixlen, ucache_key_fn each, void *context);

/*
 * Computes a value: writes it to the buffer (size bytes) and its length to *len, and returns 0; anything else = there
 * is none. Has to return, as ucache_key_fn. If its thread ends in there instead, by pthread_exit or because it was cancelled,
 * there is no value, and one of those who wait computes it.
 */
typedef int (*ucache_fill_fn)(void *context, void *buffer, size_t size, size_t *len);

/*
 * Reads a value as ucache_get does; where there is none, fill computes it in the buffer, and it is stored. Of all
 * callers in all processes one computes, the others wait for its value: 30 seconds at most, then they compute, too, and
 * sooner if it died or gave up. UCACHE_OK also if the value could not be stored (full, too long): the caller has it.
 * UCACHE_STOPPED if there is none. A fill that asks for its own key gets UCACHE_E_DEADLOCK.
 */
int ucache_get_or_set(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len,
	uint64_t ttl, ucache_fill_fn fill, void *context);

/* Removes everything, in one step for all readers. */
int ucache_clear(ucache *cache);

/* Gives the memory of expired items back. Never needed for expiry itself. */
int ucache_sweep(ucache *cache);

/* Writes the store to disk (fsync) before it returns. What was stored before is there after a power failure. */
int ucache_sync(ucache *cache);

/* One moment's figures. Fields may be added at the end, none goes or moves. */
struct ucache_stats {
	uint64_t items;			/* stored, expired ones that nobody swept included */
	uint64_t capacity;		/* items that fit */
	uint64_t bytes;			/* of the 64 KiB spans that entries occupy */
	uint64_t reserved_bytes;	/* of addresses */
	uint64_t blocks_used;		/* with bitmap=1 */
	uint64_t max_key;		/* bytes */
	uint64_t max_value;		/* bytes */
	uint64_t shards;		/* independent locks of writers */
	uint64_t last_modified;		/* with lastmod=1: Unix time */
	/* since the cache was made: */
	uint64_t hits;
	uint64_t misses;
	uint64_t stored;
	uint64_t deleted;
	uint64_t evicted;
	uint64_t expired;		/* and reclaimed */
	uint64_t cleared;		/* calls of clear */
	uint64_t full;			/* a store found the cache full */
	uint64_t rejected_limit;	/* stores refused: too long, empty, not a number */
	uint64_t rejected_full;		/* stores refused: no room */
	uint64_t rejected_blocks;	/* of these for want of blocks */
	uint64_t no_space;		/* of these for want of memory or disk */
	uint64_t lock_waits;		/* a writer found a lock taken */
	uint64_t timeouts;		/* and gave up after lock_timeout */
	uint64_t owner_dead;		/* locks found with a dead owner */
	uint64_t repaired;		/* shards rebuilt */
	uint64_t dropped_corrupt;	/* damaged items dropped */
	uint64_t lock_lost;		/* given up: the kernel did not pass on a dead owner's lock */
};

/*
 * size is sizeof (struct ucache_stats): a library that is older or newer than the program fills in what both know; what
 * only the program knows is 0.
 */
int ucache_stat(ucache *cache, struct ucache_stats *out, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* UCACHE_H */
