/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory whose pages are in the swap area when the checkpoint comes: private, shared with a child by
 * fork(2), shared anonymous, of a memfd. The host must have some swap space.
 */
#include "victim.h"

enum { PAGE = 4096, PAGES = 256, SIZE = PAGES * PAGE };

static char *private, *inherited, *shared, *file, *sparse;

static char *map(int flags, int fd)
{
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);

	check(memory != MAP_FAILED, "mmap");
	return memory;
}

static int swapped(const char *memory)
{
	int fd = must(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)), count = 0;
	uint64_t entries[PAGES];

	check(pread(fd, entries, sizeof(entries), (uintptr_t)memory / PAGE * 8) == sizeof(entries),
	      "pagemap");
	close(fd);
	for (int i = 0; i < PAGES; i++)
		count += entries[i] >> 62 & 1;
	return count;
}

/* The kernel may keep a few that it is busy with. */
static void page_out(void)
{
	char *const all[] = {private, inherited, shared, file, sparse};

	for (int tries = 0; swapped(private) < PAGES / 2 || swapped(inherited) < PAGES / 2;
	     tries++) {
		check(tries < 3000, "%d and %d pages are swapped out", swapped(private),
		      swapped(inherited));
		for (int i = 0; i < 5; i++)
			must(madvise(all[i], SIZE, MADV_PAGEOUT));
		victim_nap(10);
	}
}

static void child(void *argument)
{
	uint32_t *arrived = argument;

	victim_fill(inherited + 2 * PAGE, PAGE, 20);
	victim_arrive(arrived);
	victim_wait();
	check(victim_differs(inherited + PAGE, PAGE, 11) < 0, "the child's inherited page");
	check(victim_differs(inherited + 2 * PAGE, PAGE, 20) < 0, "the child's own page");
	check(victim_differs(shared + PAGE, PAGE, 31) < 0, "the child's shared page");
	check(victim_differs(private, SIZE, 1) < 0, "the child's copy");
}

/*
 * A child that finds them in the swap area: paged out before the fork, because the kernel leaves pages alone
 * that several have mapped. If somebody has emptied another swap area meanwhile, all over again.
 */
static pid_t swapped_child(uint32_t *arrived)
{
	for (int tries = 0;; tries++) {
		pid_t pid;

		page_out();
		*arrived = 0;
		pid = victim_child(child, arrived);
		victim_meet(arrived, 1);
		if (swapped(private) >= PAGES / 2)
			return pid;
		check(tries < 100, "only %d pages are swapped out", swapped(private));
		must(kill(pid, SIGKILL));
		must(waitpid(pid, NULL, 0));
	}
}

static void fill(char *memory, int seed)
{
	for (int i = 0; i < PAGES; i++)
		victim_fill(memory + i * PAGE, PAGE, seed + i);
}

static void expect(const char *memory, int seed, const char *what)
{
	for (int i = 0; i < PAGES; i++)
		check(victim_differs(memory + i * PAGE, PAGE, seed + i) < 0, "%s: page %d", what,
		      i);
}

int main(int argc, char **argv)
{
	uint32_t *arrived;
	pid_t pid;
	int fd;

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	fd = must(memfd_create("swapped", 0));
	must(ftruncate(fd, SIZE));
	private = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	inherited = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	sparse = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shared = map(MAP_SHARED | MAP_ANONYMOUS, -1);
	file = map(MAP_SHARED, fd);
	victim_fill(private, SIZE, 1);
	fill(inherited, 10);
	fill(shared, 30);
	fill(file, 300);
	for (int i = 0; i < PAGES; i += 16)
		victim_fill(sparse + i * PAGE, PAGE, i);
	pid = swapped_child(arrived);
	victim_ready();
	victim_wait();
	check(victim_differs(private, SIZE, 1) < 0, "private");
	expect(inherited, 10, "inherited");
	expect(shared, 30, "shared");
	expect(file, 300, "memfd");
	for (int i = 0; i < PAGES; i++) {
		if (i % 16 == 0)
			check(victim_differs(sparse + i * PAGE, PAGE, i) < 0, "page %d", i);
		else
			check(sparse[i * PAGE] == 0, "hole %d", i);
	}
	victim_reap(pid);
	victim_ok();
	return 0;
}
