/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks what the task iterator reports of children that set up known state. Runs as root. */
#include <linux/btf.h>
#include <linux/futex.h>
#include <linux/securebits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>

#include "kernel/bpf.h"
#include "kernel/btf.h"
#include "kernel/tasks.h"
#include "stopped.h"
#include "types.h"

enum { THREADS = 64 };

static const uint64_t second = 1000000000, millisecond = 1000000;

static bool close_to(uint64_t value, uint64_t expected, uint64_t tolerance)
{
	bool close = value + tolerance >= expected && value <= expected + tolerance;

	if (!close)
		printf("%llu is not %llu\n", (unsigned long long)value,
		       (unsigned long long)expected);
	return close;
}

static bool is_pid(void *context, const struct kernel_task *task)
{
	return task->pid == *(pid_t *)context;
}

/* The record of one thread; all zeros when there is none. */
static struct kernel_task read_task(struct kernel_reader *reader, pid_t pid)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct kernel_task task = {0};
	struct list list = {0};

	if (CHECK_SUCCESS(pool_create(0, &pool)) &&
	    CHECK_SUCCESS(kernel_reader_tasks(reader, pool, is_pid, &pid, &list)) &&
	    CHECK(list.count == 1))
		task = *(struct kernel_task *)list.items;
	return task;
}

/* Kernel threads have neither memory nor actions of their own; pid 2 is one in the first pid
 * namespace. */
static void check_everybody(struct kernel_reader *reader)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct list list = {0};
	unsigned int ourselves = 0;

	CHECK_SUCCESS(pool_create(0, &pool));
	CHECK_SUCCESS(kernel_reader_tasks(reader, pool, NULL, NULL, &list));
	for (size_t i = 0; i < list.count; i++) {
		const struct kernel_task *task = (const struct kernel_task *)list.items + i;

		ourselves += task->pid == getpid();
		if (task->pid == 2)
			CHECK(task->brk == 0 && task->tgid == 2);
	}
	CHECK(ourselves == 1);
}

static void live_signals(struct facts *facts)
{
	static char stack[65536];
	const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {0};

	action.sa_handler = (void (*)(int))0x1234;
	action.sa_flags = SA_RESTART;
	sigaddset(&action.sa_mask, SIGUSR2);
	sigaddset(&action.sa_mask, SIGRTMAX);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND | SA_NODEFER;
	sigaction(SIGRTMAX, &action, NULL);
	action = (struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT | SA_NOCLDSTOP};
	sigaction(SIGCHLD, &action, NULL);
	action = (struct sigaction){.sa_handler = SIG_IGN, .sa_flags = SA_RESTART};
	sigaction(SIGHUP, &action, NULL);
	for (int signal = 1; signal <= KERNEL_SIGNALS; signal++)
		syscall(SYS_rt_sigaction, signal, NULL, facts->actions[signal - 1], 8);
	sigaltstack(&alternate, NULL);
	facts->values[0] = (uintptr_t)stack;
	facts->values[1] = sizeof(stack);
	facts->ready = true;
	for (;;)
		pause();
}

static void check_signals(struct kernel_reader *reader)
{
	struct child child = child_start(live_signals);
	struct kernel_task task;

	child_stop(&child);
	task = read_task(reader, child.pid);
	_Static_assert(sizeof(task.actions) == sizeof(child.facts->actions), "one action");
	CHECK(memcmp(task.actions, child.facts->actions, sizeof(task.actions)) == 0);
	CHECK(task.actions[SIGUSR1 - 1].handler == 0x1234);
	CHECK(task.actions[SIGUSR1 - 1].flags & SA_RESTART);
	CHECK(task.actions[SIGUSR1 - 1].mask == (1ULL << (SIGUSR2 - 1) | 1ULL << 63));
	CHECK(task.actions[KERNEL_SIGNALS - 1].flags & SA_SIGINFO);
	CHECK(task.actions[SIGCHLD - 1].handler == (uintptr_t)SIG_DFL);
	CHECK(task.actions[SIGCHLD - 1].flags & SA_NOCLDWAIT);
	CHECK(task.actions[SIGHUP - 1].handler == (uintptr_t)SIG_IGN);
	CHECK(task.sas_ss_sp == child.facts->values[0]);
	CHECK(task.sas_ss_size == child.facts->values[1]);
	CHECK(task.pdeath_signal == SIGKILL);
	CHECK(task.subreaper == 0);
	child_end(&child);
}

