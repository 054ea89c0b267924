/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <sys/resource.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"

struct limits {
	struct list limits; /* struct kernel_limit, in the order of the RLIMIT_ numbers */
};

static const struct field limit_fields[] = {
	FIELD_UINT(struct kernel_limit, soft, 0, UINT64_MAX, "2^64-1: unlimited"),
	FIELD_UINT(struct kernel_limit, hard, 0, UINT64_MAX, "2^64-1: unlimited"),
	FIELD_END,
};

static const struct field rlimits_fields[] = {
	FIELD_ROWS(struct limits, limits, struct kernel_limit, limit_fields, KERNEL_LIMITS,
		   "soft and hard, in the order of the RLIMIT_ numbers"),
	FIELD_END,
};

static struct cr_error *rlimits_dump(struct dump *dump, struct process *process, void *state)
{
	const struct kernel_task *kernel = process_leader(process)->kernel;
	struct limits *limits = state;

	limits->limits.items =
		pool_memdup(dump->image.pool, kernel->limits, sizeof(kernel->limits));
	limits->limits.count = KERNEL_LIMITS;
	return limits->limits.items ? NULL : error_nomem();
}

/* More signals may be pending than a limit allows that was lowered afterwards: they come first. */
static bool binds_too_early(const struct process *process, size_t resource, uint64_t hard)
{
	struct rlimit now;

	return resource == RLIMIT_SIGPENDING &&
	       prlimit(process_leader(process)->host_tid, RLIMIT_SIGPENDING, NULL, &now) == 0 &&
	       hard < now.rlim_max;
}

static struct cr_error *set_limits(struct restore *restore, const struct process *process,
				   const struct limits *limits, bool soft)
{
	struct program *p = restore->program;

	for (size_t i = 0; i < limits->limits.count; i++) {
		const struct kernel_limit *limit = (struct kernel_limit *)limits->limits.items + i;
		struct rlimit value = {.rlim_cur = soft ? limit->soft : limit->hard,
				       .rlim_max = limit->hard};

		if (!soft && binds_too_early(process, i, limit->hard))
			continue;
		TRY(program_reserve(p, 1, sizeof(value)));
		program_call(p, image_text(&restore->image, "set resource limit %zu", i),
			     SYS_prlimit64, 0, i, program_data(p, &value, sizeof(value)), 0);
	}
	return NULL;
}

/* Hard limits while the process still has the privilege to raise them; the soft ones must not bind us yet. */
static struct cr_error *rlimits_restore(struct restore *restore, struct process *process,
					const void *state)
{
	return set_limits(restore, process, state, false);
}

static struct cr_error *rlimits_restore_soft(struct restore *restore, struct process *process,
					     const void *state)
{
	return set_limits(restore, process, state, true);
}

const struct kind rlimits_kind = {
	.name = "rlimits",
	.doc = "Resource limits",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct limits),
	.fields = rlimits_fields,
	.dump_process = rlimits_dump,
	.restore_with_threads = rlimits_restore, /* they bind who makes threads */
	.restore_at_release = rlimits_restore_soft,
};
