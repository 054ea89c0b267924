/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nearly as many mappings as the system allows a process. */
#include "victim.h"

enum { PAGE = 4096, MAPPINGS = 65000, FILLED = 500 };

static char *memory;

/* Every second page is read-only, so that each is a mapping of its own. */
static void build(void)
{
	memory = mmap(NULL, (long)MAPPINGS * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(memory != MAP_FAILED, "mmap");
	for (long i = 0; i < MAPPINGS; i += MAPPINGS / FILLED)
		victim_fill(memory + i * PAGE, PAGE, i);
	for (long i = 0; i < MAPPINGS; i += 2)
		must(mprotect(memory + i * PAGE, PAGE, PROT_READ));
}

static long count(void)
{
	static char text[8 << 20];
	long lines = 0;

	victim_read("/proc/self/maps", text, sizeof(text));
	for (char *at = text; (at = strchr(at, '\n')); at++)
		lines++;
	return lines;
}

int main(int argc, char **argv)
{
	long before;

	victim_init(argc, argv);
	build();
	count();
	before = count();
	check(before >= MAPPINGS, "only %ld mappings", before);
	victim_ready();
	victim_wait();
	check(count() == before, "there were %ld mappings, there are %ld", before, count());
	for (long i = 0; i < MAPPINGS; i += MAPPINGS / FILLED)
		check(victim_differs(memory + i * PAGE, PAGE, i) < 0, "page %ld", i);
	memory[PAGE] = 1;
	must(mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
	victim_ok();
	return 0;
}