static void live_settings(struct facts *facts)
{
	static int tid;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_PDEATHSIG, SIGUSR2);
	prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP);
	syscall(SYS_set_tid_address, &tid);
	sbrk(12345);
	facts->values[0] = (uintptr_t)sbrk(0);
	facts->values[1] = (uintptr_t)&tid;
	facts->ready = true;
	for (;;)
		pause();
}

static void check_settings(struct kernel_reader *reader)
{
	struct child child = child_start(live_settings);
	struct kernel_task task, own = read_task(reader, getpid());

	child_stop(&child);
	task = read_task(reader, child.pid);
	CHECK(task.pid == child.pid && task.tgid == child.pid);
	CHECK(task.subreaper == 1);
	CHECK(task.pdeath_signal == SIGUSR2);
	CHECK(task.securebits == (SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP));
	CHECK(task.brk == child.facts->values[0]);
	CHECK(task.clear_child_tid == child.facts->values[1]);
	CHECK(!task.it_real_armed && task.it_real_incr == 0);
	CHECK(task.it_virt_expires == 0 && task.it_prof_expires == 0);
	CHECK((task.mm_flags & 3) == 0 && (own.mm_flags & 3) == 1); /* PR_SET_DUMPABLE */
	/* What fork(2) copies and what it shares. */
	CHECK(task.mm && task.mm != own.mm && task.files && task.files != own.files);
	CHECK(task.fs && task.fs != own.fs && task.sighand && task.sighand != own.sighand);
	CHECK(task.nsproxy && task.nsproxy == own.nsproxy);
	CHECK(task.cgroups && task.cgroups == own.cgroups);
	CHECK(task.seccomp_filter == own.seccomp_filter);
	child_end(&child);
}

static void live_timers(struct facts *facts)
{
	const struct itimerval real = {{7, 250000}, {30, 0}};
	const struct itimerval virtual = {{3, 0}, {50, 0}};
	const struct itimerval prof = {{4, 0}, {60, 0}};

	setitimer(ITIMER_VIRTUAL, &virtual, NULL);
	setitimer(ITIMER_PROF, &prof, NULL);
	facts->started = now_ns(CLOCK_MONOTONIC);
	setitimer(ITIMER_REAL, &real, NULL);
	facts->ready = true;
	for (;;)
		pause();
}

static void live_ended_timers(struct facts *facts)
{
	const struct itimerval later = {.it_value = {30, 0}}, never = {0};

	setitimer(ITIMER_REAL, &later, NULL);
	setitimer(ITIMER_REAL, &never, NULL);
	facts->ready = true;
	for (;;)
		pause();
}

static void live_fired_timer(struct facts *facts)
{
	const struct itimerval soon = {.it_value = {0, 1000}};

	signal(SIGALRM, SIG_IGN);
	setitimer(ITIMER_REAL, &soon, NULL);
	usleep(20000);
	facts->ready = true;
	for (;;)
		pause();
}

static void check_timers(struct kernel_reader *reader)
{
	struct child child = child_start(live_timers);
	struct kernel_task task;

	child_stop(&child);
	task = read_task(reader, child.pid);
	CHECK(task.it_real_armed);
	CHECK(close_to(task.it_real_expires, child.facts->started + 30 * second, 2 * millisecond));
	CHECK(task.it_real_incr == 7250 * millisecond);
	/* The child has used next to no CPU time. */
	CHECK(close_to(task.it_virt_expires, 50 * second, 100 * millisecond));
	CHECK(task.it_virt_incr == 3 * second);
	CHECK(close_to(task.it_prof_expires, 60 * second, 100 * millisecond));
	CHECK(task.it_prof_incr == 4 * second);
	child_end(&child);

	child = child_start(live_ended_timers);
	child_stop(&child);
	CHECK(!read_task(reader, child.pid).it_real_armed);
	child_end(&child);

	child = child_start(live_fired_timer);
	child_stop(&child);
	CHECK(!read_task(reader, child.pid).it_real_armed);
	child_end(&child);
}

