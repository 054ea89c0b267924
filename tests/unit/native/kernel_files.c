/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks the file iterator against /proc/PID/fdinfo, /proc/PID/fd and kcmp(2). Runs as root. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "kernel/files.h"
#include "kernel/open_file.h"
#include "stopped.h"
#include "types.h"

enum {
	MANY = 3000,
	LOCKED = 60,
	OWNED,
	DUPLICATE,
	DELETED,
	LONG,
	PIPE,
	PATH_ONLY,
	ARMED,
	FIRED,
	HIGH = 900
};

static void place(int fd, int number, int flags)
{
	dup3(fd, number, flags);
	close(fd);
}

static int make(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "/tmp/kernel-files-%d-%s", getpid(), name);
	return open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void forget(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "/tmp/kernel-files-%d-%s", getpid(), name);
	unlink(path);
}

static void make_timer(int number, const struct itimerspec *time)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t ticks;

	if (timerfd_settime(fd, 0, time, NULL) ||
	    (!time->it_value.tv_sec && read(fd, &ticks, sizeof(ticks)) != sizeof(ticks)))
		_exit(1);
	place(fd, number, 0);
}

static void live_variety(struct facts *facts)
{
	char name[200];
	int ends[2];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	place(make("locked"), LOCKED, 0);
	flock(LOCKED, LOCK_EX);
	lseek(LOCKED, 12345, SEEK_SET);
	place(make("owned"), OWNED, O_CLOEXEC);
	fcntl(OWNED, F_SETOWN, getpid());
	fcntl(OWNED, F_SETSIG, SIGUSR1);
	dup3(OWNED, DUPLICATE, 0);
	dup3(OWNED, HIGH, O_CLOEXEC);
	place(make("deleted"), DELETED, 0);
	/* 199 characters twice are longer than the path that the iterator gives */
	mkdir("/tmp/kernel-files-long", 0700);
	if (chdir("/tmp/kernel-files-long") || (mkdir(name, 0700) && errno != EEXIST) ||
	    chdir(name))
		_exit(1);
	place(open(name, O_RDWR | O_CREAT, 0600), LONG, 0);
	if (pipe2(ends, O_NONBLOCK))
		_exit(1);
	place(ends[1], PIPE, 0);
	make_timer(ARMED, &(struct itimerspec){.it_value = {.tv_sec = 1000}});
	make_timer(FIRED, &(struct itimerspec){.it_value = {.tv_nsec = 1}});
	place(open("/etc", O_PATH | O_DIRECTORY), PATH_ONLY, O_CLOEXEC);
	unlink(name);
	if (chdir("..") || rmdir(name) || chdir("/") || rmdir("/tmp/kernel-files-long"))
		_exit(1);
	forget("locked");
	forget("owned");
	forget("deleted");
	facts->ready = true;
	for (;;)
		pause();
}

static void live_many(struct facts *facts)
{
	struct rlimit limit = {MANY + 100, MANY + 100};

	setrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 100; fd < MANY; fd++)
		dup3(0, fd, fd % 3 ? 0 : O_CLOEXEC);
	facts->ready = true;
	for (;;)
		pause();
}

static const struct kernel_file *file_at(const struct list *list, int fd)
{
	static const struct kernel_file none = {.fd = -1};

	for (size_t i = 0; i < list->count; i++) {
		const struct kernel_file *file = (const struct kernel_file *)list->items + i;

		if (file->fd == fd)
			return file;
	}
	return &none;
}

static bool same_info(pid_t pid, const struct kernel_file *file)
{
	char path[64], target[4096];
	unsigned long position, flags;
	_cleanup_fclose_ FILE *info = NULL;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, file->fd);
	info = fopen(path, "re");
	if (!info || fscanf(info, "pos: %lu flags: %lo", &position, &flags) != 2)
		return false;
	if (file->position != position ||
	    (file->flags | (file->close_on_exec ? O_CLOEXEC : 0)) != flags)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, file->fd);
	len = readlink(path, target, sizeof(target));
	if (!file->path.len)
		return len >= 255;
	return len == (ssize_t)file->path.len && !memcmp(target, file->path.data, file->path.len);
}

/* What was read with the descriptor is what stat(2) tells. */
static bool same_stat(pid_t pid, const struct kernel_file *file)
{
	const struct stat *known = file->stat;
	struct stat stat;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, file->fd);
	return !known ||
	       (!fstatat(AT_FDCWD, path, &stat, 0) && stat.st_dev == known->st_dev &&
		stat.st_ino == known->st_ino && stat.st_mode == known->st_mode &&
		stat.st_nlink == known->st_nlink && stat.st_uid == known->st_uid &&
		stat.st_gid == known->st_gid && stat.st_rdev == known->st_rdev &&
		stat.st_size == known->st_size && stat.st_mtim.tv_sec == known->st_mtim.tv_sec &&
		stat.st_mtim.tv_nsec == known->st_mtim.tv_nsec);
}

