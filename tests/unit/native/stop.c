/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of a stop that is given up, or that meets somebody who ends or executes a program. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "stopped.h"
#include "target/stop.h"
#include "target/task.h"

static void await_state(pid_t tid, char wanted)
{
	for (int i = 0; i < 5000 && state_of(tid) != wanted; i++)
		usleep(1000);
	CHECK(state_of(tid) == wanted);
}

static void begin(struct stop_set *set, struct log *log)
{
	log_init(log, NULL);
	*set = (struct stop_set){.log = log};
	CHECK_SUCCESS(pool_create(1 << 16, &set->pool));
}

static void add(struct stop_set *set, pid_t tid)
{
	struct stopped_task *task = list_append(set->pool, &set->tasks, sizeof(*task));

	if (CHECK(task != NULL))
		task->tid = tid;
}

/* Of one that has been added. */
static void await_trap(struct stop_set *set, pid_t tid)
{
	struct stopped_task *task = stop_find(set, tid);

	CHECK_SUCCESS(task_interrupt(tid));
	await_state(tid, 't');
	CHECK(waitpid(tid, NULL, __WALL) == tid);
	if (CHECK(task != NULL))
		task->stands = true;
}

static void end(struct stop_set *set)
{
	pool_destroy(set->pool);
}

/* @directory becomes a cgroup as cgroup.c sees it; the last of @tids is 0. */
static void list_tasks(const char *directory, const pid_t *tids)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/tasks", directory);
	file = fopen(path, "we");
	if (!CHECK(file != NULL))
		return;
	while (*tids)
		fprintf(file, "%d\n", *tids++);
	CHECK(!fclose(file));
}

static void leave(int signal)
{
	_exit(signal);
}

static void leave_by_signal(struct facts *facts)
{
	signal(SIGUSR1, leave);
	facts->ready = true;
	for (;;)
		pause();
}

/* Of a child that is not reaped yet, nor by this; -1: it does not end, or not by itself. */
static int exit_code_of(pid_t pid)
{
	siginfo_t info = {0};

	for (int i = 0; i < 5000 && !info.si_pid; i++) {
		usleep(1000);
		CHECK(!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT));
	}
	return info.si_pid && info.si_code == CLD_EXITED ? info.si_status : -1;
}

/* A signal that came between the seizure and the stop is still delivered. */
static void check_signal_is_kept(void)
{
	struct child child = child_start(leave_by_signal);
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	CHECK_SUCCESS(task_seize(child.pid, PTRACE_O_EXITKILL));
	add(&set, child.pid);
	CHECK(!kill(child.pid, SIGUSR1));
	await_state(child.pid, 't');
	stop_release(&set, 0);
	CHECK(exit_code_of(child.pid) == SIGUSR1);
	child_end(&child);
	end(&set);
}

static void execute(int unused)
{
	(void)unused;
	execl("/bin/sleep", "sleep", "60", NULL);
	_exit(1);
}

/* A second thread, which executes a program when values[0] says so. */
static void *live_second(void *shared)
{
	struct facts *facts = shared;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a thread, as ended by itself */
	facts->threads[0].tid = (pid_t)syscall(SYS_gettid);
	facts->ready = true;
	while (!__atomic_load_n(&facts->values[0], __ATOMIC_SEQ_CST))
		usleep(1000);
	execute(0);
	return NULL;
}

static void leave_thread(int unused)
{
	(void)unused;
	syscall(SYS_exit, 0);
}

static void live_with_second(struct facts *facts)
{
	pthread_t thread;

	signal(SIGUSR1, leave_thread);
	signal(SIGUSR2, execute);
	if (pthread_create(&thread, NULL, live_second, facts))
		return;
	for (;;)
		pause();
}

/* Tell a child, whether it is traced or not, to take @signal. */
static void deliver(pid_t tid, int signal, bool traced)
{
	CHECK(!syscall(SYS_tgkill, tid, tid, signal));
	if (!traced)
		return;
	await_state(tid, 't');
	CHECK(waitpid(tid, NULL, __WALL) == tid);
	CHECK_SUCCESS(task_continue(tid, signal));
}