static void live_nanosleep(struct facts *facts)
{
	const struct timespec time = {20, 500};
	struct timespec *rest = (struct timespec *)(void *)&facts->values[6];

	facts->values[0] = (uintptr_t)rest;
	facts->ready = true;
	facts->started = now_ns(CLOCK_MONOTONIC);
	nanosleep(&time, rest);
}

static void live_boottime_sleep(struct facts *facts)
{
	const struct timespec time = {20, 0};

	facts->ready = true;
	facts->started = now_ns(CLOCK_BOOTTIME);
	clock_nanosleep(CLOCK_BOOTTIME, 0, &time, NULL);
}

static void live_poll(struct facts *facts)
{
	static struct pollfd polls[2] = {{.fd = -1}, {.fd = -1}};

	facts->values[0] = (uintptr_t)polls;
	facts->ready = true;
	facts->started = now_ns(CLOCK_MONOTONIC);
	syscall(SYS_poll, polls, 2, 15000);
}

static void live_futex(struct facts *facts)
{
	static uint32_t word = 42;
	const struct timespec time = {12, 0};

	facts->values[0] = (uintptr_t)&word;
	facts->ready = true;
	facts->started = now_ns(CLOCK_MONOTONIC);
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 42, &time, NULL, 0);
}

/* Start, stop, see that the kernel wants restart_syscall(2) and give the record. */
static struct child interrupt(struct kernel_reader *reader, void (*live)(struct facts *),
			      struct kernel_task *ret)
{
	struct child child = child_start(live);
	struct user_regs_struct registers = {0};

	usleep(20000);
	child_stop(&child);
	CHECK(ptrace(PTRACE_GETREGS, child.pid, NULL, &registers) == 0);
	CHECK((int64_t)registers.rax == -516); /* ERESTART_RESTARTBLOCK */
	*ret = read_task(reader, child.pid);
	return child;
}

static void check_waits(struct kernel_reader *reader)
{
	struct kernel_task task;
	struct child child = interrupt(reader, live_nanosleep, &task);

	CHECK(task.nanosleep.clockid == CLOCK_MONOTONIC);
	CHECK(task.nanosleep.type == 1 && task.nanosleep.rmtp == child.facts->values[0]);
	CHECK(close_to(task.nanosleep.expires, child.facts->started + 20 * second,
		       2 * millisecond));
	child_end(&child);

	child = interrupt(reader, live_boottime_sleep, &task);
	CHECK(task.nanosleep.clockid == CLOCK_BOOTTIME && task.nanosleep.rmtp == 0);
	CHECK(close_to(task.nanosleep.expires, child.facts->started + 20 * second,
		       2 * millisecond));
	child_end(&child);

	child = interrupt(reader, live_poll, &task);
	CHECK(task.poll.ufds == child.facts->values[0]);
	CHECK(task.poll.nfds == 2 && task.poll.has_timeout == 1);
	CHECK(close_to(task.poll.tv_sec * second + task.poll.tv_nsec,
		       child.facts->started + 15 * second, 2 * millisecond));
	child_end(&child);

	child = interrupt(reader, live_futex, &task);
	CHECK(task.futex.uaddr == child.facts->values[0]);
	CHECK(task.futex.val == 42 && task.futex.bitset == FUTEX_BITSET_MATCH_ANY);
	CHECK(close_to(task.futex.time, child.facts->started + 12 * second, 2 * millisecond));
	child_end(&child);
}

static void *live_thread(void *argument)
{
	struct thread_facts *facts = argument;
	const stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};

	sigaltstack(&stack, NULL);
	facts->stack = (uintptr_t)stack.ss_sp;
	__atomic_store_n(&facts->tid, (int32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	for (;;)
		pause();
	return NULL;
}

static void live_threads(struct facts *facts)
{
	pthread_t thread;

	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&thread, NULL, live_thread, &facts->threads[i]) != 0)
			return;
		while (!__atomic_load_n(&facts->threads[i].tid, __ATOMIC_ACQUIRE))
			usleep(100);
	}
	facts->ready = true;
	for (;;)
		pause();
}

