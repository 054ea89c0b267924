/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Eventfds: counter, mode, flags, and one that a child shares. */
#include <sys/eventfd.h>

#include "victim.h"

enum { LARGE = 0x123456789 }; /* more than eventfd(2) takes */

static uint64_t take(int fd)
{
	uint64_t value = 0;

	check(read(fd, &value, sizeof(value)) == sizeof(value), "read: %s", strerror(errno));
	return value;
}

static void add(int fd, uint64_t value)
{
	check(write(fd, &value, sizeof(value)) == sizeof(value), "write: %s", strerror(errno));
}

static void check_empty(int fd)
{
	uint64_t value;

	check(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK lost");
	check(read(fd, &value, sizeof(value)) < 0 && errno == EAGAIN, "there is something to read");
}

/* The child adds to the eventfd that its parent holds too. */
static void child(void *argument)
{
	victim_wait();
	add(*(int *)argument, 5);
}

int main(int argc, char **argv)
{
	int plain, semaphore, empty, shared;
	pid_t pid;

	victim_init(argc, argv);
	plain = must(eventfd(0, EFD_CLOEXEC));
	add(plain, LARGE);
	semaphore = must(eventfd(2, EFD_SEMAPHORE));
	empty = must(eventfd(0, EFD_NONBLOCK));
	shared = must(eventfd(0, 0));
	pid = victim_child(child, &shared);
	victim_ready();
	victim_wait();
	check(fcntl(plain, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC lost");
	check(take(plain) == LARGE, "counter changed");
	check(take(semaphore) == 1 && take(semaphore) == 1, "semaphore mode lost");
	check_empty(empty);
	check(take(shared) == 5, "the child's eventfd is another one");
	victim_reap(pid);
	victim_ok();
	return 0;
}
