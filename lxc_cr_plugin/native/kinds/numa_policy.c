/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "numa_policy.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>

#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450 /* Linux 5.17 */
#endif

enum { MODE_MAX = UINT16_MAX };

const struct field numa_policy_fields[] = {
	FIELD_UINT(struct numa_policy, mode, 0, MODE_MAX, "MPOL_ with its flags; 0: the default"),
	FIELD_UINT(struct numa_policy, home, 0, NUMA_NODES_MAX, "home node + 1; 0: none"),
	FIELD_BYTES(struct numa_policy, nodes, NUMA_NODES_MAX / 8, "nodes, a bit each"),
	FIELD_END,
};

static struct cr_error *open_reader(struct dump *dump)
{
	return dump->numa_reader
		       ? NULL
		       : kernel_numa_reader_open(dump->btf, dump->peek, &dump->numa_reader);
}

struct cr_error *numa_policy_dump(struct dump *dump, uint64_t address, struct numa_policy *ret)
{
	struct kernel_numa_policy policy;

	if (!address)
		return NULL;
	TRY(open_reader(dump));
	TRY(kernel_numa_policy(dump->numa_reader, address, &policy));
	ret->mode = policy.mode;
	ret->home = policy.home_node < 0 ? 0 : (uint32_t)policy.home_node + 1;
	ret->nodes.len = policy.nodes_len;
	ret->nodes.data = pool_memdup(dump->image.pool, policy.nodes, policy.nodes_len);
	return ret->nodes.data ? NULL : error_nomem();
}

struct cr_error *numa_policy_check_shared(struct dump *dump, uint64_t file)
{
	struct cr_error *error;
	bool shared;

	if (!file)
		return NULL;
	TRY(open_reader(dump));
	TRY(kernel_numa_is_shared(dump->numa_reader, file, &shared));
	if (!shared)
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "it is shared memory with a NUMA policy of its own (mbind)");
	return error_remedy(error_object(error, "shared_numa_policy"),
			    "Not supported yet: end the process, or have it bind memory by "
			    "set_mempolicy(2)");
}

static struct cr_error *policy_dump(struct dump *dump, struct thread *thread, void *state)
{
	return numa_policy_dump(dump, thread->kernel->numa_policy, state);
}

/* ---- restart ---- */

static struct cr_error *explain(struct program *p)
{
	return error_remedy(program_run(p),
			    "If this host has no such NUMA node: let the container use those that "
			    "there are");
}

static struct cr_error *policy_restore(struct restore *restore, struct thread *thread,
				       const void *state)
{
	const struct numa_policy *policy = state;
	struct program *p = restore->program;

	(void)thread;
	/* the runtime may have given its own to init */
	if (!policy->mode) {
		program_call(p, "reset the NUMA policy", SYS_set_mempolicy, MPOL_DEFAULT, 0, 0);
		program_may_fail(p); /* a kernel without NUMA */
		return NULL;
	}
	TRY(program_run(p));
	program_call(p, "set a NUMA policy", SYS_set_mempolicy, policy->mode,
		     program_bytes(p, &policy->nodes), policy->nodes.len * 8 + 1);
	return explain(p);
}

struct cr_error *numa_policy_bind(struct program *p, const struct numa_policy *policy,
				  uint64_t start, uint64_t end)
{
	if (!policy->mode)
		return NULL;
	TRY(program_run(p));
	program_call(p, "bind memory to NUMA nodes", SYS_mbind, start, end - start, policy->mode,
		     program_bytes(p, &policy->nodes), policy->nodes.len * 8 + 1, MPOL_MF_MOVE);
	if (policy->home)
		program_call(p, "set the home node of memory", SYS_set_mempolicy_home_node, start,
			     end - start, policy->home - 1, 0);
	return explain(p);
}

const struct kind numa_policy_kind = {
	.name = "numa_policy",
	.doc = "NUMA memory policy of a thread",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct numa_policy),
	.fields = numa_policy_fields,
	.dump_thread = policy_dump,
	.restore_thread = policy_restore,
};
