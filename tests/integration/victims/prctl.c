/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What prctl(2) sets and the kernel keeps per process or per thread. */
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "victim.h"

/* Newer than the headers: linux/membarrier.h, linux/prctl.h */
enum { GET_REGISTRATIONS = 1 << 9, SET_MDWE = 65, GET_MDWE = 66 };
enum { FUTEX_HASH = 78, SET_SLOTS = 1, GET_SLOTS = 2 };

enum { MAIN_SLACK = 777000, OWN_SLACK = 1234567, USER = 1234 };

struct settings {
	int dumpable, pdeathsig, subreaper, keepcaps, thp_disabled, mce_kill;
	int slack, personality, membarrier, mdwe;
	char name[16];
};

static uint32_t *arrived;
static volatile pid_t *tracer, *tracees;

/* What kernels before 6.4 do not have. */
static int if_known(long result)
{
	return result < 0 && errno == EINVAL ? -1 : must(result);
}

static struct settings look(void)
{
	struct settings settings = {0};

	settings.dumpable = must(prctl(PR_GET_DUMPABLE));
	must(prctl(PR_GET_PDEATHSIG, &settings.pdeathsig));
	must(prctl(PR_GET_CHILD_SUBREAPER, &settings.subreaper));
	settings.keepcaps = must(prctl(PR_GET_KEEPCAPS));
	settings.thp_disabled = must(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	settings.mce_kill = must(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
	settings.slack = must(prctl(PR_GET_TIMERSLACK));
	settings.personality = must(personality(0xffffffff));
	settings.membarrier = if_known(syscall(SYS_membarrier, GET_REGISTRATIONS, 0, 0));
	settings.mdwe = if_known(prctl(GET_MDWE, 0, 0, 0, 0));
	must(prctl(PR_GET_NAME, settings.name));
	return settings;
}

static void arrive_and_compare(const char *who)
{
	struct settings was = look(), is;

	victim_arrive(arrived);
	victim_wait();
	is = look();
	check(is.dumpable == was.dumpable, "%s: dumpable %d, was %d", who, is.dumpable,
	      was.dumpable);
	check(is.pdeathsig == was.pdeathsig, "%s: pdeathsig %d, was %d", who, is.pdeathsig,
	      was.pdeathsig);
	check(is.subreaper == was.subreaper, "%s: subreaper %d, was %d", who, is.subreaper,
	      was.subreaper);
	check(is.keepcaps == was.keepcaps, "%s: keepcaps %d, was %d", who, is.keepcaps,
	      was.keepcaps);
	check(is.thp_disabled == was.thp_disabled, "%s: THP disabled %d, was %d", who,
	      is.thp_disabled, was.thp_disabled);
	check(is.mce_kill == was.mce_kill, "%s: MCE policy %d, was %d", who, is.mce_kill,
	      was.mce_kill);
	check(is.slack == was.slack, "%s: timer slack %d, was %d", who, is.slack, was.slack);
	check(is.personality == was.personality, "%s: personality %#x, was %#x", who,
	      is.personality, was.personality);
	check(is.membarrier == was.membarrier, "%s: membarrier %#x, was %#x", who, is.membarrier,
	      was.membarrier);
	check(is.mdwe == was.mdwe, "%s: MDWE %d, was %d", who, is.mdwe, was.mdwe);
	check(strcmp(is.name, was.name) == 0, "%s: is called %s, was %s", who, is.name, was.name);
}

/* What slack 0 stands for is what whoever made the thread had then. */
static void check_default_slack(const char *who)
{
	must(prctl(PR_SET_TIMERSLACK, 0));
	check(prctl(PR_GET_TIMERSLACK) == MAIN_SLACK, "%s: default timer slack %d", who,
	      prctl(PR_GET_TIMERSLACK));
}

/* -1: this kernel has no such thing. */
static int set_futex_slots(unsigned long wanted)
{
	return prctl(FUTEX_HASH, SET_SLOTS, wanted, 0, 0) ? -1 : (int)wanted;
}

static void check_futex_slots(int wanted)
{
	int now = prctl(FUTEX_HASH, GET_SLOTS, 0, 0, 0);

	check(wanted < 0 || now == wanted, "%d slots for futexes, were %d", now, wanted);
}

static void not_dumpable(void *unused)
{
	int slots = set_futex_slots(64);

	(void)unused;
	must(prctl(PR_SET_TIMERSLACK, OWN_SLACK));
	must(prctl(PR_SET_NAME, "two words\n"));
	must(personality(ADDR_NO_RANDOMIZE | SHORT_INODE));
	if_known(prctl(SET_MDWE, 1, 0, 0, 0));
	must(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	must(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
	must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	must(prctl(PR_SET_KEEPCAPS, 1));
	must(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	must(prctl(PR_SET_DUMPABLE, 0));
	arrive_and_compare("not dumpable");
	check_futex_slots(slots);
	check_default_slack("not dumpable");
}

static void orphan_to_be(void *unused)
{
	(void)unused;
	must(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	arrive_and_compare("child with pdeathsig");
	for (;;)
		pause();
}

/* Gets orphans, and its own child a signal when it dies. */
static void reaper(void *unused)
{
	int status, slots = set_futex_slots(0);
	pid_t middle;

	(void)unused;
	must(prctl(PR_SET_CHILD_SUBREAPER, 1));
	middle = must(fork());
	if (middle == 0) {
		victim_child(orphan_to_be, NULL);
		victim_wait();
		victim_meet(arrived, 7);
		victim_nap(200);
		_exit(0);
	}
	arrive_and_compare("reaper");
	check_futex_slots(slots);
	check(waitpid(middle, &status, 0) == middle && status == 0, "middle: %#x", status);
	check(waitpid(-1, &status, 0) > 0, "the orphan did not come: %s", strerror(errno));
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1, "the orphan's end: %#x", status);
}

/* Two of one user; only the first lets the tracer trace it, where that is a matter of Yama's. */
static void tracee(void *number)
{
	int i = *(int *)number;

	must(setresuid(USER, USER, USER));
	must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	tracees[i] = getpid();
	while (!*tracer)
		victim_nap(1);
	if (i == 0 && prctl(PR_SET_PTRACER, *tracer, 0, 0, 0) < 0)
		tracees[0] = 0;
	victim_arrive(arrived);
	victim_wait();
	while (*tracer)
		victim_nap(1);
}

static bool is_in_force(void)
{
	char scope[8] = "0";

	if (access("/proc/sys/kernel/yama/ptrace_scope", R_OK) == 0)
		victim_read("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof(scope));
	return *scope == '1';
}

static void trace(void *unused)
{
	(void)unused;
	must(setresuid(USER, USER, USER));
	*tracer = getpid();
	victim_arrive(arrived);
	victim_wait();
	if (tracees[0] && is_in_force()) {
		must(ptrace(PTRACE_SEIZE, tracees[0], 0, 0));
		check(ptrace(PTRACE_SEIZE, tracees[1], 0, 0) < 0 && errno == EPERM,
		      "anybody may trace");
	}
	*tracer = 0;
}

static void *slack(void *unused)
{
	must(prctl(PR_SET_TIMERSLACK, OWN_SLACK));
	must(prctl(PR_SET_NAME, "slack"));
	arrive_and_compare("thread");
	check_default_slack("thread");
	return unused;
}

int main(int argc, char **argv)
{
	static int numbers[] = {0, 1};
	pid_t pids[5];
	pthread_t thread;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	tracer = (pid_t *)arrived + 1;
	tracees = tracer + 1;
	must(prctl(PR_SET_TIMERSLACK, MAIN_SLACK));
	pids[0] = victim_child(not_dumpable, NULL);
	pids[1] = victim_child(reaper, NULL);
	for (int i = 0; i < 2; i++)
		pids[2 + i] = victim_child(tracee, &numbers[i]);
	pids[4] = victim_child(trace, NULL);
	check(pthread_create(&thread, NULL, slack, NULL) == 0, "pthread_create");
	victim_meet(arrived, 7);
	victim_ready();
	arrive_and_compare("main thread");
	check(pthread_join(thread, NULL) == 0, "join");
	for (int i = 0; i < 5; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
