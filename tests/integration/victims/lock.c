/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File locks that are held: POSIX, OFD and flock; ranges, owners, descriptions; several at once. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "victim.h"

static char path[512];

static const char *name(const char *suffix)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	return path;
}

static int make(const char *suffix)
{
	return must(open(name(suffix), O_RDWR | O_CREAT, 0666));
}

static int lock(int fd, int command, short type, off_t start, off_t length)
{
	struct flock range = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

	return fcntl(fd, command, &range);
}

/* ---- what somebody else finds ---- */

struct probe {
	const char *suffix;
	int command; /* F_SETLK, F_OFD_SETLK; 0: flock */
	short type;
	off_t start, length;
	bool free; /* what is expected */
	pid_t owner;
};

static void try(void *argument)
{
	struct probe *probe = argument;
	int fd = must(open(name(probe->suffix), O_RDWR)), got;
	struct flock range = {
		.l_type = probe->type,
		.l_whence = SEEK_SET,
		.l_start = probe->start,
		.l_len = probe->length,
	};

	if (probe->owner) {
		must(fcntl(fd, F_GETLK, &range));
		check(range.l_type != F_UNLCK && range.l_pid == probe->owner,
		      "%s: F_GETLK says type %d, pid %d, not %d", probe->suffix, range.l_type,
		      range.l_pid, probe->owner);
	}
	if (probe->command)
		got = lock(fd, probe->command, probe->type, probe->start, probe->length);
	else
		got = flock(fd, (probe->type == F_WRLCK ? LOCK_EX : LOCK_SH) | LOCK_NB);
	check((got == 0) == probe->free && (probe->free || errno == EAGAIN),
	      "%s: a lock of type %d from %ld on is %s", probe->suffix, probe->type,
	      (long)probe->start, got == 0 ? "granted" : "refused");
	close(fd);
}

#define probe(...) victim_reap(victim_child(try, &(struct probe){.suffix = __VA_ARGS__}))

/* ---- POSIX ---- */

/* The second descriptor comes and goes before the lock is taken. */
static void posix_build(void)
{
	int whole = make("whole"), parts = make("parts"), second;

	second = make("whole");
	must(lock(whole, F_SETLK, F_WRLCK, 0, 0));
	(void)second; /* closing it would lose the lock */
	must(lock(parts, F_SETLK, F_WRLCK, 0, 100));
	must(lock(parts, F_SETLK, F_RDLCK, 20, 10));
	must(lock(parts, F_SETLK, F_UNLCK, 50, 10));
	must(lock(parts, F_SETLK, F_RDLCK, 1000, 0));
}

static void posix_verify(void)
{
	pid_t self = getpid();

	probe("whole", F_SETLK, F_WRLCK, 5, 1, false, self);
	probe("whole", F_OFD_SETLK, F_RDLCK, 5, 1, false);
	probe("parts", F_SETLK, F_RDLCK, 0, 20, false, self);
	probe("parts", F_SETLK, F_RDLCK, 20, 10, true);
	probe("parts", F_SETLK, F_WRLCK, 20, 10, false, self);
	probe("parts", F_SETLK, F_WRLCK, 50, 10, true);
	probe("parts", F_SETLK, F_RDLCK, 99, 1, false, self);
	probe("parts", F_SETLK, F_WRLCK, 100, 900, true);
	probe("parts", F_SETLK, F_RDLCK, 1 << 30, 1, true);
	probe("parts", F_SETLK, F_WRLCK, 1 << 30, 1, false, self);
}

static void *take_in_thread(void *argument)
{
	must(lock(*(int *)argument, F_SETLK, F_WRLCK, 0, 10));
	return NULL;
}

static void thread_build(void)
{
	int fd = make("thread");
	pthread_t thread;

	check(pthread_create(&thread, NULL, take_in_thread, &fd) == 0, "pthread_create");
	pthread_join(thread, NULL);
}

/* ---- shared by two processes, each with a lock of its own ---- */

static uint32_t *arrived;

static void hold_shared(void *argument)
{
	int fd = make("shared");

	(void)argument;
	must(lock(fd, F_SETLK, F_RDLCK, 0, 1));
	victim_arrive(arrived);
	victim_wait();
	/* its own, not that of its parent */
	must(lock(fd, F_SETLK, F_UNLCK, 0, 1));
	victim_arrive(arrived);
	victim_meet(arrived, 4);
}

static pid_t sharer;
static int shared;

static void shared_build(void)
{
	arrived = victim_shared(4096);
	shared = make("shared");
	sharer = victim_child(hold_shared, NULL);
	must(lock(shared, F_SETLK, F_RDLCK, 0, 1));
	victim_meet(arrived, 1);
	victim_arrive(arrived);
}

