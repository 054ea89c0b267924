/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System V semaphores: values, what the end of a process undoes (SEM_UNDO), and who waits. */
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "victim.h"

enum { KEY = 0x53454d31, COUNT = 6, LARGE = 32767 };

static int keyed, others, awaited;
static pid_t changer, waiting, timed, sharing;
static uint32_t *arrived, *done; /* done: who changes semaphores by its end may end */

static int operate(int id, int number, int operation, int flags)
{
	struct sembuf one = {(unsigned short)number, (short)operation, (short)flags};

	return semop(id, &one, 1);
}

static int value(int id, int number)
{
	return must(semctl(id, number, GETVAL));
}

static struct semid_ds look(int id)
{
	struct semid_ds data;

	must(semctl(id, 0, IPC_STAT, &data));
	return data;
}

/* Adjustments in both directions, as large as they can be. */
static void change(void *argument)
{
	(void)argument;
	must(operate(keyed, 0, -2, SEM_UNDO));
	must(operate(keyed, 1, 5, SEM_UNDO));
	must(operate(keyed, 1, -1, 0));
	must(operate(keyed, 2, -LARGE, SEM_UNDO));
	must(operate(keyed, 2, LARGE, 0));
	victim_arrive(arrived);
	victim_meet(done, 1);
}

static void await(void *argument)
{
	(void)argument;
	victim_arrive(arrived);
	check(operate(awaited, 0, -3, SEM_UNDO) == 0, "semop: %s", strerror(errno));
}

/* Longer than the test, shorter than its patience. */
static void await_for_a_while(void *argument)
{
	struct timespec patience = {.tv_sec = 60};
	struct sembuf zero = {.sem_num = 1};

	(void)argument;
	victim_arrive(arrived);
	check(semtimedop(awaited, &zero, 1, &patience) == 0, "semtimedop: %s", strerror(errno));
}

/* Its adjustments are those of its parent too: they are made when both have ended. */
static void share(void *argument)
{
	pid_t pid;

	(void)argument;
	pid = must(syscall(SYS_clone, CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0));
	if (pid == 0) {
		must(operate(others, 1, 4, SEM_UNDO));
		victim_arrive(arrived);
		victim_meet(done, 1);
		_exit(0);
	}
	victim_meet(done, 1);
	victim_reap(pid);
	check(value(others, 1) == 4, "undone too early: %d", value(others, 1));
}

static void build(void)
{
	keyed = must(semget(KEY, COUNT, IPC_CREAT | IPC_EXCL | 0640));
	must(semctl(keyed, 0, SETVAL, 3));
	must(semctl(keyed, 2, SETVAL, LARGE));
	must(semctl(keyed, 4, SETVAL, LARGE));
	for (int i = 0; i < 3; i++)
		must(semctl(must(semget(IPC_PRIVATE, 1, 0600)), 0, IPC_RMID));
	must(seteuid(77));
	others = must(semget(KEY + 1, 2, IPC_CREAT | 0606));
	must(seteuid(0));
	awaited = must(semget(IPC_PRIVATE, 2, 0600));
	must(semctl(awaited, 0, SETVAL, 1));
	must(semctl(awaited, 1, SETVAL, 1));
	changer = victim_child(change, NULL);
	waiting = victim_child(await, NULL);
	timed = victim_child(await_for_a_while, NULL);
	sharing = victim_child(share, NULL);
	victim_meet(arrived, 4);
	victim_nap(30); /* into their calls */
}

static void verify_keyed(void)
{
	static const int values[COUNT] = {1, 4, LARGE, 0, LARGE, 0};
	struct semid_ds data = look(keyed);

	check(semget(KEY, 0, 0) == keyed, "the key leads to %d, not %d", semget(KEY, 0, 0), keyed);
	check((data.sem_perm.mode & 0777) == 0640, "mode %o", data.sem_perm.mode);
	check(data.sem_nsems == COUNT, "%lu semaphores", (unsigned long)data.sem_nsems);
	for (int i = 0; i < COUNT; i++)
		check(value(keyed, i) == values[i], "semaphore %d is %d", i, value(keyed, i));
	check(semctl(keyed, 0, GETPID) == changer, "changed by %d", semctl(keyed, 0, GETPID));
	check(semctl(keyed, 4, GETPID) == getpid(), "set by %d", semctl(keyed, 4, GETPID));
	check(semctl(keyed, 5, GETPID) == 0, "changed by %d", semctl(keyed, 5, GETPID));
}

static void verify_undone(void)
{
	victim_arrive(done);
	victim_reap(changer);
	check(value(keyed, 0) == 3, "not undone: %d", value(keyed, 0));
	check(value(keyed, 1) == 0, "not undone: %d", value(keyed, 1));
	check(value(keyed, 2) == LARGE, "not undone: %d", value(keyed, 2));
	must(semctl(keyed, 0, IPC_RMID));
	victim_reap(sharing);
	check(value(others, 1) == 0, "not undone by the last of both: %d", value(others, 1));
	check(look(others).sem_perm.cuid == 77, "creator %d", look(others).sem_perm.cuid);
	check((look(others).sem_perm.mode & 0777) == 0606, "mode %o", look(others).sem_perm.mode);
	must(semctl(others, 0, IPC_RMID));
}

static void verify_waiters(void)
{
	check(semctl(awaited, 0, GETNCNT) == 1, "%d wait", semctl(awaited, 0, GETNCNT));
	check(semctl(awaited, 1, GETZCNT) == 1, "%d wait", semctl(awaited, 1, GETZCNT));
	must(operate(awaited, 0, 2, 0));
	victim_reap(waiting);
	check(value(awaited, 0) == 3, "not undone: %d", value(awaited, 0));
	must(operate(awaited, 1, -1, 0));
	victim_reap(timed);
	must(semctl(awaited, 0, IPC_RMID));
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	arrived = victim_shared(4096);
	done = arrived + 1;
	build();
	victim_ready();
	victim_wait();
	verify_keyed();
	verify_undone();
	verify_waiters();
	victim_ok();
	return 0;
}
