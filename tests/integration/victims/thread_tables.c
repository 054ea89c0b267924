/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads with descriptors and directories of their own: by unshare(2), by clone(2) without
 * CLONE_FILES or CLONE_FS, shared by two threads that are not the first, or with a child of theirs;
 * a file lock that belongs to a thread's descriptors, and threads that wait at such a descriptor.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "portrait.h"

enum { STACK = 64 << 10 };

enum {
	THREAD = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
	TABLES = CLONE_FS | CLONE_FILES,
};

static uint32_t *arrived;
static char lock_path[256];
static pid_t child;

/* Shows what a thread sees itself. */
static void settle(const char *directory, int number)
{
	int fd;

	mkdir(directory, 0755);
	must(chdir(directory));
	umask(number & 7);
	fd = must(open(".", O_RDONLY | O_DIRECTORY));
	must(dup2(fd, number));
	must(close(fd));
}

static void check_settled(const char *directory, int number, bool descriptors)
{
	char now[256];

	check(strcmp(getcwd(now, sizeof(now)), directory) == 0, "in %s, not %s", now, directory);
	check((fcntl(number, F_GETFD) >= 0) == descriptors, "descriptor %d", number);
}

static void wait_for_go(const char *name)
{
	portrait_add(name, gettid());
	victim_arrive(arrived);
	victim_wait();
}

static void finish(void)
{
	victim_arrive(arrived);
	for (;;)
		victim_nap(50);
}

/* Raw threads, with the stack and thread-local storage of none: they call little. */
static int partner(void *unused)
{
	(void)unused;
	wait_for_go("partner");
	check_settled("/tmp/thread-apart", 61, true);
	finish();
	return 0;
}

static int without_files(void *unused)
{
	(void)unused;
	must(dup2(0, 62));
	wait_for_go("without files");
	check_settled("/tmp/thread-first", 62, true);
	finish();
	return 0;
}

static int without_fs(void *unused)
{
	(void)unused;
	settle("/tmp/thread-fs", 63);
	wait_for_go("without fs");
	check_settled("/tmp/thread-fs", 63, true);
	finish();
	return 0;
}

static int be_child(void *unused)
{
	(void)unused;
	wait_for_go("child");
	check_settled("/tmp/thread-apart", 61, true);
	finish();
	return 0;
}

static pid_t begin(int (*work)(void *), int flags)
{
	char *stack = victim_shared(STACK);

	return must(clone(work, stack + STACK, flags, NULL));
}

static int try_lock(void)
{
	struct flock lock = {.l_type = F_WRLCK};
	int fd = must(open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	int got = fcntl(fd, F_OFD_SETLK, &lock);

	must(close(fd));
	return got;
}

static void *apart(void *unused)
{
	struct flock lock = {.l_type = F_WRLCK};
	int fd;

	must(unshare(TABLES));
	settle("/tmp/thread-apart", 61);
	fd = must(open(lock_path, O_RDWR | O_CREAT, 0600));
	must(fcntl(fd, F_SETLK, &lock));
	begin(partner, THREAD | TABLES);
	child = begin(be_child, TABLES | SIGCHLD);
	wait_for_go("apart");
	check_settled("/tmp/thread-apart", 61, true);
	check(fcntl(fd, F_SETLK, &lock) == 0, "the lock is somebody else's");
	finish();
	return unused;
}

enum { THEIR_NUMBER = 64, HOUR = 3600 };

static int held;

/* They wait at a number that the first thread does not have. */
static void *wait_for_lock(void *unused)
{
	int fd;

	must(unshare(CLONE_FILES));
	fd = must(open(lock_path, O_RDWR));
	must(dup2(fd, THEIR_NUMBER));
	must(close(fd));
	victim_arrive(arrived);
	must(flock(THEIR_NUMBER, LOCK_EX));
	return unused;
}

/* Whether it ends in time is looked at in socket_wait.c. */
static void *wait_at_socket(void *unused)
{
	struct timeval limit = {HOUR, 0};
	int ends[2];
	char byte;

	must(unshare(CLONE_FILES));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	must(dup2(ends[0], THEIR_NUMBER));
	must(setsockopt(THEIR_NUMBER, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	victim_arrive(arrived);
	must(read(THEIR_NUMBER, &byte, 1));
	return unused;
}

static void begin_waiting(pthread_t threads[2])
{
	held = must(open(lock_path, O_RDWR | O_CREAT, 0600));
	must(flock(held, LOCK_EX));
	check(pthread_create(&threads[0], NULL, wait_for_lock, NULL) == 0, "pthread_create");
	check(pthread_create(&threads[1], NULL, wait_at_socket, NULL) == 0, "pthread_create");
	victim_meet(arrived, 2);
	victim_nap(50);
	*arrived = 0;
}

static void end_waiting(pthread_t threads[2])
{
	check(pthread_tryjoin_np(threads[0], NULL) == EBUSY, "the lock was not waited for");
	check(pthread_tryjoin_np(threads[1], NULL) == EBUSY, "the socket was not waited at");
	/* they have the description too */
	must(flock(held, LOCK_UN));
	check(pthread_join(threads[0], NULL) == 0, "pthread_join");
}

int main(int argc, char **argv)
{
	enum { TASKS = 5 };
	pthread_t thread, waiting[2];

	victim_init(argc, argv);
	gallery = victim_shared(sizeof(*gallery));
	arrived = victim_shared(4096);
	snprintf(lock_path, sizeof(lock_path), "%s.lock", argv[1]);
	settle("/tmp/thread-first", 60);
	portrait_add("first", getpid());
	begin_waiting(waiting);
	check(pthread_create(&thread, NULL, apart, NULL) == 0, "pthread_create");
	begin(without_files, THREAD | CLONE_FS);
	begin(without_fs, THREAD | CLONE_FILES);
	victim_meet(arrived, TASKS);
	portrait_expect("apart", "first", KCMP_FILES, false);
	portrait_expect("apart", "partner", KCMP_FILES, true);
	portrait_expect("apart", "child", KCMP_FS, true);
	portrait_expect("without files", "first", KCMP_FS, true);
	portrait_expect("without files", "first", KCMP_FILES, false);
	portrait_expect("without fs", "first", KCMP_FILES, true);
	portrait_expect("without fs", "first", KCMP_FS, false);
	check(try_lock() < 0, "nobody has the lock");
	portrait_take_all();
	victim_ready();
	victim_wait();
	victim_meet(arrived, 2 * TASKS);
	portrait_compare_all();
	check_settled("/tmp/thread-first", 60, true);
	check(fcntl(61, F_GETFD) < 0 && fcntl(62, F_GETFD) < 0, "descriptors of other threads");
	check(try_lock() < 0, "the lock is lost");
	end_waiting(waiting);
	must(kill(child, SIGKILL));
	victim_ok();
	return 0;
}
