/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks and leases of open file descriptions that are mapped: closing the descriptor is not the end. */
#include <sys/file.h>

#include "told.h"

enum { SIZE = 8192 };

static char path[512];

static const char *name(const char *suffix)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	return path;
}

static int make(const char *suffix, int flags)
{
	int fd = must(open(name(suffix), O_RDWR | O_CREAT, 0666));

	must(ftruncate(fd, SIZE));
	close(fd);
	return must(open(name(suffix), flags));
}

static char *map(int fd, int protection, int flags)
{
	char *memory = mmap(NULL, SIZE, protection, flags, fd, 0);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

static void unmap(char *memory)
{
	must(munmap(memory, SIZE));
}

static void check_lock(const char *suffix, int how, bool free)
{
	int fd = must(open(name(suffix), O_RDWR));
	int got = flock(fd, how | LOCK_NB);

	check((got == 0) == free, "%s: a lock is %s", suffix, got ? "refused" : "granted");
	close(fd);
}

/* ---- only a mapping is left ---- */

static char *alone, *private, *first, *second, *range;

static void alone_build(void)
{
	struct flock bytes = {.l_type = F_WRLCK, .l_start = 10, .l_len = 5};
	int fd = make("alone", O_RDWR), other;

	must(flock(fd, LOCK_EX));
	alone = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
	strcpy(alone, "written");
	close(fd);
	fd = make("private", O_RDONLY);
	must(flock(fd, LOCK_SH));
	private = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	strcpy(private, "mine");
	close(fd);
	fd = make("two", O_RDONLY);
	other = must(open(name("two"), O_RDONLY));
	must(flock(fd, LOCK_SH));
	must(flock(other, LOCK_SH));
	first = map(fd, PROT_READ, MAP_SHARED);
	second = map(other, PROT_READ, MAP_SHARED);
	close(fd);
	close(other);
	fd = make("range", O_RDWR);
	must(fcntl(fd, F_OFD_SETLK, &bytes));
	range = map(fd, PROT_READ, MAP_SHARED);
	close(fd);
}

static void check_range(bool free)
{
	struct flock bytes = {.l_type = F_WRLCK, .l_start = 14, .l_len = 10};
	int fd = must(open(name("range"), O_RDWR));

	check((fcntl(fd, F_SETLK, &bytes) == 0) == free, "range: %s", free ? "kept" : "lost");
	close(fd);
}

static void alone_verify(void)
{
	check_lock("alone", LOCK_SH, false);
	check(!strcmp(alone, "written"), "contents");
	unmap(alone);
	check_lock("alone", LOCK_EX, true);
	check(!strcmp(private, "mine"), "private contents");
	check_lock("private", LOCK_SH, true);
	check_lock("private", LOCK_EX, false);
	unmap(private);
	check_lock("private", LOCK_EX, true);
	unmap(first);
	check_lock("two", LOCK_EX, false);
	unmap(second);
	check_lock("two", LOCK_EX, true);
	check_range(false);
	unmap(range);
	check_range(true);
}

/* ---- one description, mapped by two processes; who locked it is dead ---- */

static uint32_t *steps;
static char *shared, *nameless;
static int nameless_file;
static pid_t heir;

static void lock_shared(void *fd)
{
	must(flock(*(int *)fd, LOCK_EX));
}

static void inherit(void *unused)
{
	(void)unused;
	victim_meet(steps, 1);
	check_lock("shared", LOCK_SH, false);
	unmap(shared);
	check_lock("shared", LOCK_SH, true);
}

static void shared_build(void)
{
	int fd = make("shared", O_RDWR);

	steps = victim_shared(4096);
	shared = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
	victim_reap(victim_child(lock_shared, &fd));
	close(fd);
	heir = victim_child(inherit, NULL);
	nameless_file = make("nameless", O_RDWR);
	fd = must(open(name("nameless"), O_RDWR));
	must(unlink(name("nameless")));
	must(flock(fd, LOCK_EX));
	nameless = map(fd, PROT_READ, MAP_SHARED);
	close(fd);
}

static void shared_verify(void)
{
	check_lock("shared", LOCK_SH, false);
	unmap(shared);
	check_lock("shared", LOCK_SH, false);
	victim_arrive(steps);
	victim_reap(heir);
	check(flock(nameless_file, LOCK_SH | LOCK_NB) < 0, "nameless: lost");
	unmap(nameless);
	must(flock(nameless_file, LOCK_EX | LOCK_NB));
}

/* ---- open and mapped ---- */

static int open_locked, open_free, open_leased, open_unleased;
static char *locked_memory, *free_memory;

static void open_build(void)
{
	open_locked = make("open-locked", O_RDWR);
	must(flock(open_locked, LOCK_EX));
	locked_memory = map(open_locked, PROT_READ | PROT_WRITE, MAP_SHARED);
	open_free = make("open-free", O_RDONLY);
	free_memory = map(open_free, PROT_READ, MAP_PRIVATE);
	open_leased = make("open-leased", O_RDWR);
	map(open_leased, PROT_READ, MAP_SHARED);
	must(fcntl(open_leased, F_SETLEASE, F_WRLCK));
	open_unleased = make("open-unleased", O_RDWR);
	map(open_unleased, PROT_READ, MAP_SHARED);
}

static void open_verify(void)
{
	close(open_locked);
	check_lock("open-locked", LOCK_SH, false);
	unmap(locked_memory);
	check_lock("open-locked", LOCK_SH, true);
	must(flock(open_free, LOCK_EX));
	close(open_free);
	check_lock("open-free", LOCK_SH, false);
	unmap(free_memory);
	check_lock("open-free", LOCK_SH, true);
	check(fcntl(open_leased, F_GETLEASE) == F_WRLCK, "lease %d",
	      fcntl(open_leased, F_GETLEASE));
	/* a mapping of another description would be in the way */
	must(fcntl(open_unleased, F_SETLEASE, F_WRLCK));
}

/* ---- a lease that nobody can give back any more ---- */

static char *leased;
static int leased_number, signal_number;

static void lease_build(void)
{
	int fd = make("leased", O_RDONLY);

	leased_number = must(fcntl(fd, F_DUPFD, 57));
	close(fd);
	must(fcntl(leased_number, F_SETSIG, signal_number));
	must(fcntl(leased_number, F_SETLEASE, F_RDLCK));
	leased = map(leased_number, PROT_READ, MAP_SHARED);
	close(leased_number);
}

static void lease_verify(void)
{
	int fd, told;

	check(open(name("leased"), O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK,
	      "leased: keeps nobody out");
	told = take_signal(signal_number, 1000);
	check(told == leased_number, "leased: a signal for %d, not %d", told, leased_number);
	unmap(leased);
	fd = must(open(name("leased"), O_WRONLY | O_NONBLOCK));
	close(fd);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	signal_number = SIGRTMIN + 2;
	hold_signal(signal_number);
	shared_build(); /* first: its child must not inherit the other mappings */
	alone_build();
	open_build();
	lease_build();
	victim_ready();
	victim_wait();
	alone_verify();
	shared_verify();
	open_verify();
	lease_verify();
	victim_ok();
	return 0;
}
