/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zombies: with an exit code, killed by a signal, with a core dump, with other exit signals, of
 * another user; leaders of a session and of a group that others are still in; one that had threads.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "stay.h"

enum { LOST_SIGNAL = 34, USER = 1234, MANY = 40 };

static uint32_t *arrived;

static void exit_with_code(void *unused)
{
	(void)unused;
	must(prctl(PR_SET_NAME, "gone (x) y"));
	_exit(203);
}

static void be_killed(void *unused)
{
	(void)unused;
	must(kill(getpid(), SIGKILL));
}

static void die_of_realtime_signal(void *unused)
{
	(void)unused;
	must(kill(getpid(), LOST_SIGNAL));
}

/* In a directory of its own, where the file goes with it. */
static void dump_core(void *unused)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	(void)unused;
	must(mkdir("/tmp/core", 0777) == 0 || errno == EEXIST ? 0 : -1);
	must(chdir("/tmp/core"));
	setrlimit(RLIMIT_CORE, &all);
	abort();
}

static void be_another_user(void *unused)
{
	(void)unused;
	must(setresuid(USER, USER, USER));
	_exit(7);
}

static void *end_the_process(void *unused)
{
	(void)unused;
	victim_nap(5);
	_exit(99);
}

static void end_with_threads(void *unused)
{
	pthread_t thread;

	(void)unused;
	pthread_create(&thread, NULL, end_the_process, NULL);
	pthread_create(&thread, NULL, end_the_process, NULL);
	for (;;)
		pause();
}

static void member(void *unused)
{
	(void)unused;
	stay_a_member(arrived);
}

static void lead_session(void *unused)
{
	(void)unused;
	must(setsid());
	victim_child(member, NULL);
	while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 1)
		victim_nap(1);
	_exit(1);
}

struct dead {
	pid_t pid;
	int code, status, uid;
	char name[16];
};

/* Without waiting for it. */
static struct dead look(pid_t pid)
{
	struct dead dead = {.pid = pid};
	char path[64], text[64];
	siginfo_t info;

	must(waitid(P_PID, pid, &info, WEXITED | WNOWAIT | __WALL));
	check(info.si_pid == pid, "waited for %d, got %d", pid, info.si_pid);
	dead.code = info.si_code;
	dead.status = info.si_status;
	dead.uid = info.si_uid;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	victim_read(path, text, sizeof(text));
	snprintf(dead.name, sizeof(dead.name), "%s", text);
	return dead;
}

static void compare(const struct dead *before)
{
	struct dead now = look(before->pid);
	int status;

	check(now.code == before->code, "si_code was %d, is %d", before->code, now.code);
	check(now.status == before->status, "si_status was %d, is %d", before->status, now.status);
	check(now.uid == before->uid, "si_uid was %d, is %d", before->uid, now.uid);
	check(strcmp(now.name, before->name) == 0, "%s is called %s", before->name, now.name);
	check(waitpid(before->pid, &status, __WALL) == before->pid, "wait");
	check(waitpid(before->pid, &status, __WALL) < 0 && errno == ECHILD, "two of them");
}

static volatile sig_atomic_t signals;

static void count_signal(int signal)
{
	(void)signal;
	signals++;
}

/* A child that sends SIGUSR1 when it ends. */
static pid_t clone_with_signal(int signal)
{
	pid_t pid = must(syscall(SYS_clone, signal, 0, 0, 0, 0));

	if (pid == 0)
		_exit(55);
	return pid;
}

static void *start_and_end(void *pid)
{
	*(pid_t *)pid = victim_child(exit_with_code, NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	void (*const ends[])(void *) = {exit_with_code, be_killed,	 die_of_realtime_signal,
					dump_core,	be_another_user, end_with_threads,
					lead_session};
	enum { ENDS = sizeof(ends) / sizeof(ends[0]) };
	struct dead dead[ENDS + 4 + MANY];
	int count = 0;
	pid_t stays, of_thread;
	pthread_t thread;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	for (int i = 0; i < ENDS; i++)
		dead[count++] = look(victim_child(ends[i], NULL));
	for (int i = 0; i < MANY; i++)
		dead[count++] = look(victim_child(exit_with_code, NULL));

	/* a group of the victim's session that outlives its leader */
	pid_t leader = must(fork());
	if (leader == 0) {
		must(setpgid(0, 0));
		victim_nap(100);
		_exit(0);
	}
	if (setpgid(leader, leader) < 0 && errno != EACCES)
		must(-1);
	stays = must(fork());
	if (!stays) {
		must(setpgid(0, leader));
		stay_a_member(arrived);
		victim_meet(arrived, 5);
		_exit(0);
	}
	victim_meet(arrived, 2);
	dead[count++] = look(leader);

	/* one whose parent is a thread that has ended */
	check(pthread_create(&thread, NULL, start_and_end, &of_thread) == 0, "create");
	check(pthread_join(thread, NULL) == 0, "join");
	dead[count++] = look(of_thread);

	signal(SIGUSR1, count_signal);
	signal(SIGCHLD, count_signal);
	dead[count++] = look(clone_with_signal(SIGUSR1));
	dead[count++] = look(clone_with_signal(0));
	check(signals == 1, "%d signals", (int)signals);
	check(dead[3].code == CLD_DUMPED || dead[3].code == CLD_KILLED, "code %d", dead[3].code);

	victim_ready();
	victim_wait();
	check(signals == 1, "%d signals: the deaths were told again", (int)signals);
	for (int i = 0; i < count; i++)
		compare(&dead[i]);
	victim_meet(arrived, 4);
	victim_arrive(arrived);
	victim_reap(stays);
	victim_ok();
	return 0;
}
