/*
 * ucache.h - the C interface of libucache: a crash-safe cache in shared memory.
 *
 * Link with -lucache. uWSGI is not needed: the functions have the names and the binary interface of
 * uWSGI's uwsgi.h, so code written for one works with the other. To link statically, use
 *
 *	libucache.a -lgcc_s -lutil -lrt -lpthread -lm -ldl
 *
 * or, in a program without any shared library (-static), with
 *
 *	libucache.a -lgcc_eh -lutil -lrt -lpthread -lm -ldl
 *
 * If you link libucache.a into a shared library of your own, add -Wl,--exclude-libs,libucache.a;
 * otherwise that library exports all symbols of libucache.a.
 *
 * To use uwsgi.h in the same file, include uwsgi.h first. ucache.h then declares only what uwsgi.h
 * does not.
 *
 *
 * TERMS
 *
 * key, value   Any bytes, with their number. NULL or a length of 0 makes the call fail. A key has 1
 *              to keysize bytes (65535 at most), a value 1 to blocksize bytes (blocksize * blocks
 *              with bitmap=1).
 * cache name   A C string. NULL and "" mean the first cache that was created. The magic functions
 *              also accept "name@host:port" and "name@/path/of/a.socket": a cache of another
 *              server. An unknown name makes the call fail.
 * cache        A struct uwsgi_cache from this library. NULL, or any other struct, makes the call
 *              fail.
 * out          A pointer for a result, or NULL to ignore it. Written only if the call succeeds.
 * expires      0 = never. Otherwise seconds from now, where (uint64_t) -1 means at once, or with
 *              UWSGI_CACHE_FLAG_ABSEXPIRE a Unix time. A time that has passed means at once. From
 *              the second of its expiry on, an item is a miss.
 *
 * THREADS AND PROCESSES
 *
 * Every function may be called from any thread, and from any process forked after the cache was
 * created: all of them share it. A cache with store=FILE is also shared by unrelated processes that
 * open the same file. A process may be killed at any moment: the others continue, and find every
 * item whole. A child created by a bare clone() or fork system call, or in another PID or time
 * namespace, can only read: its locks would not be released at its death.
 *
 * Reads take no lock. A write waits for other live writers, up to lock_timeout (1000 ms unless the
 * cache's definition says otherwise), and then fails. Do not call these functions from signal
 * handlers: they may call malloc.
 *
 * Threads may be cancelled (pthread_cancel, with the default deferred type). No function here is a
 * cancellation point, however long it waits: a cancelled thread continues to the program's next
 * one. cache_udp_server_loop, which does not return, cannot be cancelled. Callbacks of the program
 * run with the caller's cancellation state; see ucache_fill_fn.
 *
 * TWO TIERS
 *
 * The magic functions (uwsgi_cache_magic_*) find the cache by its name, and return values in malloc
 * memory owned by the caller. The raw functions (those with a struct uwsgi_cache argument) return
 * pointers to a copy owned by the calling thread; it is valid until the thread's next raw call that
 * returns a value, or until the thread unlocks. They are safe without a lock; the lock only makes
 * several calls atomic (see ucache_wlock).
 *
 * ERRORS
 *
 * No function ends the process, as long as the system has memory for a few hundred bytes. None
 * reports errors through errno, whose value may change. Reasons for refusals are written to stderr
 * (in a uWSGI server: to its log), at most one line of each kind per cache and minute.
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

/* uwsgi.h has no include guard; this macro shows that it was included. */
#ifndef UWSGI_CACHE_FLAG_UNGETTABLE

/* Flags of uwsgi_cache_set2, uwsgi_cache_magic_set (all) and uwsgi_cache_del2 (LOCAL). */
#define UWSGI_CACHE_FLAG_UNGETTABLE	(1 << 0)	/* stored, counted and listed, but reads miss it */
#define UWSGI_CACHE_FLAG_UPDATE		(1 << 1)	/* replaces an existing key; without it that fails */
#define UWSGI_CACHE_FLAG_LOCAL		(1 << 2)	/* is not sent to the UDP nodes */
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

/* A growing buffer. The struct and buf are allocated by malloc: free both. */
struct uwsgi_buffer {
	char *buf;
	size_t pos;		/* bytes in use */
	size_t len;		/* bytes allocated */
	size_t limit;		/* bytes allowed, 0 = any */
};

/* A lock. Its fields are private to its owner. */
struct uwsgi_lock_item {
	char *id;
	void *lock_ptr;
	int rw;
	pid_t pid;
	int can_deadlock;
	struct uwsgi_lock_item *next;
};