static void check_first_thread_that_ends(const char *directory)
{
	struct child child = child_start(live_with_second);
	pid_t first = child.pid, second = child.facts->threads[0].tid;
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	CHECK_SUCCESS(task_seize(first, 0));
	add(&set, first);
	deliver(first, SIGUSR1, true);
	await_state(first, 'Z');
	list_tasks(directory, (pid_t[]){first, second, 0});
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 1 && stop_find(&set, second));
	stop_release(&set, 0);
	child_end(&child);
	end(&set);
}

/* What we know of a second thread that is ours. */
enum knowledge { INTERRUPTED, STANDS, NONE };

static void seize_second(struct stop_set *set, pid_t second, enum knowledge knowledge)
{
	CHECK_SUCCESS(task_seize(second, 0));
	if (knowledge ==
	    NONE) /* as when one of ours has cloned it, and has been ended before it could tell */
		return;
	add(set, second);
	if (knowledge == STANDS)
		await_trap(set, second);
}

/* It stands, or can be seized, when its other threads have ended and somebody has waited for them. */
static void check_first_thread_that_executes(const char *directory, bool seized,
					     enum knowledge knowledge)
{
	struct child child = child_start(live_with_second), other = child_start(leave_by_signal);
	pid_t first = child.pid, second = child.facts->threads[0].tid;
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	seize_second(&set, second, knowledge);
	if (seized) {
		CHECK_SUCCESS(task_seize(first, 0));
		add(&set, first);
		qsort(set.tasks.items, set.tasks.count, sizeof(struct stopped_task), compare_pids);
	}
	deliver(first, SIGUSR2, seized);
	await_state(second, 'Z');
	if (seized)
		CHECK_SUCCESS(task_interrupt(first));
	list_tasks(directory, (pid_t[]){first, other.pid, 0});
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 2 && stop_find(&set, first) && stop_find(&set, other.pid));
	stop_release(&set, 0);
	await_state(first, 'S');
	child_end(&child);
	child_end(&other);
	end(&set);
}

static void check_threads_that_execute(const char *directory)
{
	for (enum knowledge knowledge = INTERRUPTED; knowledge <= NONE; knowledge++) {
		check_first_thread_that_executes(directory, true, knowledge);
		check_first_thread_that_executes(directory, false, knowledge);
	}
}

/* When the first thread has been left out because it ended, the second one comes by its tid. */
static void check_second_thread_that_executes(const char *directory)
{
	struct child child = child_start(live_with_second);
	pid_t first = child.pid, second = child.facts->threads[0].tid;
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	CHECK_SUCCESS(task_seize(first, 0));
	CHECK_SUCCESS(task_seize(second, 0));
	add(&set, second);
	__atomic_store_n(&child.facts->values[0], 1, __ATOMIC_SEQ_CST);
	await_state(second, 0);
	list_tasks(directory, (pid_t[]){first, 0});
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 1 && stop_find(&set, first));
	CHECK(state_of(first) == 't');
	stop_release(&set, 0);
	await_state(first, 'S');
	child_end(&child);
	end(&set);
}

/* Nobody waits for it but whoever traces it. */
static void live_as_grandchild(struct facts *facts)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		facts->values[1] = (uint64_t)getpid();
		live_with_second(facts);
	}
	for (; pid > 0;)
		pause();
}