static void compare(pid_t pid, const struct list *list)
{
	const struct kernel_file *file = list->items;
	char path[64];
	DIR *listing;
	size_t there = 0, wrong = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	listing = opendir(path);
	if (!CHECK(listing))
		return;
	for (struct dirent *entry; (entry = readdir(listing));)
		there += entry->d_name[0] != '.';
	closedir(listing);
	for (size_t i = 0; i < list->count; i++) {
		if (same_info(pid, &file[i]) && same_stat(pid, &file[i]) &&
		    (!i || file[i].fd > file[i - 1].fd))
			continue;
		printf("descriptor %d: %.*s\n", file[i].fd, (int)file[i].path.len,
		       (const char *)file[i].path.data);
		wrong++;
	}
	CHECK(wrong == 0);
	CHECK(there == list->count);
}

/* What fdinfo cannot tell from one another: a timer that has fired, and one that is about to. */
static void check_timers(const struct btf *btf, const struct list *list)
{
	struct kernel_open_files *files = NULL;
	struct kernel_peek *peek = NULL;
	bool armed = false, fired = true;

	if (!CHECK_SUCCESS(kernel_peek_open(btf, &peek)) ||
	    !CHECK_SUCCESS(kernel_open_files_open(btf, peek, &files)))
		return;
	CHECK_SUCCESS(kernel_timerfd_is_queued(files, file_at(list, ARMED)->file, &armed));
	CHECK_SUCCESS(kernel_timerfd_is_queued(files, file_at(list, FIRED)->file, &fired));
	CHECK(armed && !fired);
	kernel_open_files_close(files);
	kernel_peek_close(peek);
}

static void check_variety(const struct btf *btf, struct kernel_file_program *program)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct child child = child_start(live_variety);
	struct list list = {0};
	const struct kernel_file *owned;

	CHECK_SUCCESS(pool_create(0, &pool));
	child_stop(&child);
	CHECK_SUCCESS(kernel_files_read(program, child.pid, pool, &list));
	compare(child.pid, &list);
	CHECK(file_at(&list, LOCKED)->locks && !file_at(&list, DELETED)->locks);
	CHECK(file_at(&list, LOCKED)->position == 12345);
	owned = file_at(&list, OWNED);
	CHECK(owned->owner && owned->owner_signal == SIGUSR1 && owned->close_on_exec);
	CHECK(!file_at(&list, LOCKED)->owner && !file_at(&list, LOCKED)->owner_signal);
	CHECK(file_at(&list, DUPLICATE)->file == owned->file);
	CHECK(!file_at(&list, DUPLICATE)->close_on_exec);
	CHECK(file_at(&list, HIGH)->file == owned->file && file_at(&list, HIGH)->close_on_exec);
	CHECK(file_at(&list, DELETED)->file != owned->file);
	CHECK(syscall(SYS_kcmp, child.pid, child.pid, KCMP_FILE, OWNED, HIGH) == 0);
	CHECK(file_at(&list, LONG)->fd == LONG && !file_at(&list, LONG)->path.len);
	CHECK(file_at(&list, PATH_ONLY)->flags & O_PATH);
	check_timers(btf, &list);
	child_end(&child);
	CHECK_SUCCESS(kernel_files_read(program, child.pid, pool, &list));
	CHECK(list.count == 0);
}

/* Far more than one read(2) of the iterator holds. */
static void check_many(struct kernel_file_program *program)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct child child = child_start(live_many);
	struct list list = {0};

	CHECK_SUCCESS(pool_create(0, &pool));
	child_stop(&child);
	CHECK_SUCCESS(kernel_files_read(program, child.pid, pool, &list));
	CHECK(list.count >= MANY - 100);
	compare(child.pid, &list);
	child_end(&child);
}

int main(void)
{
	struct kernel_file_program *program = NULL;
	_cleanup_pool_ struct pool *pool = NULL;
	_cleanup_btf_ struct btf *btf = NULL;
	struct list list = {0};

	if (!CHECK_SUCCESS(types_open(&btf)) ||
	    !CHECK_SUCCESS(kernel_file_program_open(btf, &program)) ||
	    !CHECK_SUCCESS(pool_create(0, &pool)))
		return checks_done();
	check_variety(btf, program);
	check_many(program);
	CHECK_ERROR(kernel_files_read(program, 0, pool, &list), CR_INTERNAL, "No process 0");
	kernel_file_program_close(program);
	return checks_done();
}
