/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "credentials.h"
#include "keyrings.h"

extern const struct kind credentials_kind;

struct credentials {
	uint32_t uid, euid, suid, fsuid;
	uint32_t gid, egid, sgid, fsgid;
	struct list groups; /* uint32_t */
	uint64_t inheritable, permitted, effective, bounding, ambient;
	uint32_t securebits;
	uint32_t no_new_privs;
	struct keyrings keyrings;
};

struct group_row {
	uint32_t gid;
};

static const struct field group_fields[] = {
	FIELD_UINT(struct group_row, gid, 0, UINT32_MAX, "group id"),
	FIELD_END,
};

static const struct field credentials_fields[] = {
	FIELD_UINT(struct credentials, uid, 0, UINT32_MAX, "real user id"),
	FIELD_UINT(struct credentials, euid, 0, UINT32_MAX, "effective user id"),
	FIELD_UINT(struct credentials, suid, 0, UINT32_MAX, "saved user id"),
	FIELD_UINT(struct credentials, fsuid, 0, UINT32_MAX, "user id for file systems"),
	FIELD_UINT(struct credentials, gid, 0, UINT32_MAX, "real group id"),
	FIELD_UINT(struct credentials, egid, 0, UINT32_MAX, "effective group id"),
	FIELD_UINT(struct credentials, sgid, 0, UINT32_MAX, "saved group id"),
	FIELD_UINT(struct credentials, fsgid, 0, UINT32_MAX, "group id for file systems"),
	FIELD_ROWS(struct credentials, groups, struct group_row, group_fields, 65536,
		   "supplementary groups"),
	FIELD_UINT(struct credentials, inheritable, 0, UINT64_MAX, "capability set, bit CAP_..."),
	FIELD_UINT(struct credentials, permitted, 0, UINT64_MAX, "capability set"),
	FIELD_UINT(struct credentials, effective, 0, UINT64_MAX, "capability set"),
	FIELD_UINT(struct credentials, bounding, 0, UINT64_MAX, "capability set"),
	FIELD_UINT(struct credentials, ambient, 0, UINT64_MAX, "capability set"),
	FIELD_UINT(struct credentials, securebits, 0, UINT32_MAX, "SECBIT_..."),
	FIELD_UINT(struct credentials, no_new_privs, 0, 1, "PR_SET_NO_NEW_PRIVS"),
	FIELD_STRUCT(struct credentials, keyrings, keyrings_fields, "keyrings(7)",
		     .optional = true),
	FIELD_END,
};

static struct cr_error *from_status(const struct proc_status *status, struct credentials *ret)
{
	ret->uid = status->uid[0];
	ret->euid = status->uid[1];
	ret->suid = status->uid[2];
	ret->fsuid = status->uid[3];
	ret->gid = status->gid[0];
	ret->egid = status->gid[1];
	ret->sgid = status->gid[2];
	ret->fsgid = status->gid[3];
	ret->groups = status->groups;
	ret->inheritable = status->cap_inheritable;
	ret->permitted = status->cap_permitted;
	ret->effective = status->cap_effective;
	ret->bounding = status->cap_bounding;
	ret->ambient = status->cap_ambient;
	ret->no_new_privs = status->no_new_privs;
	return NULL;
}

/* What a domain forbids is told by nobody, and without it a program would be less restricted. */
static struct cr_error *refuse_landlock(struct dump *dump, const struct thread *thread)
{
	const struct thread *leader = process_leader(thread->process);
	struct cr_error *error;
	bool restricted;

	/* threads mostly share their credentials */
	if (thread != leader && thread->kernel->security == leader->kernel->security)
		return NULL;
	TRY(kernel_landlock_restricts(&dump->landlock, dump->peek, thread->kernel, &restricted));
	if (!restricted)
		return NULL;
	error = error_new(CR_UNSUPPORTED, "Thread %d of process %d (%s) is restricted by Landlock",
			  thread->tid, thread->process->pid, thread->process->stat.comm);
	return error_remedy(error_object(error, "landlock"),
			    "Not supported: nothing shows its rules; start the program without");
}

static struct cr_error *credentials_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct credentials *credentials = state;

	TRY(refuse_landlock(dump, thread));
	credentials->securebits = thread->kernel->securebits;
	TRY(keyrings_dump(dump, thread, &credentials->keyrings));
	return from_status(&thread->status, state);
}

/* The survey looks for what cannot be saved. */
static struct cr_error *credentials_check(struct dump *dump, struct thread *thread)
{
	struct cr_error *error = NULL;
	struct keyrings scrap;

	if (dump->running)
		error = refuse_landlock(dump, thread);
	if (dump->running && !error)
		error = keyrings_dump(dump, thread, &scrap);
	return error_task(error, thread->process->pid, thread->process->stat.comm);
}