/* When the first thread stands already, somebody else has its tid from then on, who runs. */
static void check_second_thread_that_takes_its_place(const char *directory, bool seized)
{
	struct child child = child_start(live_as_grandchild), other = child_start(leave_by_signal);
	pid_t first = (pid_t)child.facts->values[1], second = child.facts->threads[0].tid;
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	CHECK_SUCCESS(task_seize(first, 0));
	add(&set, first);
	await_trap(&set, first);
	if (seized) { /* and not interrupted, as one that we wanted to seize while it executed a program */
		CHECK_SUCCESS(task_seize(second, 0));
		add(&set, second);
	}
	__atomic_store_n(&child.facts->values[0], 1, __ATOMIC_SEQ_CST);
	await_state(second, 0);
	if (seized)
		qsort(set.tasks.items, 2, sizeof(struct stopped_task), compare_pids);
	list_tasks(directory, (pid_t[]){first, second, other.pid, 0});
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 2 && stop_find(&set, first));
	CHECK(state_of(first) == 't');
	stop_release(&set, 0);
	await_state(first, 'S');
	CHECK(!kill(first, SIGKILL));
	child_end(&child);
	child_end(&other);
	end(&set);
}

/* Whoever has used up what root may have of pending signals leaves no timer. */
static void check_stop_without_timers(const char *directory)
{
	struct child child = child_start(leave_by_signal);
	struct rlimit limit, none;
	struct stop_set set;
	struct log log;

	CHECK(!getrlimit(RLIMIT_SIGPENDING, &limit));
	none = (struct rlimit){.rlim_max = limit.rlim_max};
	begin(&set, &log);
	set.cgroup = directory;
	list_tasks(directory, (pid_t[]){child.pid, 0});
	CHECK(!setrlimit(RLIMIT_SIGPENDING, &none));
	CHECK_SUCCESS(stop_all(&set));
	CHECK(!setrlimit(RLIMIT_SIGPENDING, &limit));
	CHECK(set.tasks.count == 1 && stop_find(&set, child.pid));
	stop_release(&set, 0);
	child_end(&child);
	end(&set);
}

static void make_child(int unused)
{
	(void)unused;
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static void live_with_child(struct facts *facts)
{
	signal(SIGUSR1, make_child);
	facts->ready = true;
	for (;;)
		pause();
}

/* A child of one of ours is met before its parent has told of it. */
static void check_child_that_is_met_before(const char *directory)
{
	struct child child = child_start(live_with_child);
	unsigned long born = 0;
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	CHECK_SUCCESS(task_seize(child.pid, PTRACE_O_TRACEFORK));
	add(&set, child.pid);
	deliver(child.pid, SIGUSR1, true);
	await_state(child.pid, 't');
	CHECK(!ptrace(PTRACE_GETEVENTMSG, child.pid, 0, &born));
	CHECK_SUCCESS(task_interrupt(child.pid));
	list_tasks(directory, (pid_t[]){child.pid, (pid_t)born, 0});
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 2 && stop_find(&set, (pid_t)born));
	stop_release(&set, 0);
	CHECK(!kill((pid_t)born, SIGKILL));
	child_end(&child);
	end(&set);
}

static int refusal; /* errno of the next PTRACE_SEIZE */

long __real_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data);
long __wrap_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data);

long __wrap_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data)
{
	if (request != PTRACE_SEIZE || !refusal)
		return __real_ptrace(request, pid, address, data);
	errno = refusal;
	refusal = 0;
	return -1;
}

/* One has ended when it is seized, another one has its tid a moment later. */
static void check_tid_of_another(const char *directory, int error)
{
	struct child child = child_start(leave_by_signal);
	struct stop_set set;
	struct log log;

	begin(&set, &log);
	set.cgroup = directory;
	list_tasks(directory, (pid_t[]){child.pid, 0});
	refusal = error;
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 1 && stop_find(&set, child.pid));
	stop_release(&set, 0);
	child_end(&child);
	end(&set);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	check_signal_is_kept();
	check_first_thread_that_ends(argv[1]);
	check_threads_that_execute(argv[1]);
	check_second_thread_that_executes(argv[1]);
	check_second_thread_that_takes_its_place(argv[1], false);
	check_second_thread_that_takes_its_place(argv[1], true);
	check_child_that_is_met_before(argv[1]);
	check_stop_without_timers(argv[1]);
	check_tid_of_another(argv[1], EPERM);
	check_tid_of_another(argv[1], ESRCH);
	return checks_done();
}
