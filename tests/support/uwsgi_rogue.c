/* A plugin that undoes a part of the takeover by overwriting the start of one function of uWSGI, as a tool that patches
 * running programs might do. */
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void on_load(void) {
	/* Any code except a jump: the function is not called before the server stops. */
	char code[14];
	int fd = open("/proc/self/mem", O_RDWR);
	memset(code, 0x90, sizeof(code));
	if (fd < 0 || pwrite(fd, code, sizeof(code), (off_t) dlsym(RTLD_DEFAULT, "uwsgi_cache_num2")) != sizeof(code)) _exit(99);
	close(fd);
}

/* The first fields of struct uwsgi_plugin; all others are zero. */
struct {
	const char *name;
	const char *alias;
	unsigned char modifier1;
	void *data;
	void (*on_load)(void);
	char others[4096];
} rogue_plugin = { "rogue", 0, 0, 0, on_load, { 0 } };