/* A copy of an item, returned by uwsgi_cache_keys. */
struct uwsgi_cache_item {
	uint64_t flags;		/* UWSGI_CACHE_FLAG_UNGETTABLE or 0 */
	uint64_t keysize;	/* bytes of the key */
	uint64_t hash;
	uint64_t valsize;	/* bytes of the value */
	uint64_t first_block;	/* the item's id, for uwsgi_cache_del2 */
	uint64_t expires;	/* Unix time, 0 = never */
	uint64_t hits;		/* 0 */
	uint64_t prev;		/* 0 */
	uint64_t next;		/* 0 */
	uint64_t lru_prev;	/* 0 */
	uint64_t lru_next;	/* 0 */
	__extension__ char UCACHE_BYTES;	/* keysize bytes, no NUL */
} __attribute__ ((__packed__));

/*
 * A cache. The library owns it; it lives as long as the process. It is read-only. Fields whose
 * comment starts with * are refreshed by uwsgi_cache_fix and by the sweeper.
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

	uint64_t max_items;	/* as defined: one more than the capacity (unless it is 1) */
	uint64_t max_item_size;	/* longest value, bytes */
	uint64_t n_items;	/* * items stored */
	struct uwsgi_cache_item *items;

	uint8_t use_last_modified;
	time_t last_modified_at;	/* * with lastmod=1: Unix time of the last change */

	void *data;

	uint8_t no_expire;
	uint64_t full;		/* * number of times the cache was found full */
	uint64_t hits;		/* * reads that found their key */
	uint64_t miss;		/* * reads that missed */

	char *store;		/* path, or NULL */
	uint64_t filesize;
	uint64_t store_sync;	/* seconds */

	int64_t math_initial;

	struct uwsgi_string_list *nodes;
	int udp_node_socket;
	struct uwsgi_string_list *sync_nodes;
	struct uwsgi_string_list *udp_servers;

	struct uwsgi_lock_item *lock;

	struct uwsgi_cache *next;	/* the cache created after this one, or NULL */

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

/*
 * The parts of a request or answer of the cache protocol (modifier 111, 17). They point into the
 * packet.
 */
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

/* ---- Creating and finding caches ------------------------------------------------------------- */

/*
 * Creates a cache.
 *
 * definition: "name=NAME,items=N", optionally followed by any of these, separated by commas:
 *   keysize=BYTES (2048)    blocksize=BYTES (65536)   blocks=N (items)     bitmap=1
 *   store=FILE              store_sync=SECONDS        store_delete=1       store_guard=1
 *   sweep_on_full=SECONDS   clear_on_full=1           no_expire=1          ignore_full=1
 *   lock_timeout=MS (1000)  purge_lru=1               math_initial=N       lastmod=1
 *   nodes=HOST:PORT;...     udp=HOST:PORT;...         sync=HOST:PORT;...   udp_clear=1
 *   evict=lru|s3fifo|sieve|none                       hugepages=1          store_fs=trust
 * A number may have a unit, in upper or lower case: BYTES k, m or g (also kb or kib, ...; k is
 * 1024), N k, m or g (k is 1000), SECONDS s, m, h or d, MS ms or s.
 *
 * A cache with items=N holds N-1 items, as in uWSGI (1 holds 1). A comma inside a value is written
 * \, and a backslash \\. NULL creates a cache "default" of 1000 items; in a uWSGI server, the cache
 * of its option "cache". If the name is in use, this is logged, and the new cache can be used by its
 * pointer only.
 *
 * Returns the cache, which is never freed; NULL if it cannot be created, with the reason in the
 * log. Create caches before forking; one created later is private to its process (except with
 * store=FILE).
 */
struct uwsgi_cache *uwsgi_cache_create(const char *definition);

/*
 * Creates all configured caches: in a plain program the default cache. Only the first call has an
 * effect.
 */
void uwsgi_cache_create_all(void);

/* The cache with this name, or NULL. */
struct uwsgi_cache *uwsgi_cache_by_name(const char *name);

/* The same for a name of len bytes without a NUL; len 0 = the first cache. */
struct uwsgi_cache *uwsgi_cache_by_namelen(const char *name, uint16_t len);

/* Refreshes the statistics in the struct. */
void uwsgi_cache_fix(struct uwsgi_cache *cache);

/* ---- The magic tier: by name, without locking ------------------------------------------------ */

