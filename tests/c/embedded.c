/* A program that uses a library which has ucache inside, and ucache itself: they do not see each other. */
#include "check.h"

int embed_answer(void);

int main(void)
{
	CHECK(uwsgi_cache_create("name=inside,items=10") && uwsgi_cache_magic_set("n", 1, "x", 1, 0, 0, "inside") == 0);
	CHECK(embed_answer() == 42 && get_is("inside", "n", 1, "x", 1));
	return 0;
}
