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
	CHECK(uwsgi_cache_magic_clear("r") == 0);
	uwsgi_cache_sync_all();
	return 0;
}
