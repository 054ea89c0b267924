/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Something to checkpoint: load STATUS idle | memory MIB 4k|thp|plain | processes N | files N | vmas N |
 * threads N. It says "ready" in its status file and sleeps.
 */
#include <pthread.h>
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

static void files(int count)
{
	struct rlimit limit = {count + 100, count + 100};
	char path[256];

	must(setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s.%d", victim_path, i);
		must(open(path, O_RDWR | O_CREAT, 0600));
	}
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

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "idle";
	int count = argc > 3 ? atoi(argv[3]) : 0;

	victim_init(argc, argv);
	if (strcmp(what, "memory") == 0)
		memory(count, argc > 4 ? argv[4] : "4k");
	else if (strcmp(what, "processes") == 0)
		processes(count);
	else if (strcmp(what, "files") == 0)
		files(count);
	else if (strcmp(what, "vmas") == 0)
		vmas(count);
	else if (strcmp(what, "threads") == 0)
		threads(count);
	victim_ready();
	sleep_on();
}
