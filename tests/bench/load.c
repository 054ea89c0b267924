/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Something to checkpoint: load STATUS idle | memory MIB 4k|thp|plain | and N of: processes, orphans,
 * files, locks, pipes, eventfds, vmas, threads. It says "ready" in its status file and sleeps.
 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>

#include "../integration/victims/victim.h"

enum { PAGE = 4096 };

static void sleep_on(void)
{
	for (;;)
		pause();
}

static void *sleep_in_thread(void *unused)
{
	sleep_on();
	return unused;
}

/* Incompressible, so that nobody gets away with a compressor or with zero pages. */
static void memory(size_t mib, const char *pages)
{
	size_t size = mib << 20, huge = 2 << 20;
	char *area =
		mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(area != MAP_FAILED, "mmap");
	area = (char *)(((uintptr_t)area + huge - 1) & ~(huge - 1));
	if (strcmp(pages, "plain") != 0)
		must(madvise(area, size, strcmp(pages, "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE));
	victim_fill(area, size, 1);
}

static void processes(int count)
{
	while (--count > 0)
		if (must(fork()) == 0)
			sleep_on();
}

/* As daemons come about: each leaves the session that its dead parent has made. */
static void orphans(int count)
{
	uint32_t *arrived = victim_shared(4096);

	for (int i = 0; i < count; i++) {
		pid_t parent = must(fork());

		if (parent) {
			victim_reap(parent);
			continue;
		}
		must(setsid());
		if (must(fork()))
			_exit(0);
		victim_arrive(arrived);
		sleep_on();
	}
	victim_meet(arrived, (uint32_t)count);
}

static void allow(int count)
{
	struct rlimit limit = {(rlim_t)count + 100, (rlim_t)count + 100};

	must(setrlimit(RLIMIT_NOFILE, &limit));
}

static int open_one(int number)
{
	char path[256];

	snprintf(path, sizeof(path), "%s.%d", victim_path, number);
	return must(open(path, O_RDWR | O_CREAT, 0600));
}

static void files(int count)
{
	allow(count);
	for (int i = 0; i < count; i++)
		open_one(i);
}

/* A file each, and all three sorts. */
static void locks(int count)
{
	struct flock range = {.l_type = F_WRLCK, .l_len = 1};

	allow(count);
	for (int i = 0; i < count; i++) {
		int fd = open_one(i);

		if (i % 3)
			must(fcntl(fd, i % 3 == 1 ? F_SETLK : F_OFD_SETLK, &range));
		else
			must(flock(fd, LOCK_EX));
	}
}

static void pipes(int count)
{
	allow(2 * count);
	for (int i = 0; i < count; i++) {
		int ends[2];

		must(pipe(ends));
		check(write(ends[1], "x", 1) == 1, "write");
	}
}

static void eventfds(int count)
{
	allow(count);
	for (int i = 0; i < count; i++)
		must(eventfd((unsigned int)i, 0));
}

/* Neighbours differ in protection, or the kernel would make one area of them. */
static void vmas(int count)
{
	char *area = mmap(NULL, (size_t)count * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(area != MAP_FAILED, "mmap");
	memset(area, 1, (size_t)count * PAGE);
	for (int i = 0; i < count; i += 2)
		must(mprotect(area + (size_t)i * PAGE, PAGE, PROT_READ));
}

static void threads(int count)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	while (--count > 0)
		check(pthread_create(&thread, &attributes, sleep_in_thread, NULL) == 0, "thread");
}

static const struct {
	const char *name;
	void (*make)(int count);
} sorts[] = {
	{"processes", processes}, {"orphans", orphans},	  {"files", files}, {"locks", locks},
	{"pipes", pipes},	  {"eventfds", eventfds}, {"vmas", vmas},   {"threads", threads},
};

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "idle";
	int count = argc > 3 ? atoi(argv[3]) : 0;

	victim_init(argc, argv);
	if (strcmp(what, "memory") == 0)
		memory((size_t)count, argc > 4 ? argv[4] : "4k");
	for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
		if (strcmp(what, sorts[i].name) == 0)
			sorts[i].make(count);
	}
	victim_ready();
	sleep_on();
}
