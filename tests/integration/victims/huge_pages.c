/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Transparent huge pages: memory that had them has them afterwards, and neither does any other get
 * some, nor come back what was given back out of them. In a process and two children, one of which
 * has disabled them (PR_SET_THP_DISABLE). The host must not make any behind our back (khugepaged).
 */
#include <sys/prctl.h>

#include "victim.h"

enum { PAGE = 4096, BLOCK = 2 << 20, SIZE = 20 << 20, OFF = 3 * PAGE };

struct region {
	const char *name;
	int advice;  /* of madvise(2), or -1 */
	bool sparse; /* one page of each block is kept */
	char *memory;
	long resident, huge; /* KiB */
};

static struct region regions[] = {
	{.name = "plain", .advice = -1},
	{.name = "plain, sparse", .advice = -1, .sparse = true},
	{.name = "advised", .advice = MADV_HUGEPAGE},
	{.name = "advised, sparse", .advice = MADV_HUGEPAGE, .sparse = true},
	{.name = "never", .advice = MADV_NOHUGEPAGE},
	{.name = "never, sparse", .advice = MADV_NOHUGEPAGE, .sparse = true},
};

enum { REGIONS = sizeof(regions) / sizeof(regions[0]) };

static long field(const char *text, const char *name)
{
	const char *line = strstr(text, name);
	long kilobytes = -1;

	check(line && sscanf(line + strlen(name), ": %ld kB", &kilobytes) == 1, "no %s", name);
	return kilobytes;
}

/* What smaps says of the mapping that begins at @region. */
static void measure(const struct region *region, long *resident, long *huge)
{
	static char text[1 << 18];
	char start[32], *entry;

	victim_read("/proc/self/smaps", text, sizeof(text));
	snprintf(start, sizeof(start), "\n%lx-", (unsigned long)region->memory);
	entry = strstr(text, start);
	check(entry != NULL, "%s: no mapping begins at %p", region->name, (void *)region->memory);
	*resident = field(entry, "Rss");
	*huge = field(entry, "AnonHugePages");
}

static bool is_kept(const struct region *region, long page)
{
	return !region->sparse || page % (BLOCK / PAGE) == 77;
}

static void build(struct region *region)
{
	/* aligned for huge pages, but for its ends; the mapping around it keeps others away */
	char *room = mmap(NULL, SIZE + 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(room != MAP_FAILED, "mmap");
	region->memory = (char *)(((uintptr_t)room + BLOCK) / BLOCK * BLOCK) + OFF;
	must(mprotect(region->memory, SIZE, PROT_READ | PROT_WRITE));
	if (region->advice >= 0)
		must(madvise(region->memory, SIZE, region->advice));
	for (long page = 0; page < SIZE / PAGE; page++)
		victim_fill(region->memory + page * PAGE, PAGE, page);
	for (long page = 0; page < SIZE / PAGE; page++) {
		if (!is_kept(region, page))
			must(madvise(region->memory + page * PAGE, PAGE, MADV_DONTNEED));
	}
	measure(region, &region->resident, &region->huge);
}

static void verify(const struct region *region)
{
	long resident, huge;

	measure(region, &resident, &huge);
	check(resident == region->resident, "%s: %ld KiB are resident, not %ld", region->name,
	      resident, region->resident);
	check(huge == region->huge, "%s: %ld KiB are huge, not %ld", region->name, huge,
	      region->huge);
	for (long page = 0; page < SIZE / PAGE; page++) {
		if (is_kept(region, page))
			check(victim_differs(region->memory + page * PAGE, PAGE, page) < 0,
			      "%s: page %ld", region->name, page);
	}
}

static uint32_t *arrived;

static void build_all(bool disabled)
{
	for (int i = 0; i < REGIONS; i++) {
		build(&regions[i]);
		if (disabled || regions[i].advice == MADV_NOHUGEPAGE)
			check(regions[i].huge == 0, "%s: huge pages all the same", regions[i].name);
		else if (regions[i].advice == MADV_HUGEPAGE && !regions[i].sparse)
			check(regions[i].huge > 0, "%s: no huge pages", regions[i].name);
	}
}

static void verify_all(bool disabled)
{
	check(must(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)) == disabled, "PR_GET_THP_DISABLE");
	for (int i = 0; i < REGIONS; i++)
		verify(&regions[i]);
}

static void child(void *argument)
{
	bool disabled = *(bool *)argument;

	must(prctl(PR_SET_THP_DISABLE, disabled, 0, 0, 0));
	build_all(disabled);
	victim_arrive(arrived);
	victim_wait();
	verify_all(disabled);
}

int main(int argc, char **argv)
{
	bool disabled = true, allowed = false;
	pid_t first, second;

	victim_init(argc, argv);
	arrived = victim_shared(sizeof(*arrived));
	first = victim_child(child, &disabled);
	second = victim_child(child, &allowed);
	victim_meet(arrived, 2);
	build_all(false);
	victim_ready();
	victim_wait();
	verify_all(false);
	victim_reap(first);
	victim_reap(second);
	victim_ok();
	return 0;
}
