/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes that wait for a futex in memory or a file that they share, until somebody wakes them. */
#include <linux/futex.h>
#include <sys/syscall.h>

#include "victim.h"

enum { PAGE = 4096, WAITERS = 3, LONG = 60 };

/* In the shared page, and in the file. */
struct words {
	uint32_t arrived;
	uint32_t plain, bits, inherited;
};

static struct words *words;
static uint32_t *in_file, *own_view; /* the same word of the file, mapped twice */

static long futex(uint32_t *word, int operation, uint32_t value, const struct timespec *time,
		  uint32_t bits)
{
	return syscall(SYS_futex, word, operation, value, time, NULL, bits);
}

/* They sleep until they are woken: nothing else may end it. */
static void wait_plain(void *word)
{
	victim_arrive(&words->arrived);
	check(futex(word, FUTEX_WAIT, 7, NULL, 0) == 0, "FUTEX_WAIT: %s", strerror(errno));
	check(*(uint32_t *)word == 8, "woken too early");
}

static void wait_in_file(void *unused)
{
	char path[256];
	uint32_t *view;
	int fd;

	(void)unused;
	snprintf(path, sizeof(path), "%s.futex", victim_path);
	fd = must(open(path, O_RDWR));
	view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(view != MAP_FAILED, "mmap");
	close(fd);
	wait_plain(view);
}

/* With an end, absolute and far away. */
static void wait_bits(void *unused)
{
	struct timespec end;

	(void)unused;
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += LONG;
	victim_arrive(&words->arrived);
	check(futex(&words->bits, FUTEX_WAIT_BITSET, 7, &end, 2) == 0, "FUTEX_WAIT_BITSET: %s",
	      strerror(errno));
	check(words->bits == 8, "woken too early");
}

/* With an end, relative. */
static void wait_timed(void *unused)
{
	struct timespec time = {.tv_sec = LONG};

	(void)unused;
	victim_arrive(&words->arrived);
	check(futex(&words->plain, FUTEX_WAIT, 7, &time, 0) == 0, "FUTEX_WAIT: %s",
	      strerror(errno));
}

/* Of a holder, whose priority it inherits. */
static void wait_for_holder(void *unused)
{
	(void)unused;
	victim_arrive(&words->arrived);
	check(futex(&words->inherited, FUTEX_LOCK_PI, 0, NULL, 0) == 0, "FUTEX_LOCK_PI: %s",
	      strerror(errno));
	check((words->inherited & FUTEX_TID_MASK) == (uint32_t)getpid(), "somebody else has it");
	check(futex(&words->inherited, FUTEX_UNLOCK_PI, 0, NULL, 0) == 0, "FUTEX_UNLOCK_PI: %s",
	      strerror(errno));
}

static void build_file(void)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s.futex", victim_path);
	fd = must(open(path, O_RDWR | O_CREAT, 0600));
	must(ftruncate(fd, PAGE));
	in_file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	own_view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(in_file != MAP_FAILED && own_view != MAP_FAILED, "mmap");
	close(fd);
	*in_file = 7;
}

/* All who wait, and nobody else: by the word that they have in common. */
static void wake(uint32_t *word, int operation, uint32_t bits, int wanted)
{
	long woken;

	__atomic_store_n(word, 8, __ATOMIC_SEQ_CST);
	woken = futex(word, operation, 100, NULL, bits);
	check(woken == wanted, "%ld waited, not %d", woken, wanted);
}

int main(int argc, char **argv)
{
	pid_t pids[2 * WAITERS + 3];
	int count = 0;

	victim_init(argc, argv);
	words = victim_shared(PAGE);
	words->plain = words->bits = 7;
	build_file();
	check(futex(&words->inherited, FUTEX_LOCK_PI, 0, NULL, 0) == 0, "FUTEX_LOCK_PI");
	for (int i = 0; i < WAITERS; i++) {
		pids[count++] = victim_child(wait_plain, &words->plain);
		pids[count++] = victim_child(wait_in_file, NULL);
	}
	pids[count++] = victim_child(wait_timed, NULL);
	pids[count++] = victim_child(wait_bits, NULL);
	pids[count++] = victim_child(wait_for_holder, NULL);
	victim_meet(&words->arrived, count);
	victim_nap(50); /* into their calls */
	victim_ready();
	victim_wait();
	for (int i = 0; i < count; i++)
		check(waitpid(pids[i], NULL, WNOHANG) == 0, "waiter %d has ended", i);
	wake(&words->plain, FUTEX_WAKE, 0, WAITERS + 1);
	wake(own_view, FUTEX_WAKE, 0, WAITERS);
	check(futex(&words->bits, FUTEX_WAKE_BITSET, 1, NULL, 1) == 0, "other bits woke it");
	wake(&words->bits, FUTEX_WAKE_BITSET, 2, 1);
	check(words->inherited & FUTEX_WAITERS, "nobody waits for the holder");
	check(futex(&words->inherited, FUTEX_UNLOCK_PI, 0, NULL, 0) == 0, "FUTEX_UNLOCK_PI: %s",
	      strerror(errno));
	for (int i = 0; i < count; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