/*
 * Reads a value into malloc memory, which the caller frees. A NUL, not counted in vallen, follows
 * the value. NULL = not stored, or expired; vallen and expires (a Unix time, 0 = never) are then
 * unchanged.
 */
char *uwsgi_cache_magic_get(const char *key, uint16_t keylen, uint64_t *vallen, uint64_t *expires,
	const char *cache_name);

/*
 * Stores a copy of the value: 0. -1 = the key exists (without the UPDATE flag), the length of key
 * or value is not allowed, the cache is full, or a lock was not released in time.
 *
 * With MATH and one of INC, DEC, MUL, DIV the value is an int64_t operand: the stored number is
 * changed atomically. A missing key starts from math_initial; an existing one needs the UPDATE
 * flag. Numbers wrap. A stored value that is not 8 bytes long is not changed: -1.
 */
int uwsgi_cache_magic_set(const char *key, uint16_t keylen, const char *value, uint64_t vallen, uint64_t expires,
	uint64_t flags, const char *cache_name);

/* Removes a key: 0; -1 = it was not stored. */
int uwsgi_cache_magic_del(const char *key, uint16_t keylen, const char *cache_name);

/* Whether a key is stored: 1 or 0. Counts neither as a hit or miss nor as a use. */
int uwsgi_cache_magic_exists(const char *key, uint16_t keylen, const char *cache_name);

/* Removes everything, atomically for all readers: 0; -1 = no such cache. */
int uwsgi_cache_magic_clear(const char *cache_name);

/* ---- The raw tier: by pointer ---------------------------------------------------------------- */

/*
 * Read a value: return a pointer to the thread's copy (8-aligned, followed by a NUL); NULL = not
 * stored. All count a hit or a miss.
 *   get2   the value
 *   get3   also its expiry, a Unix time, 0 = never
 *   get4   also how often get4 has read this item before, exact across processes; not a use for
 *          LRU. It takes a lock briefly; if a live writer holds it for lock_timeout, it reads
 *          without counting
 *   num2   the number itself, 0 if it is not stored or not 8 bytes long; not a use for LRU
 */
char *uwsgi_cache_get2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen);
char *uwsgi_cache_get3(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen,
	uint64_t *expires);
char *uwsgi_cache_get4(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t *vallen,
	uint64_t *hits);
int64_t uwsgi_cache_num2(struct uwsgi_cache *cache, const char *key, uint16_t keylen);

/*
 * The id of the key's item, 0 = not stored. It does not change until the key is removed, and may be
 * greater than the number of items.
 */
uint32_t uwsgi_cache_exists2(struct uwsgi_cache *cache, const char *key, uint16_t keylen);

/* Like uwsgi_cache_magic_set. */
int uwsgi_cache_set2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, const char *value,
	uint64_t vallen, uint64_t expires, uint64_t flags);

/*
 * Removes the item with id index, or the key if index is 0: 0; -1 = the key is not stored, or the
 * id is out of range. (An id in range without an item returns 0, as in uWSGI.)
 */
int uwsgi_cache_del2(struct uwsgi_cache *cache, const char *key, uint16_t keylen, uint64_t index,
	uint16_t flags);

/*
 * Walks all items: start with position = 0 and item = NULL, continue until it returns NULL.
 *
 *	uint64_t position = 0;
 *	struct uwsgi_cache_item *item = NULL;
 *	while ((item = uwsgi_cache_keys(cache, &position, &item)))
 *		fwrite(uwsgi_cache_item_key(item), 1, item->keysize, stdout);
 *
 * The item is a copy owned by the thread: valid until its next step of this walk, or until it
 * unlocks. Items stored throughout the walk are returned exactly once; the cache may change
 * meanwhile. A thread may have up to 4 walks at a time; unlocking ends them.
 */
struct uwsgi_cache_item *uwsgi_cache_keys(struct uwsgi_cache *cache, uint64_t *position,
	struct uwsgi_cache_item **item);

/* The item's key, keysize bytes; valid as long as the item. */
char *uwsgi_cache_item_key(struct uwsgi_cache_item *item);

/*
 * Read lock and unlock, kept for compatibility: they nest, never block, and block no one. rwunlock
 * ends the thread's last lock of this cache (by rlock or ucache_wlock), and invalidates its copies.
 */
void uwsgi_cache_rlock(struct uwsgi_cache *cache);
void uwsgi_cache_rwunlock(struct uwsgi_cache *cache);

/* ---- Maintenance ----------------------------------------------------------------------------- */

