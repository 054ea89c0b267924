/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes a few things when it is told to, and then stays as it is: what a diff of images must find. */
#include "../victims/victim.h"

enum { PAGE = 4096, PAGES = 16 };

static char *map(int flags, uintptr_t at)
{
	void *memory = mmap((void *)at, PAGES * PAGE, PROT_READ | PROT_WRITE,
			    MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	memset(memory, 1, PAGES * PAGE / 2);
	return memory;
}

static void stay(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	char *private, *shared, *going;
	int kept, closed;
	pid_t child;

	victim_init(argc, argv);
	private = map(MAP_PRIVATE, 0x10000000);
	shared = map(MAP_SHARED, 0x20000000);
	going = map(MAP_PRIVATE, 0x30000000);
	kept = must(open("/etc/passwd", O_RDONLY));
	closed = must(open("/etc/group", O_RDONLY));
	check(kept == 3 && closed == 4, "descriptors %d, %d", kept, closed);
	child = victim_child(stay, NULL);
	victim_ready();
	victim_wait();
	private[0] = 2;
	private[3 * PAGE] = 2;
	memset(private + 5 * PAGE, 0, PAGE);
	private[15 * PAGE] = 2;
	shared[PAGE] = 2;
	munmap(going, PAGES * PAGE);
	map(MAP_PRIVATE, 0x40000000);
	lseek(kept, 7, SEEK_SET);
	close(closed);
	must(dup2(must(open("/etc", O_RDONLY)), 9));
	kill(child, SIGKILL);
	must(waitpid(child, NULL, 0));
	victim_child(stay, NULL);
	umask(0123);
	victim_ok();
	stay(NULL);
	return 0;
}
