/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../dump.h"
#include "../restore.h"

struct robust_list_state {
	uint64_t head;
};

static const struct field robust_list_fields[] = {
	FIELD_UINT(struct robust_list_state, head, 0, ARCH_TASK_SIZE,
		   "address of the list's head, 0: none"),
	FIELD_END,
};

static struct cr_error *robust_list_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct robust_list_state *list = state;

	(void)dump;
	list->head = thread->kernel->robust_list;
	return NULL;
}

static struct cr_error *robust_list_restore(struct restore *restore, struct thread *thread,
					    const void *state)
{
	const struct robust_list_state *list = state;

	(void)thread;
	program_call(restore->program, "set the robust futex list", SYS_set_robust_list, list->head,
		     sizeof(struct robust_list_head));
	return NULL;
}

const struct kind robust_list_kind = {
	.name = "robust_list",
	.doc = "Robust futexes that the kernel marks when the thread ends",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct robust_list_state),
	.fields = robust_list_fields,
	.dump_thread = robust_list_dump,
	.restore_thread = robust_list_restore,
};
