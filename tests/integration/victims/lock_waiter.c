/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes and threads that wait for file locks: still waiting, in their old order, without EINTR. */
#include <sched.h>
#include <signal.h>
#include <sys/file.h>

#include "victim.h"

enum { POSIX, OFD, FLOCK, SORTS, EACH = 4 };

struct board {
	uint32_t called[SORTS * EACH]; /* who may enter their calls */
	uint32_t asleep;	       /* waiters that were let into their calls */
	uint32_t served[SORTS];	       /* how many got theirs */
	uint32_t order[SORTS][EACH];   /* who, in order */
	uint32_t interrupted;
};

static struct board *board;
static char path[512];
static int held[SORTS]; /* descriptors of the holder */

/* A copy of the holder's descriptor would hold its locks too. */
static void let_go(void)
{
	for (int sort = 0; sort < SORTS; sort++) {
		if (held[sort])
			close(held[sort]);
	}
}

static int open_one(int sort)
{
	snprintf(path, sizeof(path), "%s.%d", victim_path, sort);
	return must(open(path, O_RDWR | O_CREAT, 0666));
}

static int take(int fd, int sort, bool wait)
{
	struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};

	if (sort == FLOCK)
		return flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
	if (sort == OFD)
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &range);
	return fcntl(fd, wait ? F_SETLKW : F_SETLK, &range);
}

struct waiter {
	int sort;
	uint32_t number;
};

static void wait_for(void *argument)
{
	struct waiter *waiter = argument;
	uint32_t place;
	int fd;

	let_go();
	fd = open_one(waiter->sort);
	victim_meet(&board->called[waiter->sort * EACH + (int)waiter->number], 1);
	victim_arrive(&board->asleep);
	check(take(fd, waiter->sort, true) == 0, "waiter %u of sort %d: %s", waiter->number,
	      waiter->sort, strerror(errno));
	place = __atomic_fetch_add(&board->served[waiter->sort], 1, __ATOMIC_SEQ_CST);
	board->order[waiter->sort][place] = waiter->number;
	victim_nap(5);
}

/* Whether that process sleeps: it has nothing but its lock to sleep for. */
static void until_blocked(pid_t pid)
{
	char name[64], text[512];

	snprintf(name, sizeof(name), "/proc/%d/stat", pid);
	do {
		victim_nap(2);
		victim_read(name, text, sizeof(text));
	} while (!strstr(text, ") S"));
	victim_nap(5);
}

static pid_t start(int sort, uint32_t number)
{
	static struct waiter waiters[SORTS * EACH];
	struct waiter *waiter = &waiters[sort * EACH + (int)number];

	*waiter = (struct waiter){sort, number};
	return victim_child(wait_for, waiter);
}

/* They enter their calls in another order than that of their pids. */
static void call(int sort, uint32_t number, pid_t pid)
{
	uint32_t before = board->asleep;

	victim_arrive(&board->called[sort * EACH + (int)number]);
	victim_meet(&board->asleep, before + 1);
	until_blocked(pid);
}

/* A handler without SA_RESTART ends a wait, today as ever. */
static void on_signal(int signal)
{
	(void)signal;
}

static void wait_for_signal(void *argument)
{
	struct sigaction action = {.sa_handler = on_signal};
	int fd;

	(void)argument;
	let_go();
	fd = open_one(POSIX);
	must(sigaction(SIGUSR1, &action, NULL));
	victim_arrive(&board->asleep);
	check(take(fd, POSIX, true) < 0 && errno == EINTR, "the signal did not end the wait: %s",
	      strerror(errno));
	victim_arrive(&board->interrupted);
}

int main(int argc, char **argv)
{
	/* who comes when */
	static const uint32_t orders[SORTS][EACH] = {{0, 1, 2, 3}, {3, 1, 0, 2}, {2, 3, 1, 0}};
	pid_t pids[SORTS][EACH], signalled;
	uint32_t before;

	victim_init(argc, argv);
	board = victim_shared(sizeof(*board));
	for (int sort = 0; sort < SORTS; sort++) {
		held[sort] = open_one(sort);
		must(take(held[sort], sort, false));
		for (int i = 0; i < EACH; i++)
			pids[sort][i] = start(sort, (uint32_t)i);
		for (int i = 0; i < EACH; i++)
			call(sort, orders[sort][i], pids[sort][orders[sort][i]]);
	}
	before = board->asleep;
	signalled = victim_child(wait_for_signal, NULL);
	victim_meet(&board->asleep, before + 1);
	until_blocked(signalled);
	victim_ready();
	victim_wait();
	victim_nap(20);
	must(kill(signalled, SIGUSR1));
	victim_reap(signalled);
	check(board->interrupted == 1, "no EINTR");
	for (int sort = 0; sort < SORTS; sort++) {
		check(board->served[sort] == 0, "%u of sort %d got the lock while it was held",
		      board->served[sort], sort);
		close(held[sort]);
		for (int i = 0; i < EACH; i++) {
			victim_reap(pids[sort][i]);
			check(board->order[sort][i] == orders[sort][i],
			      "sort %d, place %d: %u came before %u", sort, i,
			      board->order[sort][i], orders[sort][i]);
		}
	}
	victim_ok();
	return 0;
}
