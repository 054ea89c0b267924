/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptor tables and open file descriptions: what dup, fork and CLONE_FILES share is shared
 * afterwards, what was opened twice is not.
 */
#include <sched.h>
#include <sys/syscall.h>

#include "victim.h"

static char path[256];
static uint32_t *turn;

static off_t offset(int fd)
{
	return lseek(fd, 0, SEEK_CUR);
}

struct fds {
	int original, copy, other, far, closing;
};

static void forked(void *argument)
{
	struct fds *fds = argument;

	victim_wait();
	victim_meet(turn, 1);
	check(offset(fds->original) == 111, "parent moved to 111, child is at %ld",
	      (long)offset(fds->original));
	check(offset(fds->other) == 7, "other description is at %ld", (long)offset(fds->other));
	/* Tables are not shared: the parent's close is not ours. */
	check(fcntl(fds->far, F_GETFD) >= 0, "descriptor %d is gone", fds->far);
	must(lseek(fds->original, 222, SEEK_SET));
	victim_arrive(turn);
}

static int common;

/* One table for both: CLONE_FILES. */
static void sharing(struct fds *fds)
{
	int fd;

	victim_wait();
	victim_meet(turn, 3);
	check(fcntl(fds->closing, F_GETFD) < 0 && errno == EBADF, "parent's close was not seen");
	fd = must(open(path, O_RDONLY));
	must(dup2(fd, 300));
	victim_arrive(turn);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct fds fds;
	pid_t fork_pid, share_pid;

	victim_init(argc, argv);
	turn = victim_shared(4096);
	snprintf(path, sizeof(path), "%s.file", argv[1]);
	fds.original = must(open(path, O_RDWR | O_CREAT, 0600));
	must(ftruncate(fds.original, 10000));
	fds.copy = must(dup(fds.original));
	fds.other = must(open(path, O_RDWR));
	must(lseek(fds.other, 7, SEEK_SET));
	fds.far = must(fcntl(fds.original, F_DUPFD_CLOEXEC, 250));
	fds.closing = must(open("/dev/null", O_RDONLY));
	common = must(dup(fds.other));
	fork_pid = victim_child(forked, &fds);
	share_pid = must(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
	if (share_pid == 0)
		sharing(&fds);
	victim_ready();
	victim_wait();

	check(fcntl(fds.copy, F_GETFD) == 0, "flags of %d", fds.copy);
	check(fcntl(fds.far, F_GETFD) == FD_CLOEXEC, "flags of %d", fds.far);
	must(lseek(fds.original, 111, SEEK_SET));
	check(offset(fds.copy) == 111 && offset(fds.far) == 111, "dup is no dup any more");
	check(offset(fds.other) == 7 && offset(common) == 7, "two opens became one");
	/* Status flags belong to the description, too. */
	must(fcntl(fds.copy, F_SETFL, O_APPEND));
	check(fcntl(fds.original, F_GETFL) & O_APPEND, "flags are not shared");
	check(!(fcntl(fds.other, F_GETFL) & O_APPEND), "flags are shared");
	must(close(fds.far));
	victim_arrive(turn);
	victim_meet(turn, 2);
	check(offset(fds.copy) == 222, "child moved to 222, we are at %ld", (long)offset(fds.copy));
	victim_reap(fork_pid);
	must(close(fds.closing));
	victim_arrive(turn);
	victim_meet(turn, 4);
	check(fcntl(300, F_GETFD) == 0, "the other process's descriptor is not in our table");
	victim_reap(share_pid);
	victim_ok();
	return 0;
}