/*
 * Starts a thread (with all signals blocked) that every 3 seconds frees the memory of expired items
 * in all caches of uwsgi_cache_create, and writes the stores that are due by their store_sync.
 * Expiry does not depend on it. One call per process is enough, even before the first cache;
 * further calls do nothing. A child of fork has no such thread until it starts one.
 */
void uwsgi_cache_start_sweepers(void);

/*
 * Writes the stores of all caches to disk before it returns. (In a uWSGI server: starts writing
 * those that are due.)
 */
void uwsgi_cache_sync_all(void);

/* Starts a thread for each cache with udp=, which applies changes from other nodes. */
void uwsgi_cache_start_sync_servers(void);

/*
 * The body of such a thread; arg is the cache. Returns only if its socket fails, and cannot be
 * cancelled.
 */
void *cache_udp_server_loop(void *arg);

/*
 * Copies the content of the first server in the cache's sync= list that answers. Called by
 * uwsgi_cache_create.
 */
void uwsgi_cache_sync_from_nodes(struct uwsgi_cache *cache);

/*
 * Callback for a parser of the cache protocol: stores one pair in context (struct
 * uwsgi_cache_magic_context).
 */
void uwsgi_cache_magic_context_hook(char *key, uint16_t keylen, char *value, uint16_t vallen, void *context);

/* Resolves the addresses of the cache's nodes= list. Called by uwsgi_cache_create. */
void uwsgi_cache_setup_nodes(struct uwsgi_cache *cache);

#endif /* not after uwsgi.h */

/* ---- Not in uwsgi.h -------------------------------------------------------------------------- */

/* Only refreshes the statistics in the struct: uwsgi_cache_create does everything needed. */
void uwsgi_cache_init(struct uwsgi_cache *cache);

/*
 * Build requests of the cache protocol, with their 4-byte header and without the value. The caller
 * frees buf and the struct with free(). NULL = a name or key is too long, or no memory. A NULL
 * cache name is omitted.
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
 * Locks the cache for writing: until uwsgi_cache_rwunlock no other thread or process changes it, so
 * that reading and storing are atomic. Readers are not blocked. Nests.
 *
 * 0; -1 = a live process held the lock for longer than lock_timeout. Unlock even then.
 */
int ucache_wlock(struct uwsgi_cache *cache);

/* The library's version, "major.minor.patch"; never freed. */
const char *ucache_version(void);

/* ---- The handle API -----------------------------------------------------------------------------
 *
 * For programs without uWSGI: an opaque handle, lengths of type size_t, values in the caller's
 * buffers, and a status from every call. A cache is in memory, for the process that opened it and
 * its children, or in a file (store=), for any process that opens or attaches to the same file.
 *
 *	ucache *cache;
 *	char value[100];
 *	size_t len;
 *	int status = ucache_open(&cache, "name=pages,items=1000,store=/run/app/pages");
 *	if (status) errx(1, "%s", ucache_error());
 *	status = ucache_get(cache, "index", 5, value, sizeof value, &len);
 *
 * STATUSES     0 = done. Above 0 = a result that is not an error (the key is not stored, ...).
 *              Below 0 = an error. The numbers are stable; new ones may be added. errno is not
 *              meaningful.
 * key, value   Any bytes, including NUL. Empty ones, and those above the cache's limits, return
 *              UCACHE_E_KEY or UCACHE_E_VALUE (a key that is stored since keysize was greater can be
 *              read and removed). The library only keeps copies. Keys and values may overlap each
 *              other and results: their content at the time of the call counts.
 * lengths      Of values, expected values, prefixes and buffers: a length over SSIZE_MAX, such as
 *              the -1 of a failed read(), returns UCACHE_E_ARGUMENT. A prefix longer than any key
 *              matches no key.
 * ttl          Seconds from now; UCACHE_MILLIS(n), milliseconds from now; UCACHE_NEVER, which is 0;
 *              or, where stated, UCACHE_KEEP_TTL. An item expires with the clock's second, or
 *              millisecond: never later than asked for, and less than one second, or millisecond,
 *              earlier. UCACHE_MILLIS(0) expires at once. (Zero means never in uwsgi_cache_* and in
 *              the command `ucache`, too. In the Rust crate a Duration of zero expires at once.)
 * out, len, result, expires
 *              Pointers for results. NULL to ignore the result, except for the cache of open,
 *              attach and named. Written only with UCACHE_OK, except for the length with
 *              UCACHE_TOO_SMALL. They must not point into the buffer.
 * NULL         Where not allowed: UCACHE_E_ARGUMENT. (ucache_close(NULL) does nothing.)
 *
 * A handle may be used by all threads at the same time, and by processes forked afterwards, each of
 * which closes its own. Closing a handle that is in use or closed is an error of the caller, as
 * with free(). Do not use the API in signal handlers.
 */
