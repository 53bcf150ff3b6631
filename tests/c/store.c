/* A store file: content that outlives the process, shared by programs that only have the path in common. */
#include "check.h"

static void definition(char *to, size_t size, const char *name, const char *path)
{
	snprintf(to, size, "name=%s,items=100,store=%s,lastmod=1", name, path);
}

static int writer(const char *path)
{
	char text[500];
	struct uwsgi_cache *uc;

	definition(text, sizeof(text), "w", path);
	uc = uwsgi_cache_create(text);
	CHECK(uc && uc->store && !strcmp(uc->store, path));
	CHECK(uwsgi_cache_magic_set(S("kept"), S("value"), 0, UWSGI_CACHE_FLAG_UPDATE, "w") == 0);
	CHECK(math("w", S("runs"), UWSGI_CACHE_FLAG_INC, 1) == 0);
	uwsgi_cache_sync_all();
	return 0;
}

/* A file that is no store is left alone, unless the definition gives it up. */
static void unusable(const char *path)
{
	static const char garbage[5000] = "not a store";
	char text[700], name[500];
	FILE *file;

	snprintf(name, sizeof(name), "%s.garbage", path);
	file = fopen(name, "w");
	CHECK(file && fwrite(garbage, sizeof(garbage), 1, file) == 1 && fclose(file) == 0);
	snprintf(text, sizeof(text), "name=g,items=100,store=%s", name);
	CHECK(!uwsgi_cache_create(text));
	snprintf(text, sizeof(text), "name=g,items=100,store=%s,store_delete=1", name);
	CHECK(uwsgi_cache_create(text) && missing("g", S("k")));
	CHECK(uwsgi_cache_magic_set(S("k"), S("v"), 0, 0, "g") == 0 && get_is("g", S("k"), S("v")));
	snprintf(text, sizeof(text), "name=d,items=100,store=/tmp,store_delete=1");
	CHECK(!uwsgi_cache_create(text));
}

/* store [write] FILE: writes and ends, or starts two writers and looks. */
int main(int argc, char **argv)
{
	char text[500];
	struct uwsgi_cache *uc;
	int round;

	CHECK(argc >= 2);
	if (argc == 3)
		return writer(argv[2]);
	for (round = 1; round <= 2; round++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			execl(argv[0], argv[0], "write", argv[1], (char *) NULL);
			_exit(127);
		}
		CHECK(exit_of(child) == 0);
	}
	definition(text, sizeof(text), "r", argv[1]);
	uc = uwsgi_cache_create(text);
	CHECK(uc && get_is("r", S("kept"), S("value")) && number("r", S("runs")) == 2);
	uwsgi_cache_fix(uc);
	CHECK(uc->n_items == 2);
	/* A third program writes while this one has the file open. */
	{
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			execl(argv[0], argv[0], "write", argv[1], (char *) NULL);
			_exit(127);
		}
		CHECK(exit_of(child) == 0 && number("r", S("runs")) == 3);
	}
	/* A second cache on the same file is the same content. */
	definition(text, sizeof(text), "again", argv[1]);
	CHECK(uwsgi_cache_create(text) && number("again", S("runs")) == 3);
	CHECK(math("again", S("runs"), UWSGI_CACHE_FLAG_INC, 1) == 0 && number("r", S("runs")) == 4);
	CHECK(uwsgi_cache_magic_clear("r") == 0 && missing("again", S("runs")));
	uwsgi_cache_sync_all();
	unusable(argv[1]);
	return 0;
}
