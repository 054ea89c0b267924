/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tree of processes and threads that a random number makes: clone(2) with any flags, unshare(2),
 * execve(2), sessions, groups, subreapers, orphans, zombies, dead first threads, stops. One process
 * beside the tree tells its tasks one by one what to do, and compares what /proc, kcmp(2) and the
 * tasks themselves say of all of them before and after. Arguments: seed, what to prefer, steps.
 */
#include <linux/kcmp.h>

#include "shape_task.h"

static uint64_t state;

static uint64_t chance(uint64_t most)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dULL >> 33) % most;
}

/* ---- who tells them ---- */

static void pause_shortly(void)
{
	static const struct timespec moment = {.tv_nsec = 20000};

	nanosleep(&moment, NULL);
}

#define await(condition, ...)                                                                      \
	for (int tries = 0; !(condition); tries++) {                                               \
		check(tries < 100000, __VA_ARGS__);                                                \
		pause_shortly();                                                                   \
	}

static void ask(struct slot *slot, enum command command, uint64_t argument, uint64_t other)
{
	slot->command = command;
	slot->argument = argument;
	slot->other = other;
	__atomic_add_fetch(&slot->asked, 1, __ATOMIC_SEQ_CST);
	futex(&slot->asked, FUTEX_WAKE, 1);
}

static void order(struct slot *slot, enum command command, uint64_t argument, uint64_t other)
{
	ask(slot, command, argument, other);
	await(__atomic_load_n(&slot->answered, __ATOMIC_SEQ_CST) == slot->asked,
	      "task %d does not %s", slot->tid, names[command]);
}

/* Fields of /proc/TID/stat behind the name, the first is the state; false: it is gone. */
static bool stat_of(pid_t tid, char *state, int numbers[50])
{
	char path[64], text[2048], *at;
	int fd, got;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = (int)read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return false;
	text[got] = 0;
	at = strrchr(text, ')') + 2;
	*state = *at;
	for (int i = 4; i < 50 && at; i++) {
		at = strchr(at + 1, ' ');
		numbers[i] = at ? (int)strtol(at, NULL, 10) : 0;
	}
	return true;
}

static char state_of(pid_t tid)
{
	char state = 0;
	int numbers[50];

	return stat_of(tid, &state, numbers) ? state : 0;
}

static bool is_over(pid_t tid)
{
	char state = state_of(tid);

	return !state || state == 'Z' || state == 'X';
}

static struct slot *random_task(void)
{
	struct slot *slot;

	do
		slot = &board->slots[chance(board->count)];
	while (!slot->lives);
	return slot;
}

static uint32_t alive(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < board->count; i++)
		count += board->slots[i].lives;
	return count;
}

static uint32_t threads_of(pid_t pid)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < board->count; i++)
		count += board->slots[i].lives && board->slots[i].pid == pid;
	return count;
}

static void note(const char *fmt, ...)
{
	size_t used = strlen(board->log);
	va_list args;

	va_start(args, fmt);
	vsnprintf(board->log + used, sizeof(board->log) - used, fmt, args);
	va_end(args);
}

static uint64_t random_flags(bool sharing)
{
	static const uint64_t flags[] = {CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SYSVSEM};
	uint64_t all = 0;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		all |= chance(100) < (sharing ? 55 : 5) ? flags[i] : 0;
	if (all & CLONE_VM && chance(3) == 0)
		all |= CLONE_SIGHAND;
	return all;
}

static void do_clone(struct slot *slot, bool sharing)
{
	static const uint64_t signals[] = {0, SIGUSR1, SIGUSR2};
	uint64_t flags = random_flags(sharing), number = board->count;

	if (number == SLOTS)
		return;
	if (chance(6) == 0) {
		flags |= CLONE_THREAD | CLONE_VM | CLONE_SIGHAND | CLONE_SYSVSEM;
		if (chance(2))
			flags |= CLONE_FS | CLONE_FILES;
	} else {
		flags |= chance(8) == 0 ? CLONE_PARENT : 0;
		if (!(flags & CLONE_PARENT))
			flags |= chance(6) == 0 ? signals[chance(3)] : SIGCHLD;
	}
	board->count++;
	ask(slot, CLONE, number, flags);
	await(board->slots[number].lives && slot->answered == slot->asked, "clone %#lx", flags);
	note(" %d:clone(%#lx)=%d", slot->tid, flags, board->slots[number].tid);
}

