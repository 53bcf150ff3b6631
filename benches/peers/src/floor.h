/* The least that can be called a cache, in C: see benches/support/floor.rs. Its loops stand in `magic_get`'s place. */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define FLOOR_BUCKETS (KEYS * 10 / 35)
#define FLOOR_ENTRY 136

struct floor {
	_Alignas(64) uint64_t buckets[FLOOR_BUCKETS][8];
	unsigned char entries[KEYS][FLOOR_ENTRY];
};

static struct floor *floor_shared;

static uint64_t floor_hash(const char *key) {
	uint64_t low, high;
	memcpy(&low, key, 8);
	memcpy(&high, key + 8, 8);
	unsigned __int128 wide = (unsigned __int128) (low ^ 0x2d358dccaa6c78a5ull) * (high ^ 0x8bb84b93962eacc9ull);
	return ((uint64_t) (wide >> 64) ^ (uint64_t) wide) * 0x9e3779b97f4a7c15ull;
}

/* The slots with this tag, bit 4 n + 3 for slot n; compared all at once, without a branch for each. */
static unsigned floor_tagged(const uint64_t *line, uint64_t tag) {
#ifdef __SSE2__
	const __m128i *parts = (const __m128i *) line, want = _mm_set1_epi16((short) tag);
	__m128i low = _mm_packs_epi16(_mm_cmpeq_epi16(parts[0], want), _mm_cmpeq_epi16(parts[1], want));
	__m128i high = _mm_packs_epi16(_mm_cmpeq_epi16(parts[2], want), _mm_cmpeq_epi16(parts[3], want));
	return (_mm_movemask_epi8(low) & 0x8880u) | (_mm_movemask_epi8(high) & 0x8888u) << 16;
#else
	unsigned same = 0;
	for (int slot = 1; slot < 8; slot++) same |= (unsigned) (line[slot] >> 48 == tag) << (4 * slot + 3);
	return same;
#endif
}

static uint64_t floor_bucket(uint64_t hash) { return (hash >> 32) * FLOOR_BUCKETS >> 32; }

static uint64_t floor_tag(uint64_t hash) { return hash & 0xffff ? hash & 0xffff : 1; }

static unsigned char *floor_find(const char *key, uint64_t hash) {
	uint64_t bucket = floor_bucket(hash), tag = floor_tag(hash);
	for (;; bucket = (bucket + 1) % FLOOR_BUCKETS) {
		uint64_t *line = floor_shared->buckets[bucket];
		for (unsigned same = floor_tagged(line, tag); same; same &= same - 1) {
			unsigned char *entry = floor_shared->entries[line[__builtin_ctz(same) / 4] & 0xffffffffffffull];
			if (!memcmp(entry + 16, key, 16)) return entry;
		}
		/* what did not fit went on to the next bucket */
		if (!line[7]) return NULL;
	}
}

static void floor_add(uint64_t n, const char *key, const char *value) {
	uint64_t hash = floor_hash(key), bucket = floor_bucket(hash), slot = 1;
	memcpy(floor_shared->entries[n] + 16, key, 16);
	memcpy(floor_shared->entries[n] + 32, value, VALUE);
	for (; floor_shared->buckets[bucket][slot]; slot = slot % 7 + 1)
		if (slot == 7) bucket = (bucket + 1) % FLOOR_BUCKETS;
	floor_shared->buckets[bucket][slot] = floor_tag(hash) << 48 | n;
}

/* A copy that the caller frees, checked by the bucket's version as a reader must. Calls, as those of `magic_get` are. */
static __attribute__((noinline)) char *floor_get(const char *key, uint64_t *length) {
	uint64_t hash = floor_hash(key);
	_Atomic uint64_t *version = (_Atomic uint64_t *) floor_shared->buckets[floor_bucket(hash)];
	uint64_t before = atomic_load_explicit(version, memory_order_acquire);
	unsigned char *entry = floor_find(key, hash);
	if (!entry) return NULL;
	char *copy = malloc(VALUE + 1);
	if (!copy) return NULL;
	memcpy(copy, entry + 32, VALUE);
	copy[VALUE] = 0;
	*length = VALUE;
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(version, memory_order_relaxed) == before) return copy;
	free(copy);
	return NULL;
}

static __attribute__((noinline)) int floor_exists(const char *key) {
	return floor_find(key, floor_hash(key)) != NULL;
}