typedef struct ucache ucache;

typedef enum ucache_status {
	UCACHE_OK = 0,
	UCACHE_NOT_FOUND = 1,		/* no such key, or it has expired */
	UCACHE_EXISTS = 2,		/* ucache_add: the key exists, nothing was stored */
	UCACHE_CHANGED = 3,		/* ucache_cas, ucache_del_if: the value differs or is missing */
	UCACHE_TOO_SMALL = 4,		/* the value is longer than the buffer; *len is its length */
	UCACHE_STOPPED = 5,		/* a callback ended the call */
	UCACHE_LEASE = 6,		/* ucache_lease_begin: this caller computes the value */
	UCACHE_BUSY = 7,		/* ucache_lease_begin: another caller is still computing it */
	UCACHE_E_ARGUMENT = -1,		/* NULL, or out of range */
	UCACHE_E_OPTION = -2,		/* invalid definition */
	UCACHE_E_NAME = -3,		/* no cache with this name in this process */
	UCACHE_E_KEY = -4,		/* empty, or too long */
	UCACHE_E_VALUE = -5,		/* empty, or too long */
	UCACHE_E_NUMBER = -6,		/* the value is not a number of 8 bytes */
	UCACHE_E_FULL = -7,		/* no items or blocks left */
	UCACHE_E_SPACE = -8,		/* no memory or disk left for the entry */
	UCACHE_E_TIMEOUT = -9,		/* a live process held a lock for longer than lock_timeout */
	UCACHE_E_DEADLOCK = -10,	/* this thread is already inside the cache, or computing the key */
	UCACHE_E_STORE = -11,		/* the file cannot be used; it is unchanged */
	UCACHE_E_DAMAGED = -12,		/* beyond repair: close and reopen it */
	UCACHE_E_MEMORY = -13,
	UCACHE_E_SYSTEM = -14,		/* a system call failed */
	UCACHE_E_INTERNAL = -15,	/* internal error (a bug in libucache) */
	UCACHE_E_PROCESS = -16,		/* may not write (see THREADS AND PROCESSES) */
	UCACHE_E_BACKEND = -17		/* the server behind the cache could not be asked, or refused */
} ucache_status;

#define UCACHE_NEVER	((uint64_t) 0)		/* ttl: does not expire */
#define UCACHE_KEEP_TTL	UINT64_MAX		/* ttl: an existing item keeps its expiry */
#define UCACHE_MILLIS(n)	(((uint64_t) 1 << 63) | (uint64_t) (n))	/* ttl: milliseconds, below 2^62 */

/* Describes a status in one line of English; static, never NULL. */
const char *ucache_strerror(int status);

/*
 * The message of this thread's last call that returned an error (below 0), with the values at
 * fault; "" if there was none. Owned by the thread, until its next call that returns an error.
 */
const char *ucache_error(void);

/*
 * Creates a cache, or opens its store if that exists. The definition is that of uwsgi_cache_create
 * (items=N holds N-1); here an unknown option or one without a value is an error, and so are nodes,
 * sync, udp and store_sync (see ucache_sync). While other processes have the store open, their
 * limits stay in force. *out is the cache, or NULL; release it with ucache_close, which also marks
 * the store as closed cleanly: exit() alone does not.
 */
int ucache_open(ucache **out, const char *definition);

/* Opens an existing store with its own limits. (store_fs=trust needs a definition: ucache_open.) */
int ucache_attach(ucache **out, const char *path);

/*
 * A cache created with uwsgi_cache_create by this process or one that it was forked from; in a
 * uWSGI server, one of the server's. "" = the first one. Changes are sent to the cache's nodes=, as
 * by the functions above.
 */
int ucache_named(ucache **out, const char *name);

/*
 * The address of the server behind the cache (backend=), without user and password and without a
 * NUL, like ucache_get. UCACHE_NOT_FOUND if the values are in this machine's memory: then no
 * function here but get_or_set, lease_begin and a write that finds a lock held waits for anything.
 */
int ucache_server(ucache *cache, void *buffer, size_t size, size_t *len);

/* Ends the use of a cache. A cache in memory ends with its last user, a store stays. */
void ucache_close(ucache *cache);