const struct keyrings *credentials_keyrings(const struct thread *thread)
{
	return &((const struct credentials *)thread_state(thread, &credentials_kind))->keyrings;
}

/* The container's own numbers, which its threads have to use. */
static struct cr_error *translate(struct restore *restore, struct credentials *c)
{
	const struct id_map *map = &restore->image.ids;
	uint32_t *users[] = {&c->uid, &c->euid, &c->suid, &c->fsuid};
	uint32_t *groups[] = {&c->gid, &c->egid, &c->sgid, &c->fsgid};
	const uint32_t *group = c->groups.items;
	struct list translated = {0};

	for (int i = 0; i < 4; i++) {
		TRY(id_map_user(map, *users[i], users[i]));
		TRY(id_map_group(map, *groups[i], groups[i]));
	}
	for (size_t i = 0; i < c->groups.count; i++) {
		uint32_t *slot = list_append(restore->image.pool, &translated, sizeof(*slot));

		if (!slot)
			return error_nomem();
		TRY(id_map_group(map, group[i], slot));
	}
	c->groups = translated;
	return NULL;
}

/* The set-uid fixups would empty the capability sets on the way; they are switched off until the
 * end. */
static void set_ids(struct program *p, const struct credentials *c)
{
	program_call(p, "set supplementary groups", SYS_setgroups, c->groups.count,
		     program_data(p, c->groups.items, c->groups.count * sizeof(uint32_t)));
	program_call(p, "set group ids", SYS_setresgid, c->gid, c->egid, c->sgid);
	program_call(p, "set the file system group id", SYS_setfsgid, c->fsgid);
	program_call(p, "keep capabilities", SYS_prctl, PR_SET_SECUREBITS,
		     SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP);
	program_call(p, "set user ids", SYS_setresuid, c->uid, c->euid, c->suid);
	program_call(p, "set the file system user id", SYS_setfsuid, c->fsuid);
}

static void set_capabilities(struct program *p, uint64_t effective, uint64_t permitted,
			     uint64_t inheritable)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[] = {
		{(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
		{(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		 (uint32_t)(inheritable >> 32)},
	};

	program_call(p, "set capabilities", SYS_capset, program_data(p, &header, sizeof(header)),
		     program_data(p, data, sizeof(data)));
}

static void set_ambient(struct program *p, uint64_t ambient)
{
	program_call(p, "clear ambient capabilities", SYS_prctl, PR_CAP_AMBIENT,
		     PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (uint64_t cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (ambient & (1ull << cap))
			program_call(p, "raise an ambient capability", SYS_prctl, PR_CAP_AMBIENT,
				     PR_CAP_AMBIENT_RAISE, cap, 0, 0);
	}
}

/* What the thread has now bounds what it can be given: the runtime has dropped the container's
 * share already. */
static struct cr_error *check_reachable(const struct thread *thread,
					const struct credentials *wanted,
					const struct proc_status *now)
{
	uint64_t missing =
		(wanted->permitted | wanted->inheritable | wanted->bounding | wanted->ambient) &
		~now->cap_permitted & ~now->cap_bounding;

	if (!missing)
		return NULL;
	return error_remedy(
		error_new(CR_HOST,
			  "Thread %d had capabilities that the container does not have now "
			  "(0x%lx)",
			  thread->tid, (unsigned long)missing),
		"The container's lxc.cap.drop or lxc.cap.keep has changed since the checkpoint; "
		"set it "
		"back");
}

static struct cr_error *credentials_restore(struct restore *restore, struct thread *thread,
					    const void *state)
{
	struct credentials wanted = *(const struct credentials *)state, *c = &wanted;
	struct program *p = restore->program;
	const struct proc_status *now = &thread->status;

	TRY(keyrings_restore(restore, thread));
	TRY(restore_status(restore, thread));
	TRY(check_reachable(thread, c, now));
	TRY(translate(restore, c));
	TRY(program_reserve(p, 128, c->groups.count * sizeof(uint32_t) + 1024));
	for (uint64_t cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (now->cap_bounding & ~c->bounding & (1ull << cap))
			program_call(p, "drop a capability from the bounding set", SYS_prctl,
				     PR_CAPBSET_DROP, cap);
	}
	set_ids(p, c);
	set_capabilities(p, now->cap_permitted, now->cap_permitted, c->inheritable);
	set_ambient(p, c->ambient);
	program_call(p, "set securebits", SYS_prctl, PR_SET_SECUREBITS, c->securebits);
	set_capabilities(p, c->effective, c->permitted, c->inheritable);
	if (c->no_new_privs)
		program_call(p, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return NULL;
}

const struct kind credentials_kind = {
	.name = "credentials",
	.doc = "User and group ids, capabilities, securebits, no_new_privs, keyrings",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct credentials),
	.fields = credentials_fields,
	.check_thread = credentials_check,
	.dump_thread = credentials_dump,
	.restore_thread = credentials_restore,
};
