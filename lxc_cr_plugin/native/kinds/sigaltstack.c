/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"

struct alternate_stack {
	uint64_t address, size;
	uint32_t flags; /* SS_AUTODISARM */
};

static const struct field sigaltstack_fields[] = {
	FIELD_UINT(struct alternate_stack, address, 0, ARCH_TASK_SIZE, "lowest address"),
	FIELD_UINT(struct alternate_stack, size, 0, ARCH_TASK_SIZE, "bytes, 0: none"),
	FIELD_UINT(struct alternate_stack, flags, 0, UINT32_MAX, "SS_..."),
	FIELD_END,
};

static struct cr_error *sigaltstack_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct alternate_stack *stack = state;

	(void)dump;
	stack->address = thread->kernel->sas_ss_sp;
	stack->size = thread->kernel->sas_ss_size;
	stack->flags = thread->kernel->sas_ss_flags;
	return NULL;
}

static struct cr_error *sigaltstack_restore(struct restore *restore, struct thread *thread,
					    const void *state)
{
	const struct alternate_stack *stack = state;
	stack_t value = {
		.ss_sp = (void *)stack->address,
		.ss_flags = stack->size ? (int)(stack->flags & ~(uint32_t)SS_ONSTACK) : SS_DISABLE,
		.ss_size = stack->size,
	};

	(void)thread;
	program_call(restore->program, "set the alternate signal stack", SYS_sigaltstack,
		     program_data(restore->program, &value, sizeof(value)), 0);
	return NULL;
}

const struct kind sigaltstack_kind = {
	.name = "sigaltstack",
	.doc = "Alternate signal stack",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct alternate_stack),
	.fields = sigaltstack_fields,
	.dump_thread = sigaltstack_dump,
	.restore_thread = sigaltstack_restore,
};