/*
 * Copies a value to the front of the buffer, without a NUL. The content of the buffer behind the
 * value, and with any status except UCACHE_OK, is unspecified. A NULL buffer of size 0 only returns
 * the length.
 */
int ucache_get(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len);

/* A key for ucache_get_many, and its result. */
struct ucache_read {
	const void *key;
	size_t keylen;
	const void *value;	/* in the buffer; NULL = not stored */
	size_t vallen;		/* 0 if it is not stored */
};

/*
 * Reads count keys (which must not lie in the buffer) in their order; the values lie one behind the
 * other in the buffer. Each read is atomic, all together are not. With a backend: one round trip.
 * *done is the number of items that are answered. With UCACHE_TOO_SMALL the items from items[*done]
 * on are not: that one's vallen is the length of its value, which did not fit behind those before
 * it. Continue there with an empty buffer. With an error, *done items are answered.
 */
int ucache_get_many(ucache *cache, struct ucache_read *items, size_t count, void *buffer, size_t size, size_t *done);

/* Reads a number (see ucache_incr). UCACHE_E_NUMBER if the value is none. */
int ucache_number(ucache *cache, const void *key, size_t keylen, int64_t *result);

/*
 * The value that a number is stored as, like ucache_get: 8 bytes, or digits with a backend and
 * numbers=decimal. Storing it makes the key a number.
 */
int ucache_number_value(ucache *cache, int64_t number, void *buffer, size_t size, size_t *len);

/*
 * Copies a value like ucache_get, and removes it atomically: only one of several callers gets it. A value that does not
 * fit stays.
 */
int ucache_take(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len);

/*
 * Whether a key is stored, and its expiry (a Unix time, 0 = never). Neither a hit or miss nor a
 * use.
 */
int ucache_exists(ucache *cache, const void *key, size_t keylen, uint64_t *expires);

/* The time until a key expires: milliseconds, at least 1, or UCACHE_NEVER. Counts like ucache_exists. */
int ucache_ttl(ucache *cache, const void *key, size_t keylen, uint64_t *millis);

/* Stores a value, whether or not the key exists. With UCACHE_KEEP_TTL a new key never expires. */
int ucache_set(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, uint64_t ttl);

/* Stores a value if the key is missing, else UCACHE_EXISTS. Only one of several callers stores. */
int ucache_add(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, uint64_t ttl);

/* Stores a value if the key exists, else UCACHE_NOT_FOUND. UCACHE_KEEP_TTL is allowed. */
int ucache_replace(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, uint64_t ttl);

/*
 * Adds bytes behind, or before, the value of a key; UCACHE_NOT_FOUND if it is not stored. *len is
 * the new length, to which the limit of values applies. The expiry is kept. Adding no bytes is
 * allowed.
 */
int ucache_append(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, size_t *len);
int ucache_prepend(ucache *cache, const void *key, size_t keylen, const void *value, size_t vallen, size_t *len);

/*
 * Replaces the value if it equals the expected one, else UCACHE_CHANGED. UCACHE_KEEP_TTL is
 * allowed.
 */
int ucache_cas(ucache *cache, const void *key, size_t keylen, const void *expected, size_t expectedlen,
	const void *value, size_t vallen, uint64_t ttl);

/* Removes a key. */
int ucache_del(ucache *cache, const void *key, size_t keylen);

/* Removes a key if its value equals the expected one, else UCACHE_CHANGED. */
int ucache_del_if(ucache *cache, const void *key, size_t keylen, const void *expected, size_t expectedlen);

/*
 * Adds to a number, atomically for all processes. A number is a value of 8 bytes: an int64_t. A
 * missing key starts from math_initial and gets the ttl; an existing one keeps its own. Numbers
 * wrap.
 */
int ucache_incr(ucache *cache, const void *key, size_t keylen, int64_t delta, uint64_t ttl, int64_t *result);

/* The same with a multiplication; with a division, which truncates. Division by 0 gives 0. */
int ucache_mul(ucache *cache, const void *key, size_t keylen, int64_t factor, uint64_t ttl, int64_t *result);
int ucache_div(ucache *cache, const void *key, size_t keylen, int64_t divisor, uint64_t ttl, int64_t *result);

/* Gives a key another ttl, counted from now; the value stays. */
int ucache_touch(ucache *cache, const void *key, size_t keylen, uint64_t ttl);

/*
 * Called for a key, with the length of its value and its expiry (a Unix time, 0 = never). The key
 * is readable until the function returns. 0 = continue, anything else ends the walk. It may call
 * any function, also on the same cache, but must return or end its thread (pthread_exit, a
 * cancellation): no exception, no longjmp.
 */
