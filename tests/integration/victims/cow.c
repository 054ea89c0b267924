/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy on write: a parent and ten children share 64 MiB but for a few pages each. After a restart
 * they still do: the sum of their proportional shares (PSS) grows by no more than a tenth.
 */
#include "victim.h"

enum { CHILDREN = 10, SIZE = 64 << 20, PAGE = 4096, OWN = 20 };

static char *memory;
static uint32_t *arrived;

static char *own_page(int child, int page)
{
	return memory + ((long)page * 37 + child * 1009) % (SIZE / PAGE) * PAGE;
}

static void run(void *argument)
{
	int child = *(int *)argument;

	for (int i = 0; i < OWN; i++)
		victim_fill(own_page(child, i), PAGE, 1000 * child + i);
	victim_arrive(arrived);
	victim_wait();
	for (int i = 0; i < OWN; i++)
		check(victim_differs(own_page(child, i), PAGE, 1000 * child + i) < 0,
		      "child %d: own page %d", child, i);
	for (long page = 0; page < SIZE / PAGE; page++) {
		bool own = false;

		for (int i = 0; i < OWN && !own; i++)
			own = memory + page * PAGE == own_page(child, i);
		if (!own)
			check(victim_differs(memory + page * PAGE, PAGE, page) < 0,
			      "child %d: shared page %ld", child, page);
	}
	victim_arrive(arrived);
	victim_meet(arrived, 2 * CHILDREN + 1);
}

static long share_of(pid_t pid)
{
	char path[64], text[4096], *line;
	long kilobytes = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	victim_read(path, text, sizeof(text));
	line = strstr(text, "\nPss:");
	check(line && sscanf(line, "\nPss: %ld", &kilobytes) == 1, "no Pss in %s", path);
	return kilobytes;
}

static long sum(const pid_t *pids)
{
	long kilobytes = share_of(getpid());

	for (int i = 0; i < CHILDREN; i++)
		kilobytes += share_of(pids[i]);
	return kilobytes;
}

int main(int argc, char **argv)
{
	int numbers[CHILDREN];
	pid_t pids[CHILDREN];
	long before, after;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED, "mmap");
	must(madvise(memory, SIZE, MADV_NOHUGEPAGE));
	for (long page = 0; page < SIZE / PAGE; page++)
		victim_fill(memory + page * PAGE, PAGE, page);
	for (int i = 0; i < CHILDREN; i++) {
		numbers[i] = i + 1;
		pids[i] = victim_child(run, &numbers[i]);
	}
	victim_meet(arrived, CHILDREN);
	before = sum(pids);
	victim_ready();
	victim_wait();

	victim_meet(arrived, 2 * CHILDREN);
	after = sum(pids);
	check(after * 10 <= before * 11, "PSS was %ld KiB, is %ld KiB", before, after);
	for (long page = 0; page < SIZE / PAGE; page++)
		check(victim_differs(memory + page * PAGE, PAGE, page) < 0, "page %ld", page);
	victim_arrive(arrived);
	for (int i = 0; i < CHILDREN; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
