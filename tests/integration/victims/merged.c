/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Equal pages that the kernel has merged (KSM) when the checkpoint comes, within a process and across
 * two. The host must merge: /sys/kernel/mm/ksm/run.
 */
#include "victim.h"

enum { PAGE = 4096, PAGES = 64, SIZE = PAGES * PAGE, ENOUGH = PAGES / 2, PATIENCE = 20000 };

static char *memory;

static long merged(void)
{
	char text[32];

	victim_read("/proc/self/ksm_merging_pages", text, sizeof(text));
	return strtol(text, NULL, 10);
}

static void build(void)
{
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED, "mmap");
	for (int i = 0; i < PAGES; i++)
		victim_fill(memory + i * PAGE, PAGE, 5);
	must(madvise(memory, SIZE, MADV_MERGEABLE));
	for (int waited = 0; merged() < ENOUGH; waited += 20) {
		check(waited < PATIENCE, "only %ld pages have been merged", merged());
		victim_nap(20);
	}
}

/* A page of one's own again as soon as one writes to it. */
static void verify(void)
{
	for (int i = 0; i < PAGES; i++)
		check(victim_differs(memory + i * PAGE, PAGE, 5) < 0, "page %d", i);
	victim_fill(memory + 3 * PAGE, PAGE, 6);
	for (int i = 0; i < PAGES; i++)
		check(victim_differs(memory + i * PAGE, PAGE, i == 3 ? 6 : 5) < 0,
		      "page %d after another one was written to", i);
}

static void child(void *argument)
{
	build();
	victim_arrive(argument);
	victim_wait();
	verify();
}

int main(int argc, char **argv)
{
	uint32_t *arrived;
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	pid = victim_child(child, arrived);
	build();
	victim_meet(arrived, 1);
	victim_ready();
	victim_wait();
	verify();
	victim_reap(pid);
	victim_ok();
	return 0;
}
