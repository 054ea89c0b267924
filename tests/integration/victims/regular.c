/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regular files: offsets, flags, owners of signals, awkward names, files renamed while open. */
#include <signal.h>
#include <sys/stat.h>

#include "victim.h"

struct file {
	const char *name;
	int flags;
	off_t offset;
	int fd;
	struct stat stat;
};

#define FIFTEEN "a name of 15   "
#define NINETY	FIFTEEN FIFTEEN FIFTEEN FIFTEEN FIFTEEN FIFTEEN

static struct file files[] = {
	{.name = "plain", .flags = O_RDWR, .offset = 5},
	{.name = "read only", .flags = O_RDONLY, .offset = 0},
	{.name = "write only", .flags = O_WRONLY, .offset = 3},
	{.name = "append", .flags = O_WRONLY | O_APPEND, .offset = 0},
	{.name = "sync", .flags = O_RDWR | O_SYNC | O_NOATIME | O_NONBLOCK, .offset = 1},
	{.name = "far", .flags = O_RDWR, .offset = 1LL << 40},
	{.name = "gone (deleted)", .flags = O_RDWR, .offset = 9},
	{.name = "line\nbreak", .flags = O_RDWR, .offset = 9},
	{.name = "\xff\xfe no utf-8", .flags = O_RDWR, .offset = 9},
	{.name = NINETY NINETY "long", .flags = O_RDWR, .offset = 2},
	{.name = NINETY NINETY FIFTEEN FIFTEEN FIFTEEN FIFTEEN FIFTEEN,
	 .flags = O_RDWR,
	 .offset = 4},
	{.name = "path", .flags = O_PATH, .offset = 0},
};

enum { FILES = sizeof(files) / sizeof(files[0]) };

static const char text[] = "0123456789abcdef";

static void path_of(const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s.d/%s", victim_path, name);
}

static void build(struct file *file)
{
	char path[512];
	int fd;

	path_of(file->name, path, sizeof(path));
	fd = must(open(path, O_WRONLY | O_CREAT, 0640));
	check(write(fd, text, 16) == 16, "write");
	close(fd);
	file->fd = must(open(path, file->flags));
	if (!(file->flags & O_PATH))
		must(lseek(file->fd, file->offset, SEEK_SET));
	must(fstat(file->fd, &file->stat));
}

static void verify(struct file *file)
{
	struct stat stat;
	char link[512], path[512], proc[64];
	ssize_t length;
	int flags = fcntl(file->fd, F_GETFL);

	check((flags & ~0100000 /* O_LARGEFILE */) == file->flags, "%s: flags %#o, were %#o",
	      file->name, flags, file->flags);
	must(fstat(file->fd, &stat));
	check(stat.st_ino == file->stat.st_ino && stat.st_dev == file->stat.st_dev,
	      "%s is another file", file->name);
	check(stat.st_size == file->stat.st_size, "%s changed its size", file->name);
	path_of(file->name, path, sizeof(path));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", file->fd);
	length = must(readlink(proc, link, sizeof(link) - 1));
	link[length] = 0;
	check(strcmp(link, path) == 0, "%s leads to %s", path, link);
	if (!(file->flags & O_PATH))
		check(lseek(file->fd, 0, SEEK_CUR) == file->offset, "%s: offset is %lld, was %lld",
		      file->name, (long long)lseek(file->fd, 0, SEEK_CUR), (long long)file->offset);
}

static void use(void)
{
	char got[17] = "";
	struct stat stat;

	check(read(files[0].fd, got, 16) == 11 && strcmp(got, text + 5) == 0, "plain reads %s",
	      got);
	check(write(files[1].fd, "x", 1) < 0 && errno == EBADF, "read only can be written");
	check(read(files[2].fd, got, 1) < 0 && errno == EBADF, "write only can be read");
	check(write(files[2].fd, "WWW", 3) == 3, "write");
	check(write(files[3].fd, "end", 3) == 3, "append");
	must(fstat(files[3].fd, &stat));
	check(stat.st_size == 19, "append did not append: %lld", (long long)stat.st_size);
	check(write(files[5].fd, "far", 3) == 3, "far");
	must(fstat(files[5].fd, &stat));
	check(stat.st_size == (1LL << 40) + 3, "far is %lld", (long long)stat.st_size);
	check(ftruncate(files[5].fd, 0) == 0, "truncate");
}

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

/* Signals are sent as from whoever said whom to send them to. */
static void build_ids(void)
{
	struct f_owner_ex group = {F_OWNER_PGRP, getpgrp()};

	must(setresuid(11, 12, 0));
	must(fcntl(files[2].fd, F_SETOWN_EX, &group));
	must(setresuid(0, 0, 0));
}

static void verify_ids(void)
{
	struct f_owner_ex owner;
	uid_t ids[2];

	must(fcntl(files[2].fd, F_GETOWN_EX, &owner));
	check(owner.type == F_OWNER_PGRP && owner.pid == getpgrp(), "owner %d", owner.pid);
	must(fcntl(files[2].fd, F_GETOWNER_UIDS, ids));
	check(ids[0] == 11 && ids[1] == 12, "user ids %u and %u", ids[0], ids[1]);
}

int main(int argc, char **argv)
{
	char path[512], other[512];
	struct f_owner_ex owner = {F_OWNER_PID, getpid()}, owner_now;
	uint64_t hint;
	int high;

	victim_init(argc, argv);
	snprintf(path, sizeof(path), "%s.d", victim_path);
	mkdir(path, 0755);
	for (int i = 0; i < FILES; i++)
		build(&files[i]);

	/* Renamed while open: the description follows. */
	path_of("plain", path, sizeof(path));
	path_of("renamed", other, sizeof(other));
	must(rename(path, other));
	files[0].name = "renamed";

	must(fcntl(files[1].fd, F_SETOWN_EX, &owner));
	must(fcntl(files[1].fd, F_SETSIG, SIGRTMIN + 2));
	high = must(fcntl(files[4].fd, F_DUPFD_CLOEXEC, 700));
	build_ids();
	must(fcntl(files[0].fd, F_SET_RW_HINT, &(uint64_t){RWH_WRITE_LIFE_LONG}));

	victim_ready();
	victim_wait();

	for (int i = 0; i < FILES; i++)
		verify(&files[i]);
	must(fcntl(files[1].fd, F_GETOWN_EX, &owner_now));
	check(owner_now.type == owner.type && owner_now.pid == owner.pid, "owner is %d",
	      owner_now.pid);
	check(fcntl(files[1].fd, F_GETSIG) == SIGRTMIN + 2, "signal of the owner");
	verify_ids();
	must(fcntl(files[0].fd, F_GET_RW_HINT, &hint));
	check(hint == RWH_WRITE_LIFE_LONG, "write hint %lu", (unsigned long)hint);
	check(fcntl(high, F_GETFD) == FD_CLOEXEC, "descriptor %d", high);
	check(fcntl(files[4].fd, F_GETFD) == 0, "close-on-exec came from nowhere");
	use();
	victim_ok();
	return 0;
}
