/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server that forks its workers in advance: what they share copy-on-write is shared afterwards
 * too. Some pages every worker has written, some the parent has, so that the workers share an older
 * copy among themselves. One worker's parent is a child of the server that has executed a program
 * since.
 */
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

enum { PAGE = 4096, PAGES = 4096, WORKERS = 50, OWN = 8, PARENTS = 256 };

static char *memory;
static uint32_t *counter, *done; /* workers that are ready, and that have found all right */
static pid_t *grandchild;

/* Proportional set sizes of everybody, in KiB. */
static long proportional(const pid_t *pids)
{
	long sum = 0;

	for (int i = -1; i < WORKERS; i++) {
		char path[64], text[4096], *line;

		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", i < 0 ? getpid() : pids[i]);
		victim_read(path, text, sizeof(text));
		line = strstr(text, "\nPss:");
		check(line, "no Pss in %s", path);
		sum += strtol(line + 5, NULL, 10);
	}
	return sum;
}

static void check_pages(int from, int to, long seed)
{
	for (int i = from; i < to; i++)
		check(victim_differs(memory + (long)i * PAGE, PAGE, seed + i) < 0, "page %d", i);
}

static void fill_pages(int from, int to, long seed)
{
	for (int i = from; i < to; i++)
		victim_fill(memory + (long)i * PAGE, PAGE, seed + i);
}

static void worker(void *argument)
{
	long number = (long)argument;
	int first = (int)number * OWN;

	fill_pages(first, first + OWN, 1000000 * (number + 1));
	victim_arrive(counter);
	victim_wait();
	/* looked at only when the sizes have been taken */
	victim_meet(counter, WORKERS + 1);
	check_pages(first, first + OWN, 1000000 * (number + 1));
	check_pages(WORKERS * OWN, PAGES, 0);
	victim_arrive(done);
}

/* Returns who is in between. */
static pid_t start_grandchild(void *number)
{
	pid_t pid = (pid_t)must(syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0));

	if (pid)
		return pid;
	*grandchild = victim_child(worker, number);
	execl("/bin/busybox", "sleep", "1000", NULL);
	_exit(1);
}

static void end(pid_t pid)
{
	must(kill(pid, SIGKILL));
	check(waitpid(pid, NULL, 0) == pid, "waitpid: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	pid_t pids[WORKERS], between;
	long before, after;

	victim_init(argc, argv);
	counter = victim_shared(PAGE);
	done = victim_shared(PAGE);
	grandchild = victim_shared(PAGE);
	memory = mmap(NULL, (long)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	check(memory != MAP_FAILED, "mmap");
	must(madvise(memory, (long)PAGES * PAGE, MADV_NOHUGEPAGE));
	fill_pages(0, PAGES, 0);
	for (long i = 0; i < WORKERS - 1; i++)
		pids[i] = victim_child(worker, (void *)i);
	between = start_grandchild((void *)(WORKERS - 1L));
	pids[WORKERS - 1] = *grandchild;
	victim_meet(counter, WORKERS);
	fill_pages(PAGES - PARENTS, PAGES, 500);
	before = proportional(pids);
	victim_ready();
	victim_wait();
	after = proportional(pids);
	check(after * 10 <= before * 11, "memory was %ld KiB, is %ld KiB", before, after);
	check_pages(PAGES - PARENTS, PAGES, 500);
	victim_arrive(counter);
	for (int i = 0; i < WORKERS - 1; i++)
		victim_reap(pids[i]);
	victim_meet(done, WORKERS);
	end(between);
	victim_ok();
	return 0;
}
