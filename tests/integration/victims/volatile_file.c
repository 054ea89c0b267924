/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that no path leads to, or only one into a tmpfs of the container: deleted, renamed, linked
 * elsewhere, truncated, without a name from the start; open, mapped, both, by two processes.
 */
#include <linux/fs.h>
#include <sys/file.h>

#include "victim.h"

enum { PAGE = 4096, PAGES = 16, SIZE = PAGES * PAGE, ODD = 5 * PAGE + 123 };

static char path[256], other[256];

static int make(const char *suffix, size_t size)
{
	static char content[SIZE];
	int fd;

	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	snprintf(other, sizeof(other), "%s.%s.other", victim_path, suffix);
	unlink(path);
	unlink(other);
	fd = must(open(path, O_RDWR | O_CREAT | O_EXCL, 0640));
	victim_fill(content, SIZE, strlen(suffix));
	check(write(fd, content, size) == (ssize_t)size, "write");
	return fd;
}

static void check_content(int fd, const char *suffix, size_t size)
{
	static char content[SIZE], is[SIZE + 1];
	ssize_t got = pread(fd, is, sizeof(is), 0);

	victim_fill(content, SIZE, strlen(suffix));
	check(got == (ssize_t)size, "%s: %zd bytes", suffix, got);
	check(memcmp(is, content, size) == 0, "%s: other contents", suffix);
}

static char *map(int fd, int protection, int flags, off_t offset, size_t size)
{
	char *memory = mmap(NULL, size, protection, flags, fd, offset);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

static int deleted, read_only, appending, renamed, linked, unnamed, sparse, exclusive, in_tmpfs;
static char *private, *shared, *only_mapped, *truncated, *beyond, *tmpfs_only_mapped;
static int truncated_fd, path_only;
static struct stat deleted_stat;

/* Times that a program may set, as far as this file system knows them. */
static void date(int fd, time_t seconds)
{
	must(futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, {seconds, 5}}));
}

static void build_deleted(void)
{
	deleted = make("deleted", ODD);
	must(fchmod(deleted, 0604));
	must(fchown(deleted, 12, 34));
	must(lseek(deleted, 1000, SEEK_SET));
	read_only = must(open(path, O_RDONLY));
	appending = must(open(path, O_WRONLY | O_APPEND));
	path_only = must(open(path, O_PATH));
	private = map(deleted, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 4 * PAGE);
	shared = map(deleted, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE, 2 * PAGE);
	private[1] = 'p';
	must(flock(deleted, LOCK_EX));
	must(unlink(path));
	date(deleted, 12345678901);
	must(fstat(deleted, &deleted_stat));
}

/* A new file has taken its name. */
static void build_only_mapped(void)
{
	int fd = make("replaced", SIZE);

	only_mapped = map(fd, PROT_READ | PROT_EXEC, MAP_PRIVATE, 2 * PAGE, 3 * PAGE);
	close(fd);
	close(make("new-one", PAGE));
	snprintf(other, sizeof(other), "%s.replaced", victim_path);
	must(rename(path, other));
}

static void build_others(void)
{
	renamed = make("renamed", SIZE);
	must(rename(path, other));

	linked = make("linked", SIZE);
	must(link(path, other));
	must(unlink(path));

	unnamed = must(open("/status", O_RDWR | O_TMPFILE, 0600));
	exclusive = must(open("/status", O_RDWR | O_TMPFILE | O_EXCL, 0600));
	must(write(unnamed, "no name", 7));
	must(write(exclusive, "no name ever", 12));

	sparse = make("sparse", PAGE);
	must(pwrite(sparse, "end", 3, 1L << 40));
	must(unlink(path));

	truncated_fd = make("truncated", SIZE);
	truncated = map(truncated_fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE);
	beyond = map(truncated_fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 2 * SIZE, PAGE);
	must(ftruncate(truncated_fd, PAGE + 10));
	must(unlink(path));
}

static void build_tmpfs(void)
{
	int fd;

	must(mkdir("/dev/shm/sub", 0751));
	must(chown("/dev/shm/sub", 5, 6));
	in_tmpfs = must(open("/dev/shm/sub/file", O_RDWR | O_CREAT | O_EXCL, 0612));
	must(write(in_tmpfs, "in a tmpfs", 10));
	fd = must(open("/dev/shm/mapped", O_RDWR | O_CREAT | O_EXCL, 0600));
	must(ftruncate(fd, PAGE));
	tmpfs_only_mapped = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, PAGE);
	strcpy(tmpfs_only_mapped, "mapped");
	date(fd, INT64_MAX);
	close(fd);
}

