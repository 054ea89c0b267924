/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Breaks leases for a given time, and dies while the sysctl is changed. Runs as root. What becomes of the
 * number is looked at in a file of our own (linked with --wrap): others on this machine have leases too.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checks.h"
#include "kinds/lease_break_time.h"

static const char sysctl[] = "/proc/sys/fs/lease-break-time";

enum { OURS = 45, THEIRS = 77 }; /* theirs: what somebody else sets */

static char instead[32]; /* of the sysctl; "": nothing */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, mode_t mode);

int __wrap_open(const char *path, int flags, mode_t mode)
{
	return __real_open(*instead && !strcmp(path, sysctl) ? instead : path, flags, mode);
}

/* Only for those who were told so: not for a guard that lives already. */
static bool refuses_writes;

ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset);

ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset)
{
	errno = EPERM;
	return refuses_writes ? -1 : __real_pwrite(fd, data, len, offset);
}

static int read_number(void)
{
	char text[16] = "";
	int fd = open(sysctl, O_RDONLY);

	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return atoi(text);
}

static void write_number(int number)
{
	int fd = open(sysctl, O_WRONLY | O_TRUNC);

	CHECK(dprintf(fd, "%d\n", number) > 0);
	close(fd);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void nap(long milliseconds)
{
	nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

static bool is_kept_out(int fd)
{
	char path[32];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reader = open(path, O_RDONLY | O_NONBLOCK);
	if (reader >= 0)
		close(reader);
	return reader < 0;
}

/* Break a lease on a new file; its descriptor, -1 when that fails. */
static int break_lease(struct lease_break_time *time, uint64_t end)
{
	char path[] = "/tmp/lxc-cr-lease-XXXXXX";
	int fd = mkstemp(path);

	unlink(path);
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0 || fcntl(fd, F_SETOWN, 0) < 0)
		return -1;
	return CHECK_SUCCESS(lease_break_at(time, fd, O_RDONLY, end)) ? fd : -1;
}

/* Milliseconds that a break for @wanted lasts longer than it should. */
static long error_of(struct lease_break_time *time, long wanted)
{
	uint64_t end = now() + (uint64_t)wanted * 1000000u;
	int fd = break_lease(time, end);

	if (fd < 0)
		return -1000000;
	while (is_kept_out(fd) && now() < end + 2000000000u)
		nap(1);
	close(fd);
	return (long)((int64_t)(now() - end) / 1000000);
}

static void test_times(void)
{
	static const long wanted[] = {4, 37, 300, 500, 1000, 1234};
	struct lease_break_time *time;
	int before = read_number();

	CHECK_SUCCESS(lease_break_time_open(NULL, &time));
	CHECK(lease_break_time_default(time) == (uint64_t)before * 1000000000u);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		long error = error_of(time, wanted[i]);

		if (error < -20 || error > 60)
			printf("%ld ms: %ld ms too long\n", wanted[i], error);
		CHECK(error >= -20 && error <= 60);
	}
	CHECK(read_number() == before);
	lease_break_time_close(time);
	CHECK(read_number() == before);
}

static void test_no_lease(void)
{
	struct lease_break_time *time;
	int fd = open("/tmp", O_RDWR | O_TMPFILE, 0600);

	CHECK_SUCCESS(lease_break_time_open(NULL, &time));
	CHECK_ERROR(lease_break_at(time, fd, O_RDONLY, now()), CR_INTERNAL, "not broken");
	lease_break_time_close(time);
	close(fd);
}

/* What a process does with the number until it dies; returns if it cannot. */
typedef void (*life)(void);

/* Between the two writes. */
static void die_in_between(void)
{
	struct lease_break_time *time;

	if (!lease_break_time_open("restart-lease", &time))
		break_lease(time, now());
}

/* Long before, and somebody else has changed the number since; their number stays. */
static void die_before(void)
{
	struct lease_break_time *time;

	if (lease_break_time_open(NULL, &time))
		return;
	write_number(THEIRS);
	raise(SIGKILL);
}

/* Between the two writes, of which the first one came after theirs. */
static void die_in_between_later(void)
{
	struct lease_break_time *time;

	if (lease_break_time_open("restart-lease", &time))
		return;
	write_number(THEIRS);
	break_lease(time, now());
}

/* The guard has ended when the next one has its turn. */
static void wait_for_guard(void)
{
	struct lease_break_time *time;

	CHECK_SUCCESS(lease_break_time_open(NULL, &time));
	lease_break_time_close(time);
}

static void check_death(life die, int after)
{
	int status;
	pid_t pid;

	write_number(OURS);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		die();
		_exit(1);
	}
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status));
	wait_for_guard();
	CHECK(read_number() == after);
}

static void test_death(void)
{
	check_death(die_in_between, OURS);
	check_death(die_before, THEIRS);
	check_death(die_in_between_later, THEIRS);
}

/* What somebody else sets while we are at work stays, too. */
static void test_another_number(void)
{
	struct lease_break_time *time;
	int fd;

	write_number(OURS);
	CHECK_SUCCESS(lease_break_time_open(NULL, &time));
	write_number(THEIRS);
	fd = break_lease(time, now());
	CHECK(fd >= 0 && !close(fd));
	CHECK(read_number() == THEIRS);
	lease_break_time_close(time);
	CHECK(read_number() == THEIRS);
}

/* Nothing was changed, so nothing is put back. */
static void test_no_write(void)
{
	struct lease_break_time *time;

	write_number(OURS);
	CHECK_SUCCESS(lease_break_time_open(NULL, &time));
	refuses_writes = true;
	CHECK_ERROR(lease_break_at(time, 0, O_RDONLY, now()), CR_SYSTEM, "Failed to write");
	refuses_writes = false;
	write_number(THEIRS);
	lease_break_time_close(time);
	CHECK(read_number() == THEIRS);
}

int main(void)
{
	test_times();
	test_no_lease();
	snprintf(instead, sizeof(instead), "/proc/self/fd/%d", memfd_create("number", 0));
	test_death();
	test_another_number();
	test_no_write();
	return checks_done();
}