static void do_exec(struct slot *slot)
{
	if (slot->tid != slot->pid || threads_of(slot->pid) > 1)
		return;
	note(" %d:exec", slot->tid);
	order(slot, EXEC, 0, 0);
}

static void do_exit(struct slot *slot)
{
	pid_t pid = slot->pid;

	if (alive() < 6)
		return;
	if (threads_of(pid) > 1 && chance(2)) {
		note(" %d:exit_thread", slot->tid);
		ask(slot, EXIT_THREAD, 3, 0);
		slot->lives = false;
		await(is_over(slot->tid), "thread %d does not end", slot->tid);
		return;
	}
	if (threads_of(pid) == alive())
		return;
	note(" %d:exit", pid);
	for (uint32_t i = 0; i < board->count; i++)
		board->slots[i].lives &= board->slots[i].pid != pid;
	ask(slot, EXIT, chance(100), 0);
	await(is_over(pid), "process %d does not end", pid);
}

static void do_setpgid(struct slot *slot)
{
	const struct slot *other = random_task();
	int numbers[50] = {0};
	char state;

	stat_of(other->pid, &state, numbers);
	note(" %d:setpgid", slot->tid);
	order(slot, SETPGID, chance(3) ? (uint64_t)numbers[5] : 0, 0);
}

static void do_unshare(struct slot *slot)
{
	static const uint64_t all[] = {CLONE_FS, CLONE_FILES, CLONE_FS | CLONE_FILES,
				       CLONE_SYSVSEM};
	uint64_t flags = all[chance(threads_of(slot->pid) > 1 ? 3 : 4)];

	note(" %d:unshare(%#lx)", slot->tid, flags);
	order(slot, UNSHARE, flags, 0);
}

static void simple(struct slot *slot, enum command command, uint64_t argument, uint64_t other)
{
	note(" %d:%s(%lu)", slot->tid, names[command], argument);
	order(slot, command, argument, other);
}

/* @wanted: s more that is shared, j more job control, otherwise both. */
static void do_something(char wanted)
{
	struct slot *slot = random_task();
	bool sharing = wanted != 'j';
	uint64_t dice = chance(100);

	if (dice < 40)
		do_clone(slot, sharing);
	else if (dice < 52 && sharing)
		do_unshare(slot);
	else if (dice < 57)
		do_exec(slot);
	else if (dice < 67)
		do_exit(slot);
	else if (dice < 71 && wanted != 's')
		simple(slot, SETSID, 0, 0);
	else if (dice < 75 && wanted != 's')
		do_setpgid(slot);
	else if (dice < 78)
		simple(slot, REAPER, chance(2), 0);
	else if (dice < 80)
		simple(slot, PDEATHSIG, SIGURG, 0);
	else if (dice < 88)
		simple(slot, WRITE, chance(ARENA), chance(1000));
	else if (dice < 91)
		simple(slot, OPEN, chance(50), 0);
	else if (dice < 94)
		simple(slot, HANDLER, chance(HANDLERS), 0);
	else if (dice < 97)
		simple(slot, CHDIR, chance(20), 0);
	else
		simple(slot, REAP, 0, 0);
}

/* ---- what is compared ---- */

static void look_outside(const struct slot *slot, char *text)
{
	int numbers[50] = {0};
	char state = 0;

	if (!slot->lives && slot->pid != slot->tid) {
		snprintf(text, TEXT, "%s", is_over(slot->tid) ? "ended thread" : "lives");
		return;
	}
	if (!stat_of(slot->tid, &state, numbers)) {
		snprintf(text, TEXT, "gone");
		return;
	}
	/* init waits for it at any time */
	if (state == 'Z' && numbers[4] == 1) {
		snprintf(text, TEXT, "gone");
		return;
	}
	/* asleep or about to be */
	if (state == 'R' || state == 'D')
		state = 'S';
	/* nobody can see how a dead first thread has ended, before the others end */
	snprintf(text, TEXT, "%c ppid %d pgrp %d session %d threads %d exit signal %d", state,
		 numbers[4], numbers[5], numbers[6], state == 'Z' ? 0 : numbers[20], numbers[38]);
}

static bool same(pid_t a, pid_t b, int sort)
{
	return must(syscall(SYS_kcmp, a, b, sort, 0, 0)) == 0;
}

