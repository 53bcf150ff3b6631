/* The other half of c_two_processes.c: attaches to an existing store. */
#include <stdio.h>

#include <ucache.h>

int main(int argc, char **argv)
{
	ucache *cache;
	char question[100];
	size_t len;

	if (argc != 2) {
		fprintf(stderr, "usage: %s STORE\n", argv[0]);
		return 2;
	}
	if (ucache_attach(&cache, argv[1]) < 0 ||
		ucache_get(cache, "question", 8, question, sizeof(question), &len) != UCACHE_OK) {
		fprintf(stderr, "%s\n", ucache_error());
		return 1;
	}
	printf("reader: I am asked \"%.*s\"\n", (int) len, question);
	ucache_set(cache, "answer", 6, "fine", 4, 60);
	ucache_close(cache);
	return 0;
}