static void check_threads(struct kernel_reader *reader)
{
	struct child child = child_start(live_threads);
	_cleanup_pool_ struct pool *pool = NULL;
	struct list list = {0};
	unsigned int members = 0, found = 0;

	CHECK_SUCCESS(pool_create(0, &pool));
	CHECK_SUCCESS(kernel_reader_tasks(reader, pool, NULL, NULL, &list));
	for (size_t i = 0; i < list.count; i++) {
		const struct kernel_task *task = (const struct kernel_task *)list.items + i;

		members += task->tgid == child.pid;
		for (int j = 0; j < THREADS; j++) {
			const struct thread_facts *thread = &child.facts->threads[j];

			found += task->tgid == child.pid && task->pid == thread->tid &&
				 task->sas_ss_sp == thread->stack && task->sas_ss_size == 65536 &&
				 task->clear_child_tid && task->brk;
		}
	}
	CHECK(members == THREADS + 1);
	CHECK(found == THREADS);
	child_end(&child);
}

static void check_paths(void)
{
	static const char *const wrong[] = {
		"",
		".",
		"->",
		"no_such_member",
		"signal->",
		"pid->tgid",
		"signal.it",
		"signal->it[2]",
		"signal->it[x]",
		"signal->it[",
		"pid.tgid",
		"restart_bloc",
		"sighand->action[64]",
		"group_leader->group_leader->group_leader->group_leader->group_leader->pid",
	};
	_cleanup_btf_ struct btf *btf = NULL;
	struct btf_place place;
	uint32_t task;

	if (!CHECK_SUCCESS(types_open(&btf)))
		return;
	task = btf_find(btf, BTF_KIND_STRUCT, "task_struct");
	CHECK(task != 0);
	CHECK(btf_find(btf, BTF_KIND_FUNC, "task_struct") == 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (!CHECK(!btf_locate(btf, task, wrong[i], &place)))
			printf("path: \"%s\"\n", wrong[i]);
	CHECK(btf_locate(btf, task, "group_leader->signal->it[1].incr", &place));
	CHECK(place.hop_count == 2 && place.size == 8 && place.bits == 0);
	CHECK(btf_locate(btf, task, "signal->is_child_subreaper", &place));
	CHECK(place.hop_count == 1 && place.size == 4 && place.bits == 1);
	CHECK_ERROR(btf_require(btf, "task_struct", "magic", &place), CR_HOST,
		    "no member magic in struct task_struct");
}

static void check_refusals(void)
{
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));
	_cleanup_btf_ struct btf *btf = NULL;
	int fd = -1;

	if (!CHECK(code) || !CHECK_SUCCESS(types_open(&btf)))
		return;
	bpf_move(code, BPF_REG_0, BPF_REG_5); /* never written before */
	bpf_end(code);
	CHECK_ERROR(bpf_load_iterator(btf, "bpf_iter_task", code, &fd), CR_HOST, "R5 !read_ok");
	CHECK_ERROR(bpf_load_iterator(btf, "bpf_iter_nothing", code, &fd), CR_HOST,
		    "no BPF iterator bpf_iter_nothing");
	CHECK(fd == -1);
}

static void live_powerless(struct facts *facts)
{
	struct kernel_reader *reader = NULL;
	_cleanup_btf_ struct btf *btf = NULL;
	struct cr_error *error = NULL;

	if (!types_open(&btf) && setuid(65534) == 0)
		error = kernel_reader_open(btf, NULL, &reader);
	facts->values[0] = error && error->code == CR_HOST && error->remedy && !reader;
	facts->ready = true;
	for (;;)
		pause();
}

int main(void)
{
	_cleanup_kernel_reader_ struct kernel_reader *reader = NULL;
	_cleanup_btf_ struct btf *btf = NULL;
	struct child child;

	check_paths();
	check_refusals();
	child = child_start(live_powerless);
	CHECK(child.facts->values[0]);
	child_end(&child);
	if (!CHECK_SUCCESS(types_open(&btf)) ||
	    !CHECK_SUCCESS(kernel_reader_open(btf, NULL, &reader)))
		return checks_done();
	check_everybody(reader);
	check_signals(reader);
	check_settings(reader);
	check_timers(reader);
	check_waits(reader);
	check_threads(reader);
	return checks_done();
}
