/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"
#include "sigaction.h"

struct signal_actions {
	struct list actions; /* struct signal_action */
};

/* Only what differs from the default is in the image. */
struct signal_action {
	uint32_t signal;
	uint64_t handler, flags, restorer, mask;
};

static const struct field action_fields[] = {
	FIELD_UINT(struct signal_action, signal, 1, KERNEL_SIGNALS, "signal number"),
	FIELD_UINT(struct signal_action, handler, 0, UINT64_MAX, "address; 0 SIG_DFL, 1 SIG_IGN"),
	FIELD_UINT(struct signal_action, flags, 0, UINT64_MAX, "SA_..."),
	FIELD_UINT(struct signal_action, restorer, 0, UINT64_MAX,
		   "address of the sigreturn trampoline"),
	FIELD_UINT(struct signal_action, mask, 0, UINT64_MAX, "blocked while the handler runs"),
	FIELD_END,
};

static const struct field sigaction_fields[] = {
	FIELD_LIST(struct signal_actions, actions, struct signal_action, action_fields,
		   KERNEL_SIGNALS, "dispositions that differ from the default"),
	FIELD_END,
};

static struct cr_error *sigaction_dump(struct dump *dump, struct process *process, void *state)
{
	struct signal_actions *actions = state;
	const struct kernel_sigaction *kernel = process_leader(process)->kernel->actions;

	for (uint32_t i = 0; i < KERNEL_SIGNALS; i++) {
		struct signal_action *action;

		if (!kernel[i].handler && !kernel[i].flags && !kernel[i].mask)
			continue;
		action = list_append(dump->image.pool, &actions->actions, sizeof(*action));
		if (!action)
			return error_nomem();
		action->signal = i + 1;
		action->handler = kernel[i].handler;
		action->flags = kernel[i].flags;
		action->restorer = kernel[i].restorer;
		action->mask = kernel[i].mask;
	}
	return NULL;
}

/* Whatever the parent or the runtime left is overwritten: all 64 are set, most to the default. */
static struct cr_error *sigaction_restore(struct restore *restore, struct process *process,
					  const void *state)
{
	const struct signal_actions *actions = state;
	const struct signal_action *action = actions->actions.items;
	struct kernel_sigaction table[KERNEL_SIGNALS] = {0};
	struct program *p = restore->program;
	uint64_t address;

	(void)process;
	for (size_t i = 0; i < actions->actions.count; i++) {
		table[action[i].signal - 1] = (struct kernel_sigaction){
			.handler = action[i].handler,
			.flags = action[i].flags,
			.restorer = action[i].restorer,
			.mask = action[i].mask,
		};
	}
	TRY(program_reserve(p, KERNEL_SIGNALS, sizeof(table)));
	address = program_data(p, table, sizeof(table));
	for (uint64_t signal = 1; signal <= KERNEL_SIGNALS; signal++) {
		if (signal == SIGKILL || signal == SIGSTOP)
			continue;
		program_call(p, "set a signal disposition", SYS_rt_sigaction, signal,
			     address + (signal - 1) * sizeof(table[0]), 0, sizeof(uint64_t));
	}
	return NULL;
}

/* Our breakpoints reset an ignored SIGTRAP to the default: say it again when there will be no more
 * of them. */
struct cr_error *sigaction_finish(struct restore *restore, struct process *process, uint64_t insn)
{
	const struct signal_actions *actions = process_state(process, &sigaction_kind);
	const struct signal_action *action = actions->actions.items;
	uint64_t args[6] = {SIGTRAP, restore->area, 0, sizeof(uint64_t)};

	for (size_t i = 0; i < actions->actions.count; i++) {
		struct kernel_sigaction value = {
			.handler = action[i].handler,
			.flags = action[i].flags,
			.restorer = action[i].restorer,
			.mask = action[i].mask,
		};
		pid_t tid = process_leader(process)->host_tid;
		int64_t result;

		if (action[i].signal != SIGTRAP || value.handler != (uint64_t)SIG_IGN)
			continue;
		TRY(task_write(tid, restore->area, &value, sizeof(value)));
		TRY(task_syscall(tid, insn, SYS_rt_sigaction, args, &result));
		if (result < 0)
			return error_errno((int)result, "Failed to ignore SIGTRAP");
	}
	return NULL;
}

const struct kind sigaction_kind = {
	.name = "sigaction",
	.doc = "Signal dispositions of a process",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct signal_actions),
	.fields = sigaction_fields,
	.dump_process = sigaction_dump,
	.restore_process = sigaction_restore,
};
