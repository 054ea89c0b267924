/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signal masks and pending signals: shared and private, their senders, values and order. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "victim.h"

enum { QUEUED = 20 };

static uint32_t arrived;
static pid_t thread_tid;

static sigset_t blocked(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGTRAP);
	sigaddset(&set, SIGRTMIN + 1);
	sigaddset(&set, SIGRTMIN + 2);
	sigaddset(&set, SIGRTMAX);
	return set;
}

static void take(int wanted, siginfo_t *info, const char *who)
{
	struct timespec none = {0, 0};
	sigset_t set;
	int signal;

	sigemptyset(&set);
	sigaddset(&set, wanted);
	/* glibc's sigtimedwait() makes SI_USER of SI_TKILL. */
	signal = syscall(SYS_rt_sigtimedwait, &set, info, &none, 8);
	check(signal == wanted, "%s: signal %d is not pending (%d)", who, wanted, signal);
}

static void check_none_left(const char *who)
{
	sigset_t pending, none;

	sigemptyset(&none);
	must(sigpending(&pending));
	check(memcmp(&pending, &none, 8) == 0, "%s: signals left, %#lx", who, *(long *)&pending);
}

static void check_mask(const sigset_t *before, const char *who)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	check(memcmp(&now, before, 8) == 0, "%s: mask was %#lx, is %#lx", who, *(long *)before,
	      *(long *)&now);
}

static void send_private(pid_t tid, int signal, int code, int value)
{
	siginfo_t info = {.si_signo = signal, .si_code = code};

	info.si_pid = getpid();
	info.si_uid = 4711;
	info.si_value.sival_int = value;
	must(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info));
}

/* Private signals of this thread only; nothing of it may end up in the shared queue. */
static void *run(void *unused)
{
	sigset_t mask;
	siginfo_t info;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	sigaddset(&mask, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	thread_tid = gettid();
	victim_arrive(&arrived);
	victim_meet(&arrived, 2);
	victim_wait();
	check_mask(&mask, "thread");
	for (int i = 0; i < 3; i++) {
		take(SIGRTMAX, &info, "thread");
		check(info.si_value.sival_int == 100 + i, "private value %d, not %d",
		      info.si_value.sival_int, 100 + i);
		check(info.si_code == SI_MESGQ && info.si_uid == 4711 && info.si_pid == getpid(),
		      "private signal: code %d, uid %d, pid %d", info.si_code, info.si_uid,
		      info.si_pid);
	}
	take(SIGTRAP, &info, "thread");
	check(info.si_value.sival_int == 56, "SIGTRAP: value %d", info.si_value.sival_int);
	take(SIGUSR2, &info, "thread");
	check(info.si_code == SI_TKILL, "tgkill gave code %d", info.si_code);
	victim_arrive(&arrived);
	victim_meet(&arrived, 4);
	check_none_left("thread");
	return unused;
}

static void check_shared(void)
{
	siginfo_t info;

	for (int i = 0; i < QUEUED; i++) {
		take(SIGRTMIN + 1, &info, "process");
		check(info.si_value.sival_int == i, "value %d instead of %d",
		      info.si_value.sival_int, i);
		check(info.si_code == SI_QUEUE && info.si_pid == getpid(), "code %d, pid %d",
		      info.si_code, info.si_pid);
	}
	take(SIGRTMIN + 2, &info, "process");
	check(info.si_value.sival_ptr == (void *)0x123456789abcdef0, "pointer value");
	take(SIGUSR1, &info, "process");
	check(info.si_code == SI_USER && info.si_pid == getpid(), "kill: code %d, pid %d",
	      info.si_code, info.si_pid);
	take(SIGTERM, &info, "process");
	take(SIGTRAP, &info, "process");
	check(info.si_code == SI_QUEUE && info.si_value.sival_int == 55,
	      "SIGTRAP: code %d, value %d", info.si_code, info.si_value.sival_int);
}

/* More is pending than may be from now on. */
static void run_limited(void *arrived_too)
{
	struct rlimit limit = {QUEUED / 4, QUEUED / 4};
	siginfo_t info;

	for (int i = 0; i < QUEUED; i++)
		must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
	must(setrlimit(RLIMIT_SIGPENDING, &limit));
	victim_arrive(arrived_too);
	victim_wait();
	for (int i = 0; i < QUEUED; i++) {
		take(SIGRTMIN + 1, &info, "limited");
		check(info.si_value.sival_int == i, "limited: value %d instead of %d",
		      info.si_value.sival_int, i);
	}
	must(getrlimit(RLIMIT_SIGPENDING, &limit));
	check(limit.rlim_max == QUEUED / 4, "limit %ld", (long)limit.rlim_max);
}

int main(int argc, char **argv)
{
	sigset_t mask = blocked();
	siginfo_t info;
	pthread_t thread;
	uint32_t *child_arrived;
	pid_t limited;

	victim_init(argc, argv);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	child_arrived = victim_shared(4096);
	limited = victim_child(run_limited, child_arrived);
	victim_meet(child_arrived, 1);
	check(pthread_create(&thread, NULL, run, NULL) == 0, "pthread_create");
	victim_meet(&arrived, 1);
	for (int i = 0; i < 3; i++)
		send_private(thread_tid, SIGRTMAX, SI_MESGQ, 100 + i);
	must(syscall(SYS_tgkill, getpid(), thread_tid, SIGUSR2));
	send_private(gettid(), SIGRTMAX, SI_QUEUE, 200);
	for (int i = 0; i < QUEUED; i++)
		must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
	must(sigqueue(getpid(), SIGRTMIN + 2,
		      (union sigval){.sival_ptr = (void *)0x123456789abcdef0}));
	must(kill(getpid(), SIGUSR1));
	must(kill(getpid(), SIGUSR1)); /* the second one is merged */
	must(kill(getpid(), SIGTERM));
	must(sigqueue(getpid(), SIGTRAP, (union sigval){.sival_int = 55}));
	send_private(thread_tid, SIGTRAP, SI_QUEUE, 56);
	victim_arrive(&arrived);
	victim_ready();
	victim_wait();

	check_mask(&mask, "main thread");
	victim_meet(&arrived, 3);
	take(SIGRTMAX, &info, "main thread");
	check(info.si_value.sival_int == 200, "private value %d", info.si_value.sival_int);
	check_shared();
	check_none_left("main thread");
	victim_arrive(&arrived);
	check(pthread_join(thread, NULL) == 0, "join");
	victim_reap(limited);
	victim_ok();
	return 0;
}
