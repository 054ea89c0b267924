/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases whose holder did not answer in time: taken down by force, so that a read lease is on what is
 * open for writing; the same, and somebody wants to write; overdue, and nobody has come to see.
 */
#include "lease_clock.h"
#include "told.h"

struct board {
	struct lease_clock clock;
	uint32_t begun, readers, entered;
	uint64_t at; /* alive when the writer came */
};

static struct board *board;
static int signal_number, down, wanted, overdue;
static char path[512];

static const char *name(const char *suffix)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	return path;
}

static int lease(const char *suffix)
{
	int fd = must(open(name(suffix), O_RDWR | O_CREAT, 0666));

	must(fcntl(fd, F_SETSIG, signal_number));
	must(fcntl(fd, F_SETLEASE, F_WRLCK));
	return fd;
}

static int try(const char *suffix, int flags)
{
	int fd = open(name(suffix), flags | O_NONBLOCK);

	check(fd >= 0 || errno == EWOULDBLOCK, "%s: %s", suffix, strerror(errno));
	if (fd >= 0)
		close(fd);
	return fd;
}

/* Let in by force, the readers stay. */
static void read_until_the_end(void *suffix)
{
	must(open(name(suffix), O_RDONLY));
	victim_arrive(&board->readers);
	while (!board->clock.stop)
		victim_nap(5);
}

static void write_at_last(void *suffix)
{
	board->at = board->clock.alive;
	victim_arrive(&board->begun);
	must(open(name(suffix), O_WRONLY));
	victim_arrive(&board->entered);
}

static void check_down(void)
{
	check(fcntl(down, F_GETLEASE) == F_RDLCK, "down: lease %d", fcntl(down, F_GETLEASE));
	check(try("down", O_RDONLY) >= 0, "down: a reader is kept out");
	check(take_signal(signal_number, 0) < 0, "down: a signal for a reader");
	check(fcntl(down, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN, "down: taken anew");
	check(try("down", O_WRONLY) < 0, "down: a writer is let in");
	check(take_signal(signal_number, 0) == down, "down: no signal");
	check(fcntl(down, F_GETLEASE) == F_UNLCK, "down: lease %d", fcntl(down, F_GETLEASE));
	must(fcntl(down, F_SETLEASE, F_UNLCK));
	check(try("down", O_WRONLY) >= 0, "down: a writer is kept out");
}

static void check_wanted(uint64_t whole)
{
	check(take_signal(signal_number, 0) < 0, "wanted: a second signal");
	if (board->clock.alive + SECOND / 2 < board->at + whole) {
		check(!board->entered, "wanted: the writer was let in early");
		check(fcntl(wanted, F_GETLEASE) == F_UNLCK, "wanted: lease %d",
		      fcntl(wanted, F_GETLEASE));
		check(try("wanted", O_RDONLY) >= 0, "wanted: a reader is kept out");
	}
	while (!board->entered) {
		check(board->clock.alive < board->at + whole + 2 * SECOND,
		      "wanted: the writer is kept out");
		must(fcntl(wanted, F_GETLEASE));
		victim_nap(5);
	}
}

static void check_overdue(void)
{
	check(try("overdue", O_WRONLY) >= 0, "overdue: a writer is kept out");
	check(take_signal(signal_number, 0) < 0, "overdue: a signal");
	check(fcntl(overdue, F_GETLEASE) == F_UNLCK, "overdue: lease %d",
	      fcntl(overdue, F_GETLEASE));
}

int main(int argc, char **argv)
{
	pid_t clock, readers[2], writer;
	uint64_t whole, begin;

	victim_init(argc, argv);
	board = victim_shared(sizeof(*board));
	signal_number = SIGRTMIN + 5;
	hold_signal(signal_number);
	whole = lease_break_time();
	clock = victim_child(lease_clock_process, &board->clock);
	overdue = lease("overdue");
	check(try("overdue", O_WRONLY) < 0, "no lease");
	begin = lease_clock_now();
	down = lease("down");
	wanted = lease("wanted");
	readers[0] = victim_child(read_until_the_end, "down");
	readers[1] = victim_child(read_until_the_end, "wanted");
	victim_meet(&board->readers, 2);
	while (lease_clock_now() < begin + whole + SECOND / 10)
		victim_nap(5);
	writer = victim_child(write_at_last, "wanted");
	victim_meet(&board->begun, 1);
	victim_nap(50);
	for (int i = 0; i < 4; i++)
		check(take_signal(signal_number, 0) >= 0, "signal %d is missing", i);
	victim_ready();
	victim_wait();
	check_wanted(whole);
	check_down();
	check_overdue();
	board->clock.stop = 1;
	victim_reap(readers[0]);
	victim_reap(readers[1]);
	victim_reap(writer);
	victim_reap(clock);
	victim_ok();
	return 0;
}