typedef int (*ucache_key_fn)(void *context, const void *key, size_t keylen, size_t vallen, uint64_t expires);

/*
 * Calls each for every key that begins with the prefix (NULL, 0 = all). A key stored throughout is
 * passed exactly once; other threads may write meanwhile, since no lock is held.
 */
int ucache_keys(ucache *cache, const void *prefix, size_t prefixlen, ucache_key_fn each, void *context);

/*
 * Computes a value: writes it to the buffer (size bytes) and its length to *len, and returns 0;
 * anything else = no value. It must return, like ucache_key_fn. If its thread ends inside it, by
 * pthread_exit or a cancellation, there is no value, and one of the waiting callers computes it.
 */
typedef int (*ucache_fill_fn)(void *context, void *buffer, size_t size, size_t *len);

/*
 * Reads a value like ucache_get; on a miss, fill computes it in the buffer, and it is stored. Of
 * all callers in all processes one computes, and the others wait for its value: for 30 seconds at
 * most, after which they compute, too, and less if the computing caller dies or gives up. Returns
 * UCACHE_OK even if the value could not be stored (full, too long): the caller has it. In a full
 * cache that evicts nothing there is no room for the mark of the one, and every caller computes.
 * UCACHE_STOPPED if fill has no value, UCACHE_EXISTS if the key has an item with the flag
 * UNGETTABLE. A fill that reads its own key in this way gets UCACHE_E_DEADLOCK.
 */
int ucache_get_or_set(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len,
	uint64_t ttl, ucache_fill_fn fill, void *context);

/* The right of one caller to compute the value of a key. */
typedef struct ucache_lease ucache_lease;

/*
 * ucache_get_or_set in two calls, without a callback. Reads a value like ucache_get; on a miss,
 * *lease is the right to compute it and the status is UCACHE_LEASE. End it with ucache_lease_end or
 * ucache_lease_drop. While another caller of any process has the lease, this one waits for the
 * value, for wait milliseconds at most, then the status is UCACHE_BUSY. wait = 0 does not wait.
 *
 * A lease ends by itself after limit milliseconds, or when the thread that began it ends: then one
 * of the waiting callers gets the next. UCACHE_E_DEADLOCK if this thread has the key's lease. In a
 * full cache that evicts nothing every caller gets one.
 *
 * stale: seconds for which a value is kept after its ttl, 100 years at most (ucache_lease_end adds
 * them). During them one caller gets the lease, and all others the old value at once. The same key
 * needs the same stale each time; 0 = none.
 */
int ucache_lease_begin(ucache *cache, const void *key, size_t keylen, void *buffer, size_t size, size_t *len,
	uint64_t stale, uint64_t limit, uint64_t wait, ucache_lease **lease);

/*
 * Stores the value, wakes the waiting callers, and frees the lease whatever the status.
 * UCACHE_CHANGED if nothing was stored: the lease had ended, the key was written or removed
 * meanwhile, an old value (stale) has reached its end meanwhile, which cannot be told from its
 * removal, or this is a child forked since ucache_lease_begin. Any thread may call it.
 */
int ucache_lease_end(ucache_lease *lease, const void *value, size_t vallen, uint64_t ttl);

/* Gives the lease up, and frees it. One of the waiting callers gets the next. */
void ucache_lease_drop(ucache_lease *lease);

/* Removes everything, atomically for all readers. */
int ucache_clear(ucache *cache);

/*
 * Frees the memory of expired items, and moves what lies scattered together. Expiry itself does not
 * need it. In a store it may sync the file, and returns disk space that is not needed any more. What
 * others hold is left to the next sweep: UCACHE_E_TIMEOUT if all of it was held, for 20 ms or, if
 * that is shorter, lock_timeout.
 */
int ucache_sweep(ucache *cache);

/*
 * Writes the store to disk (fsync) before it returns. Items stored before survive a power failure.
 */
int ucache_sync(ucache *cache);

