/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Filters of the program's own: inherited, stacked, different for each thread, and shared so that
 * SECCOMP_FILTER_FLAG_TSYNC still works. Each gives an error number of its own to one call.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

/* Calls that nothing else makes, and what the filters answer. */
enum { COMMON = 101, INHERITED = 102, OWN = 103, LATE = 104, CHILD = 105 };

static uint32_t *arrived;

static long load(long call, int answer, unsigned int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int answer(long call)
{
	errno = 0;
	return syscall(call, -1, -1, -1, -1, -1, -1) < 0 ? errno : 0;
}

static int filters(const char *path)
{
	char text[4096], *line;
	int count = -1;

	victim_read(path, text, sizeof(text));
	line = strstr(text, "\nSeccomp_filters:");
	check(line && sscanf(line, "\nSeccomp_filters: %d", &count) == 1, "no count of filters");
	return count;
}

static void check_threads(int expected, const char *who)
{
	int now = filters("/proc/thread-self/status");

	check(now == expected, "%s: %d filters, not %d", who, now, expected);
	check(answer(SYS_acct) == COMMON, "%s: the common filter is gone", who);
}

/* One more filter than its siblings. */
static void *run(void *unused)
{
	int before;

	must(load(SYS_swapoff, OWN, 0));
	before = filters("/proc/thread-self/status");
	victim_arrive(arrived);
	victim_wait();
	check_threads(before, "thread");
	check(answer(SYS_swapoff) == OWN, "the thread's own filter is gone");
	return unused;
}

/* All its threads stand under the same filters: it can load one more into all of them. */
static void *run_equal(void *argument)
{
	victim_arrive(arrived);
	victim_meet(argument, 1);
	check(answer(SYS_swapon) == LATE, "what TSYNC has loaded is not here");
	return argument;
}

static void synchronizes(void *unused)
{
	uint32_t told = 0;
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		check(pthread_create(&threads[i], NULL, run_equal, &told) == 0, "pthread_create");
	must(load(SYS_swapoff, CHILD, SECCOMP_FILTER_FLAG_TSYNC));
	victim_arrive(arrived);
	victim_wait();
	check(answer(SYS_swapoff) == CHILD, "the filter of all threads is gone");
	check(load(SYS_swapon, LATE, SECCOMP_FILTER_FLAG_TSYNC) == 0,
	      "the threads do not share their filters: %s", strerror(errno));
	victim_arrive(&told);
	for (int i = 0; i < 3; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	check_threads(filters("/proc/self/status"), "main thread");
	(void)unused;
}

/* A sandbox that only sleeps and says: what the restart itself would do is forbidden. */
static void narrow(void *unused)
{
	static const int forbidden[] = {SYS_munmap,	     SYS_mmap, SYS_rt_sigaction, SYS_prctl,
					SYS_rt_sigtimedwait, SYS_rseq, SYS_setgid,	 SYS_capset,
					SYS_sigaltstack,     SYS_dup3, SYS_setitimer};

	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		must(load(forbidden[i], INHERITED, 0));
	victim_arrive(arrived);
	victim_wait();
	check(answer(SYS_munmap) == INHERITED && answer(SYS_setitimer) == INHERITED,
	      "a filter is gone");
	(void)unused;
}

/* Strict mode: it may read, write and end. What else it tries kills it. */
static int strict_in[2], strict_out[2];

static void strict(void *unused)
{
	char byte;

	(void)unused;
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	for (int i = 0; i < 2; i++) {
		if (syscall(SYS_read, strict_in[0], &byte, 1) != 1 ||
		    syscall(SYS_write, strict_out[1], &byte, 1) != 1)
			syscall(SYS_exit, 1);
	}
	syscall(SYS_getppid);
	syscall(SYS_exit, 0);
}

static void talk(void)
{
	char byte = 'x';

	check(write(strict_in[1], &byte, 1) == 1 && read(strict_out[0], &byte, 1) == 1,
	      "the process in strict mode does not answer");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	pid_t pids[2], strict_pid;
	int before, status;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	must(pipe(strict_in));
	must(pipe(strict_out));
	strict_pid = victim_child(strict, NULL);
	talk();
	must(load(SYS_acct, COMMON, SECCOMP_FILTER_FLAG_LOG));
	must(load(SYS_nfsservctl, INHERITED, 0));
	before = filters("/proc/self/status");
	pids[0] = victim_child(synchronizes, NULL);
	pids[1] = victim_child(narrow, NULL);
	check(pthread_create(&thread, NULL, run, NULL) == 0, "pthread_create");
	victim_meet(arrived, 6);
	victim_ready();
	victim_wait();
	check_threads(before, "main thread");
	check(answer(SYS_nfsservctl) == INHERITED, "the second filter is gone");
	check(answer(SYS_swapoff) != OWN, "another thread's filter is here");
	check(pthread_join(thread, NULL) == 0, "join");
	for (int i = 0; i < 2; i++)
		victim_reap(pids[i]);
	talk();
	check(waitpid(strict_pid, &status, 0) == strict_pid && WIFSIGNALED(status) &&
		      WTERMSIG(status) == SIGKILL,
	      "strict mode is gone: status %#x", status);
	victim_ok();
	return 0;
}
