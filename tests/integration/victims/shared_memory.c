/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared anonymous memory: one object, wherever and however much of it is mapped. */
#include "victim.h"

enum { PAGE = 4096, SIZE = 2 << 20 };

struct common {
	uint32_t arrived, turn;
};

static struct common *common;
static char *memory, *half, *of_device, *private_of_device;

static char *map_zero(int flags)
{
	int fd = must(open("/dev/zero", O_RDWR | O_CLOEXEC));
	char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	check(at != MAP_FAILED, "mmap of /dev/zero");
	close(fd);
	return at;
}

static void fill(char *at, size_t size, int seed)
{
	victim_fill(at, size, seed);
}

/* Keeps one page in the middle only, and writes there. */
static void keeps_one_page(void *unused)
{
	(void)unused;
	must(munmap(memory, SIZE / 2));
	must(munmap(memory + SIZE / 2 + PAGE, SIZE / 2 - PAGE));
	victim_arrive(&common->arrived);
	victim_wait();
	victim_meet(&common->turn, 1);
	check(victim_differs(memory + SIZE / 2, PAGE, 50) < 0, "page does not follow the parent");
	fill(memory + SIZE / 2, PAGE, 51);
	victim_arrive(&common->turn);
}

/* Has it at another place, and read-only. */
static void moved(void *unused)
{
	char *place;

	(void)unused;
	place = mremap(memory, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, memory + (1L << 32));
	check(place != MAP_FAILED, "mremap");
	must(mprotect(place, SIZE, PROT_READ));
	victim_arrive(&common->arrived);
	victim_wait();
	victim_meet(&common->turn, 2);
	check(victim_differs(place + SIZE / 2, PAGE, 51) < 0, "moved mapping is another object");
	check(victim_differs(place, PAGE, 1) < 0, "contents");
}

/* What is only in the object, not in the parent's mapping any more. */
static void keeps_second_half(void *unused)
{
	(void)unused;
	victim_arrive(&common->arrived);
	victim_wait();
	check(victim_differs(half + SIZE / 2, SIZE / 2, 9) < 0, "second half");
	check(victim_differs(half, PAGE, 8) < 0, "first half");
	check(strcmp(of_device, "shared") == 0, "/dev/zero, shared");
	check(strcmp(private_of_device, "private") == 0, "/dev/zero, private");
	strcpy(of_device, "by the child");
}

int main(int argc, char **argv)
{
	pid_t pids[3];

	victim_init(argc, argv);
	common = victim_shared(PAGE);
	memory = victim_shared(SIZE);
	half = victim_shared(SIZE);
	fill(memory, PAGE, 1);
	fill(memory + SIZE - PAGE, PAGE, 2);
	fill(half, PAGE, 8);
	fill(half + SIZE / 2, SIZE / 2, 9);
	of_device = map_zero(MAP_SHARED);
	private_of_device = map_zero(MAP_PRIVATE);
	strcpy(of_device, "shared");
	strcpy(private_of_device, "private");
	pids[0] = victim_child(keeps_one_page, NULL);
	pids[1] = victim_child(moved, NULL);
	pids[2] = victim_child(keeps_second_half, NULL);
	must(munmap(half + SIZE / 2, SIZE / 2));
	victim_meet(&common->arrived, 3);
	victim_ready();
	victim_wait();

	check(victim_differs(memory, PAGE, 1) < 0, "first page");
	check(victim_differs(memory + SIZE - PAGE, PAGE, 2) < 0, "last page");
	for (int i = PAGE; i < SIZE - PAGE; i += 8)
		check(*(long *)(memory + i) == 0, "hole at %#x", i);
	fill(memory + SIZE / 2, PAGE, 50);
	victim_arrive(&common->turn);
	for (int i = 0; i < 3; i++)
		victim_reap(pids[i]);
	check(victim_differs(memory + SIZE / 2, PAGE, 51) < 0, "child's write");
	check(strcmp(of_device, "by the child") == 0, "/dev/zero is not shared any more");
	victim_ok();
	return 0;
}