static void verify_deleted(void)
{
	struct stat now;
	char byte;

	must(fstat(deleted, &now));
	check(now.st_nlink == 0 && now.st_size == ODD && now.st_mode == deleted_stat.st_mode,
	      "deleted: nlink %d, size %ld, mode %o", (int)now.st_nlink, (long)now.st_size,
	      now.st_mode);
	check(now.st_uid == 12 && now.st_gid == 34, "deleted: owner");
	check(now.st_mtim.tv_sec == deleted_stat.st_mtim.tv_sec &&
		      now.st_mtim.tv_nsec == deleted_stat.st_mtim.tv_nsec,
	      "deleted: time");
	check_content(deleted, "deleted", ODD);
	check_content(read_only, "deleted", ODD);
	check(lseek(deleted, 0, SEEK_CUR) == 1000, "position");
	check(write(read_only, "x", 1) < 0 && errno == EBADF, "read only");
	check(private[1] == 'p', "private copy");
	shared[5] = 's';
	check(flock(read_only, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the lock is lost");
	check(pread(read_only, &byte, 1, PAGE + 5) == 1 && byte == 's', "not one file any more");
	check(private[PAGE + 5] == 's', "private mapping shows another file");
	must(write(appending, "appended", 8));
	must(fstat(deleted, &now));
	check(now.st_size == ODD + 8, "appended: %ld", (long)now.st_size);
	check(fcntl(path_only, F_GETFL) & O_PATH, "O_PATH");
	must(fstat(path_only, &now));
	check(now.st_size == ODD + 8, "O_PATH: another file");
}

static void verify_others(void)
{
	static char expected[SIZE];
	struct stat now, named;
	char text[32] = "";

	victim_fill(expected, SIZE, strlen("replaced"));
	check(memcmp(only_mapped, expected + 2 * PAGE, 3 * PAGE) == 0, "only mapped");
	check_content(renamed, "renamed", SIZE);
	check_content(linked, "linked", SIZE);
	snprintf(other, sizeof(other), "%s.linked.other", victim_path);
	must(fstat(linked, &now));
	must(stat(other, &named));
	check(now.st_ino == named.st_ino && now.st_nlink == 1, "the link is another file");

	check(pread(unnamed, text, 7, 0) == 7 && strcmp(text, "no name") == 0, "unnamed: %s", text);
	check(pread(exclusive, text, 12, 0) == 12 && strcmp(text, "no name ever") == 0, "%s", text);
	snprintf(text, sizeof(text), "/proc/self/fd/%d", unnamed);
	snprintf(path, sizeof(path), "%s.named-now", victim_path);
	must(linkat(AT_FDCWD, text, AT_FDCWD, path, AT_SYMLINK_FOLLOW));

	must(fstat(sparse, &now));
	check(now.st_size == (1L << 40) + 3 && now.st_blocks < 100, "sparse: %ld blocks",
	      (long)now.st_blocks);
	check(pread(sparse, text, 4, 1L << 40) == 3 && memcmp(text, "end", 3) == 0, "sparse end");

	check_content(truncated_fd, "truncated", PAGE + 10);
	must(ftruncate(truncated_fd, 2 * SIZE + PAGE));
	check(truncated[PAGE + 10] == 0 && truncated[5 * PAGE] == 0, "truncated: not zero");
	must(pwrite(truncated_fd, "grown", 5, 2 * SIZE));
	check(memcmp(beyond, "grown", 5) == 0, "mapping beyond the end");
}

static void verify_tmpfs(void)
{
	struct stat now, named;
	char text[32] = "";

	must(fstat(in_tmpfs, &now));
	must(stat("/dev/shm/sub/file", &named));
	check(now.st_ino == named.st_ino && now.st_dev == named.st_dev, "tmpfs: another file");
	check((now.st_mode & 07777) == 0610, "tmpfs: mode %o", now.st_mode);
	check(pread(in_tmpfs, text, 32, 0) == 10 && memcmp(text, "in a tmpfs", 10) == 0, "tmpfs");
	must(stat("/dev/shm/sub", &named));
	check((named.st_mode & 07777) == 0751 && named.st_uid == 5 && named.st_gid == 6,
	      "tmpfs: directory with mode %o, owner %d", named.st_mode, named.st_uid);
	check(strcmp(tmpfs_only_mapped, "mapped") == 0, "tmpfs, mapped: %s", tmpfs_only_mapped);
	tmpfs_only_mapped[0] = 'M';
	check(pread(must(open("/dev/shm/mapped", O_RDONLY)), text, 6, 0) == 6 && text[0] == 'M',
	      "tmpfs: the mapping does not write to the file");
}

/* The child has the same deleted file, by a description of its own. */
static void child(void *argument)
{
	char text[8] = "";

	(void)argument;
	victim_wait();
	while (pread(read_only, text, 4, 3 * PAGE) == 4 && memcmp(text, "tell", 4))
		victim_nap(1);
	check(pwrite(deleted, "told", 4, 3 * PAGE) == 4, "the child cannot write");
}

int main(int argc, char **argv)
{
	char text[5] = "";
	pid_t pid;

	victim_init(argc, argv);
	umask(02);
	build_deleted();
	build_only_mapped();
	build_others();
	build_tmpfs();
	pid = victim_child(child, NULL);
	victim_ready();
	victim_wait();
	verify_deleted();
	verify_others();
	verify_tmpfs();
	must(pwrite(deleted, "tell", 4, 3 * PAGE));
	victim_reap(pid);
	check(pread(read_only, text, 4, 3 * PAGE) == 4 && strcmp(text, "told") == 0, "%s", text);
	victim_ok();
	return 0;
}