/* A snapshot of the statistics. Fields may be added at the end; none is removed or moved. */
struct ucache_stats {
	uint64_t items;			/* stored, including expired ones not swept yet */
	uint64_t capacity;		/* maximum number of items */
	uint64_t bytes;			/* of the spans that entries occupy */
	uint64_t reserved_bytes;	/* of address space */
	uint64_t blocks_used;		/* with bitmap=1 */
	uint64_t max_key;		/* bytes */
	uint64_t max_value;		/* bytes */
	uint64_t shards;		/* each has its own writer lock */
	uint64_t last_modified;		/* with lastmod=1: Unix time */
	/* since the cache was created: */
	uint64_t hits;
	uint64_t misses;
	uint64_t stored;
	uint64_t deleted;
	uint64_t evicted;
	uint64_t expired;		/* and reclaimed */
	uint64_t cleared;		/* calls of clear */
	uint64_t full;			/* a store found the cache full */
	uint64_t rejected_limit;	/* stores refused: too long, empty, not a number */
	uint64_t rejected_full;		/* stores refused: no item, block or memory left */
	uint64_t rejected_blocks;	/* of these: not enough blocks */
	uint64_t no_space;		/* of these: no memory or disk space */
	uint64_t lock_waits;		/* a writer found a lock held */
	uint64_t timeouts;		/* a writer gave up after lock_timeout */
	uint64_t owner_dead;		/* locks found with a dead owner */
	uint64_t repaired;		/* shards rebuilt */
	uint64_t dropped_corrupt;	/* damaged items dropped */
	uint64_t lock_lost;		/* given up: the kernel did not release a dead owner's lock */
	uint64_t moved;			/* entries moved to release sparse memory */
	uint64_t compacted_bytes;	/* bytes of these */
	/* of a cache with backend=, by all processes of this machine; else 0: */
	uint64_t near_up;		/* 1: the copies are kept up to date; 0: every read asks the server */
	uint64_t near_beat_age_ms;	/* since the time up to which all changes are known */
	uint64_t near_owner_pid;	/* the process that keeps the copies up to date */
	uint64_t near_hits;		/* reads that a copy answered */
	uint64_t near_misses;		/* reads that asked the server: there was no copy */
	uint64_t near_bypassed;		/* ... copies were not known to be new enough */
	uint64_t near_fills;		/* copies stored */
	uint64_t near_fills_voided;	/* copies not stored: changed meanwhile, or no place */
	uint64_t near_invalidated;	/* messages that removed a copy */
	uint64_t near_invalidated_absent;	/* messages about keys without a copy */
	uint64_t near_flushes;		/* times that the owner removed all copies */
	uint64_t near_stale_served;	/* reads that an old copy answered: the server was down */
	uint64_t near_terms;		/* how often the copies were begun anew */
	uint64_t backend_up;		/* 0: the last call did not reach the server, or a primary */
	uint64_t backend_requests;	/* round trips that were tried */
	uint64_t backend_errors;	/* calls that failed */
	uint64_t backend_timeouts;	/* of these: waited for the whole backend_timeout */
	uint64_t backend_connects;	/* connections made */
	uint64_t backend_elsewhere;	/* of these: to a server where the owner has none */
	uint64_t near_absent;		/* reads of keys that were known not to be there (negative=1) */
};

/*
 * size is sizeof (struct ucache_stats): a library older or newer than the program fills in the
 * fields that both have; fields that only the program has are 0.
 */
int ucache_stat(ucache *cache, struct ucache_stats *out, size_t size);

/*
 * What the memory of a cache is used for, bytes. Fields may be added at the end; none is removed or
 * moved. extents + large_blocks + leaving = entries + fragmentation.
 */
struct ucache_memory {
	uint64_t payload;		/* keys and values of items that can be read */
	uint64_t resident;		/* pages in memory, index and tables included; 0 = unknown */
	uint64_t overhead;		/* resident - payload */
	uint64_t fragmentation;		/* of extents and large blocks, what no entry uses */
	uint64_t disk;			/* blocks on disk; 0 = no store */
	uint64_t reserved;		/* address space */
	uint64_t entries;		/* entries with header and padding, expired ones not swept yet too */
	uint64_t extents;		/* extents: they hold the entries of up to 16 KiB */
	uint64_t large_blocks;		/* larger entries have a block each */
	uint64_t leaving;		/* extents that are being emptied, or wait for a sync */
	uint64_t idle;			/* free, with pages */
	uint64_t holes;			/* free, without blocks on disk */
	uint64_t sampled;		/* 1 = estimates from a sample, see below */
};

/*
 * size is sizeof (struct ucache_memory), as for ucache_stat. No lock is taken. Above 32 MiB of
 * extents a sample of them is taken for all: the call takes some milliseconds, and 1 ms more for
 * each 250 MB that the cache has ever used. It reads pages of a store that were not in memory.
 */
int ucache_memory(ucache *cache, struct ucache_memory *out, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* UCACHE_H */