static void shared_verify(void)
{
	victim_meet(arrived, 3);
	probe("shared", F_SETLK, F_RDLCK, 0, 1, true);
	probe("shared", F_SETLK, F_WRLCK, 0, 1, false, getpid());
	must(lock(shared, F_SETLK, F_UNLCK, 0, 1));
	probe("shared", F_SETLK, F_WRLCK, 0, 1, true);
	victim_arrive(arrived);
	victim_reap(sharer);
}

/* ---- two processes with one descriptor table ---- */

static char stack[65536] __attribute__((aligned(16)));
static int common;

static int take_in_table(void *argument)
{
	(void)argument;
	_exit(lock(common, F_SETLK, F_WRLCK, 0, 10) ? 1 : 0);
}

static void table_build(void)
{
	common = make("table");
	victim_reap(must(clone(take_in_table, stack + sizeof(stack), CLONE_FILES | SIGCHLD, NULL)));
}

/* ---- of an open file description ---- */

static pid_t heir;
static int inherited, passed;

/* The one who took these locks is dead: they go on as long as the description is open. */
static void inherit(void *argument)
{
	(void)argument;
	victim_wait();
	victim_meet(arrived, 5);
	/* either of those who have it may unlock it */
	must(lock(passed, F_OFD_SETLK, F_UNLCK, 0, 5));
	close(inherited);
	victim_arrive(arrived);
	victim_meet(arrived, 7);
}

static void take_for_others(void *argument)
{
	(void)argument;
	must(flock(inherited, LOCK_EX));
	must(lock(passed, F_OFD_SETLK, F_WRLCK, 0, 10));
}

static void description_build(void)
{
	int twice = make("twice"), first = make("both"), second = make("both");

	inherited = make("inherited");
	passed = make("passed");
	heir = victim_child(inherit, NULL);
	victim_reap(victim_child(take_for_others, NULL));
	close(inherited);
	must(flock(twice, LOCK_EX));
	must(dup(twice));
	must(flock(first, LOCK_SH));
	must(flock(second, LOCK_SH));
}

static void description_verify(void)
{
	probe("twice", 0, F_RDLCK, .free = false);
	probe("both", 0, F_RDLCK, .free = true);
	probe("both", 0, F_WRLCK, .free = false);
	probe("inherited", 0, F_RDLCK, .free = false);
	probe("passed", F_OFD_SETLK, F_RDLCK, 0, 5, false, -1);
	probe("passed", F_SETLK, F_RDLCK, 5, 5, false, -1);
	victim_arrive(arrived);
	victim_meet(arrived, 6);
	probe("inherited", 0, F_WRLCK, .free = true);
	probe("passed", F_OFD_SETLK, F_WRLCK, 0, 5, true);
	probe("passed", F_OFD_SETLK, F_WRLCK, 5, 5, false);
	victim_arrive(arrived);
	victim_reap(heir);
}

/* ---- all three on one file ---- */

static int several;

static void several_build(void)
{
	several = make("several");
	must(lock(several, F_SETLK, F_RDLCK, 0, 10));
	must(lock(several, F_OFD_SETLK, F_WRLCK, 10, 10));
	must(flock(several, LOCK_SH));
}

static void several_verify(void)
{
	probe("several", F_SETLK, F_WRLCK, 0, 10, false, getpid());
	probe("several", F_SETLK, F_RDLCK, 10, 10, false, -1);
	probe("several", 0, F_WRLCK, .free = false);
	probe("several", 0, F_RDLCK, .free = true);
	close(several);
	probe("several", F_SETLK, F_WRLCK, 0, 0, true);
	probe("several", 0, F_WRLCK, .free = true);
}

/* ---- a file without a name ---- */

static int nameless;

static void nameless_build(void)
{
	nameless = make("nameless");
	must(unlink(name("nameless")));
	must(lock(nameless, F_SETLK, F_WRLCK, 7, 3));
	must(flock(nameless, LOCK_EX));
}

static void try_nameless(void *unused)
{
	char link[32];
	int fd;

	(void)unused;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", nameless);
	fd = must(open(link, O_RDWR));
	check(lock(fd, F_SETLK, F_RDLCK, 9, 1) < 0 && errno == EAGAIN, "nameless: POSIX lock lost");
	must(lock(fd, F_SETLK, F_WRLCK, 0, 7));
	check(flock(fd, LOCK_SH | LOCK_NB) < 0, "nameless: flock lost");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	posix_build();
	thread_build();
	shared_build();
	table_build();
	description_build();
	several_build();
	nameless_build();
	victim_ready();
	victim_wait();
	posix_verify();
	probe("thread", F_SETLK, F_WRLCK, 0, 10, false, getpid());
	shared_verify();
	probe("table", F_SETLK, F_WRLCK, 0, 10, false);
	description_verify();
	several_verify();
	victim_reap(victim_child(try_nameless, NULL));
	/* a fork owns nothing of it: the probes were forks */
	victim_ok();
	return 0;
}
