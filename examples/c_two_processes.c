/*
 * Two programs that share only a file: this one writes, c_reader reads and answers.
 *
 *	cc -o c_two_processes c_two_processes.c $(pkg-config --cflags --libs ucache)
 *	cc -o c_reader c_reader.c $(pkg-config --cflags --libs ucache)
 *	./c_two_processes /tmp/two.ucache ./c_reader
 */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucache.h>

int main(int argc, char **argv)
{
	ucache *cache;
	char definition[4096], answer[100];
	size_t len;
	int status, ended;
	pid_t child;

	if (argc != 3) {
		fprintf(stderr, "usage: %s STORE PROGRAM\n", argv[0]);
		return 2;
	}
	/* The file is created if it is missing; its content outlives this program. */
	snprintf(definition, sizeof(definition), "name=two,items=1000,store=%s", argv[1]);
	status = ucache_open(&cache, definition);
	if (status < 0) {
		fprintf(stderr, "%s\n", ucache_error());
		return 1;
	}
	ucache_set(cache, "question", 8, "how are you?", 12, UCACHE_NEVER);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		execl(argv[2], argv[2], argv[1], (char *) NULL);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &ended, 0) < 0 || ended != 0) {
		fprintf(stderr, "%s did not end well\n", argv[2]);
		return 1;
	}
	if (ucache_take(cache, "answer", 6, answer, sizeof(answer), &len) != UCACHE_OK)
		return 1;
	printf("writer: the answer is \"%.*s\"\n", (int) len, answer);
	ucache_close(cache);
	return 0;
}
