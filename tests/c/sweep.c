/* The sweeper: one thread a process, deaf to signals, that reclaims what expired and keeps the struct fresh. */
#include <dirent.h>

#include "check.h"

static struct uwsgi_cache *uc;

/* How many threads of this process are sweepers with all signals blocked, but KILL and STOP, which none can, and those of
 * their own faults: ILL, TRAP, BUS, FPE, SEGV. */
static int sweepers(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	int n = 0;

	CHECK(tasks);
	while ((entry = readdir(tasks))) {
		char path[300], line[200];
		int ours = 0;
		FILE *status;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		if (entry->d_name[0] == '.' || !(status = fopen(path, "r")))
			continue;
		while (fgets(line, sizeof(line), status)) {
			unsigned long long blocked;
			if (!strcmp(line, "Name:\tucache-sweeper\n"))
				ours = 1;
			/* Signals 32 and 33 belong to the C library. */
			if (ours && sscanf(line, "SigBlk: %llx", &blocked) == 1) {
				CHECK((blocked | 0x180040100ULL) == ~0x4d8ULL);
				n++;
			}
		}
		fclose(status);
	}
	closedir(tasks);
	return n;
}

/* A thread is listed a moment after it was made, under its name yet another moment later. */
static void one_sweeper(void)
{
	int patience = 200;

	while (sweepers() != 1 && --patience)
		usleep(50000);
	CHECK(sweepers() == 1);
}

/* The sweeper also writes stores whose store_sync is due; the library's calls of msync come here first. */
static int synced;

#ifdef __cplusplus
extern "C"
#endif
int msync(void *address, size_t length, int flags)
{
	(void) address, (void) length, (void) flags;
	__atomic_add_fetch(&synced, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* Started before there is anything to do. */
static void later(const char *store)
{
	char definition[300];
	int patience = 300;

	uwsgi_cache_start_sweepers();
	one_sweeper();
	snprintf(definition, sizeof(definition), "name=synced,items=10,store=%s,store_sync=1", store);
	uc = uwsgi_cache_create(definition);
	CHECK(uc && uwsgi_cache_set2(uc, S("k"), S("v"), 1, 0) == 0);
	while (__atomic_load_n(&synced, __ATOMIC_SEQ_CST) < 2 && --patience)
		usleep(100000);
	CHECK(synced >= 2);
	uwsgi_cache_fix(uc);
	CHECK(uc->n_items == 0);
}

int main(int argc, char **argv)
{
	char key[16];
	int i, patience = 300;
	pid_t child;

	CHECK(argc == 2);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		later(argv[1]);
		_exit(0);
	}
	CHECK(exit_of(child) == 0);
	CHECK(uwsgi_cache_create("name=still,items=10,no_expire=1"));
	uwsgi_cache_start_sweepers();
	one_sweeper();
	uc = uwsgi_cache_create("name=s,items=1000");
	CHECK(uc);
	for (i = 0; i < 500; i++) {
		int len = snprintf(key, sizeof(key), "%d", i);
		CHECK(uwsgi_cache_set2(uc, key, (uint16_t) len, "v", 1, i % 5 ? 1 : 0, 0) == 0);
	}
	uwsgi_cache_fix(uc);
	CHECK(uc->n_items == 500);
	uwsgi_cache_start_sweepers();
	uwsgi_cache_start_sweepers();
	one_sweeper();
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		CHECK(sweepers() == 0);
		uwsgi_cache_start_sweepers();
		one_sweeper();
		_exit(0);
	}
	CHECK(exit_of(child) == 0);
	/* No call brings this about: the thread does. */
	while (*(volatile uint64_t *) &uc->n_items != 100 && --patience)
		usleep(100000);
	CHECK(uc->n_items == 100);
	return 0;
}
