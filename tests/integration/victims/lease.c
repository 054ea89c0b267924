/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases that nobody is breaking: types, open modes, holders, and whom a later break signals. */
#include "told.h"

static char path[512];
static int signal_number;

static int make(const char *suffix, int flags)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	close(must(open(path, O_RDWR | O_CREAT, 0666)));
	return must(open(path, flags));
}

static int lease(const char *suffix, int flags, int type)
{
	int fd;

	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	/* what is there already may have a lease, which O_RDWR would break */
	fd = access(path, F_OK) == 0 ? must(open(path, flags)) : make(suffix, flags);
	must(fcntl(fd, F_SETSIG, signal_number));
	must(fcntl(fd, F_SETLEASE, type));
	return fd;
}

/* Somebody wants to open the file: whether the lease keeps them out. */
static bool is_kept_out(const char *suffix, int flags)
{
	int fd;

	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	fd = open(path, flags | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	check(fd >= 0 || errno == EWOULDBLOCK, "%s: open: %s", suffix, strerror(errno));
	return fd < 0;
}

static void check_break(const char *suffix, int fd, int before, int flags, int after)
{
	check(fcntl(fd, F_GETLEASE) == before, "%s: lease %d", suffix, fcntl(fd, F_GETLEASE));
	check(take_signal(signal_number, 0) < 0, "%s: a signal without a break", suffix);
	check(is_kept_out(suffix, flags), "%s: the lease keeps nobody out", suffix);
	check(take_signal(signal_number, 100) == fd, "%s: no signal for descriptor %d", suffix, fd);
	check(take_signal(signal_number, 0) < 0, "%s: two signals", suffix);
	check(fcntl(fd, F_GETLEASE) == after, "%s: lease %d after a break", suffix,
	      fcntl(fd, F_GETLEASE));
	must(fcntl(fd, F_SETLEASE, F_UNLCK));
	check(!is_kept_out(suffix, flags), "%s: kept out without a lease", suffix);
}

/* Two descriptions of one file, each with a lease. */
static void check_two(int first, int second)
{
	int told;

	check(fcntl(first, F_GETLEASE) == F_RDLCK && fcntl(second, F_GETLEASE) == F_RDLCK,
	      "one of two leases lost");
	check(is_kept_out("two", O_WRONLY), "two: the leases keep nobody out");
	told = take_signal(signal_number, 100) + take_signal(signal_number, 100);
	check(told == first + second, "two: signals for %d", told);
	must(fcntl(first, F_SETLEASE, F_UNLCK));
	check(is_kept_out("two", O_WRONLY), "two: one lease must do");
	must(fcntl(second, F_SETLEASE, F_UNLCK));
	check(!is_kept_out("two", O_WRONLY), "two: kept out");
}

/* ---- signals that go elsewhere ---- */

static uint32_t *steps;

static void owner(void *argument)
{
	(void)argument;
	victim_arrive(steps);
	victim_meet(steps, 3);
	check(take_signal(signal_number, 900) >= 0, "the owner got no signal");
}

static int foreign, nobody, plain, cleared, cleared_flags;
static pid_t owner_pid;

static void build_owners(void)
{
	struct f_owner_ex group = {.type = F_OWNER_PGRP, .pid = getpgrp()}, got;

	steps = victim_shared(4096);
	owner_pid = victim_child(owner, NULL);
	victim_meet(steps, 1);
	foreign = lease("foreign", O_RDWR, F_WRLCK);
	must(fcntl(foreign, F_SETOWN, owner_pid));
	nobody = lease("nobody", O_RDWR, F_WRLCK);
	must(fcntl(nobody, F_SETOWN, 0));
	plain = make("plain", O_RDONLY);
	must(fcntl(plain, F_SETLEASE, F_RDLCK));
	must(fcntl(plain, F_SETOWN_EX, &group));
	must(fcntl(plain, F_GETOWN_EX, &got));
	cleared = lease("cleared", O_RDWR, F_WRLCK);
	/* which not every file system lets happen */
	must(fcntl(cleared, F_SETFL, fcntl(cleared, F_GETFL) & ~O_ASYNC));
	cleared_flags = must(fcntl(cleared, F_GETFL));
}

static void verify_owners(void)
{
	struct f_owner_ex got;

	victim_arrive(steps);
	check(is_kept_out("foreign", O_RDONLY), "foreign: keeps nobody out");
	victim_reap(owner_pid);
	check(fcntl(nobody, F_GETOWN) == 0, "an owner: %d", fcntl(nobody, F_GETOWN));
	check(is_kept_out("nobody", O_RDONLY), "nobody: keeps nobody out");
	check(take_signal(signal_number, 50) < 0, "a signal that nobody should get");
	must(fcntl(plain, F_GETOWN_EX, &got));
	check(got.type == F_OWNER_PGRP && got.pid == getpgrp(), "owner %d of type %d", got.pid,
	      got.type);
	check(is_kept_out("plain", O_WRONLY), "plain: keeps nobody out");
	check(take_signal(SIGIO, 100) == 0, "no SIGIO");
	check(take_signal(SIGIO, 0) < 0, "two of SIGIO");
	check(fcntl(cleared, F_GETFL) == cleared_flags, "flags %#o, not %#o",
	      fcntl(cleared, F_GETFL), cleared_flags);
	check_break("cleared", cleared, F_WRLCK, O_RDONLY, F_RDLCK);
}

/* ---- a file without a name, whose contents must be read without opening it ---- */

static int nameless;

static void build_nameless(void)
{
	nameless = make("nameless", O_RDWR);
	must(unlink(path));
	check(write(nameless, "contents", 8) == 8, "write");
	must(ftruncate(nameless, 20000));
	must(lseek(nameless, 3, SEEK_SET));
	must(fcntl(nameless, F_SETSIG, signal_number));
	must(fcntl(nameless, F_SETLEASE, F_WRLCK));
}

static void verify_nameless(void)
{
	char link[32], text[16] = "";

	check(take_signal(signal_number, 0) < 0, "nameless: a signal without a break");
	check(fcntl(nameless, F_GETLEASE) == F_WRLCK, "nameless: lease lost");
	check(read(nameless, text, 5) == 5 && !strcmp(text, "tents"), "nameless: position, '%s'",
	      text);
	check(must(lseek(nameless, 0, SEEK_END)) == 20000, "nameless: size");
	snprintf(link, sizeof(link), "/proc/self/fd/%d", nameless);
	check(open(link, O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK,
	      "nameless: keeps nobody out");
	check(take_signal(signal_number, 100) == nameless, "nameless: no signal");
}

/* ---- a holder that may not take leases any more ---- */

/* Who has set the owner may signal anybody only as root of the host: fcntl(2), sigio_perm(). */
static bool may_signal_anybody(void)
{
	unsigned int inside, outside;
	FILE *map = fopen("/proc/self/uid_map", "r");

	check(map && fscanf(map, "%u %u", &inside, &outside) == 2, "uid_map");
	fclose(map);
	return outside == 0;
}

static void hold_as_nobody(void *unused)
{
	int fd = lease("stranger", O_RDWR, F_WRLCK);

	(void)unused;
	must(setresuid(13, 13, 13));
	victim_arrive(steps);
	victim_wait();
	check(fcntl(fd, F_GETLEASE) == F_WRLCK, "stranger: lease lost");
	check(is_kept_out("stranger", O_RDONLY), "stranger: keeps nobody out");
	check(take_signal(signal_number, 100) == (may_signal_anybody() ? fd : -1),
	      "stranger: signal");
	check(fcntl(fd, F_SETLEASE, F_UNLCK) < 0 && errno == EACCES, "stranger: gave it back");
}

int main(int argc, char **argv)
{
	int write_lease, read_lease, odd, first, second, released;
	pid_t stranger;

	victim_init(argc, argv);
	signal_number = SIGRTMIN + 3;
	hold_signal(signal_number);
	hold_signal(SIGIO);
	write_lease = lease("write", O_RDWR, F_WRLCK);
	read_lease = lease("read", O_RDONLY, F_RDLCK);
	odd = lease("odd", O_RDONLY, F_WRLCK);
	first = lease("two", O_RDONLY, F_RDLCK);
	second = lease("two", O_RDONLY, F_RDLCK);
	released = lease("released", O_RDWR, F_WRLCK);
	must(fcntl(released, F_SETLEASE, F_UNLCK));
	build_owners();
	build_nameless();
	stranger = victim_child(hold_as_nobody, NULL);
	victim_meet(steps, 2);
	victim_ready();
	victim_wait();
	check_break("write", write_lease, F_WRLCK, O_RDONLY, F_RDLCK);
	check(!is_kept_out("read", O_RDONLY), "read: keeps a reader out");
	check_break("read", read_lease, F_RDLCK, O_WRONLY, F_UNLCK);
	check_break("odd", odd, F_WRLCK, O_WRONLY, F_UNLCK);
	check_two(first, second);
	check(fcntl(released, F_GETLEASE) == F_UNLCK && !is_kept_out("released", O_RDONLY),
	      "a lease that was given back is there again");
	victim_reap(stranger);
	verify_owners();
	verify_nameless();
	victim_ok();
	return 0;
}
