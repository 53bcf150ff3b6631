/* nodes=: each local change is told to the peers once, with what they need to apply it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "check.h"

static int peer;

/* The next packet: modifier1 111, its length, modifier2, then pairs of 16-bit length and bytes. */
static int packet(unsigned char *to, size_t size, int modifier2)
{
	ssize_t n = recv(peer, to, size, 0);

	CHECK(n >= 4 && to[0] == 111 && to[3] == modifier2);
	CHECK(to[1] + 256 * to[2] <= n - 4);
	return (int) n - 4;
}

static void told_set(const char *key, const void *value, size_t len, uint64_t expires)
{
	unsigned char p[2000], *at = p + 4;
	size_t keylen = strlen(key);

	CHECK(packet(p, sizeof(p), 10) >= (int) (keylen + len + 4));
	CHECK(at[0] == keylen && at[1] == 0 && !memcmp(at + 2, key, keylen));
	at += 2 + keylen;
	CHECK(at[0] == len && at[1] == 0 && !memcmp(at + 2, value, len));
	at += 2 + len;
	/* The expiry follows as a decimal Unix time, or not at all. */
	if (expires) {
		at[2 + at[0]] = 0;
		CHECK(strtoull((char *) at + 2, NULL, 10) >= expires);
	}
}

static void told_del(const char *key)
{
	unsigned char p[2000];
	size_t keylen = strlen(key);

	CHECK(packet(p, sizeof(p), 11) >= (int) keylen + 2);
	CHECK(p[4] == keylen && p[5] == 0 && !memcmp(p + 6, key, keylen));
}

static void nothing_told(void)
{
	unsigned char p[2000];

	CHECK(recv(peer, p, sizeof(p), MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

static int fill(void *context, void *buffer, size_t size, size_t *len)
{
	(void) context;
	CHECK(size >= 4);
	memcpy(buffer, "made", 4);
	*len = 4;
	return 0;
}

/* A handle to the cache tells its nodes, too. */
static void short_interface(void)
{
	ucache *handle;
	int64_t seven = 7;
	uint64_t soon = (uint64_t) time(NULL) + 90;
	char buffer[10];
	size_t len;

	CHECK(ucache_named(&handle, "n") == UCACHE_OK);
	CHECK(ucache_set(handle, "s", 1, "one", 3, 100) == UCACHE_OK);
	told_set("s", "one", 3, soon);
	CHECK(ucache_add(handle, "s", 1, "two", 3, 100) == UCACHE_EXISTS);
	nothing_told();
	CHECK(ucache_set(handle, "s", 1, "two", 3, UCACHE_KEEP_TTL) == UCACHE_OK);
	told_set("s", "two", 3, soon);
	CHECK(ucache_replace(handle, "none", 4, "two", 3, 100) == UCACHE_NOT_FOUND);
	CHECK(ucache_append(handle, "none", 4, "two", 3, NULL) == UCACHE_NOT_FOUND);
	nothing_told();
	CHECK(ucache_append(handle, "s", 1, "!", 1, NULL) == UCACHE_OK);
	told_set("s", "two!", 4, soon);
	CHECK(ucache_replace(handle, "s", 1, "two", 3, 100) == UCACHE_OK);
	told_set("s", "two", 3, soon);
	CHECK(ucache_cas(handle, "s", 1, "one", 3, "six", 3, UCACHE_NEVER) == UCACHE_CHANGED);
	nothing_told();
	CHECK(ucache_cas(handle, "s", 1, "two", 3, "six", 3, UCACHE_NEVER) == UCACHE_OK);
	told_set("s", "six", 3, 0);
	CHECK(ucache_touch(handle, "s", 1, 100) == UCACHE_OK);
	told_set("s", "six", 3, soon);
	CHECK(ucache_take(handle, "s", 1, buffer, sizeof(buffer), &len) == UCACHE_OK);
	told_del("s");
	CHECK(ucache_incr(handle, "i", 1, 7, 0, NULL) == UCACHE_OK);
	told_set("i", &seven, 8, 0);
	CHECK(ucache_del_if(handle, "i", 1, &seven, 8) == UCACHE_OK);
	told_del("i");
	CHECK(ucache_get_or_set(handle, "g", 1, buffer, sizeof(buffer), &len, 100, fill, NULL) == UCACHE_OK);
	told_set("g", "made", 4, soon);
	CHECK(ucache_del(handle, "g", 1) == UCACHE_OK);
	told_del("g");
	CHECK(ucache_del(handle, "g", 1) == UCACHE_NOT_FOUND);
	nothing_told();
	ucache_close(handle);
}

int main(void)
{
	struct sockaddr_in address;
	socklen_t size = sizeof(address);
	struct timeval patience = { 20, 0 };
	struct uwsgi_cache *uc;
	char definition[200];
	int64_t five = 5, ten = 10;
	uint64_t inc = UWSGI_CACHE_FLAG_MATH | UWSGI_CACHE_FLAG_INC | UWSGI_CACHE_FLAG_UPDATE;

	memset(&address, 0, sizeof(address));
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	peer = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(peer >= 0 && bind(peer, (struct sockaddr *) &address, sizeof(address)) == 0);
	CHECK(getsockname(peer, (struct sockaddr *) &address, &size) == 0);
	CHECK(setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	snprintf(definition, sizeof(definition), "name=n,items=10,nodes=127.0.0.1:%d", ntohs(address.sin_port));
	uc = uwsgi_cache_create(definition);
	CHECK(uc && uc->nodes);

	CHECK(uwsgi_cache_magic_set(S("key"), S("value"), 0, 0, "n") == 0);
	told_set("key", "value", 5, 0);
	CHECK(uwsgi_cache_magic_set(S("key"), S("again"), 0, 0, "n") == -1);
	CHECK(uwsgi_cache_set2(uc, S("key"), S("local"), 0, UWSGI_CACHE_FLAG_UPDATE | UWSGI_CACHE_FLAG_LOCAL) == 0);
	nothing_told();
	CHECK(uwsgi_cache_set2(uc, S("key"), S("v"), 100, UWSGI_CACHE_FLAG_UPDATE) == 0);
	told_set("key", "v", 1, (uint64_t) time(NULL) + 90);
	/* A peer is told the result of arithmetic, not the operand. */
	CHECK(uwsgi_cache_magic_set(S("n"), (char *) &five, 8, 0, inc, "n") == 0);
	told_set("n", &five, 8, 0);
	CHECK(uwsgi_cache_magic_set(S("n"), (char *) &five, 8, 0, inc, "n") == 0);
	told_set("n", &ten, 8, 0);
	CHECK(uwsgi_cache_magic_del(S("none"), "n") == -1);
	nothing_told();
	CHECK(uwsgi_cache_del2(uc, S("n"), 0, 0) == 0);
	told_del("n");
	/* Removed by number: the peer needs the key. */
	CHECK(uwsgi_cache_del2(uc, NULL, 0, uwsgi_cache_exists2(uc, S("key")), 0) == 0);
	told_del("key");
	CHECK(uwsgi_cache_set2(uc, S("l"), S("v"), 0, UWSGI_CACHE_FLAG_LOCAL) == 0);
	CHECK(uwsgi_cache_del2(uc, S("l"), 0, UWSGI_CACHE_FLAG_LOCAL) == 0);
	nothing_told();
	short_interface();
	return 0;
}