static uint8_t common(pid_t a, pid_t b)
{
	static const int sorts[] = {KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_SYSVSEM};
	uint8_t bits = 0;

	for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
		/* whoever has no semaphore adjustments has none in common: we have none */
		if (same(a, b, sorts[i]) &&
		    (sorts[i] != KCMP_SYSVSEM || !same(a, getpid(), sorts[i])))
			bits |= (uint8_t)(1u << i);
	}
	return bits;
}

static void stop_some(void)
{
	for (uint32_t i = 0; i < board->count; i++) {
		struct slot *slot = &board->slots[i];

		if (!slot->lives || slot->tid != slot->pid || chance(10))
			continue;
		must(kill(slot->pid, SIGSTOP));
		slot->stopped = true;
		note(" %d:stopped", slot->pid);
		for (uint32_t j = 0; j < board->count; j++) {
			if (board->slots[j].lives && board->slots[j].pid == slot->pid)
				await(state_of(board->slots[j].tid) == 'T', "%d does not stop",
				      slot->pid);
		}
	}
}

static void take_all(void)
{
	for (uint32_t i = 0; i < board->count; i++) {
		struct slot *slot = &board->slots[i];

		if (slot->lives) {
			order(slot, LOOK, 0, 0);
			memcpy(slot->before, slot->text, TEXT);
		}
	}
	stop_some();
	for (uint32_t i = 0; i < board->count; i++) {
		struct slot *slot = &board->slots[i];

		look_outside(slot, slot->outside);
		for (uint32_t j = 0; j < board->count; j++) {
			if (slot->lives && board->slots[j].lives && j != i)
				slot->common[j] = common(slot->tid, board->slots[j].tid);
		}
	}
}

static void compare_outside(const struct slot *slot)
{
	char now[TEXT];

	look_outside(slot, now);
	check(strcmp(now, slot->outside) == 0, "task %d is '%s', was '%s'", slot->tid, now,
	      slot->outside);
	for (uint32_t j = 0; slot->lives && j < board->count; j++) {
		uint8_t have;

		if (!board->slots[j].lives || &board->slots[j] == slot)
			continue;
		have = common(slot->tid, board->slots[j].tid);
		check(have == slot->common[j], "%d and %d share %#x, shared %#x", slot->tid,
		      board->slots[j].tid, have, slot->common[j]);
	}
}

static void compare_all(void)
{
	for (uint32_t i = 0; i < board->count; i++)
		compare_outside(&board->slots[i]);
	for (uint32_t j = 0; j < board->count; j++) {
		if (board->slots[j].stopped)
			must(kill(board->slots[j].pid, SIGCONT));
	}
	for (uint32_t k = 0; k < board->count; k++) {
		struct slot *slot = &board->slots[k];

		if (!slot->lives)
			continue;
		order(slot, LOOK, 0, 0);
		check(strcmp(slot->text, slot->before) == 0, "task %d: '%.200s', was '%.200s'",
		      slot->tid, slot->text, slot->before);
	}
}

static void end_all(void)
{
	for (uint32_t i = 0; i < board->count; i++) {
		if (board->slots[i].lives)
			kill(board->slots[i].pid, SIGKILL);
	}
}

static void begin(void)
{
	int fd = must(open("/dev/null", O_RDWR));

	for (int i = 0; i < 3; i++)
		must(dup2(fd, i));
	/* nobody minds who ends */
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	board->count = 1;
	must(clone(serve, board->slots[0].stack + STACK, SIGCHLD, (void *)0));
	await(board->slots[0].lives, "the first task");
}

int main(int argc, char **argv)
{
	char path[64], wanted;
	int steps;

	/* executed by a task */
	if (argc == 3) {
		struct slot *slot;

		map_board(argv[1]);
		slot = &board->slots[atoi(argv[2])];
		/* that was the answer */
		__atomic_store_n(&slot->answered, slot->asked, __ATOMIC_SEQ_CST);
		return serve((void *)(slot - board->slots));
	}
	victim_init(argc, argv);
	check(argc > 4, "arguments");
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	for (int i = 0; i < 10; i++)
		chance(1);
	wanted = argv[3][0];
	steps = atoi(argv[4]);
	snprintf(path, sizeof(path), "/tmp/shapes-%s-%s", argv[2], argv[3]);
	map_board(path);
	strcpy(board->path, path);
	snprintf(board->program, sizeof(board->program), "%s", argv[0]);
	begin();
	for (int i = 0; i < steps; i++)
		do_something(wanted);
	take_all();
	victim_say("%.900s", board->log);
	victim_ready();
	victim_wait();
	compare_all();
	end_all();
	victim_ok();
	return 0;
}
