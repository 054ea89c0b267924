/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"

struct tid_address {
	uint64_t address;
};

static const struct field tid_address_fields[] = {
	FIELD_UINT(struct tid_address, address, 0, ARCH_TASK_SIZE,
		   "cleared and woken when the thread ends, 0: none"),
	FIELD_END,
};

static struct cr_error *tid_address_dump(struct dump *dump, struct thread *thread, void *state)
{
	(void)dump;
	((struct tid_address *)state)->address = thread->kernel->clear_child_tid;
	return NULL;
}

static struct cr_error *tid_address_restore(struct restore *restore, struct thread *thread,
					    const void *state)
{
	(void)thread;
	program_call(restore->program, "set the tid address", SYS_set_tid_address,
		     ((const struct tid_address *)state)->address);
	return NULL;
}

const struct kind tid_address_kind = {
	.name = "tid_address",
	.doc = "set_tid_address(2): what pthread_join() waits for",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct tid_address),
	.fields = tid_address_fields,
	.dump_thread = tid_address_dump,
	.restore_thread = tid_address_restore,
};
